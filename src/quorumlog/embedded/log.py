"""The log of ``quorumlog.open``: for any number of threads of one process."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from quorumlog.embedded.arguments import whole
from quorumlog.embedded.background import HousekeepingThread, Stop, Syncer
from quorumlog.embedded.commit import GroupCommit
from quorumlog.embedded.opening import lock_directory, unusable
from quorumlog.embedded.options import Options
from quorumlog.embedded.reading import Cursor, backward, checked_range
from quorumlog.embedded.upkeep import delete_before, housekeeper_of
from quorumlog.embedded.values import Drafter, Value
from quorumlog.errors import Closed, OffsetOutOfRange
from quorumlog.log.batch import Draft
from quorumlog.log.cleaning.housekeeping import HousekeepingReport
from quorumlog.log.config import FSYNC_INTERVAL, LogConfig
from quorumlog.log.disk_errors import is_interruption
from quorumlog.log.inspection.damage import Finding
from quorumlog.log.log import Log
from quorumlog.log.recovery import RecoveryReport
from quorumlog.ports import Clock, Disk
from quorumlog.types import Offset, Record, RecordData

if TYPE_CHECKING:
    from quorumlog.embedded.scrubbing import ScrubThread

T = TypeVar("T")


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
        self._is_closed = False
        self._closing = Lock()
        """Held while the log is closed; the directory is free when it is given back."""
        self._stop = Stop()
        self._syncer: Syncer | None = None
        self._housekeeping: HousekeepingThread | None = None
        self._housekeeping_mutex = Lock()
        self._deletion_mutex = Lock()
        """Not the one before: a compaction may hold that for hours."""
        self._scrubbing: ScrubThread | None = None
        self.last_housekeeping: HousekeepingReport | None = None
        """What the last turn of deletion and compaction did; look at its ``errors``."""
        self.on_fenced: Callable[[], None] = _nothing
        """Called, on any thread, when a call found that the log is fenced."""
        try:
            self._log = Log.open(disk, directory, config, clock)
        except BaseException as error:
            self._directory_lock.release()
            if isinstance(error, OSError) and not is_interruption(error):
                raise unusable(directory, error) from error
            raise
        try:
            self._commits = GroupCommit(self._log, clock, self._written)
            self._housekeeper = housekeeper_of(
                self._log, self._commits, disk, directory, config, options, clock, self._stop
            )
            self._start_threads(disk, config, clock, options)
        except BaseException:
            # No thread to be had, Ctrl-C: nobody will have this object to close it.
            self._end_threads()
            self._log.close()
            self._directory_lock.release()
            raise

    def _start_threads(self, disk: Disk, config: LogConfig, clock: Clock, options: Options) -> None:
        if config.fsync == FSYNC_INTERVAL:
            self._syncer = Syncer(self.flush, config.fsync_interval_s)
        if options.retention is not None or options.compaction is not None:
            self._housekeeping = HousekeepingThread(
                self.housekeep, options.housekeeping_interval_s, self._stop
            )
        if options.scrub_bytes_s is not None:
            from quorumlog.embedded import scrubbing

            self._scrubbing = scrubbing.ScrubThread(
                self._log, disk, clock, self._stop, options.scrub_bytes_s
            )

    def _end_threads(self) -> None:
        """Wait until none of them works. Can be done again."""
        self._stop.set()
        if self._syncer is not None:
            self._syncer.stop()
        if self._housekeeping is not None:
            self._housekeeping.join()
        if self._scrubbing is not None:
            self._scrubbing.join()

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
    def housekeeping_failure(self) -> Exception | None:
        """What kept the last turn of the housekeeping thread from coming to its end; None: nothing.

        Also the event ``housekeeping_failed``, or ``housekeeping_ended`` where no other turn
        follows. A part of a turn that failed stands in ``last_housekeeping.errors`` instead.
        """
        return None if self._housekeeping is None else self._housekeeping.failure

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
        expected_end: int | None = None,
    ) -> Offset:
        """Append one record and return its offset, once it is durable (see ``fsync``).

        With ``expected_end`` only where the log ends there, so that the record gets that offset;
        what other threads append at the moment counts.

        Raises:
            WrongExpectedOffset: it ends elsewhere. Nothing was changed.
            InvalidArgument: a wrong type, or over the limit (RecordTooLarge). Nothing was changed.
            DiskFull: nothing was appended; goes on when there is space.
            LogFenced: an fdatasync failed; the record may or may not be there after the next open.
            Closed
        """
        self.check_open()
        draft = self._drafter.of_record(RecordData(value, key, headers))
        return self._append(draft, expected_end)

    def append_batch(self, records: Iterable[Value], expected_end: int | None = None) -> Offset:
        """Append ``records`` as one atomic batch and return the first offset; errors as ``append``.

        After a crash all of them are there or none.

        Raises:
            InvalidArgument: also when there are none, or they are over 4 MiB together.
        """
        self.check_open()
        return self._append(self._drafter.of_values(records), expected_end)

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
            InvalidArgument: ``follow`` and ``reverse`` together, or what is no whole number.
            LogFenced: also where it waits for records to come.
            Corrupt: what is on disk is not what was written.
        """
        self.check_open()
        log_range = self.start_offset, self.end_offset
        begin, stop = checked_range(start, end, log_range, follow=follow, reverse=reverse)
        if reverse and stop is not None:
            return backward(self._log, begin, stop)
        return self._read(Cursor(self._log, begin), stop, follow)

    def offset_for_time(self, timestamp_ms: int) -> Offset:
        """The first offset whose timestamp is ``timestamp_ms`` or later, or ``end_offset``."""
        self.check_open()
        return self._log.offset_for_time(whole("timestamp_ms", timestamp_ms), self.end_offset)

    def flush(self) -> None:
        """Return when everything appended before is durable (with ``always`` it is already).

        With ``never``, and with ``interval`` before the time, this calls fdatasync too.

        Raises:
            DiskFull, LogFenced, Closed
        """
        self.check_open()
        self._waking(self._commits.sync)

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
        begin = whole("offset", offset)
        if begin > self.end_offset:
            raise OffsetOutOfRange(begin, self.start_offset, self.end_offset)
        with self._deletion_mutex:
            return self._waking(lambda: delete_before(self._log, self._commits, begin))

    def housekeep(self) -> HousekeepingReport:
        """Delete and compact now, as ``retention`` and ``compaction`` say; blocks until it is done.

        Raises:
            LogFenced, Closed: every other error stands in the report.
        """
        self.check_open()
        with self._housekeeping_mutex:
            report = self._waking(self._housekeeper.run_once)
        self.last_housekeeping = report
        return report

    def close(self) -> None:
        """Make everything durable and close; following readers end.

        Waits for what other threads are in the middle of: a flush, deletion, compaction. A second
        call does nothing, once the first is over. Ctrl-C while it waits leaves the directory
        locked, for others are at work in it: call it again.

        Raises:
            DiskFull, LogFenced: as ``flush``; it is closed all the same.
        """
        commits = self._commits
        if self._process_id() != self._opened_by:
            self._directory_lock.release()
            return
        with commits.mutex:
            self._is_closed = True
            commits.grown.notify_all()
        with self._closing:
            self._end_threads()
            # A turn that another thread is in ends first: it may be removing files.
            with self._housekeeping_mutex, self._deletion_mutex, commits.flush_mutex:
                try:
                    self._log.close()
                finally:
                    if self._log.is_closed:
                        self._directory_lock.release()

    def __enter__(self) -> "EmbeddedLog":
        self.check_open()
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
        self._check_process()

    def _check_process(self) -> None:
        if self._process_id() != self._opened_by:
            raise Closed(
                f"{self._directory} was opened by process {self._opened_by}, of which this one is "
                "a fork: close it there, or open it after the fork"
            )

    def _append(self, draft: Draft, expected_end: int | None) -> Offset:
        commits = self._commits
        try:
            return commits.commit(commits.submit(draft, expected_end))
        except BaseException:
            self._wake_if_fenced()
            raise

    def _waking(self, call: Callable[[], T]) -> T:
        """``call()``; where that fences the log, who waits for records is told."""
        try:
            return call()
        except BaseException:
            self._wake_if_fenced()
            raise

    def _wake_if_fenced(self) -> None:
        if self._log.is_fenced:
            with self._commits.mutex:
                self._commits.grown.notify_all()
            self.on_fenced()

    def _read(self, cursor: Cursor, end: int | None, follow: bool) -> Iterator[Record]:
        while end is None or cursor.offset < end:
            self._check_process()
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
        """Wait until ``offset`` can be read; False when the log was closed first.

        Raises:
            LogFenced: it was fenced first.
        """
        self._commits.wait_beyond(offset, lambda: self._is_closed or self._log.is_fenced)
        if self._is_closed:
            return False
        self._log.check_usable()
        return True

    def _written(self) -> None:
        if self._syncer is not None:
            self._syncer.written()


def _nothing() -> None:
    """What is called where nobody listens."""
