"""Requests from one node to another: bootstrap, join, announce, metadata commands."""

from collections.abc import Callable
from typing import Any

import grpc

from quorumlog.api._pb import peer_pb2, peer_pb2_grpc
from quorumlog.api.channels import PEER_CHANNEL_OPTIONS
from quorumlog.errors import NotLeader
from quorumlog.rpc_status import error_from_rpc
from quorumlog.types import NodeId

_TIMEOUT_S = 5.0
_PROPOSE_TIMEOUT_S = 12.0


class GrpcPeerCalls:
    """One channel per address, made when it is first needed."""

    def __init__(self, resolve: Callable[[NodeId], str | None]) -> None:
        self._resolve = resolve
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def propose(self, peer: NodeId, command: bytes) -> bytes:
        """See :class:`quorumlog.broker.controller.PeerCalls`."""
        address = self._resolve(peer)
        if address is None:
            raise NotLeader("the leader's address is not known yet")
        request = peer_pb2.ProposeRequest(command=command)
        reply = await self.call(address, "Propose", request, _PROPOSE_TIMEOUT_S)
        return bytes(reply.result)

    async def call(
        self, address: str, method: str, request: Any, timeout_s: float = _TIMEOUT_S
    ) -> Any:
        """One call of the Peer service at ``address``; typed errors of errors.py."""
        channel = self._channels.get(address)
        if channel is None:
            channel = grpc.aio.insecure_channel(address, options=PEER_CHANNEL_OPTIONS)
            self._channels[address] = channel
        stub = peer_pb2_grpc.PeerStub(channel)
        try:
            return await getattr(stub, method)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
