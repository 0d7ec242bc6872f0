"""The log: an ordered sequence of batches on disk, with its newest part in memory."""

from collections.abc import Sequence

from quorumlog.errors import InvariantViolation
from quorumlog.log.batch import Batch
from quorumlog.log.config import LogConfig
from quorumlog.log.flusher import Flushed, Flusher
from quorumlog.log.layout import Layout
from quorumlog.log.readable import ReadableLog
from quorumlog.log.reader import Fetched
from quorumlog.log.recovery import RecoveryReport, recover
from quorumlog.log.segment_files import SegmentFiles
from quorumlog.log.state import LogState
from quorumlog.log.upkeep import SegmentInfo, Upkeep
from quorumlog.log.view import LogView
from quorumlog.log.writer import SegmentWriter
from quorumlog.ports import Clock, Disk
from quorumlog.types import Index, Offset

__all__ = ["Fetched", "Flushed", "Log", "LogConfig", "RecoveryReport", "SegmentInfo"]


class Log(ReadableLog):
    """One log directory, open for reading and writing.

    The *owner*, one thread at a time, calls ``append``, ``truncate`` and ``advance_commit_floor``:
    they change the logical state in memory and return at once. ``flush`` and ``close`` do the disk
    work and block; they may run on another thread meanwhile. Reads may come from any thread; a
    thread other than the owner reads only what is never truncated (below the commit floor, or a
    log whose owner does not truncate). Nobody holds a lock while the disk is busy.

    After a failed fdatasync, or a write error other than a full disk, the log is *fenced*: every
    call but the properties, ``term_at`` of what is in memory and ``close`` raises LogFenced.

    The directory is not locked here: whoever owns several logs locks the directory above them.
    """

    def __init__(
        self,
        state: LogState,
        view: LogView,
        flusher: Flusher,
        upkeep: Upkeep,
        recovery: RecoveryReport,
    ) -> None:
        """Use :meth:`open`. ``recovery`` says what it found and did.

        ``upkeep`` is what compaction works with.
        """
        super().__init__(state, view)
        self.recovery = recovery
        self._flusher = flusher
        self.upkeep = upkeep

    @staticmethod
    def open(disk: Disk, directory: str, config: LogConfig, clock: Clock) -> "Log":
        """Open the log in ``directory``, which is made when missing.

        Blocks. After a clean stop it reads as little of a large log as of a small one, beside the
        names of its files; after a crash the last segment is read too. What the log then holds is
        durable. Rot in older segments is found when they are read.

        Raises:
            Corrupt: what may have been acknowledged is damaged. Nothing was changed.
            UnusableDirectory: it cannot be made, read or written.
            KeyMissing, WrongKey: ``config.keys`` does not fit the last segment. (For older ones
                that is found when they are read.)
            ConfigError: there are keys, and the library that encrypts is not installed.
            OSError: another error of the disk.
        """
        files = SegmentFiles(
            disk, config.max_open_segments, config.index_interval_bytes, config.keys
        )
        try:
            found = recover(disk, directory, config, clock, files)
        except BaseException:
            files.close()
            raise
        layout = Layout(directory, config, found.segments, found.last)
        state = LogState(directory, config, clock, layout, found.commit_floor, found.start_offset)
        writer = SegmentWriter(disk, found, config)
        flusher = Flusher(state, writer, files)
        upkeep = Upkeep(disk, state, files)
        return Log(state, LogView(state, files), flusher, upkeep, found.report)

    # What waits for the disk.

    @property
    def unflushed_bytes(self) -> int:
        """Bytes of the batches that are not written to a file yet."""
        with self._state.lock:
            return self._layout.unwritten_bytes

    @property
    def dirty(self) -> bool:
        """Whether ``flush`` has something to do now."""
        due_s = self._flusher.sync_due_s
        return (
            self._layout.has_work
            # The disk was full after the batches were written: that flush has not said so yet.
            or self._layout.written_index < self._layout.next_index - 1
            or not self._flusher.is_start_durable
            or (due_s is not None and self._state.clock.monotonic_s() >= due_s)
        )

    @property
    def is_flush_small(self) -> bool:
        """Whether ``flush`` has one batch of at most 32 KiB to write, and no more to sync."""
        return (
            self._layout.is_work_small
            and self._flusher.is_start_durable
            and not self._flusher.owes_sync
        )

    @property
    def sync_due_s(self) -> float | None:
        """When, on the monotonic clock, ``flush`` has to be called for an interval sync."""
        return self._flusher.sync_due_s

    # The logical state: memory only.

    def append(self, batches: Sequence[Batch]) -> None:
        """Append ``batches``; they are durable when a later ``flush`` returns.

        The buffers in them are kept and must not change.

        Raises:
            InvariantViolation: one does not continue the log (index, base offset; term and
                timestamp never decrease). Nothing was changed.
            LogFenced, Closed
        """
        with self._state.lock:
            self._state.check_usable()
            self._layout.append(batches, self._state.clock.wall_ms())

    def truncate(self, from_index: int) -> None:
        """Drop the batches from ``from_index`` on; durable when a later ``flush`` returns.

        Behind the end it does nothing. Reads headers from disk when the place is not in memory.

        Raises:
            InvariantViolation: ``from_index`` is at or below the commit floor, or before the log.
            LogFenced, Closed, Corrupt
        """
        self._state.check_usable()
        if from_index >= self.next_index:
            return
        if from_index <= self.commit_floor or from_index < self.start_index:
            raise InvariantViolation(
                f"{self._state.directory}: to truncate from {from_index}, but everything through "
                f"{self.commit_floor} is committed and the log starts at {self.start_index}"
            )
        before = self._view.preceding_header(from_index)
        position, index = self._view.place_of(from_index)
        with self._state.lock:
            self._state.check_usable()
            self._layout.truncate(before, position, index)
            self._flusher.truncated(before.index, before.term)
        self._view.forget_hints()

    def advance_commit_floor(self, index: int) -> None:
        """Everything through ``index`` is committed: it is never truncated.

        Goes to disk with the next flush that has something to write, and counts after a restart
        as far as it got there. A lower index than before does nothing.

        Raises:
            InvariantViolation: the log does not hold ``index``.
        """
        if index > self.last_index:
            raise InvariantViolation(
                f"{self._state.directory}: {index} is said to be committed, "
                f"but the last is {self.last_index}"
            )
        self._state.commit_floor = Index(max(self.commit_floor, index))

    def roll(self) -> bool:
        """Seal the last segment with the next flush, and append to a new one from now on.

        Returns:
            False, and nothing is done, when the last segment holds nothing yet.

        Raises:
            LogFenced, Closed
        """
        with self._state.lock:
            self._state.check_usable()
            return self._layout.roll(self._state.clock.wall_ms())

    def advance_start(self, offset: int) -> None:
        """Delete every record before ``offset``: it cannot be read from now on.

        Durable when a later ``flush`` returns; ``remove_deleted`` gives the space back. A lower
        offset than before does nothing.

        Raises:
            InvariantViolation: ``offset`` is behind what is committed (``commit_floor``).
            LogFenced, Closed
        """
        self._state.check_usable()
        if offset <= self.start_offset:
            return
        committed = self._view.committed_offset()
        if offset > committed:
            raise InvariantViolation(
                f"{self._state.directory}: to delete before {offset}, "
                f"but only what is before {committed} is committed"
            )
        with self._state.lock:
            self._state.start_offset = Offset(max(offset, self._state.start_offset))

    # Disk work: blocking.

    def flush(self) -> Flushed:
        """Do the pending disk work, at least all there is now, in order; returns after fdatasync.

        (With ``fsync`` other than ``always``: after the write, and fdatasync when it is due.)

        Returns:
            The last index that is durable *and* still in the log, and its term.

        Raises:
            DiskFull: nothing is lost, the work stays pending; call again when there is space.
            LogFenced: see the class. What was not flushed before may be on disk or not.
            Closed
        """
        return self._flusher.flush()

    def sync(self) -> Flushed:
        """As ``flush``, and fdatasync whatever the ``fsync`` setting says."""
        return self._flusher.flush(sync=True)

    # Upkeep: blocking, from any thread.

    def segments(self) -> list[SegmentInfo]:
        """All segments, oldest first; the headers of those not known yet are read.

        Raises:
            Corrupt, StorageError, LogFenced, Closed
        """
        return self.upkeep.segments()

    def remove_deleted(self, through_index: int | None = None) -> int:
        """Remove the segments that hold only deleted records (``advance_start``), durably.

        With ``through_index`` only those without a batch behind that one.

        Never the last one: ``roll`` and flush before; nor one with a batch that is not committed.
        Readers that are in a segment read on.

        Returns:
            How many segments were removed.

        Raises:
            StorageError: the disk refused; the rest is removed by the next call.
        """
        return self.upkeep.remove_deleted(through_index)

    def close(self) -> None:
        """Flush, give back preallocated space and close. A second call does nothing.

        Raises:
            DiskFull, LogFenced: as ``flush``; the log is closed all the same.
        """
        self._flusher.close()

    def abandon(self) -> None:
        """Close and write nothing more, as if the process had died; once it is closed, nothing."""
        self._flusher.abandon()
