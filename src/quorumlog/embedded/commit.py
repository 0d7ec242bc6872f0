"""Group commit: appends of any number of threads or tasks share one write and one fdatasync.

What an exception of a signal handler (Ctrl-C) may interrupt anywhere: a record is then in the log,
and durable with the next flush, or not; nothing else changes. So locks are taken by ``with``,
between which and its block no handler runs, and what takes several steps can be done again.
"""

from _thread import LockType
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition, Lock

from quorumlog.errors import DiskFull, WrongExpectedOffset
from quorumlog.log.batch import Draft
from quorumlog.log.log import Log
from quorumlog.ports import Clock
from quorumlog.types import Offset

_FIRST_TERM = 1


@dataclass(slots=True, eq=False)
class Ticket:
    """An append that waits for its flush.

    Attributes:
        gate: shared by the appends that came between two flushes; see :meth:`GroupCommit.commit`.
        is_done: it is as durable as promised.
        error: it was taken back.
    """

    index: int
    base_offset: Offset
    end_offset: Offset
    gate: LockType
    is_done: bool = False
    error: DiskFull | None = None

    @property
    def is_settled(self) -> bool:
        return self.is_done or self.error is not None


class GroupCommit:
    """The only one that appends to ``log``; every method may be called by any thread.

    Attributes:
        durable_end: the offset behind the last record that is as durable as promised.
        followers: threads that wait for more records.
        grown: notified when ``durable_end`` moves; its lock is ``mutex``.
        flush_mutex: held by the one thread that flushes for all that wait. Taken behind a gate and
            before ``mutex``.
    """

    def __init__(self, log: Log, clock: Clock, on_written: Callable[[], None]) -> None:
        """``on_written`` is called after each flush that wrote something."""
        self._log = log
        self._clock = clock
        self._on_written = on_written
        self.mutex = Lock()
        """Guards the order of appends, the tickets and what is durable. Held for moments."""
        self.grown = Condition(self.mutex)
        self.flush_mutex = Lock()
        self.durable_end = log.end_offset
        self._waiting: deque[Ticket] = deque()
        self._gate = Lock()
        """Of the appends that come now. The flush that covers them puts another in its place."""
        self.followers = 0
        self._full: DiskFull | None = None
        """The disk was full, and what waited is not all taken back yet."""
        log.advance_commit_floor(log.last_index)

    @property
    def waiting(self) -> int:
        """Appends that wait for a flush."""
        return len(self._waiting)

    def wait_beyond(self, offset: int, is_closed: Callable[[], bool]) -> None:
        """Return when ``offset`` is durable, or ``is_closed`` when ``grown`` was notified."""
        with self.mutex:
            self.followers += 1
            try:
                self.grown.wait_for(lambda: self.durable_end > offset or is_closed())
            finally:
                self.followers -= 1

    def submit(self, draft: Draft, expected_end: int | None = None) -> Ticket:
        """Append in memory and return at once; the next flush writes it.

        Raises:
            WrongExpectedOffset: the log, with what waits for a flush, ends elsewhere.
            LogFenced, Closed
        """
        log = self._log
        with self.mutex:
            if expected_end is not None and log.end_offset != expected_end:
                raise WrongExpectedOffset(expected_end, log.end_offset)
            batch = draft.stamp(
                log.next_index,
                max(log.last_term, _FIRST_TERM),
                log.end_offset,
                max(self._clock.wall_ms(), log.last_timestamp_ms),
            )
            header = batch.header
            ticket = Ticket(header.index, header.base_offset, header.next_offset, self._gate)
            try:
                self._waiting.append(ticket)
                log.append([batch])
            except BaseException:
                if log.next_index == ticket.index and ticket in self._waiting:
                    self._waiting.remove(ticket)
                raise
        return ticket

    def commit(self, ticket: Ticket) -> Offset:
        """Return its offset once it is durable, flushed by this thread or another one.

        Threads pass the gate of their tickets one after the other. The first flushes for all; then
        each finds that there is nothing left to do and lets the next one through. So a flush wakes
        one thread of its own and the one that will flush next, not all at once to wait for the
        interpreter, and those that append meanwhile wait at another gate.

        Raises:
            DiskFull: it was taken back.
            LogFenced, Closed: it is there after the next open or not.
        """
        with ticket.gate:
            if not ticket.is_settled:
                with self.flush_mutex:
                    if not ticket.is_settled:
                        self._flush()
        if ticket.error is not None:
            raise ticket.error
        return ticket.base_offset

    def flush(self) -> None:
        """Write what waits; tickets tell how it went.

        Raises:
            LogFenced, Closed
        """
        with self.flush_mutex:
            self._flush()

    def sync(self) -> None:
        """As ``flush``, with an fdatasync whatever the policy is.

        Raises:
            DiskFull: there is no space for the mark.
            LogFenced, Closed
        """
        with self.flush_mutex:
            self._flush()
            self._log.sync()

    def _flush(self) -> None:
        """The caller holds the flush mutex."""
        gate = Lock()
        with self.mutex:
            self._gate = gate
        if self._full is None:
            try:
                flushed = self._log.flush()
            except DiskFull as error:
                self._full = error
        if self._full is not None:
            self._take_back(self._full)
            return
        self._log.advance_commit_floor(flushed.last_index)
        try:
            self._settle(flushed.last_index)
        except BaseException:
            # Interrupted before it has told everybody: followers would wait for the next append.
            self._settle(flushed.last_index)
            raise
        self._on_written()

    def _settle(self, last_index: int) -> None:
        """Everything through ``last_index`` is durable: tell who waits for that."""
        with self.mutex:
            waiting = self._waiting
            while waiting and waiting[0].index <= last_index:
                ticket = waiting[0]
                if ticket.end_offset > self.durable_end:
                    self.durable_end = ticket.end_offset
                ticket.is_done = True
                waiting.popleft()
            if self.followers:
                self.grown.notify_all()

    def _take_back(self, error: DiskFull) -> None:
        """The disk is full: what waits was never appended, so that nobody's retry doubles it."""
        none_waiting: deque[Ticket] = deque()
        with self.mutex:
            for ticket in self._waiting:
                ticket.error = DiskFull(f"{error}: this append was taken back")
            self._log.truncate(self._log.durable_index + 1)
            # In one step, or an interruption between would take back what comes next as well.
            self._waiting, self._full = none_waiting, None
        # Cuts what reached a file already; where even that needs space, the next flush does.
        with suppress(DiskFull):
            self._log.flush()
