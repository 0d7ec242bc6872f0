"""Gossip proposes, Raft decides: the metadata's leader registers the nodes that gossip shows.

A new node, a new address or release becomes a command; a suspicion alone changes nothing. The same
leader has the metadata group follow the node list: every node is a member, those vote that are to,
and who was removed and holds nothing any more is forgotten.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.member_plan import next_members
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.mover import has_caught_up
from quorumlog.broker.topics import NodeInfo, Standing
from quorumlog.ports import Member, Membership, MemberState
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
        is_alive: Callable[[NodeId], bool] = lambda node: True,
    ) -> None:
        """``replica`` gives that of group 0; ``propose`` applies a command here, as the leader;
        ``is_alive`` is gossip's opinion of a node."""
        self._cluster_id = cluster_id
        self._metadata = metadata
        self._membership = membership
        self._replica = replica
        self._propose = propose
        self._is_alive = is_alive

    async def tend(self) -> None:
        """Bring the node list up to date, if this node leads. Raises what proposing raises."""
        if not self._replica().serving:
            return
        for node in self._nodes_seen():
            known = self._metadata.node(node.id)
            is_news = known is None or replace(known, standing=node.standing) != node
            if is_news and not self._metadata.is_removed(node.id):
                await self._propose(register(node))
        await self._forget_removed()
        await self._tend_members()

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

    async def _forget_removed(self) -> None:
        """Only who holds nothing any more: no replica, and no vote on the metadata.

        It still is a learner of the metadata then, so that it hears of it.
        """
        core = self._replica().core
        for node in self._metadata.nodes():
            if node.standing is not Standing.LEAVING or self._metadata.groups_of(node.id):
                continue
            if node.id not in core.members.voting and core.commit_index >= core.members_index:
                message = metadata_pb2.ForgetNode(node=node.id)
                await self._propose(metadata_pb2.Command(forget_node=message))

    async def _tend_members(self) -> None:
        """Every registered node follows the metadata: who does not vote on it learns it.

        One step at a time; the change calls for the next round when it is applied.
        """
        replica = self._replica()
        core, leadership = replica.core, replica.core.leadership
        if leadership is None or core.commit_index < core.members_index:
            return
        step = next_members(
            core.members,
            self._metadata.voters or core.members.voters,
            [node.id for node in self._metadata.nodes()],
            has_caught_up=partial(has_caught_up, core, leadership),
            is_alive=self._is_alive,
        )
        if step is not None:
            await replica.propose_members(step)
