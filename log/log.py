"""The log: an ordered sequence of batches on disk, with its newest part in memory."""

from collections.abc import Iterator, Sequence
from itertools import chain

from quorumlog.errors import InvariantViolation
from quorumlog.log.batch import Batch, BatchHeader
from quorumlog.log.config import LogConfig
from quorumlog.log.flusher import Flushed, Flusher
from quorumlog.log.layout import Layout
from quorumlog.log.reader import Fetched
from quorumlog.log.recovery import RecoveryReport, recover
from quorumlog.log.segment_files import SegmentFiles
from quorumlog.log.state import LogState
from quorumlog.log.state_snapshot import LogOrigin
from quorumlog.log.upkeep import SegmentInfo, Upkeep
from quorumlog.log.view import LogView
from quorumlog.log.writer import SegmentWriter
from quorumlog.ports import Clock, Disk
from quorumlog.types import Index, Offset, Term

__all__ = ["Fetched", "Flushed", "Log", "LogConfig", "RecoveryReport", "SegmentInfo"]


class Log:
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
        self.recovery = recovery
        self._state = state
        self._layout = state.layout
        self._view = view
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

    # The logical state: memory only.

    @property
    def start_index(self) -> Index:
        """Index of the first batch."""
        return self._layout.segments[0].first_index

    @property
    def next_index(self) -> Index:
        """Index of the next batch to be appended."""
        return self._layout.next_index

    @property
    def last_index(self) -> Index:
        """Index of the last batch; ``start_index - 1`` when there is none."""
        return Index(self._layout.next_index - 1)

    @property
    def memory_index(self) -> Index:
        """What stands from here on is in memory: reading it touches no disk."""
        return Index(self._layout.tail.first_index)

    @property
    def last_term(self) -> Term:
        return self._layout.last_term

    @property
    def origin(self) -> LogOrigin:
        """Where the first segment begins, deleted records included, and what comes before it."""
        header = self._layout.segments[0].header
        return LogOrigin(
            header.first_index,
            header.base_offset,
            header.prev_term,
            header.prev_timestamp_ms,
            self.start_offset,
        )

    @property
    def start_offset(self) -> Offset:
        """The first offset that can be read: see ``advance_start``."""
        return self._state.start_offset

    @property
    def end_offset(self) -> Offset:
        """Offset of the next record to be appended."""
        return self._layout.end_offset

    @property
    def active_base_offset(self) -> Offset:
        """Offset of the first record that stands, or will, in the last segment."""
        return self._layout.segments[-1].header.base_offset

    @property
    def last_timestamp_ms(self) -> int:
        return self._layout.last_timestamp_ms

    @property
    def durable_index(self) -> Index:
        """Every batch through this one is as durable as the ``fsync`` setting promises."""
        return self._layout.written_index

    @property
    def commit_floor(self) -> Index:
        """Nothing through this index can be truncated."""
        return self._state.commit_floor

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
    def sync_due_s(self) -> float | None:
        """When, on the monotonic clock, ``flush`` has to be called for an interval sync."""
        return self._flusher.sync_due_s

    @property
    def indexes_rebuilt(self) -> int:
        """Index files that were missing or wrong and have been made again since open."""
        return self._view.indexes_rebuilt

    @property
    def is_fenced(self) -> bool:
        return self._state.fenced_because is not None

    @property
    def is_closed(self) -> bool:
        """Whether nothing is written any more: ``close`` was called, however it ended."""
        return self._state.is_closed

    def check_usable(self) -> None:
        """Raise LogFenced or Closed where the log is that."""
        self._state.check_usable()

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

    # Reading: from memory near the end, from the files otherwise.

    def term_at(self, index: int) -> Term:
        """The term of batch ``index``, or of the one before the log's first.

        Raises:
            IndexOutOfRange: it is not in ``[start_index - 1, last_index]``.
        """
        return self._view.term_at(index)

    def slice(self, first_index: int, max_bytes: int) -> list[Batch]:
        """Whole batches from ``first_index`` on.

        At least one if there is any, otherwise at most ``max_bytes``; may return fewer than fit.
        Headers and bodies that come from disk are checked.

        Raises:
            IndexOutOfRange: it is before the log's start.
            Corrupt: what is on disk is not what was written.
            StorageError: the disk cannot be read.
        """
        return self._view.slice(first_index, max_bytes)

    def fetch(
        self, offset: int, max_bytes: int, end_offset: int, max_records: int | None = None
    ) -> Fetched:
        """The RECORDS batches that hold ``offset`` and what follows, as bytes.

        Only batches with a base offset before ``end_offset`` (the high watermark), at least one
        if ``offset < end_offset``, at most ``max_bytes`` and ``max_records`` otherwise. Batches of
        other kinds are left out: a log of such, or of what was compacted away, gives no ``data``
        and a ``next_offset`` to go on from. Bodies are not checked here: the consumer does that.

        Raises:
            OffsetOutOfRange: below the log's start or above ``end_offset``.
            Corrupt: a header on disk is not what was written.
            StorageError: the disk cannot be read.
        """
        return self._view.fetch(offset, max_bytes, end_offset, max_records)

    def index_of_offset(self, offset: int) -> Index:
        """Index of the batch that holds record ``offset``.

        Raises:
            OffsetOutOfRange: the log has no such record.
            Corrupt: a header on disk is not what was written.
        """
        return self._view.index_of_offset(offset)

    def headers(self, first_index: int) -> Iterator[BatchHeader]:
        """The headers from ``first_index`` to what is now the last batch, read when asked for.

        Raises:
            IndexOutOfRange: it is before the log's start.
            Corrupt: what is on disk is not what was written.
        """
        return self._view.headers(first_index)

    def batches(self, first_index: int) -> Iterator[Batch]:
        """The batches from ``first_index`` to what is now the last one; errors as ``slice``."""
        return chain.from_iterable(self._view.stream(first_index))

    def stream(self, first_index: int) -> Iterator[list[Batch]]:
        """As ``batches``, in lists of about a MiB.

        The segment that is being read stays readable to its end even when it is removed or
        compacted meanwhile; raises IndexOutOfRange where the next one is gone by then.
        """
        return self._view.stream(first_index)

    def batches_before(self, index: int, max_bytes: int) -> list[Batch]:
        """The batches before ``index``, oldest first: for reading from the end backwards.

        At least one if there is any, otherwise about ``max_bytes`` at most; errors as ``slice``.
        """
        return self._view.batches_before(index, max_bytes)

    def offset_for_time(self, timestamp_ms: int, end_offset: int) -> Offset:
        """The first offset whose timestamp is ``timestamp_ms`` or later; ``end_offset`` if none."""
        return self._view.offset_for_time(timestamp_ms, end_offset)

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
