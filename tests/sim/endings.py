"""What holds in the end, when everything is healed: asked again and again until it does."""

from quorumlog.types import METADATA_GROUP, GroupId, NodeId
from sim.history import GroupHistory, Violation
from sim.moves import is_settled
from sim.node import SimNode


class Endings:
    """Of all nodes; ``histories`` grows with what is seen of the groups."""

    def __init__(self, nodes: dict[NodeId, SimNode]) -> None:
        self.histories: dict[int, GroupHistory] = {}
        self._nodes = nodes

    @property
    def _members(self) -> list[SimNode]:
        """The nodes that were not removed from the cluster."""
        return [node for node in self._nodes.values() if not node.gone]

    def converged(self) -> bool:
        """All nodes are up and have applied all that is committed, in every group; those that were
        removed have ended."""
        if any(node.up for node in self._nodes.values() if node.gone):
            return False
        for group, history in self.histories.items():
            for node in self._members:
                replica = node.host.replicas.get(GroupId(group)) if node.host else None
                if not node.ready:
                    return False
                if replica is None and group == METADATA_GROUP:
                    return False
                if replica is not None and replica.applied_index != len(history.committed):
                    return False
                if replica is not None and (replica.core.recovering or replica.failure is not None):
                    return False
        return True

    def check_starts(self) -> None:
        """All replicas of a group begin at the same offset, the one that was agreed."""
        for group, history in self.histories.items():
            for node in self._members:
                replica = node.host.replicas.get(GroupId(group)) if node.host else None
                agreed = history.starts[-1].offset
                if replica is not None and replica.log.start_offset != agreed:
                    raise Violation(
                        f"{node.node_id} group {group} begins at {replica.log.start_offset}, "
                        f"agreed is {agreed}"
                    )

    def led(self) -> bool:
        """In every group one node serves, and all that are up and have a replica follow it."""
        up = [node.host for node in self._members if node.ready and node.host is not None]
        for group in self.histories:
            replicas = [host.replicas[GroupId(group)] for host in up if group in host.replicas]
            leaders = {(each.core.leader_id, each.core.term) for each in replicas}
            if len(leaders) != 1 or sum(replica.serving for replica in replicas) != 1:
                return False
        return True

    def moved(self) -> bool:
        """Every group's members are who they are to be, and nobody else has a replica of one; every
        node is known."""
        nodes = [node for node in self._members if node.host is not None]
        if {node.id for node in nodes[0].metadata.nodes()} != {node.node_id for node in nodes}:
            return False
        for group in self.histories:
            held = {
                node.node_id: node.host.replicas[GroupId(group)]
                for node in nodes
                if node.host is not None and group in node.host.replicas
            }
            leader = next((each for each in held.values() if each.serving), None)
            if leader is None or not is_settled(group, nodes[0].metadata, leader.core.members):
                return False
            if set(held) != set(leader.core.members.everybody):
                return False
        return True

    def preferred_lead(self) -> bool:
        """Every partition that is to stay where it is is led by its first replica."""
        for node in self._members:
            for _, partition in node.metadata.groups_of(node.node_id):
                if partition.wanted or partition.replicas[0] != node.node_id:
                    continue
                replica = node.host.replicas.get(partition.group) if node.host else None
                if replica is None or not replica.serving:
                    return False
        return True

    def all_asleep(self) -> bool:
        """No replica has a timer set."""
        return all(
            replica.core.asleep
            for node in self._members
            if node.ready and node.host is not None
            for replica in node.host.replicas.values()
        )

    def check_metadata(self) -> None:
        """Equal logs give equal states."""
        views = {repr((node.metadata.topics(), node.metadata.nodes())) for node in self._members}
        if len(views) != 1:
            raise Violation(f"the nodes' metadata differ: {sorted(views)}")
