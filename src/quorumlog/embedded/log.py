"""The log of ``quorumlog.open``: for any number of threads of one process."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING

from quorumlog.embedded.background import HousekeepingThread, Stop, Syncer
from quorumlog.embedded.commit import GroupCommit
from quorumlog.embedded.opening import lock_directory
from quorumlog.embedded.options import Options
from quorumlog.embedded.reading import Cursor, backward
from quorumlog.embedded.upkeep import delete_before, housekeeper_of
from quorumlog.embedded.values import Drafter, Value
from quorumlog.errors import Closed, InvalidArgument, OffsetOutOfRange
from quorumlog.log.cleaning.housekeeping import HousekeepingReport
from quorumlog.log.config import FSYNC_INTERVAL, LogConfig
from quorumlog.log.inspection.damage import Finding
from quorumlog.log.log import Log
from quorumlog.log.recovery import RecoveryReport
from quorumlog.ports import Clock, Disk
from quorumlog.types import Offset, Record, RecordData

if TYPE_CHECKING:
    from quorumlog.embedded.scrubbing import ScrubThread


class EmbeddedLog:
    """A log for any number of threads; the methods block.

    Appends of several threads share one fdatasync. Readers see a record once it is as durable as
    ``fsync`` promises. After an fdatasync failed everything raises LogFenced: open it again.

    An exception that a signal handler raises (Ctrl-C) in the middle of ``append`` leaves open
    whether the record is in the log; if it is, the next append, ``flush`` or ``close`` makes it
    durable. Everything else is as before.

    A process forked from this one cannot use the log: it opens its own after this one closed it.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        config: LogConfig,
        clock: Clock,
        options: Options | None = None,
        process_id: Callable[[], int] = lambda: 0,
    ) -> None:
        """See :func:`quorumlog.open`; ``process_id`` is os.getpid or the like."""
        options = options or Options()
        self._directory = directory
        self._process_id = process_id
        self._opened_by = process_id()
        self._drafter = Drafter(options.compression, options.compression_level)
        self._directory_lock = lock_directory(disk, directory, self._opened_by)
        try:
            self._log = Log.open(disk, directory, config, clock)
        except BaseException:
            self._directory_lock.release()
            raise
        self._is_closed = False
        self._stop = Stop()
        self._commits = GroupCommit(self._log, clock, self._written)
        self._syncer: Syncer | None = None
        if config.fsync == FSYNC_INTERVAL:
            self._syncer = Syncer(self.flush, config.fsync_interval_s)
        self._housekeeper = housekeeper_of(
            self._log, self._commits, disk, directory, config, options, clock, self._stop
        )
        self._housekeeping_mutex = Lock()
        self.last_housekeeping: HousekeepingReport | None = None
        """What the last turn of deletion and compaction did; look at its ``errors``."""
        self._housekeeping: HousekeepingThread | None = None
        if options.retention is not None or options.compaction is not None:
            self._housekeeping = HousekeepingThread(
                self.housekeep, options.housekeeping_interval_s, self._stop
            )
        self._scrubbing: ScrubThread | None = None
        if options.scrub_bytes_s is not None:
            from quorumlog.embedded import scrubbing

            self._scrubbing = scrubbing.ScrubThread(
                self._log, disk, clock, self._stop, options.scrub_bytes_s
            )

    @property
    def start_offset(self) -> Offset:
        """The first offset that can be read."""
        return self._log.start_offset

    @property
    def end_offset(self) -> Offset:
        """The first offset that cannot be read yet."""
        return self._commits.durable_end

    @property
    def recovery(self) -> RecoveryReport:
        """What opening found, and cut."""
        return self._log.recovery

    @property
    def scrub_findings(self) -> tuple[Finding, ...]:
        """The damage that was found with ``scrub_bytes_s``: the newest 1000, oldest first.

        Each is reported once, also as the event ``rot_found``. Can be read after ``close``, too.
        """
        return () if self._scrubbing is None else self._scrubbing.findings

    @property
    def commits(self) -> GroupCommit:
        """How this log appends; for :mod:`quorumlog.embedded.aio`."""
        return self._commits

    @property
    def drafter(self) -> Drafter:
        """How this log encodes; for :mod:`quorumlog.embedded.aio`."""
        return self._drafter

    @property
    def source(self) -> Log:
        """What this log reads from; for :mod:`quorumlog.embedded.aio`."""
        return self._log

    def append(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
    ) -> Offset:
        """Append one record and return its offset, once it is durable (see ``fsync``).

        Raises:
            InvalidArgument: a wrong type, or over the limit (RecordTooLarge). Nothing was changed.
            DiskFull: nothing was appended; goes on when there is space.
            LogFenced: an fdatasync failed; the record may or may not be there after the next open.
            Closed
        """
        self.check_open()
        draft = self._drafter.of_record(RecordData(value, key, headers))
        return self._commits.commit(self._commits.submit(draft))

    def append_batch(self, records: Iterable[Value]) -> Offset:
        """Append ``records`` as one atomic batch and return the first offset; errors as ``append``.

        After a crash all of them are there or none.

        Raises:
            InvalidArgument: also when there are none, or they are over 4 MiB together.
        """
        self.check_open()
        return self._commits.commit(self._commits.submit(self._drafter.of_values(records)))

    def read(
        self,
        start: int | None = None,
        *,
        end: int | None = None,
        follow: bool = False,
        reverse: bool = False,
    ) -> Iterator[Record]:
        """The records of ``[start, end)`` in order, up to the end of the log at least as it is now.

        Offsets are missing where records were compacted away. What is deleted or compacted while
        it is read stays readable to the end of its segment.

        Args:
            start: None: the first record there is.
            end: None: the end of the log; it may lie behind that.
            follow: wait for records to come; ends at ``end`` or when the log is closed.
            reverse: the newest first.

        Raises:
            OffsetOutOfRange: ``start`` is not in the log and not its end (at once, not when read);
                later: what comes next was deleted meanwhile.
            InvalidArgument: ``follow`` and ``reverse`` together.
            Corrupt: what is on disk is not what was written.
        """
        self.check_open()
        start = self.check_range(start, follow, reverse)
        if reverse:
            newest = self.end_offset
            return backward(self._log, start, newest if end is None else min(end, newest))
        return self._read(Cursor(self._log, start), end, follow)

    def offset_for_time(self, timestamp_ms: int) -> Offset:
        """The first offset whose timestamp is ``timestamp_ms`` or later, or ``end_offset``."""
        self.check_open()
        return self._log.offset_for_time(timestamp_ms, self.end_offset)

    def flush(self) -> None:
        """Return when everything appended before is durable (with ``always`` it is already).

        With ``never``, and with ``interval`` before the time, this calls fdatasync too.

        Raises:
            DiskFull, LogFenced, Closed
        """
        self.check_open()
        self._commits.sync()

    def delete_before(self, offset: int) -> int:
        """Delete every record before ``offset``, durably; returns how many segments were removed.

        Space comes back by whole segments; what is deleted cannot be read from now on in any case.
        Up to ``start_offset`` it does nothing.

        Raises:
            OffsetOutOfRange: ``offset`` is behind ``end_offset``.
            StorageError: a file cannot be removed; the next call goes on.
            DiskFull, LogFenced, Closed
        """
        self.check_open()
        if offset > self.end_offset:
            raise OffsetOutOfRange(offset, self.start_offset, self.end_offset)
        with self._housekeeping_mutex:
            return delete_before(self._log, self._commits, offset)

    def housekeep(self) -> HousekeepingReport:
        """Delete and compact now, as ``retention`` and ``compaction`` say; blocks until it is done.

        Raises:
            LogFenced, Closed: every other error stands in the report.
        """
        self.check_open()
        with self._housekeeping_mutex:
            report = self._housekeeper.run_once()
        self.last_housekeeping = report
        return report

    def close(self) -> None:
        """Make everything durable and close; following readers end. A second call does nothing.

        Raises:
            DiskFull, LogFenced: as ``flush``; it is closed all the same.
        """
        commits = self._commits
        if self._process_id() != self._opened_by:
            self._directory_lock.release()
            return
        with commits.mutex:
            if self._is_closed:
                return
            self._is_closed = True
            commits.grown.notify_all()
        try:
            self._stop.set()
            if self._syncer is not None:
                self._syncer.stop()
            if self._housekeeping is not None:
                self._housekeeping.join()
            if self._scrubbing is not None:
                self._scrubbing.join()
            # A turn that another thread is in ends first: it may be removing files.
            with self._housekeeping_mutex, commits.flush_mutex:
                self._log.close()
        finally:
            self._directory_lock.release()

    def __enter__(self) -> "EmbeddedLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def check_open(self) -> None:
        """Raise Closed unless this log is open, and in this process."""
        if self._is_closed:
            raise Closed(f"{self._directory}: the log is closed")
        if self._process_id() != self._opened_by:
            raise Closed(
                f"{self._directory} was opened by process {self._opened_by}, of which this one is "
                "a fork: close it there, or open it after the fork"
            )

    def check_range(self, start: int | None, follow: bool, reverse: bool) -> int:
        """Where a read begins; raises what ``read`` does."""
        if follow and reverse:
            raise InvalidArgument("a read follows the log or goes backwards, not both")
        first, next_offset = self.start_offset, self.end_offset
        if start is None:
            return first
        if not first <= start <= next_offset:
            raise OffsetOutOfRange(start, first, next_offset)
        return start

    def _read(self, cursor: Cursor, end: int | None, follow: bool) -> Iterator[Record]:
        while end is None or cursor.offset < end:
            limit = self.end_offset
            if cursor.offset >= limit:
                if not follow or not self._wait_beyond(cursor.offset):
                    return
                continue
            try:
                yield from cursor.records(limit if end is None else min(limit, end))
            except Closed:
                if follow:
                    return
                raise

    def _wait_beyond(self, offset: int) -> bool:
        """Wait until ``offset`` can be read; False when the log was closed first."""
        self._commits.wait_beyond(offset, lambda: self._is_closed)
        return not self._is_closed

    def _written(self) -> None:
        if self._syncer is not None:
            self._syncer.written()
