"""The nodes of the cluster as the metadata group knows them: registered, leaving, forgotten."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from quorumlog.broker.topics import NodeInfo, Presence, Standing
from quorumlog.errors import InvalidArgument, NodeRemoved, NotFound, UnsafeChange
from quorumlog.types import NodeId


class NodeTable:
    """A part of :class:`~quorumlog.broker.metadata.MetadataState`; a refused call changes nothing.

    ``removed`` holds the ids that are refused for ever. ``voters`` are those the metadata group is
    to have, empty while they are still those it was formed with; ``voters_index`` is the command
    that set them.
    """

    def __init__(
        self,
        nodes: Iterable[NodeInfo] = (),
        removed: Iterable[NodeId] = (),
        voters: Sequence[NodeId] = (),
        voters_index: int = 0,
    ) -> None:
        self._nodes = {node.id: node for node in nodes}
        self.removed = set(removed)
        self.voters = tuple(voters)
        self.voters_index = voters_index

    def get(self, node_id: NodeId) -> NodeInfo | None:
        return self._nodes.get(node_id)

    def all(self) -> list[NodeInfo]:
        """Sorted by id."""
        return [self._nodes[node_id] for node_id in sorted(self._nodes)]

    def known(self, node_id: NodeId) -> NodeInfo:
        """Raises NotFound, NodeRemoved."""
        node = self._nodes.get(node_id)
        if node is not None:
            return node
        if node_id in self.removed:
            raise NodeRemoved(f"node {node_id} was removed from this cluster")
        raise NotFound(f"there is no node {node_id}: see `quorumlog cluster members`")

    def takers(self, candidates: Iterable[str]) -> list[NodeId]:
        """Those of ``candidates`` that may get a replica; one that is not known yet may."""
        return [
            NodeId(each)
            for each in candidates
            if each not in self.removed and self._may_take(NodeId(each))
        ]

    def _may_take(self, node_id: NodeId) -> bool:
        node = self._nodes.get(node_id)
        return node is None or node.standing is Standing.ACTIVE

    def register(self, node: NodeInfo) -> NodeInfo | None:
        """The node as it is known now; None when that is nothing new.

        Raises:
            NodeRemoved: it has to come as another one.
        """
        if node.id in self.removed:
            raise NodeRemoved(
                f"node {node.id} was removed from this cluster, its data belong to nobody: start "
                "it with an empty data directory, and it joins as a new node"
            )
        before = self._nodes.get(node.id)
        if before is not None:
            node = replace(before, name=node.name, address=node.address, version=node.version)
        if node == before:
            return None
        self._nodes[node.id] = node
        return node

    def note(self, node_id: NodeId, presence: Presence, absent_since_ms: int) -> NodeInfo | None:
        """The node, whose presence is new; None when it was that before.

        Raises:
            NotFound, NodeRemoved.
        """
        before = self.known(node_id)
        node = replace(before, presence=presence, absent_since_ms=absent_since_ms)
        if node == before:
            return None
        self._nodes[node_id] = node
        return node

    def stand(self, node_id: NodeId, standing: Standing) -> NodeInfo | None:
        """The node, whose standing is new; None when it was that before."""
        before = self._nodes[node_id]
        if before.standing is standing:
            return None
        self._nodes[node_id] = node = replace(before, standing=standing)
        return node

    def forget(self, node_id: NodeId) -> NodeInfo:
        self.removed.add(node_id)
        return self._nodes.pop(node_id)

    def check_voters(self, voters: Sequence[str], voters_index: int) -> None:
        """Raise unless ``voters`` may follow those that the command at ``voters_index`` set.

        Raises:
            NotFound, NodeRemoved, UnsafeChange; InvalidArgument: set anew meanwhile, to others.
        """
        if voters_index != self.voters_index and tuple(voters) != self.voters:
            raise InvalidArgument("the metadata's voters were changed at the same time: try again")
        if not voters:
            raise UnsafeChange(
                "this is the last voter of the cluster's metadata: let another node vote first, "
                "with `quorumlog cluster add NODE`"
            )
        if len(set(voters)) != len(voters):
            raise InvalidArgument(f"a node stands twice in {', '.join(voters)}")
        for voter in voters:
            if self.known(NodeId(voter)).standing is Standing.LEAVING:
                raise InvalidArgument(f"node {voter} is being removed and cannot become a voter")

    def set_voters(self, voters: Sequence[str], index: int) -> None:
        self.voters = tuple(NodeId(voter) for voter in voters)
        self.voters_index = index
