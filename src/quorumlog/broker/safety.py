"""What a change of members may not do to the cluster as it is now; pure.

Asked before a command is proposed. The metadata decide what is possible at all; this refuses what
would leave a group without a majority, or lose the only copy. What counts are the group's own
voters that answer, as its leader sees them (:mod:`quorumlog.broker.led_groups`): on a node that is
up a replica may be fenced, or closed, and while a partition moves its voters are others than the
metadata name. Where that is not known, gossip's view of which nodes are up has to do.

An order that is given all the same, since something fails a moment later, does no harm: the members
change only towards a majority that answers (:mod:`quorumlog.broker.mover`).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from quorumlog.broker.led_groups import LedGroup, LedGroups
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.moves import Assignment
from quorumlog.broker.topics import Standing
from quorumlog.errors import UnsafeChange
from quorumlog.types import METADATA_GROUP, GroupId, NodeId

MAX_NAMED: Final = 5
"""Partitions that a refusal names; it counts the others."""


def check_moves(
    metadata: MetadataState,
    moves: Iterable[Assignment],
    alive: Collection[NodeId],
    led: LedGroups,
) -> None:
    """Raise UnsafeChange for partitions that have no majority of voters that answers, now or where
    they are to go."""
    alone, without, unsafe = _Refused(), _Refused(), _Refused()
    for topic, partition, wanted in moves:
        name = f"{topic.name}/{partition.partition}"
        group = _Group.of(partition.group, partition.replicas, alive, led)
        if not group.has_majority():
            refused = alone if len(group.voters) == 1 and not group.outgoing else without
            refused.add(name, group, group.voting)
        elif not group.would_have_majority(wanted):
            unsafe.add(name, group, wanted)
    if alone.names:
        raise UnsafeChange(
            f"{alone.list_names()}: the only replica does not answer "
            f"({alone.reason(metadata, alive)}), and its records would be lost: "
            f"{alone.way_out(alive)}, or delete the topic"
        )
    if without.names:
        raise UnsafeChange(
            f"{without.list_names()} {without.has} no majority of voters that answers "
            f"({without.reason(metadata, alive)}), so nothing can be moved safely: "
            f"{without.way_out(alive)} first"
        )
    if unsafe.names:
        raise UnsafeChange(
            f"{unsafe.list_names()} would have no majority of voters that answers "
            f"({unsafe.reason(metadata, alive)}): {unsafe.way_out(alive)} first, or choose other "
            "nodes"
        )


def check_metadata_voters(
    metadata: MetadataState,
    present: Sequence[NodeId],
    wanted: Sequence[NodeId],
    alive: Collection[NodeId],
    led: LedGroups,
) -> None:
    """The same for the group that holds the cluster's metadata."""
    group = _Group.of(METADATA_GROUP, present, alive, led)
    refused = _Refused()
    if not group.has_majority():
        refused.add("the cluster's metadata", group, group.voting)
        when = "has"
    elif not group.would_have_majority(wanted):
        refused.add("the cluster's metadata", group, wanted)
        when = "would have"
    if refused.names:
        raise UnsafeChange(
            f"the cluster's metadata {when} no majority of voters that answers "
            f"({refused.reason(metadata, alive) or 'none left'}): {refused.way_out(alive)}, or let "
            "another node vote with `quorumlog cluster add NODE`"
        )


def voters_without(
    metadata: MetadataState,
    voters: Sequence[NodeId],
    node: NodeId,
    replacement: NodeId | None,
    alive: Sequence[NodeId],
    led: LedGroups,
) -> tuple[NodeId, ...]:
    """``voters`` with a spare in the place of ``node``, where there is one; else without it.

    Raises:
        UnsafeChange: nobody is left.
    """
    group = _Group.of(METADATA_GROUP, voters, alive, led)
    spares = [
        each
        for each in alive
        if each != node
        and each not in voters
        and group.counts(each)
        and (known := metadata.node(each)) is not None
        and known.standing is Standing.ACTIVE
    ]
    if replacement is not None and replacement not in voters:
        spares = [replacement]
    rest = [voter for voter in voters if voter != node]
    if not rest and not spares:
        raise UnsafeChange(
            f"{names_of(metadata, [node])} is the last voter of the cluster's metadata: start "
            "another node first; to end the cluster, stop the node and delete its data directory"
        )
    return tuple(sorted([*rest, *spares[:1]]))


def names_of(metadata: MetadataState, nodes: Iterable[NodeId]) -> str:
    found = ((metadata.node(node), node) for node in nodes)
    return ", ".join(known.name or node if known is not None else node for known, node in found)


@dataclass(frozen=True, slots=True)
class _Group:
    """Who votes in a group, and which nodes count for it."""

    voters: tuple[NodeId, ...]
    outgoing: tuple[NodeId, ...]
    silent: Collection[NodeId]
    alive: Collection[NodeId]
    may_have_leader: bool

    @classmethod
    def of(
        cls,
        group: GroupId,
        registered: Sequence[NodeId],
        alive: Collection[NodeId],
        led: LedGroups,
    ) -> "_Group":
        """``registered``: its voters, as far as the metadata know."""
        seen = led.get(group)
        if isinstance(seen, LedGroup):
            return cls(seen.voters, seen.outgoing, seen.silent, alive, True)
        return cls(tuple(registered), (), (), alive, group not in led)

    @property
    def voting(self) -> tuple[NodeId, ...]:
        return tuple(dict.fromkeys([*self.voters, *self.outgoing]))

    def counts(self, node: NodeId) -> bool:
        """Who is no member yet has to be up: it catches up before it votes."""
        return node in self.alive and node not in self.silent

    def has_majority(self) -> bool:
        return (
            self.may_have_leader
            and self.would_have_majority(self.voters)
            and (not self.outgoing or self.would_have_majority(self.outgoing))
        )

    def would_have_majority(self, voters: Sequence[NodeId]) -> bool:
        return sum(map(self.counts, voters)) > len(voters) // 2


@dataclass(slots=True)
class _Refused:
    """Groups that are refused for the same, and the nodes that do not count for them."""

    names: list[str] = field(default_factory=list)
    missing: dict[NodeId, None] = field(default_factory=dict)
    leaderless: dict[NodeId, None] = field(default_factory=dict)
    """Voters that are up, and enough of them, of groups that have no leader all the same."""

    def add(self, name: str, group: _Group, voters: Sequence[NodeId]) -> None:
        self.names.append(name)
        self.missing |= dict.fromkeys(each for each in voters if not group.counts(each))
        if group.would_have_majority(voters):
            # So it has no leader, though its nodes are up.
            self.leaderless |= dict.fromkeys(each for each in voters if group.counts(each))

    @property
    def has(self) -> str:
        return "has" if len(self.names) == 1 else "have"

    def list_names(self) -> str:
        more = len(self.names) - MAX_NAMED
        if more > 0:
            return f"{', '.join(self.names[:MAX_NAMED])} and {more} more"
        *first, last = self.names
        return f"{', '.join(first)} and {last}" if first else last

    def reason(self, metadata: MetadataState, alive: Collection[NodeId]) -> str:
        down = names_of(metadata, (node for node in self.missing if node not in alive))
        silent = names_of(metadata, (node for node in self.missing if node in alive))
        leaderless = names_of(metadata, self.leaderless)
        return "; ".join(
            said
            for nodes, said in (
                (down, f"{down} down"),
                (silent, f"{silent} up, but not the replica there"),
                (leaderless, f"nobody leads on {leaderless}"),
            )
            if nodes
        )

    def way_out(self, alive: Collection[NodeId]) -> str:
        if any(node not in alive for node in self.missing):
            return "start one of them again"
        return "see the log of those nodes for what ails the replica, and start one of them again"
