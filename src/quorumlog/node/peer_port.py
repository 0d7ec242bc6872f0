"""What this node answers to the requests of other nodes."""

from collections.abc import Sequence

from quorumlog.api._pb import peer_pb2
from quorumlog.api.peers import GrpcPeers
from quorumlog.broker.claim_check import objection_to
from quorumlog.broker.controller import Controller
from quorumlog.broker.peer_calls import PeerCalls
from quorumlog.broker.registrar import register
from quorumlog.broker.replacement import Replacement
from quorumlog.broker.topics import NodeInfo
from quorumlog.errors import Unavailable, WrongCluster
from quorumlog.node.bootstrap import Bootstrap
from quorumlog.types import NodeId


class NodePeerPort:
    """Implements :class:`quorumlog.api.peer_service.PeerPort`."""

    def __init__(
        self, peers: GrpcPeers, bootstrap: Bootstrap, controller: Controller, calls: PeerCalls
    ) -> None:
        self._bootstrap = bootstrap
        self._controller = controller
        self._calls = calls
        self.led_groups = controller.survey.here
        self.announce = peers.answer
        self.introduce = peers.introduce
        self.bootstrap_prepare = bootstrap.prepare
        self.bootstrap_decide = bootstrap.decide
        self.bootstrap_abort = bootstrap.abort
        self.bootstrap_status = bootstrap.status

    async def join(self, request: peer_pb2.JoinRequest) -> peer_pb2.JoinReply:
        """Register a node with this cluster.

        Raises:
            Unavailable: there is no cluster here yet, or the node is not where it says.
            WrongCluster: another one was meant.
        """
        identity = self._bootstrap.identity
        if not identity.cluster_id:
            raise Unavailable("this node is not in a cluster yet")
        if request.cluster_id != identity.cluster_id:
            raise WrongCluster(f"this node is of cluster {identity.cluster_id}")
        seat = request.node
        node = NodeInfo(NodeId(seat.node_id), seat.name, seat.address, "")
        objection = await objection_to(node, identity.cluster_id, self._calls.identify)
        if objection:
            raise Unavailable(f"{node.name} cannot join: {objection}")
        await self._controller.propose(register(node))
        members = [
            peer_pb2.BootstrapMember(node_id=seat.node_id, name=seat.name, address=seat.address)
            for seat in identity.voters
        ]
        return peer_pb2.JoinReply(cluster_id=identity.cluster_id, members=members)

    @property
    def replacements(self) -> Sequence[Replacement]:
        return self._controller.replacements_here

    async def propose(self, command: bytes) -> bytes:
        """Apply a metadata command here, as the leader; the encoded result."""
        result = await self._controller.propose_here(command)
        return result.SerializeToString()
