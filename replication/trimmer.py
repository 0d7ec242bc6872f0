"""The start of one replica's log: follows what the state machine decided, and gives space back.

Where a log begins is a matter of its state (:class:`LogStart`), so all replicas agree on it. The
files are each replica's own: segments end elsewhere, and go whole.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from quorumlog.errors import Closed, StorageError
from quorumlog.log.log import Log, SegmentInfo
from quorumlog.ports import Worker
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.saved_state import StateSaver
from quorumlog.replication.state_machine import StateMachine
from quorumlog.types import Index

T = TypeVar("T")


class Trimmer:
    """Owned by a replica. Called in the event loop; what blocks runs on the worker, one at a time.

    Everything but :meth:`follow` is for one caller at a time, and raises LogFenced and Closed once
    the log is that.
    """

    def __init__(
        self,
        *,
        log: Log,
        core: RaftCore,
        state_machine: StateMachine,
        saver: StateSaver,
        worker: Worker,
        wake: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """``wake`` has what waits for the disk flushed soon; ``failed`` hears of a bug."""
        self._log = log
        self._core = core
        self._state_machine = state_machine
        self._saver = saver
        self._worker = worker
        self._wake = wake
        self._failed = failed
        self._work: asyncio.Future[Any] | None = None
        self._closed = False

    def follow(self) -> None:
        """Let the log begin where the state says, which has been committed. Durable with the next
        flush; where that never comes the state says it again.

        Raises what :meth:`Log.advance_start` and :meth:`Log.roll` raise.
        """
        log, offset = self._log, self._state_machine.log_start.offset
        log.advance_start(offset)
        if log.active_base_offset < log.end_offset <= offset:
            # At once: what is appended from now on, such as the command that gives these batches
            # free, must not keep their file.
            self.roll()

    async def segments_before_damage(self) -> tuple[list[SegmentInfo], StorageError | None]:
        """See :meth:`quorumlog.log.upkeep.Upkeep.segments_before_damage`."""
        return await self._run(self._log.upkeep.segments_before_damage)

    async def older_saved_index(self) -> Index:
        """See :meth:`StateSaver.find_older_index`."""
        return await self._run(self._saver.find_older_index)

    async def save_state(self) -> None:
        """Save what is applied; return when that is done, or the disk refused."""
        await self._saver.save_now(self._failed)

    def roll(self) -> None:
        """Seal the last segment, where it holds anything, with a flush that comes soon."""
        if self._log.roll():
            self._wake()

    async def remove_deleted(self, through_index: int) -> int:
        """Remove segments with nothing but deleted records, through ``through_index`` at most.

        Never what others may need (``LogStart.free_index``), nor a configuration that stands in no
        saved state: one is saved before it, and where that fails its segment stays.

        Returns:
            How many segments were removed.

        Raises:
            StorageError: the disk refused; a later call removes the rest.
        """
        if self._saver.unsaved_configuration is not None:
            await self._saver.save_now(self._failed)
        # A segment may be on disk before the core has heard of it, and ask for the batch where its
        # own knowledge ends.
        through_index = min(
            through_index, self._state_machine.log_start.free_index, self._core.durable_index
        )
        unsaved = self._saver.unsaved_configuration
        if unsaved is not None:
            through_index = min(through_index, unsaved - 1)
        return await self._run(partial(self._log.remove_deleted, through_index))

    async def close(self) -> None:
        """Wait for what is under way and begin nothing any more: the log is to be closed."""
        self._closed = True
        if self._work is not None:
            await asyncio.wait([self._work])

    async def _run(self, function: Callable[[], T]) -> T:
        if self._closed:
            raise Closed("this replica is closed")
        self._work = work = asyncio.ensure_future(self._worker.run(function))
        # It goes on where the caller is cancelled: close() waits for it.
        return await asyncio.shield(work)
