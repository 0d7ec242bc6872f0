"""Gossip proposes, Raft decides: the metadata's leader registers the nodes that gossip shows.

A new node, a new address or release becomes a command; a suspicion alone changes nothing.
"""

from collections import Counter
from collections.abc import Awaitable, Callable

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.topics import NodeInfo
from quorumlog.ports import Member, Membership, MemberState
from quorumlog.replication.core.members import Members
from quorumlog.replication.replica import Replica
from quorumlog.types import NodeId


def register(node: NodeInfo) -> metadata_pb2.Command:
    """The command that makes ``node`` known, or known with what has changed."""
    message = metadata_pb2.Node(
        id=node.id, name=node.name, address=node.address, version=node.version
    )
    return metadata_pb2.Command(register_node=metadata_pb2.RegisterNode(node=message))


class Registrar:
    def __init__(
        self,
        cluster_id: str,
        metadata: MetadataState,
        membership: Membership,
        replica: Callable[[], Replica],
        propose: Callable[[metadata_pb2.Command], Awaitable[object]],
    ) -> None:
        """``replica`` gives that of group 0; ``propose`` applies a command here, as the leader."""
        self._cluster_id = cluster_id
        self._metadata = metadata
        self._membership = membership
        self._replica = replica
        self._propose = propose

    async def tend(self) -> None:
        """Bring the node list up to date, if this node leads. Raises what proposing raises."""
        if not self._replica().serving:
            return
        for node in self._nodes_seen():
            if self._metadata.node(node.id) != node:
                await self._propose(register(node))
        await self._add_learner()

    def _nodes_seen(self) -> list[NodeInfo]:
        """Not those that two members claim to be: a node that came back under another name is seen
        twice until its old self is found dead, and registering both in turn would never end."""
        seen = [
            node
            for member in self._membership.members()
            if (node := self._node_of(member)) is not None
        ]
        claims = Counter(node.id for node in seen)
        return [node for node in seen if claims[node.id] == 1]

    def _node_of(self, member: Member) -> NodeInfo | None:
        tags = member.tags
        node_id, address = tags.get("id"), tags.get("rpc")
        is_ours = tags.get("cluster") == self._cluster_id
        if member.state is not MemberState.ALIVE or not is_ours or not node_id or not address:
            return None
        return NodeInfo(NodeId(node_id), member.name, address, tags.get("ver", ""))

    async def _add_learner(self) -> None:
        """Every registered node follows the metadata: who does not vote on it learns it.

        One at a time; the change calls for the next round when it is applied.
        """
        replica = self._replica()
        members = replica.core.members
        known = {*members.voters, *members.learners}
        for node in self._metadata.nodes():
            if node.id not in known:
                learners = (*members.learners, node.id)
                await replica.propose_members(Members(members.voters, learners))
                return
