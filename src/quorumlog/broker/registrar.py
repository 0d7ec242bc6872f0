"""Gossip proposes, Raft decides: the metadata's leader registers the nodes that gossip shows.

A new node, a new address or release becomes a command once the process at that address has said the
same (:mod:`quorumlog.broker.claim_check`); a suspicion changes nothing. The same leader has the
metadata group follow the node list: every node is a member, those vote that are to, and who was
removed and holds nothing any more is forgotten.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.claim_check import ClaimCheck
from quorumlog.broker.gossip_view import GossipView
from quorumlog.broker.member_plan import next_members
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.mover import has_caught_up
from quorumlog.broker.topics import NodeInfo, Standing
from quorumlog.ports import MemberState
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
        *,
        node_id: NodeId,
        metadata: MetadataState,
        gossip: GossipView,
        check: ClaimCheck,
        replica: Callable[[], Replica],
        propose: Callable[[metadata_pb2.Command], Awaitable[object]],
    ) -> None:
        """``replica`` gives that of group 0; ``propose`` applies a command here, as the leader."""
        self._node_id = node_id
        self._metadata = metadata
        self._gossip = gossip
        self._check = check
        self._replica = replica
        self._propose = propose

    async def tend(self) -> None:
        """Bring the node list up to date, if this node leads. Raises what proposing raises."""
        if not self._replica().serving:
            return
        await self._register_news()
        await self._forget_removed()
        await self._tend_members()

    async def _register_news(self) -> None:
        news = [node for node in self._nodes_claimed() if self._is_news(node)]
        # What this node says of itself it has not heard from others.
        own = [node for node in news if node.id == self._node_id]
        others = [node for node in news if node.id != self._node_id]
        for node in own + await self._check.true_of(others):
            await self._propose(register(node))

    def _is_news(self, node: NodeInfo) -> bool:
        known = self._metadata.node(node.id)
        if known is None:
            return not self._metadata.is_removed(node.id)
        return not known.says_the_same_as(node)

    def _nodes_claimed(self) -> list[NodeInfo]:
        """Not those that two members claim to be: a node that came back under another name is seen
        twice until its old self is found dead, and registering both in turn would never end."""
        claimed: list[NodeInfo] = []
        for node_id, members in sorted(self._gossip.claims().items()):
            tags = members[0].tags
            is_alive = members[0].state is MemberState.ALIVE
            if len(members) == 1 and is_alive and tags.get("rpc"):
                info = NodeInfo(node_id, members[0].name, tags["rpc"], tags.get("ver", ""))
                claimed.append(info)
        return claimed

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
            is_alive=lambda node: (
                node == self._node_id or (self._gossip.is_alive(node) and replica.answers(node))
            ),
        )
        if step is not None:
            await replica.propose_members(step)
