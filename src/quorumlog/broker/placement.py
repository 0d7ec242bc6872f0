"""Where the replicas of new partitions go: pure, and the same on every node."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from quorumlog.errors import InvariantViolation
from quorumlog.types import NodeId


@dataclass(slots=True)
class Load:
    """Partitions per node before the placement: as a replica, and as the preferred leader."""

    replicas: dict[NodeId, int] = field(default_factory=dict)
    leaders: dict[NodeId, int] = field(default_factory=dict)

    def add(self, replicas: Sequence[NodeId]) -> None:
        """Count one partition; its first replica is the preferred leader."""
        self.leaders[replicas[0]] = self.leaders.get(replicas[0], 0) + 1
        for node in replicas:
            self.replicas[node] = self.replicas.get(node, 0) + 1


def place(
    partitions: int, replicas: int, candidates: Iterable[NodeId], load: Load
) -> list[tuple[NodeId, ...]]:
    """The replicas of ``partitions`` new partitions, preferred leader first; counted into ``load``.

    The leader is the candidate that leads least, the others are those that hold least. Ties go
    round: to the next candidates after the leader in the order of their ids, so that not all
    partitions share the same followers. Equal inputs give equal results, whatever the order of
    ``candidates``. Costs partitions x candidates.
    """
    nodes = sorted(set(candidates))
    if not 1 <= replicas <= len(nodes):
        raise InvariantViolation(f"{replicas} replicas cannot be placed on {len(nodes)} nodes")
    placed: list[tuple[NodeId, ...]] = []
    for _ in range(partitions):
        leader_at = min(
            range(len(nodes)),
            key=lambda at: (load.leaders.get(nodes[at], 0), load.replicas.get(nodes[at], 0)),
        )
        others = nodes[leader_at + 1 :] + nodes[:leader_at]
        # sorted() is stable: equally loaded nodes stay in the order round the leader.
        others.sort(key=lambda node: load.replicas.get(node, 0))
        chosen = (nodes[leader_at], *others[: replicas - 1])
        load.add(chosen)
        placed.append(chosen)
    return placed
