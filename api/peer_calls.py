"""Requests from one node to another: bootstrap, join, announce, metadata commands."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from quorumlog.api._pb import peer_pb2, peer_pb2_grpc
from quorumlog.api.channels import PEER_CHANNEL_OPTIONS
from quorumlog.api.led_groups import led_groups_of
from quorumlog.api.replacements import replacements_of
from quorumlog.broker.led_groups import LedGroup
from quorumlog.broker.peer_calls import Introduction
from quorumlog.broker.replacement import Replacement
from quorumlog.errors import NotLeader, OutcomeUnknown, ProtocolError, Unavailable
from quorumlog.rpc_status import error_from_rpc
from quorumlog.types import GroupId, NodeId

_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 1.0
_PROPOSE_TIMEOUT_S = 12.0
_LOOK_TIMEOUT_S = 1.0


class GrpcPeerCalls:
    """One channel per address, made when it is first needed."""

    def __init__(self, resolve: Callable[[NodeId], str | None]) -> None:
        self._resolve = resolve
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def propose(self, peer: NodeId, command: bytes) -> bytes:
        """See :class:`quorumlog.broker.peer_calls.PeerCalls`."""
        address = self._resolve(peer)
        if address is None:
            raise NotLeader("the leader's address is not known yet")
        channel = self._channel(address)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await channel.channel_ready()
        except TimeoutError:
            raise Unavailable(f"{address} cannot be reached") from None
        request = peer_pb2.ProposeRequest(command=command)
        try:
            reply = await peer_pb2_grpc.PeerStub(channel).Propose(
                request, timeout=_PROPOSE_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            # From here on it may have arrived: a connection that fails leaves that open.
            raise error_from_rpc(error, cut_off=OutcomeUnknown) from error
        if reply is None:
            raise OutcomeUnknown(f"what {address} answered cannot be decoded")
        return bytes(reply.result)

    async def replacements(self, peer: NodeId) -> Sequence[Replacement]:
        """See :class:`quorumlog.broker.peer_calls.PeerCalls`."""
        address = self._resolve(peer)
        if address is None:
            raise Unavailable("the leader's address is not known yet")
        request = peer_pb2.ReplacementsRequest()
        reply = await self.call(address, "Replacements", request, _LOOK_TIMEOUT_S)
        return replacements_of(reply)

    async def led_groups(
        self, peer: NodeId, groups: Sequence[GroupId]
    ) -> Mapping[GroupId, LedGroup]:
        """See :class:`quorumlog.broker.peer_calls.PeerCalls`."""
        address = self._resolve(peer)
        if address is None:
            raise Unavailable(f"the address of {peer} is not known yet")
        request = peer_pb2.LedGroupsRequest(groups=groups)
        return led_groups_of(await self.call(address, "LedGroups", request, _LOOK_TIMEOUT_S))

    async def identify(self, address: str) -> Introduction:
        """See :class:`quorumlog.broker.peer_calls.PeerCalls`."""
        # Of its own, and closed: most addresses are asked once, and some are nobody's.
        async with grpc.aio.insecure_channel(address, options=PEER_CHANNEL_OPTIONS) as channel:
            stub = peer_pb2_grpc.PeerStub(channel)
            try:
                found = await stub.Identify(peer_pb2.IdentifyRequest(), timeout=_LOOK_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error
        _check_decoded(found, address)
        return Introduction(NodeId(found.node_id), found.cluster_id, found.address)

    async def call(
        self, address: str, method: str, request: Any, timeout_s: float = _TIMEOUT_S
    ) -> Any:
        """One call of the Peer service at ``address``; typed errors of errors.py."""
        stub = peer_pb2_grpc.PeerStub(self._channel(address))
        try:
            reply = await getattr(stub, method)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        _check_decoded(reply, address)
        return reply

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            channel = grpc.aio.insecure_channel(address, options=PEER_CHANNEL_OPTIONS)
            self._channels[address] = channel
        return channel

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()


def _check_decoded(reply: Any, address: str) -> None:
    """Raise ProtocolError where gRPC could not decode the answer: it gives None then."""
    if reply is None:
        raise ProtocolError(
            f"{address} answers in another language: does another program run there?"
        )
