"""Keeps the log of a replicated machine bounded: old files go once nobody needs them.

What is removed is in the state of every replica, so two things are asked of each file. All members
heard of lately have it, which the leader knows and says by a TRIM command: nobody has to be given
the whole state for a moment's absence. And it is before the *older* of this replica's two saved
states, so that one damaged state loses nothing.
"""

import asyncio
from collections.abc import Callable

import structlog

from quorumlog.broker.retention import free_index_of
from quorumlog.errors import (
    Closed,
    InvariantViolation,
    LogFenced,
    QuorumlogError,
    Unavailable,
)
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.state_snapshot import load_newest
from quorumlog.ports import Clock, Disk, Worker
from quorumlog.replicated.command import TrimCommand
from quorumlog.replication.replica import Replica
from quorumlog.types import Index

_log = structlog.get_logger()


class LogTrimming:
    """One task (:meth:`run`) per replica."""

    def __init__(
        self,
        *,
        replica: Callable[[], Replica],
        directory: str,
        disk: Disk,
        worker: Worker,
        clock: Clock,
        interval_s: float,
        max_lag_s: float,
    ) -> None:
        """``directory`` of the group; ``replica`` raises Unavailable while there is none."""
        self._replica = replica
        self._directory = directory
        self._disk = disk
        self._worker = worker
        self._clock = clock
        self._interval_s = interval_s
        self._max_lag_s = max_lag_s

    async def run(self) -> None:
        """Turn after turn; raises InvariantViolation, which is a bug."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.run_once()
            except (Closed, LogFenced, Unavailable):
                pass  # it closes, or somebody else leads now
            except InvariantViolation:
                raise
            except (QuorumlogError, OSError) as error:
                _log.warning("trimming_failed", error=str(error))

    async def run_once(self) -> int:
        """Do what is due; how many files were removed."""
        replica = self._replica()
        sealed = [each.next_index - 1 for each in await replica.trimmer.segments()][:-1]
        if not sealed:
            return 0
        free_index = replica.state_machine.log_start.free_index
        if replica.serving:
            spare = free_index_of(replica, self._clock.monotonic_s(), self._max_lag_s)
            if any(free_index < last_index <= spare for last_index in sealed):
                draft = Draft.of(TrimCommand(spare).encode(), kind=Kind.COMMAND)
                await replica.propose(draft)
                free_index = replica.state_machine.log_start.free_index
        if sealed[0] > free_index:
            return 0
        saved_index = await self._worker.run(self._older_saved_index)
        if sealed[0] > saved_index:
            return 0
        return await replica.trimmer.remove_deleted(min(free_index, saved_index))

    def _older_saved_index(self) -> Index:
        """Of the state before the newest, both read and found whole; 0 without them. Blocks."""
        newest = load_newest(self._disk, self._directory, 2**63).snapshot
        if newest is None:
            return Index(0)
        older = load_newest(self._disk, self._directory, newest.index - 1).snapshot
        return Index(0) if older is None else older.index
