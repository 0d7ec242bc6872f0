"""A log in the caller's own process: no server, no event loop. ``quorumlog.open`` leads here."""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Condition, Event, Lock, Thread
from types import TracebackType

from quorumlog.errors import (
    Closed,
    DiskFull,
    InvalidArgument,
    LogLocked,
    OffsetOutOfRange,
    QuorumlogError,
    UnusableDirectory,
)
from quorumlog.log.batch import Batch, Draft
from quorumlog.log.config import DEFAULT_SEGMENT_BYTES, FSYNC_ALWAYS, FSYNC_INTERVAL, LogConfig
from quorumlog.log.log import Log
from quorumlog.log.records import decode_records, encode_body
from quorumlog.log.recovery import RecoveryReport
from quorumlog.ports import Clock, Disk
from quorumlog.ports import Lock as DirectoryLock
from quorumlog.system import SystemClock, SystemDisk
from quorumlog.types import MAX_BATCH_BYTES, Offset, Record, RecordData

Value = RecordData | bytes | tuple[bytes | None, bytes | None]
"""What ``append_batch`` takes for a record: all of it, a value, or key and value."""

_READ_BYTES = 1024 * 1024
_FIRST_TERM = 1
_LOCK_NAME = "lock"
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def open(
    path: str | os.PathLike[str],
    *,
    fsync: str = FSYNC_ALWAYS,
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
) -> "EmbeddedLog":
    """Open the log in directory ``path``, made when missing, for reading and writing.

    Args:
        path: a directory of its own for this log.
        fsync: ``always``: ``append`` returns after fdatasync. ``interval``: after the write, with
            an fdatasync every 0.1 s; a power cut loses at most what came since, a crash of the
            process nothing. ``never``: left to the system until ``flush`` or ``close``.
        segment_bytes: size of one segment file (1 KiB to 1 TiB).

    Raises:
        LogLocked: it is open already, in this process or another.
        UnusableDirectory: it cannot be made, read or written.
        Corrupt: records that may have been acknowledged are damaged; nothing was changed.
        ConfigError: a setting out of its bounds.
    """
    config = LogConfig(fsync=fsync, segment_bytes=segment_bytes)
    return EmbeddedLog(SystemDisk(), os.fspath(path), config, SystemClock())


@dataclass(slots=True, eq=False)
class _Ticket:
    """An append that waits for its flush. ``error`` is set when it was taken back."""

    index: int
    end_offset: Offset
    error: DiskFull | None = None


class EmbeddedLog:
    """A log for any number of threads; the methods block.

    Appends of several threads share one fdatasync. Readers see a record once it is as durable as
    ``fsync`` promises. After an fdatasync failed everything raises LogFenced: open it again.
    """

    def __init__(self, disk: Disk, directory: str, config: LogConfig, clock: Clock) -> None:
        """See :func:`open`."""
        self._clock = clock
        self._directory = directory
        self._directory_lock = _lock(disk, directory)
        try:
            self._log = Log.open(disk, directory, config, clock)
        except BaseException:
            self._directory_lock.release()
            raise
        self._mutex = Lock()
        """Guards the order of appends, the tickets and what is durable. Held for moments."""
        self._grown = Condition(self._mutex)
        self._flush_mutex = Lock()
        """Held by the one thread that flushes for all that wait. Taken before the other one."""
        self._tickets: list[_Ticket] = []
        self._durable_end = self._log.end_offset
        self._is_closed = False
        self._syncer = _Syncer(self, config) if config.fsync == FSYNC_INTERVAL else None

    @property
    def start_offset(self) -> Offset:
        """The first offset that can be read."""
        return self._log.start_offset

    @property
    def end_offset(self) -> Offset:
        """The first offset that cannot be read yet."""
        return self._durable_end

    @property
    def recovery(self) -> RecoveryReport:
        """What opening found, and cut."""
        return self._log.recovery

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
        return self._append([RecordData(value, key, headers)])

    def append_batch(self, records: Iterable[Value]) -> Offset:
        """Append ``records`` as one atomic batch and return the first offset; errors as ``append``.

        After a crash all of them are there or none.

        Raises:
            InvalidArgument: also when there are none, or they are over 4 MiB together.
        """
        return self._append([_record_data(record) for record in records])

    def read(
        self, start: int = 0, *, end: int | None = None, follow: bool = False
    ) -> Iterator[Record]:
        """The records of ``[start, end)`` in order, up to the end of the log at least as it is now.

        With ``follow`` it waits for records to come, and ends at ``end`` or when the log is closed.

        Raises:
            OffsetOutOfRange: ``start`` is not in the log and not its end. (At once, not when read.)
            Corrupt: what is on disk is not what was written.
        """
        self._check_open()
        first, next_offset = self.start_offset, self._durable_end
        if not first <= start <= next_offset:
            raise OffsetOutOfRange(start, first, next_offset)
        return self._read(start, end, follow)

    def offset_for_time(self, timestamp_ms: int) -> Offset:
        """The first offset whose timestamp is ``timestamp_ms`` or later, or ``end_offset``."""
        self._check_open()
        return self._log.offset_for_time(timestamp_ms, self._durable_end)

    def flush(self) -> None:
        """Return when everything appended before is durable (with ``always`` it is already).

        With ``never``, and with ``interval`` before the time, this calls fdatasync too.
        """
        self._check_open()
        with self._flush_mutex:
            self._log.sync()

    def close(self) -> None:
        """Make everything durable and close; following readers end. A second call does nothing."""
        with self._mutex:
            if self._is_closed:
                return
            self._is_closed = True
            self._grown.notify_all()
        if self._syncer is not None:
            self._syncer.stop()
        try:
            with self._flush_mutex:
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

    def _append(self, records: list[RecordData]) -> Offset:
        if not records:
            raise InvalidArgument("a batch has at least one record")
        body = encode_body(records)
        if len(body) > MAX_BATCH_BYTES:
            raise InvalidArgument(
                f"the batch has {len(body)} bytes and the limit is {MAX_BATCH_BYTES}: split it"
            )
        draft = Draft.of(body, len(records))
        log = self._log
        with self._mutex:
            self._check_open()
            batch = draft.stamp(
                log.next_index,
                max(log.last_term, _FIRST_TERM),
                log.end_offset,
                max(self._clock.wall_ms(), log.last_timestamp_ms),
            )
            log.append([batch])
            ticket = _Ticket(batch.header.index, batch.header.next_offset)
            self._tickets.append(ticket)
        with self._flush_mutex:
            if ticket.error is None and log.durable_index < ticket.index:
                self._flush()
        if ticket.error is not None:
            raise ticket.error
        return batch.header.base_offset

    def _flush(self) -> None:
        """Flush for every thread that waits; the caller holds the flush mutex."""
        try:
            flushed = self._log.flush()
        except DiskFull as error:
            self._take_back(error)
            return
        with self._mutex:
            waiting = []
            for ticket in self._tickets:
                if ticket.index <= flushed.last_index:
                    self._durable_end = ticket.end_offset
                else:
                    waiting.append(ticket)
            self._tickets = waiting
            self._grown.notify_all()
        if self._syncer is not None:
            self._syncer.written()

    def _take_back(self, error: DiskFull) -> None:
        """The disk is full: what waits was never appended, so that nobody's retry doubles it."""
        with self._mutex:
            for ticket in self._tickets:
                ticket.error = DiskFull(f"{error}; this append was taken back")
            self._tickets = []
            self._log.truncate(self._log.durable_index + 1)
        # Cuts what reached a file already; that needs no space.
        self._log.flush()

    def _read(self, start: int, end: int | None, follow: bool) -> Iterator[Record]:
        offset = start
        index: int | None = None
        while end is None or offset < end:
            limit = self._durable_end
            if offset >= limit:
                if not follow or not self._wait_beyond(offset):
                    return
                continue
            try:
                if index is None:
                    index = self._log.index_of_offset(offset)
                batches = self._log.slice(index, _READ_BYTES)
            except Closed:
                if follow:
                    return
                raise
            for batch in batches:
                if batch.header.base_offset >= limit:
                    break
                yield from _records_of(batch, offset, end)
                offset = batch.header.next_offset
                index = batch.header.index + 1

    def _wait_beyond(self, offset: int) -> bool:
        """Wait until ``offset`` can be read; False when the log was closed first."""
        with self._grown:
            self._grown.wait_for(lambda: self._durable_end > offset or self._is_closed)
            return not self._is_closed

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed(f"{self._directory}: the log is closed")


class _Syncer:
    """A thread that flushes when an interval sync is due."""

    def __init__(self, log: EmbeddedLog, config: LogConfig) -> None:
        self._embedded = log
        self._interval_s = config.fsync_interval_s
        self._written = Event()
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="quorumlog-fsync", daemon=True)
        self._thread.start()

    def written(self) -> None:
        """Something was written: sync it before long."""
        self._written.set()

    def stop(self) -> None:
        self._stopped.set()
        self._written.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._written.wait()
            if self._stopped.wait(self._interval_s):
                return
            self._written.clear()
            try:
                self._embedded.flush()
            except DiskFull:
                # Nothing is lost; there may be space when the next interval is over.
                self._written.set()
            except QuorumlogError:
                # The log is fenced or closed now, and says so to the next caller.
                return


def _records_of(batch: Batch, start: int, end: int | None) -> Iterator[Record]:
    for record in decode_records(batch.header, batch.body, start):
        if end is not None and record.offset >= end:
            return
        yield record


def _record_data(record: Value) -> RecordData:
    if isinstance(record, RecordData):
        return record
    if isinstance(record, bytes):
        return RecordData(record)
    if isinstance(record, tuple) and len(record) == 2:
        key, value = record
        return RecordData(value, key)
    raise InvalidArgument(
        f"a record is bytes, a tuple (key, value) or a RecordData, not {type(record).__name__}"
    )


def _lock(disk: Disk, directory: str) -> DirectoryLock:
    try:
        disk.make_directory(directory)
        return disk.lock(f"{directory}/{_LOCK_NAME}")
    except BlockingIOError as error:
        raise LogLocked(
            f"{directory} is open already, in this process or another: "
            "close it there, or use another directory"
        ) from error
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        raise UnusableDirectory(
            f"{directory} cannot be used: {error.strerror}; "
            "it has to be a directory that this user can write to"
        ) from error
