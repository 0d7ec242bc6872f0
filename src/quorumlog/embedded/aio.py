"""``quorumlog.open_async``: an embedded log for the tasks of one event loop.

Whatever touches the disk runs on threads of the log's own: one flushes, one reads, one deletes and
compacts; another one compresses what is not small. Appends are put into memory by the loop; all
that came in one turn of it, and all that came while the disk was busy, share the next flush.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TypeVar

from quorumlog.embedded.arguments import whole
from quorumlog.embedded.commit import Ticket
from quorumlog.embedded.log import EmbeddedLog
from quorumlog.embedded.reading import Cursor, batches_before, checked_range, newest_first
from quorumlog.embedded.room import Room
from quorumlog.embedded.values import Value
from quorumlog.errors import Closed
from quorumlog.log.batch import HEADER_SIZE, Draft
from quorumlog.log.cleaning.housekeeping import HousekeepingReport
from quorumlog.log.inspection.damage import Finding
from quorumlog.log.records import encode_record
from quorumlog.log.recovery import RecoveryReport
from quorumlog.ports import Worker
from quorumlog.system import ThreadWorker
from quorumlog.types import Offset, Record, RecordData

T = TypeVar("T")

_COMPRESSED_HERE_BYTES = 4096
"""Less is compressed by the loop: that takes less time than another thread does to begin."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The threads of one log, one each."""

    flush: Worker
    read: Worker
    upkeep: Worker
    compress: Worker


@dataclass(slots=True, eq=False)
class _Append:
    """An append in the log that waits for its flush."""

    ticket: Ticket
    size_bytes: int
    outcome: "asyncio.Future[Offset]"


class AsyncLog:
    """A log for the tasks of one event loop; nothing in it blocks the loop on the disk.

    What it promises is what :class:`quorumlog.EmbeddedLog` promises. To cancel an append that waits
    takes nothing back: the record may be appended all the same.
    """

    def __init__(
        self,
        log: EmbeddedLog,
        workers: Workers,
        max_waiting_bytes: int,
        threads: Iterable[ThreadWorker] = (),
    ) -> None:
        """Use :func:`quorumlog.open_async`. ``threads`` are closed with the log."""
        self._loop = asyncio.get_running_loop()
        self._log = log
        self._workers = workers
        self._threads = threads
        self._room = Room(max_waiting_bytes)
        self._turn = asyncio.Lock()
        """Held by the append that is being compressed: others may not get in before it."""
        self._waiting: deque[_Append] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._grown = asyncio.Event()
        """Set, and replaced, when there is more to read, or the log is closed or fenced."""
        log.on_fenced = self._wake_from_thread

    @property
    def start_offset(self) -> Offset:
        """The first offset that can be read."""
        return self._log.start_offset

    @property
    def end_offset(self) -> Offset:
        """The first offset that cannot be read yet."""
        return self._log.end_offset

    @property
    def recovery(self) -> RecoveryReport:
        """As :attr:`quorumlog.EmbeddedLog.recovery`."""
        return self._log.recovery

    @property
    def last_housekeeping(self) -> HousekeepingReport | None:
        """As :attr:`quorumlog.EmbeddedLog.last_housekeeping`."""
        return self._log.last_housekeeping

    @property
    def housekeeping_failure(self) -> Exception | None:
        """As :attr:`quorumlog.EmbeddedLog.housekeeping_failure`."""
        return self._log.housekeeping_failure

    @property
    def scrub_findings(self) -> tuple[Finding, ...]:
        """As :attr:`quorumlog.EmbeddedLog.scrub_findings`."""
        return self._log.scrub_findings

    async def append(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
        expected_end: int | None = None,
    ) -> Offset:
        """Append one record and return its offset, once it is durable (see ``fsync``).

        Records get their offsets in the order of the calls. Waits first while ``max_waiting_bytes``
        are on their way to the disk.

        Raises:
            WrongExpectedOffset, InvalidArgument, DiskFull, LogFenced, Closed: as of
                :meth:`EmbeddedLog.append`.
        """
        self._check_open()
        return await self._append(encode_record(RecordData(value, key, headers)), 1, expected_end)

    async def append_batch(
        self, records: Iterable[Value], expected_end: int | None = None
    ) -> Offset:
        """Append ``records`` as one atomic batch and return the first offset; as ``append``."""
        self._check_open()
        return await self._append(*self._log.drafter.joined(records), expected_end)

    def read(
        self,
        start: int | None = None,
        *,
        end: int | None = None,
        follow: bool = False,
        reverse: bool = False,
    ) -> AsyncIterator[Record]:
        """As :meth:`quorumlog.EmbeddedLog.read`, for ``async for``; a wrong range raises at once.

        Any number of tasks may follow: they wait on one event, and hold a MiB of batches each.
        """
        self._check_open()
        log_range = self.start_offset, self.end_offset
        begin, stop = checked_range(start, end, log_range, follow=follow, reverse=reverse)
        if reverse and stop is not None:
            return self._read_backward(begin, stop)
        return self._read(Cursor(self._log.source, begin), stop, follow)

    async def offset_for_time(self, timestamp_ms: int) -> Offset:
        """The first offset whose timestamp is ``timestamp_ms`` or later, or ``end_offset``."""
        self._check_open()
        time_ms = whole("timestamp_ms", timestamp_ms)
        return await self._workers.read.run(lambda: self._log.offset_for_time(time_ms))

    async def flush(self) -> None:
        """As :meth:`quorumlog.EmbeddedLog.flush`."""
        self._check_open()
        await self._workers.flush.run(self._log.flush)

    async def delete_before(self, offset: int) -> int:
        """As :meth:`quorumlog.EmbeddedLog.delete_before`."""
        self._check_open()
        return await self._workers.upkeep.run(lambda: self._log.delete_before(offset))

    async def housekeep(self) -> HousekeepingReport:
        """As :meth:`quorumlog.EmbeddedLog.housekeep`."""
        self._check_open()
        return await self._workers.upkeep.run(self._log.housekeep)

    async def close(self) -> None:
        """Make everything durable and close; following readers end. A second call waits for that.

        Appends that wait for room get Closed; those in the log are written first. To cancel it
        does not stop what has begun.

        Raises:
            DiskFull, LogFenced: as ``flush``; it is closed all the same.
        """
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> "AsyncLog":
        self._check_open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _append(self, body: bytes, count: int, expected_end: int | None) -> Offset:
        drafter = self._log.drafter
        if not drafter.is_compressed:
            append = await self._enter(drafter.draft(body, count), expected_end)
        else:
            async with self._turn:
                self._check_open()
                if len(body) < _COMPRESSED_HERE_BYTES:
                    draft = drafter.draft(body, count)
                else:
                    draft = await self._workers.compress.run(lambda: drafter.draft(body, count))
                append = await self._enter(draft, expected_end)
        return await append.outcome

    async def _enter(self, draft: Draft, expected_end: int | None) -> _Append:
        """Put ``draft`` into the log when there is room; the next flush writes it."""
        size_bytes = HEADER_SIZE + len(draft.body)
        await self._room.enter(size_bytes)
        try:
            self._check_open()
            ticket = self._log.commits.submit(draft, expected_end)
        except BaseException:
            self._room.leave(size_bytes)
            raise
        append = _Append(ticket, size_bytes, self._loop.create_future())
        self._waiting.append(append)
        if self._flushing is None:
            # It begins in the next turn of the loop, with all that is appended in this one.
            self._flushing = self._loop.create_task(self._flush_all())
        return append

    async def _flush_all(self) -> None:
        """Flush until nothing waits."""
        try:
            while self._waiting:
                await self._workers.flush.run(self._log.commits.flush)
                self._settle()
        except BaseException as error:
            # The log is fenced, or the loop ends: nobody may wait for ever.
            for append in self._waiting:
                if not append.outcome.done():
                    append.outcome.set_exception(copy(error))
                self._room.leave(append.size_bytes)
            self._waiting.clear()
            self._wake_readers()
            if not isinstance(error, Exception):
                raise
        finally:
            self._flushing = None

    def _settle(self) -> None:
        """Tell whose append is durable, or was taken back."""
        while self._waiting:
            append = self._waiting[0]
            ticket = append.ticket
            if not ticket.is_done and ticket.error is None:
                break
            self._waiting.popleft()
            self._room.leave(append.size_bytes)
            if append.outcome.done():
                continue
            if ticket.error is not None:
                append.outcome.set_exception(ticket.error)
            else:
                append.outcome.set_result(ticket.base_offset)
        self._wake_readers()

    def _wake_from_thread(self) -> None:
        with suppress(RuntimeError):
            # The loop may be closed: then nobody waits.
            self._loop.call_soon_threadsafe(self._wake_readers)

    def _wake_readers(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    async def _read(self, cursor: Cursor, end: int | None, follow: bool) -> AsyncIterator[Record]:
        while end is None or cursor.offset < end:
            grown = self._grown
            limit = self.end_offset
            if cursor.offset >= limit:
                if not follow or self._closing is not None:
                    return
                self._log.source.check_usable()
                await grown.wait()
                continue
            limit = limit if end is None else Offset(min(limit, end))
            lists = cursor.lists(limit)
            try:
                while batches := await self._run_read(partial(next, lists, None)):
                    for batch in batches:
                        for record in cursor.of_batch(batch, limit):
                            yield record
            except Closed:
                if follow:
                    return
                raise
            finally:
                if self._closing is None:
                    # On the thread that may be in it at this moment, if this task was cancelled.
                    _ = self._workers.read.run(lists.close)

    async def _read_backward(self, start: int, end: int) -> AsyncIterator[Record]:
        if start >= end:
            return
        source = self._log.source
        index = 1 + await self._run_read(lambda: source.index_of_offset(end - 1))
        while batches := await self._run_read(partial(batches_before, source, index)):
            for batch in reversed(batches):
                if batch.header.next_offset <= start:
                    return
                for record in newest_first(batch, start, end):
                    yield record
            index = batches[0].header.index

    def _run_read(self, function: Callable[[], T]) -> Awaitable[T]:
        self._check_open()
        return self._workers.read.run(function)

    async def _close(self) -> None:
        self._room.refuse_all(Closed("the log was closed before there was room"))
        self._wake_readers()
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        try:
            await self._workers.flush.run(self._log.close)
        finally:
            for thread in self._threads:
                await asyncio.to_thread(thread.close)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise Closed("the log is closed")
        self._log.check_open()
