"""Requests between simulated nodes that form a cluster."""

import asyncio
from contextlib import suppress
from typing import Any, Final

from google.protobuf.message import Message

from forming.scenario import Scenario
from quorumlog.api._pb import peer_pb2
from quorumlog.errors import QuorumlogError
from sim.process import Process
from sim.rpc import RpcFabric

_TIMEOUT_S: Final = 5.0
_REPLIES: Final[dict[str, type[Message]]] = {
    "Announce": peer_pb2.HelloReply,
    "BootstrapPrepare": peer_pb2.BootstrapReply,
    "BootstrapDecide": peer_pb2.BootstrapReply,
    "BootstrapAbort": peer_pb2.BootstrapReply,
    "BootstrapStatus": peer_pb2.BootstrapReply,
    "Join": peer_pb2.JoinReply,
}


class SimCalls:
    """``Calls`` over the simulated RPC; now and then a request arrives once more, later, also
    when its sender is long dead."""

    def __init__(self, fabric: RpcFabric, process: Process, scenario: Scenario) -> None:
        self._fabric = fabric
        self._process = process
        self._scenario = scenario
        self._rng = fabric.network.rng
        self._connector = fabric.client(process)

    async def call(
        self, address: str, method: str, request: Any, timeout_s: float = _TIMEOUT_S
    ) -> Any:
        if self._rng.random() < self._scenario.twins:
            on_the_way = Process(self._process.name)
            again = self._call_again(on_the_way, address, method, request)
            self._fabric.network.loop.spawn(on_the_way, again, "twin")
        connection = self._connector.connect(address)
        return await connection.unary(_path(method), request, _REPLIES[method], timeout_s)

    async def _call_again(self, process: Process, address: str, method: str, request: Any) -> None:
        await asyncio.sleep(self._rng.uniform(0, self._scenario.twin_s))
        connection = self._fabric.client(process).connect(address)
        with suppress(QuorumlogError):
            await connection.unary(_path(method), request, _REPLIES[method], _TIMEOUT_S)


def _path(method: str) -> str:
    return f"/quorumlog.peer.v1.Peer/{method}"
