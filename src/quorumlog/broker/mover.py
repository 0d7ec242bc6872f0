"""Moves the replicas of the partitions that this node leads to where the metadata want them.

The leader makes learners of the new ones, waits until they have caught up, changes the voters in
one step, and reports that to the metadata once it is committed (docs/design/0003, decision 11).
Nothing is remembered: each look compares what is wanted with the configuration in the log, so
whoever leads next goes on where the last one stopped, and a new order is followed half way.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.member_plan import next_members
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.topics import PartitionInfo
from quorumlog.errors import QuorumlogError
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.leadership import Leadership
from quorumlog.replication.core.role import Role
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import METADATA_GROUP, GroupId, NodeId

MAX_CATCHING_UP: Final = 4
"""Partitions led here whose new replicas, on nodes that are up, catch up at a time."""

MAX_REPORTED: Final = 1000
"""Partitions in one report."""

_LOOK_S: Final = 0.2
"""While something is under way: how often to see whether it has come further."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at a group found."""

    is_settled: bool = True
    """Its members are those it is to have, committed."""
    is_catching_up: bool = False
    report: metadata_pb2.ReplicasMoved.Moved | None = None


_NOTHING: Final = _Look()


class Mover:
    """One task calls :meth:`tend` whenever the metadata changed, a leader did, or it asks so."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        host: GroupHost,
        metadata: MetadataState,
        is_alive: Callable[[NodeId], bool],
        propose: Callable[[metadata_pb2.Command], Awaitable[metadata_pb2.Result]],
        look_again: Callable[[], None],
    ) -> None:
        """``is_alive`` is gossip's opinion; ``look_again`` has :meth:`tend` called soon."""
        self._node_id = node_id
        self._host = host
        self._metadata = metadata
        self._is_alive = is_alive
        self._propose = propose
        self._look_again = look_again
        self._reporting: asyncio.Task[None] | None = None
        self._reported: dict[GroupId, tuple[int, int]] = {}

    async def tend(self) -> None:
        """Take the next step of every move that is ready for one."""
        looks: dict[GroupId, _Look] = {}
        waiting: list[tuple[Replica, PartitionInfo]] = []
        for group, replica in sorted(self._host.replicas.items()):
            partition = self._metadata.group(group)
            if partition is None or group == METADATA_GROUP or replica.core.role is not Role.LEADER:
                continue
            if not partition.wanted and _is_as_reported(replica, partition):
                continue
            if replica.core.members.learners or not replica.serving:
                looks[group] = self._look_at(replica, partition)
            else:
                waiting.append((replica, partition))
        for replica, partition in waiting:
            busy = sum(look.is_catching_up for look in looks.values())
            looks[replica.group] = self._look_at(
                replica, partition, may_begin=busy < MAX_CATCHING_UP
            )
        self._report([look.report for look in looks.values() if look.report is not None])
        if not all(look.is_settled for look in looks.values()) or self._reporting is not None:
            asyncio.get_running_loop().call_later(_LOOK_S, self._look_again)

    async def close(self) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.wait([self._reporting])

    # -- one group -----------------------------------------------------------------------------

    def _look_at(self, replica: Replica, partition: PartitionInfo, may_begin: bool = True) -> _Look:
        core = replica.core
        leadership = core.leadership
        if not replica.serving or leadership is None or leadership.is_handing_over:
            return _Look(is_settled=False)
        members = core.members
        if members.outgoing or core.commit_index < core.members_index:
            return _Look(is_settled=False)
        target = partition.target
        step = next_members(
            members,
            target,
            (),
            has_caught_up=partial(has_caught_up, core, leadership),
            is_alive=lambda node: self._is_up(node) and self._takes_part(replica, node),
        )
        joining = [node for node in target if node not in members.voters]
        if step is None and not joining and set(members.voters) == set(target):
            return self._settled(replica, partition)
        is_catching_up = bool(joining) and all(self._is_up(node) for node in joining)
        begins = step is not None and step.voters == members.voters and not members.learners
        if step is not None and (may_begin or not begins):
            try:
                replica.propose_members(step)
            except QuorumlogError as error:
                _log.debug("replica_not_moved_yet", group=replica.group, error=str(error))
            else:
                _log.info(
                    "members_changed",
                    group=replica.group,
                    voters=step.voters,
                    learners=step.learners,
                )
        return _Look(is_settled=False, is_catching_up=is_catching_up)

    def _settled(self, replica: Replica, partition: PartitionInfo) -> _Look:
        key = (partition.move, replica.core.members_index)
        if self._reported.get(partition.group) == key:
            return _NOTHING
        return _Look(
            report=metadata_pb2.ReplicasMoved.Moved(
                group=partition.group,
                move=partition.move,
                replicas=partition.target,
                settled_index=replica.core.commit_index,
            )
        )

    def _takes_part(self, replica: Replica, node: NodeId) -> bool:
        """Whether it is not only the node that is up, but its replica of this group, too."""
        return node == self._node_id or replica.answers(node)

    def _is_up(self, node: NodeId) -> bool:
        return node == self._node_id or self._is_alive(node)

    # -- reports -------------------------------------------------------------------------------

    def _report(self, moved: list[metadata_pb2.ReplicasMoved.Moved]) -> None:
        """One report is under way at a time; what it leaves out is in the next one."""
        if moved and self._reporting is None:
            self._reporting = asyncio.create_task(self._send_report(moved[:MAX_REPORTED]))

    async def _send_report(self, moved: list[metadata_pb2.ReplicasMoved.Moved]) -> None:
        keys = {
            GroupId(each.group): (each.move, replica.core.members_index)
            for each in moved
            if (replica := self._host.replicas.get(GroupId(each.group))) is not None
        }
        try:
            await self._propose(
                metadata_pb2.Command(replicas_moved=metadata_pb2.ReplicasMoved(moved=moved))
            )
            self._reported = {
                group: key for group, key in self._reported.items() if group in self._host.replicas
            } | keys
        except (QuorumlogError, OSError) as error:
            _log.info("move_not_reported_yet", error=str(error))
        finally:
            self._reporting = None
            self._look_again()


def _is_as_reported(replica: Replica, partition: PartitionInfo) -> bool:
    """Cheap: most partitions are, most of the time."""
    core = replica.core
    members = core.members
    return (
        core.members_index <= partition.settled_index
        and not members.outgoing
        and not members.learners
        and members.voters == partition.holders
    )


def has_caught_up(core: RaftCore, leadership: Leadership, node: NodeId) -> bool:
    """Whether the learner ``node`` may become a voter: as the core asks (and of its life, too).

    And it has acknowledged the batch that opened the term: before, a new leader only supposes what
    its followers have. That includes the configuration that made it a learner, without which it may
    vote for nobody (:mod:`quorumlog.replication.catch_up.returning`).
    """
    progress = leadership.progress_of(node)
    return (
        progress is not None
        and not progress.probing
        and progress.next_index > core.commit_index
        and progress.match_index >= max(core.members_index, leadership.first_index)
    )
