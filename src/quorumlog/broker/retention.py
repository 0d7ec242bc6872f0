"""Deletes the old records of this node's partitions: their leaders decide, all replicas follow.

A leader looks at its segments and proposes where the log is to begin; the command, once committed,
moves the start on every replica (:mod:`quorumlog.broker.partition`). Each replica seals and
removes segments of its own. The command also says which batches nobody needs any more: a follower
that is behind is waited for, unless it was not heard of for ``max_lag_s``. Its records are deleted
for readers meanwhile, the files stay.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.partition import PartitionMachine
from quorumlog.errors import (
    Closed,
    ConfigError,
    Corrupt,
    InvariantViolation,
    LogFenced,
    QuorumlogError,
    StorageError,
    Unavailable,
)
from quorumlog.log.cleaning.retention import Retention, first_offset_to_keep, should_roll
from quorumlog.log.log import SegmentInfo
from quorumlog.ports import Clock
from quorumlog.replication.host import GroupHost
from quorumlog.replication.log_trimming import free_index_of
from quorumlog.replication.replica import Replica
from quorumlog.replication.state_machine import LogStart
from quorumlog.types import GroupId, NodeId, Offset

_log = structlog.get_logger()

_AGAIN_S: Final = 1.0
"""After a turn that did something the next one comes so soon: a file goes in several steps."""

SEGMENTS_PER_TURN: Final = 64
"""Files of one partition that are removed in one turn; the others have theirs in between."""


@dataclass(frozen=True, slots=True)
class RetentionConfig:
    interval_s: float = 30.0
    """From one turn to the next, in seconds. Less deletes more exactly, and costs a look at each
    partition with a limit."""
    max_lag_s: float = 900.0
    """A follower that was not heard of for so many seconds is not waited for: what it lacks may be
    removed, and it starts anew from its leader's state. More keeps files for longer."""

    def __post_init__(self) -> None:
        if self.interval_s <= 0:
            raise ConfigError("interval_s must be positive")
        if self.max_lag_s < 0:
            raise ConfigError("max_lag_s must not be negative")


class RetentionKeeper:
    """One task (:meth:`run`) goes round the node's partitions, one after the other."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        host: GroupHost,
        metadata: MetadataState,
        clock: Clock,
        config: RetentionConfig,
    ) -> None:
        """``clock`` is the one that stamps the batches, and that of ``host``."""
        self._node_id = node_id
        self._host = host
        self._metadata = metadata
        self._clock = clock
        self._config = config
        self._proposed: dict[GroupId, asyncio.Future[object]] = {}
        self._damaged: dict[GroupId, Replica] = {}
        """Replicas that a damaged segment was found of, and said."""
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Have the next turn now."""
        self._wake.set()

    async def run(self) -> None:
        """Turn after turn; raises InvariantViolation, which is a bug."""
        interval_s = self._config.interval_s
        while True:
            is_busy = await self.run_once()
            try:
                async with asyncio.timeout(min(interval_s, _AGAIN_S) if is_busy else interval_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def run_once(self) -> bool:
        """Look at every partition here, and do what is due; whether there was anything.

        One partition's trouble keeps no other from its turn.
        """
        is_busy = False
        for topic, partition in self._metadata.groups_of(self._node_id):
            replica = self._host.replicas.get(partition.group)
            if replica is None or replica.failure is not None:
                continue
            try:
                is_busy |= await self._tend(replica, topic.config.retention)
            except (Closed, LogFenced, Unavailable):
                pass  # it closes, or somebody else leads now
            except InvariantViolation:
                raise
            except Corrupt as error:
                self._note_damage(replica, error)
            except (QuorumlogError, OSError) as error:
                _log.warning("retention_failed", group=partition.group, error=str(error))
        return is_busy

    async def _tend(self, replica: Replica, limits: Retention) -> bool:
        machine = replica.state_machine
        if not isinstance(machine, PartitionMachine):
            raise InvariantViolation(f"group {replica.group} is no partition")
        if not limits.is_limited and machine.log_start.offset == 0:
            return False
        segments, damage = await replica.trimmer.segments_before_damage()
        if damage is not None:
            # What precedes it goes all the same: that may be what a full disk waits for.
            self._note_damage(replica, damage)
        is_busy = self._roll(replica, limits)
        if replica.serving and replica.group not in self._proposed:
            is_busy |= self._propose(replica, machine, segments, limits)
        if not _is_spare(segments[0], machine.log_start):
            return is_busy
        last = segments[min(len(segments), SEGMENTS_PER_TURN) - 1]
        return bool(await replica.trimmer.remove_deleted(last.next_index - 1)) or is_busy

    def _note_damage(self, replica: Replica, error: StorageError) -> None:
        if self._damaged.get(replica.group) is replica:
            return
        self._damaged[replica.group] = replica
        _log.warning("retention_met_damage", group=replica.group, error=str(error))
        if isinstance(error, Corrupt):
            self._host.report_damage(replica.group, error)

    def _roll(self, replica: Replica, limits: Retention) -> bool:
        """Seal the active segment where its records are to go some time soon.

        Never one without records: it would be sealed for the very command that deletes it.
        """
        active = replica.log.upkeep.active()
        has_records = active.next_offset > active.base_offset
        if not has_records or not should_roll(active, limits, self._clock.wall_ms()):
            return False
        replica.trimmer.roll()
        return True

    def _propose(
        self,
        replica: Replica,
        machine: PartitionMachine,
        segments: Sequence[SegmentInfo],
        limits: Retention,
    ) -> bool:
        """As the leader: have the start moved, or more files given free, where that is due."""
        start = machine.log_start
        offset = start.offset
        if limits.is_limited:
            committed = replica.high_watermark.value
            spare = first_offset_to_keep(segments, limits, self._clock.wall_ms(), committed)
            offset = max(offset, spare)
        free_index = free_index_of(replica, self._clock.monotonic_s(), self._config.max_lag_s)
        after = LogStart(Offset(offset), free_index)
        frees = any(_is_spare(each, after) and not _is_spare(each, start) for each in segments[:-1])
        if offset <= start.offset and not frees:
            return False
        outcome = replica.propose(machine.start_draft(offset, free_index))
        self._proposed[replica.group] = outcome
        outcome.add_done_callback(lambda done: self._proposed.pop(replica.group, None))
        return True


def _is_spare(segment: SegmentInfo, start: LogStart) -> bool:
    """Whether a log that begins at ``start`` has no use for a sealed ``segment``."""
    is_deleted = segment.next_offset <= start.offset
    return is_deleted and segment.next_index - 1 <= start.free_index and not segment.is_active
