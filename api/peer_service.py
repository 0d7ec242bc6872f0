"""The Peer service: what nodes ask of each other, beside the replication stream."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from quorumlog.api._pb import peer_pb2, peer_pb2_grpc
from quorumlog.api.led_groups import led_groups_reply
from quorumlog.api.replacements import replacements_reply
from quorumlog.api.status import CallContext, aborting
from quorumlog.broker.led_groups import LedGroup
from quorumlog.broker.peer_calls import Introduction
from quorumlog.broker.replacement import Replacement
from quorumlog.errors import OutcomeUnknown
from quorumlog.types import GroupId


class PeerPort(Protocol):
    """What the node answers with."""

    def announce(self, hello: peer_pb2.Hello) -> peer_pb2.HelloReply: ...

    async def bootstrap_prepare(
        self, proposal: peer_pb2.BootstrapProposal
    ) -> peer_pb2.BootstrapReply: ...

    async def bootstrap_decide(
        self, proposal: peer_pb2.BootstrapProposal
    ) -> peer_pb2.BootstrapReply: ...

    async def bootstrap_abort(
        self, proposal: peer_pb2.BootstrapProposal
    ) -> peer_pb2.BootstrapReply: ...

    def bootstrap_status(self, cluster_id: str) -> peer_pb2.BootstrapReply: ...

    async def join(self, request: peer_pb2.JoinRequest) -> peer_pb2.JoinReply: ...

    async def propose(self, command: bytes) -> bytes: ...

    def introduce(self) -> Introduction: ...

    @property
    def replacements(self) -> Sequence[Replacement]: ...

    def led_groups(self, groups: Sequence[GroupId]) -> Mapping[GroupId, LedGroup]: ...


class PeerService(peer_pb2_grpc.PeerServicer):
    def __init__(self, port: PeerPort) -> None:
        self._port = port

    async def Announce(self, request: peer_pb2.Hello, context: CallContext) -> peer_pb2.HelloReply:
        return self._port.announce(request)

    @aborting
    async def BootstrapPrepare(
        self, request: peer_pb2.BootstrapProposal, context: CallContext
    ) -> peer_pb2.BootstrapReply:
        return await self._port.bootstrap_prepare(request)

    async def BootstrapDecide(
        self, request: peer_pb2.BootstrapProposal, context: CallContext
    ) -> peer_pb2.BootstrapReply:
        return await self._port.bootstrap_decide(request)

    async def BootstrapAbort(
        self, request: peer_pb2.BootstrapProposal, context: CallContext
    ) -> peer_pb2.BootstrapReply:
        return await self._port.bootstrap_abort(request)

    async def BootstrapStatus(
        self, request: peer_pb2.BootstrapQuery, context: CallContext
    ) -> peer_pb2.BootstrapReply:
        return self._port.bootstrap_status(request.cluster_id)

    @aborting
    async def Join(self, request: peer_pb2.JoinRequest, context: CallContext) -> peer_pb2.JoinReply:
        return await self._port.join(request)

    @aborting
    async def Propose(
        self, request: peer_pb2.ProposeRequest, context: CallContext
    ) -> peer_pb2.ProposeReply:
        try:
            return peer_pb2.ProposeReply(result=await self._port.propose(request.command))
        except TimeoutError:
            raise OutcomeUnknown("the command was not committed in time") from None

    async def Replacements(
        self, request: peer_pb2.ReplacementsRequest, context: CallContext
    ) -> peer_pb2.ReplacementsReply:
        return replacements_reply(self._port.replacements)

    async def Identify(
        self, request: peer_pb2.IdentifyRequest, context: CallContext
    ) -> peer_pb2.Introduction:
        own = self._port.introduce()
        return peer_pb2.Introduction(
            node_id=own.node, cluster_id=own.cluster_id, address=own.address
        )

    async def LedGroups(
        self, request: peer_pb2.LedGroupsRequest, context: CallContext
    ) -> peer_pb2.LedGroupsReply:
        groups = [GroupId(group) for group in request.groups]
        return led_groups_reply(self._port.led_groups(groups))
