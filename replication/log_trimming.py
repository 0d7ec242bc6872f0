"""Keeps the log of a group bounded whose records are no user's: files go once nobody needs them.

For the metadata of a cluster, and for a state machine of a user's own. What is removed is in the
state of every replica, so two things are asked of each file. All members heard of lately have it,
which the leader knows and says by a command: nobody has to be given the whole state for a moment's
absence. And it is before the *older* of this replica's two saved states, so that one damaged state
loses nothing.
"""

import asyncio
from collections.abc import Callable

import structlog

from quorumlog.errors import (
    Closed,
    Corrupt,
    InvariantViolation,
    LogFenced,
    QuorumlogError,
    Unavailable,
)
from quorumlog.log.batch import Draft
from quorumlog.ports import Clock
from quorumlog.replication.replica import Replica
from quorumlog.types import Index

_log = structlog.get_logger()


class LogTrimming:
    """One task (:meth:`run`) per replica."""

    def __init__(
        self,
        *,
        replica: Callable[[], Replica],
        clock: Clock,
        interval_s: float,
        max_lag_s: float,
        trim_draft: Callable[[Index], Draft],
        on_damage: Callable[[Corrupt], object],
        saves_states: bool = False,
    ) -> None:
        """Nothing runs before :meth:`run`.

        Args:
            replica: raises Unavailable while there is none.
            clock: that of the replica's host.
            interval_s: from one turn to the next.
            max_lag_s: a member not heard of for so long is not waited for.
            trim_draft: makes the command that gives the batches through an index free.
            on_damage: hears of a segment that cannot be read.
            saves_states: have a state saved where only that keeps a file from being removed;
                without it files wait for the states that are saved anyway.
        """
        self._replica = replica
        self._clock = clock
        self._interval_s = interval_s
        self._max_lag_s = max_lag_s
        self._trim_draft = trim_draft
        self._on_damage = on_damage
        self._saves_states = saves_states

    async def run(self) -> None:
        """Turn after turn; raises InvariantViolation, which is a bug."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.run_once()
            except (Closed, LogFenced, Unavailable):
                pass  # it closes, or somebody else leads now
            except Corrupt as error:
                self._on_damage(error)
            except InvariantViolation:
                raise
            except (QuorumlogError, OSError) as error:
                _log.warning("trimming_failed", error=str(error))

    async def run_once(self) -> int:
        """Do what is due; how many files were removed.

        Raises:
            Unavailable, Closed, LogFenced, OutcomeUnknown, StorageError.
            Corrupt: the first segment cannot be read.
        """
        replica = self._replica()
        segments, damage = await replica.trimmer.segments_before_damage()
        if isinstance(damage, Corrupt):
            self._on_damage(damage)
        sealed = [each.next_index - 1 for each in segments[:-1]]
        if not sealed:
            return 0
        free_index = replica.state_machine.log_start.free_index
        if replica.serving:
            spare = free_index_of(replica, self._clock.monotonic_s(), self._max_lag_s)
            if any(free_index < last_index <= spare for last_index in sealed):
                await replica.propose(self._trim_draft(spare))
                free_index = replica.state_machine.log_start.free_index
        if sealed[0] > free_index:
            return 0
        saved_index = await replica.trimmer.older_saved_index()
        if sealed[0] > saved_index:
            if self._saves_states:
                # Twice, in two turns: it is the older state that counts.
                await replica.trimmer.save_state()
            return 0
        return await replica.trimmer.remove_deleted(min(free_index, saved_index))


def free_index_of(replica: Replica, now_s: float, max_lag_s: float) -> Index:
    """Through which batch nobody needs the leader's files: all members that were heard of lately
    have it durably, and it is applied here. 0 where this node does not lead."""
    leadership = replica.core.leadership
    if leadership is None:
        return Index(0)
    free_index: int = replica.applied_index
    for peer in replica.core.members.everybody:
        progress = leadership.progress_of(peer)
        if progress is not None and now_s - progress.heard_at <= max_lag_s:
            free_index = min(free_index, progress.match_index)
    return Index(free_index)
