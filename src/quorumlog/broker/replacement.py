"""Whether, and by what orders, the replicas of a node that failed are made anew elsewhere; pure.

Asked at the metadata's leader, about a node that has not been heard for the time that
:class:`~quorumlog.broker.cluster_settings.ClusterSettings` names. Everything here errs towards
doing nothing: a copy too few for a while is mended by the node coming back, or by an operator.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from quorumlog.broker.led_groups import LedGroups
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.moves import Assignment, evacuation
from quorumlog.broker.safety import check_metadata_voters, check_moves, names_of, voters_without
from quorumlog.broker.topics import NodeInfo, PartitionInfo, Standing, Topic
from quorumlog.errors import UnsafeChange
from quorumlog.ports import MemberState
from quorumlog.types import GroupId, NodeId

_NOT_ASKED: Final[LedGroups] = {}
"""Leaders are not asked every second about all that a node had: a partition whose replicas do not
answer, though their nodes are up, is ordered to be elsewhere too, and stays until they do."""


class Stage(StrEnum):
    """How far the replacement of a node is that is not heard."""

    COUNTING = "counting"
    """The time is not over."""
    MOVING = "moving"
    REFUSED = "refused"
    """Nothing, or nothing more, is done now; it is looked at again all the time."""
    REPLACED = "replaced"
    """It holds nothing that counts any more."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What the metadata's leader makes of a node that it does not hear.

    ``silent_s`` is for how long the node counts as not heard: by the leader's own observation, and
    by what is on record; ``partitions`` are those that it has a replica of still; ``reason`` says
    why something is not done.
    """

    node: NodeId
    stage: Stage
    silent_s: float
    remaining_s: float = 0.0
    partitions: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Orders:
    """What to order now; ``voters`` is empty where they stay. ``refusals``: of the rest."""

    moves: tuple[Assignment, ...]
    voters: tuple[NodeId, ...]
    refusals: tuple[str, ...]


def holds_anything(metadata: MetadataState, voting: Collection[NodeId], node: NodeId) -> bool:
    """Whether something waits for ``node``: a partition, or the metadata, whose voters are
    ``voting``."""
    wanted = metadata.voters or voting
    return node in wanted or node in voting or bool(metadata.groups_of(node))


def find_obstacle(
    metadata: MetadataState,
    node: NodeInfo,
    others_down: Sequence[NodeId],
    gossip: Mapping[NodeId, MemberState],
) -> str:
    """Why nothing may be done about ``node`` now, whatever it holds; empty: there is no reason.

    Args:
        others_down: nodes that hold something and are not heard by this one either.
        gossip: what gossip sees of each node; it may forget one that failed.
    """
    if node.standing is not Standing.ACTIVE:
        return (
            f"it is {node.standing}: somebody works on it; `quorumlog cluster drain --undo` or "
            "`quorumlog cluster remove` ends that"
        )
    if others_down:
        return (
            f"{names_of(metadata, others_down)} cannot be heard either, and only one node at a "
            "time is replaced: start one of them again, or remove one"
        )
    leaving = [each.id for each in metadata.nodes() if each.standing is Standing.LEAVING]
    if leaving:
        return f"{names_of(metadata, leaving)} is being removed, and that comes first"
    state = gossip.get(node.id)
    if state in (MemberState.ALIVE, MemberState.SUSPECT):
        return (
            f"gossip sees it {state.value}: look at the network between it and the metadata's "
            "leader"
        )
    return ""


def find_orders(
    metadata: MetadataState,
    node: NodeId,
    voting: Sequence[NodeId],
    alive: Sequence[NodeId],
    takers: Sequence[NodeId],
    room: int,
) -> Orders:
    """The next steps that have what is on ``node`` made anew, each safe by itself.

    Args:
        voting: who votes on the metadata now.
        alive: the nodes that are up, without doubt.
        takers: those of them that can take over a replica.
        room: how many partitions may begin to move.
    """
    refusals: list[str] = []
    voters: tuple[NodeId, ...] = ()
    present = metadata.voters or tuple(sorted(voting))
    if node in present:
        try:
            voters = _voters_instead(metadata, present, node, alive)
        except UnsafeChange as error:
            refusals.append(str(error))
    takers = metadata.takers(takers)
    moves: list[Assignment] = []
    chosen: set[GroupId] = set()
    for topic in metadata.topics():
        for partition in topic.partitions:
            if node not in partition.target or len(chosen) == room:
                continue
            try:
                _check_movable(metadata, topic, partition, node, takers, alive)
            except UnsafeChange as error:
                refusals.append(str(error))
            else:
                chosen.add(partition.group)
    if chosen:
        moves = evacuation(metadata.topics(), node, takers, None, lambda each: each.group in chosen)
    return Orders(tuple(moves), voters, tuple(refusals))


def _voters_instead(
    metadata: MetadataState, present: Sequence[NodeId], node: NodeId, alive: Sequence[NodeId]
) -> tuple[NodeId, ...]:
    """As many voters as before. Raises UnsafeChange: there is nobody to take the vote."""
    voters = voters_without(metadata, present, node, None, alive, _NOT_ASKED)
    if len(voters) < len(present):
        raise UnsafeChange(
            "no node is there to take its vote on the cluster's metadata: start another node"
        )
    unknown = [voter for voter in voters if metadata.node(voter) is None]
    if unknown:
        # The metadata take no voter that they do not know, not even one that votes already.
        raise UnsafeChange(
            f"{', '.join(unknown)} votes on the cluster's metadata and was never registered: start "
            "it, and its vote and this one's can be settled"
        )
    check_metadata_voters(metadata, present, voters, alive, _NOT_ASKED)
    return voters


def _check_movable(
    metadata: MetadataState,
    topic: Topic,
    partition: PartitionInfo,
    node: NodeId,
    takers: Sequence[NodeId],
    alive: Sequence[NodeId],
) -> None:
    """Raise UnsafeChange unless another node can take the replica, with a majority up before and
    after."""
    alone = [replace(topic, partitions=(partition,))]
    check_moves(metadata, evacuation(alone, node, takers, None), alive, _NOT_ASKED)
