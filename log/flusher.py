"""Performs a log's pending disk work: one flush covers all that was pending when it began."""

import sys
from collections.abc import Callable
from threading import Lock

from quorumlog.errors import DiskFull, QuorumlogError
from quorumlog.log.config import FSYNC_ALWAYS, FSYNC_INTERVAL
from quorumlog.log.disk_errors import SyncFailed, is_full, is_interruption
from quorumlog.log.fast_dataclass import fast_dataclass
from quorumlog.log.pending import Limits, RemakeWork, RollWork, TruncateWork
from quorumlog.log.segment_files import SegmentFiles
from quorumlog.log.state import LogState
from quorumlog.log.writer import SegmentWriter
from quorumlog.types import Index, Term


@fast_dataclass(frozen=True, slots=True)
class Flushed:
    """How far the log is as durable as its ``fsync`` setting promises."""

    last_index: Index
    last_term: Term


class Flusher:
    """The only one that writes. Its calls block; one runs at a time.

    A flush that an exception of a signal handler (Ctrl-C) ended, is gone on with by the next one.

    ``sync_due_s`` is when, on the monotonic clock, an interval sync is due; None: never.
    """

    def __init__(self, state: LogState, writer: SegmentWriter, files: SegmentFiles) -> None:
        self._state = state
        self._writer = writer
        self._files = files
        self._lock = Lock()
        self._reach = Flushed(state.layout.written_index, state.layout.last_term)
        self.sync_due_s: float | None = None

    def truncated(self, last_index: Index, last_term: Term) -> None:
        """The log was cut behind ``last_index``: a flush under way reaches no further.

        The caller holds the state's lock.
        """
        if last_index < self._reach.last_index:
            self._reach = Flushed(last_index, last_term)

    def flush(self, *, sync: bool = False) -> Flushed:
        """See :meth:`quorumlog.log.log.Log.flush`; with ``sync`` whatever the policy says."""
        with self._lock:
            with self._state.lock:
                self._state.check_usable()
                limits = self._take_work()
            self._guarded(lambda: self._perform(limits, sync))
            with self._state.lock:
                self._state.layout.written(self._reach.last_index)
                return self._reach

    def abandon(self) -> None:
        """See :meth:`quorumlog.log.log.Log.abandon`."""
        with self._lock:
            with self._state.lock:
                if self._state.is_closed:
                    return
                self._state.is_closed = True
            try:
                self._writer.abandon()
            finally:
                self._files.close()

    def close(self) -> None:
        """See :meth:`quorumlog.log.log.Log.close`."""
        with self._lock:
            with self._state.lock:
                if self._state.is_closed:
                    return
                self._state.is_closed = True
                limits = self._take_work()
            try:
                if self._state.fenced_because is not None:
                    self._writer.abandon()
                else:
                    self._guarded(lambda: self._finish(limits))
            finally:
                self._files.close()

    @property
    def is_start_durable(self) -> bool:
        """Whether the start offset of the log is on disk."""
        return self._writer.durable_start == self._state.start_offset

    @property
    def owes_sync(self) -> bool:
        """Whether the next flush has to sync what earlier ones wrote, however much that is."""
        if self._writer.is_synced:
            return False
        due_s = self.sync_due_s
        is_due = due_s is not None and self._state.clock.monotonic_s() >= due_s
        return is_due or self._state.config.fsync == FSYNC_ALWAYS

    def _take_work(self) -> Limits:
        layout = self._state.layout
        self._reach = Flushed(Index(layout.next_index - 1), layout.last_term)
        layout.take_work()
        return Limits(self._state.commit_floor, self._state.start_offset)

    def _finish(self, limits: Limits) -> None:
        try:
            self._perform(limits, sync=True)
        except BaseException:
            self._writer.abandon()
            raise
        self._writer.finish(limits, self._state.layout.segments[-1].index)

    def _perform(self, limits: Limits, sync: bool) -> None:
        """Do the work that was taken. Then sync if the policy or ``sync`` say so.

        On a full disk that goes for what was done: it does not wait for space with the rest.
        """
        try:
            self._do(limits)
        except OSError as error:
            if is_full(error):
                self._sync_if_due(limits, sync)
            raise
        self._sync_if_due(limits, sync)
        if self._writer.durable_start != limits.start_offset:
            self._writer.sync_mark(limits)

    def _do(self, limits: Limits) -> None:
        work = self._state.layout.taken
        while work:
            each = work[0]
            # It is when the flush before was interrupted right behind it.
            if each is not self._writer.done:
                self._writer.perform(each, limits)
            if isinstance(each, RollWork):
                self._release_index(each)
            elif isinstance(each, TruncateWork):
                for segment in (each.segment, *each.removed):
                    self._files.forget(segment.path)
            elif isinstance(each, RemakeWork):
                self._files.forget(each.segment.path)
            del work[0]

    def _sync_if_due(self, limits: Limits, sync: bool) -> None:
        if self._writer.is_synced:
            self.sync_due_s = None
        elif sync or self._is_sync_due():
            self._writer.sync(limits)
            self.sync_due_s = None

    def _is_sync_due(self) -> bool:
        config = self._state.config
        if config.fsync != FSYNC_INTERVAL:
            return config.fsync == FSYNC_ALWAYS
        now_s = self._state.clock.monotonic_s()
        if self.sync_due_s is None:
            self.sync_due_s = now_s + config.fsync_interval_s
        return now_s >= self.sync_due_s

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run ``action``, and turn what the disk says into DiskFull or a fence.

        An exception of a signal handler leaves the work taken, for the next flush; unless it came
        while an error of the disk was dealt with, for then what is on disk is not known.
        """
        outer = sys.exception()
        try:
            action()
        except OSError as error:
            if is_interruption(error):
                self._fence_if_disk_failed(error, outer)
                raise
            if not is_full(error):
                raise self._state.fence(f"a write failed: {error}") from error
            with self._state.lock:
                self._state.layout.give_back(self._writer.next_index)
            # What was appended stays in memory, and is written by a flush that has the space.
            raise DiskFull(f"{self._state.directory}: no space left on the disk") from error
        except SyncFailed as error:
            raise self._state.fence(f"an fdatasync failed: {error}") from error
        except QuorumlogError as error:
            self._state.fence(f"a flush was interrupted: {error!r}")
            raise
        except BaseException as error:
            self._fence_if_disk_failed(error, outer)
            raise

    def _fence_if_disk_failed(self, error: BaseException, outer: BaseException | None) -> None:
        """Fence if ``error`` came while one of the disk was handled; ``outer`` was there before."""
        before = error.__context__
        while before is not None and before is not outer:
            if isinstance(before, SyncFailed | OSError) and not (
                isinstance(before, OSError) and is_interruption(before)
            ):
                self._state.fence(f"a flush was interrupted after an error: {before!r}")
                return
            before = before.__context__

    def _release_index(self, work: RollWork) -> None:
        """From now on the sealed segment's index is loaded from its file when it is needed."""
        with self._state.lock:
            sealed = work.sealed
            if sealed.index is work.index and sealed is not self._state.layout.segments[-1]:
                sealed.index = None
                sealed.is_sealed = True
