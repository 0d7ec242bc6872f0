"""Orders to move the replicas of partitions, and what they come to: pure, the same on every node.

A partition is ordered to be somewhere else (``wanted``), its leader changes the group's members in
its own time, and reports when the final configuration is committed. An order may be replaced by
another half way: whoever was wanted meanwhile may be a member, and keeps what it has until the
report (``passing``).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from quorumlog.broker.placement import Load
from quorumlog.broker.topics import PartitionInfo, Topic
from quorumlog.errors import InvalidArgument, UnsafeChange
from quorumlog.types import NodeId

Assignment = tuple[Topic, PartitionInfo, tuple[NodeId, ...]]
"""A partition, and the nodes it is to be on."""


def assigned(partition: PartitionInfo, wanted: Sequence[NodeId], index: int) -> PartitionInfo:
    """``partition`` once the command at ``index`` wants its replicas on ``wanted``.

    Raises:
        InvalidArgument: nobody, or somebody twice.
    """
    if not wanted:
        raise InvalidArgument("a partition has at least 1 replica, not 0")
    if len(set(wanted)) != len(wanted):
        raise InvalidArgument(f"a node stands twice in {', '.join(wanted)}")
    target = tuple(wanted)
    if set(target) == set(partition.target):
        # Only another order: nobody has to move for that.
        if partition.wanted:
            return replace(partition, wanted=target)
        return replace(partition, replicas=target)
    passing = {*partition.passing, *partition.wanted} if partition.wanted else set()
    return replace(
        partition,
        wanted=target,
        passing=tuple(sorted(passing - {*target, *partition.replicas})),
        move=index,
    )


def moved(
    partition: PartitionInfo, move: int, replicas: Iterable[NodeId], settled_index: int
) -> PartitionInfo:
    """``partition`` after a report, which is void when another order came in between.

    The index may be that of the report before: then the orders in between had nothing done.
    """
    is_current = move == partition.move and set(replicas) == set(partition.target)
    if not is_current or settled_index < partition.settled_index:
        return partition
    return replace(
        partition,
        replicas=partition.target,
        wanted=(),
        passing=(),
        settled_index=settled_index,
    )


def load_of(topics: Iterable[Topic]) -> Load:
    """What every node holds, once everything has moved where it is wanted."""
    load = Load()
    for topic in topics:
        for partition in topic.partitions:
            load.add(partition.target)
    return load


def evacuation(
    topics: Sequence[Topic],
    node: NodeId,
    takers: Iterable[NodeId],
    replacement: NodeId | None,
    is_meant: Callable[[PartitionInfo], bool] = lambda partition: True,
) -> list[Assignment]:
    """Where the replicas on ``node`` go: to ``replacement`` where it has none yet, else to the
    taker that holds least. Others keep their places, and so do partitions that are not meant.

    Raises:
        UnsafeChange: a partition has a replica everywhere already.
    """
    load = load_of(topics)
    candidates = sorted(set(takers) - {node})
    found: list[Assignment] = []
    for topic in topics:
        for partition in topic.partitions:
            target = partition.target
            if node not in target or not is_meant(partition):
                continue
            free = [taker for taker in candidates if taker not in target]
            if replacement is not None and replacement not in target:
                free = [replacement]
            if not free:
                raise UnsafeChange(
                    f"{topic.name}/{partition.partition} has {len(target)} replicas and no other "
                    "live node can take one of them: start another node, or have fewer with "
                    f"`quorumlog topic alter {topic.name} --replicas {max(1, len(target) - 1)}`"
                )
            taker = min(free, key=lambda each: load.replicas.get(each, 0))
            wanted = tuple(taker if each == node else each for each in target)
            load.replicas[taker] = load.replicas.get(taker, 0) + 1
            found.append((topic, partition, wanted))
    return found


def resized(
    topics: Sequence[Topic], topic: Topic, replicas: int, takers: Iterable[NodeId]
) -> list[Assignment]:
    """``topic`` with ``replicas`` replicas a partition: the takers that hold least get new ones,
    those that are no takers (not alive) lose theirs first, then the last in order.

    Raises:
        InvalidArgument: there are not as many nodes.
    """
    load = load_of(topics)
    candidates = sorted(set(takers))
    found: list[Assignment] = []
    for partition in topic.partitions:
        target = partition.target
        free = sorted(
            (taker for taker in candidates if taker not in target),
            key=lambda taker: load.replicas.get(taker, 0),
        )
        added = free[: max(0, replicas - len(target))]
        kept = sorted(target, key=lambda node: node not in candidates)[:replicas]
        wanted = (*(node for node in target if node in kept), *added)
        if len(wanted) < replicas:
            raise InvalidArgument(
                f"{replicas} replicas of {topic.name}/{partition.partition} need as many live "
                f"nodes, and {len(wanted)} are there: start more nodes"
            )
        for taker in added:
            load.replicas[taker] = load.replicas.get(taker, 0) + 1
        if set(wanted) != set(target):
            found.append((topic, partition, wanted))
    return found
