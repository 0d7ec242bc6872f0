"""What a node of a group answers to the others."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from quorumlog.api._pb import peer_pb2
from quorumlog.api.peers import GrpcPeers
from quorumlog.broker.led_groups import LedGroup
from quorumlog.broker.replacement import Replacement
from quorumlog.errors import IdentityError, Unavailable, WrongCluster
from quorumlog.node.bootstrap import Bootstrap
from quorumlog.replicated.names import name_of
from quorumlog.types import GroupId, NodeId


class GroupPeerPort:
    """Implements :class:`quorumlog.api.peer_service.PeerPort`."""

    def __init__(
        self,
        names: Mapping[str, str],
        peers: GrpcPeers,
        bootstrap: Bootstrap,
        answer: Callable[[bytes], Awaitable[bytes]],
    ) -> None:
        """``names``: of all nodes, with their addresses; ``answer`` takes requests to a leader."""
        self._names = names
        self._bootstrap = bootstrap
        self._answer = answer
        self.announce = peers.answer
        self.introduce = peers.introduce
        self.bootstrap_prepare = bootstrap.prepare
        self.bootstrap_decide = bootstrap.decide
        self.bootstrap_abort = bootstrap.abort
        self.bootstrap_status = bootstrap.status

    replacements: Sequence[Replacement] = ()
    """A group has no partitions to make anew elsewhere."""

    def led_groups(self, groups: Sequence[GroupId]) -> Mapping[GroupId, LedGroup]:
        """Nobody here orders where replicas are."""
        return {}

    async def join(self, request: peer_pb2.JoinRequest) -> peer_pb2.JoinReply:
        """Tell a node that comes later who formed the group; it has no part in it by that.

        Raises:
            Unavailable: there is no group here yet. WrongCluster: another one was meant.
            IdentityError: a name that is not among this node's peers.
        """
        identity = self._bootstrap.identity
        if not identity.cluster_id:
            raise Unavailable("this node is in no group yet")
        if request.cluster_id != identity.cluster_id:
            raise WrongCluster(f"this node is of group {identity.cluster_id}")
        name = name_of(NodeId(request.node.node_id))
        if name not in self._names:
            raise IdentityError(f"{name!r} is not among the peers of this node")
        members = [
            peer_pb2.BootstrapMember(node_id=seat.node_id, name=seat.name, address=seat.address)
            for seat in identity.voters
        ]
        return peer_pb2.JoinReply(cluster_id=identity.cluster_id, members=members)

    async def propose(self, command: bytes) -> bytes:
        """Do what another node asks of the leader (:mod:`quorumlog.replicated.request`)."""
        return await self._answer(command)
