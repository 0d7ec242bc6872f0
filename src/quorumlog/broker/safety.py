"""What a change of members may not do to the cluster as it is now; pure.

Asked before a command is proposed, with gossip's view of which nodes are up. The metadata decide
what is possible at all; this refuses what would leave a group without a majority, or lose the only
copy. Whether a node's replica is up as well is asked where the members change, of the group's own
leader (:mod:`quorumlog.broker.mover`).
"""

from collections.abc import Collection, Iterable, Sequence

from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.moves import Assignment
from quorumlog.broker.topics import Standing
from quorumlog.errors import UnsafeChange
from quorumlog.types import NodeId


def check_moves(
    metadata: MetadataState, moves: Iterable[Assignment], alive: Collection[NodeId]
) -> None:
    """Raise UnsafeChange for a partition that has no majority up, now or where it is to go."""
    for topic, partition, wanted in moves:
        name = f"{topic.name}/{partition.partition}"
        present = partition.replicas
        down = names_of(metadata, (node for node in present if node not in alive))
        if len(present) == 1 and down:
            raise UnsafeChange(
                f"{name} has its only replica on {down}, which is down, and would be lost: start "
                f"that node again, or delete the topic"
            )
        if not _has_majority(present, alive):
            raise UnsafeChange(
                f"{name} has no majority of its replicas up ({down} down), so nothing can be moved "
                "safely: start one of them again first"
            )
        if not _has_majority(wanted, alive):
            down = names_of(metadata, (node for node in wanted if node not in alive))
            raise UnsafeChange(
                f"{name} would have no majority of its replicas up ({down} down): start one of "
                "them again, or replace it first"
            )


def check_metadata_voters(
    metadata: MetadataState,
    present: Sequence[NodeId],
    wanted: Sequence[NodeId],
    alive: Collection[NodeId],
) -> None:
    """The same for the group that holds the cluster's metadata."""
    for voters, when in ((present, "has"), (wanted, "would have")):
        if not _has_majority(voters, alive):
            down = names_of(metadata, (node for node in voters if node not in alive))
            raise UnsafeChange(
                f"the cluster's metadata {when} no majority of voters up ({down or 'none left'} "
                "down): start one of them again, or let another node vote with `quorumlog cluster "
                "add NODE`"
            )


def voters_without(
    metadata: MetadataState,
    voters: Sequence[NodeId],
    node: NodeId,
    replacement: NodeId | None,
    alive: Sequence[NodeId],
) -> tuple[NodeId, ...]:
    """``voters`` with a spare in the place of ``node``, where there is one; else without it.

    Raises:
        UnsafeChange: nobody is left.
    """
    spares = [
        each
        for each in alive
        if each != node
        and each not in voters
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


def _has_majority(nodes: Sequence[NodeId], alive: Collection[NodeId]) -> bool:
    return sum(node in alive for node in nodes) > len(nodes) // 2
