"""Term, vote and log on their way to the disk, and what may be said only once they are there."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from quorumlog.errors import DiskFull
from quorumlog.log.flusher import Flushed
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.log import Log
from quorumlog.ports import Clock, Worker
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.messages import Message
from quorumlog.replication.flush_place import FlushPlace
from quorumlog.types import NodeId

Outgoing = tuple[NodeId, Message]


class PersisterOwner(Protocol):
    """Called in the event loop."""

    def durable(self, messages: Sequence[Outgoing], flushed: Flushed | None) -> None:
        """``messages`` may leave. ``flushed``: what the flush that just ended made durable."""
        ...

    def disk_full(self, error: DiskFull) -> None:
        """Nothing is lost, and nothing is written until it is tried again."""
        ...

    def disk_idle(self) -> None:
        """A flush ended, or a full disk is to be tried again: more can be started."""
        ...

    def disk_failed(self, error: Exception) -> None:
        """What is on disk is not known any more."""
        ...


class Persister:
    """At most one flush at a time: hard state first, then the log, then messages.

    A flush runs on the worker; a small one in the event loop, where ``place`` allows it.

    ``full`` is the error of a disk without space while nothing is tried, None otherwise.
    """

    def __init__(
        self,
        *,
        log: Log,
        hard_state_file: HardStateFile,
        worker: Worker,
        place: FlushPlace,
        config: ReplicationConfig,
        clock: Clock,
        owner: PersisterOwner,
    ) -> None:
        self.full: DiskFull | None = None
        self._log = log
        self._hard_state_file = hard_state_file
        self._worker = worker
        self._place = place
        self._config = config
        self._clock = clock
        self._owner = owner
        self._hard_state: HardState | None = None
        self._messages: list[Outgoing] = []
        self._loop = asyncio.get_running_loop()
        self._flush: asyncio.Future[Any] | None = None
        self._soon: asyncio.Handle | None = None
        self._slow_from_s = 0.0

    @property
    def sync_due_s(self) -> float | None:
        """When, on the monotonic clock, :meth:`start` has something to do by itself."""
        # No flush begins while one is under way, nor before a full disk is tried again.
        return None if self._is_busy else self._log.sync_due_s

    @property
    def _is_busy(self) -> bool:
        """Whether a flush is under way, or the disk is full."""
        return self._flush is not None or self._soon is not None or self.full is not None

    def take_slow(self) -> bool:
        """Whether a flush has been under way for ``slow_disk_s``; again after as long again."""
        now = self._clock.monotonic_s()
        if self._flush is None or now < self._slow_from_s:
            return False
        self._slow_from_s = now + self._config.slow_disk_s
        return True

    def keep(self, hard_state: HardState | None, messages: Sequence[Outgoing]) -> None:
        """Take what the core wants durable, and what has to wait for that and all before it.

        Of more than a disk that is full or hangs should keep back, the oldest messages are lost.
        """
        if hard_state is not None:
            self._hard_state = hard_state
        self._messages.extend(messages)
        excess = len(self._messages) - self._config.max_waiting_messages
        if excess > 0:
            del self._messages[:excess]

    def start(self) -> None:
        """Begin a flush if there is anything for it; messages that wait for none leave at once."""
        if self._is_busy:
            return
        if self._hard_state is None and not self._log.dirty:
            messages, self._messages = self._messages, []
            self._owner.durable(messages, None)
        elif self._fits_loop():
            # In the next turn: what was sent in this one leaves first.
            self._soon = self._loop.call_soon(self._flush_in_loop)
        else:
            self._flush_on_worker()

    def _fits_loop(self) -> bool:
        return (
            self._hard_state is None
            and self._log.is_flush_small
            and self._place.allows_loop(self._clock.monotonic_s())
        )

    def _flush_in_loop(self) -> None:
        self._soon = None
        if not self._fits_loop():
            # More has come, or a flush of another group has begun.
            self._flush_on_worker()
            return
        messages, self._messages = self._messages, []
        began_s = self._clock.monotonic_s()
        flushed: Flushed | None = None
        error: Exception | None = None
        try:
            flushed = self._log.flush()
        except Exception as caught:
            error = caught
        self._place.done_in_loop(began_s, self._clock.monotonic_s())
        self._settle(flushed, error, None, messages)

    def _flush_on_worker(self) -> None:
        hard_state, self._hard_state = self._hard_state, None
        messages, self._messages = self._messages, []
        is_small = hard_state is None and self._log.is_flush_small
        took_s: float | None = None

        def persist() -> Flushed | None:
            nonlocal took_s
            began_s = self._clock.monotonic_s()
            if hard_state is not None:
                self._hard_state_file.save(hard_state)
            flushed = self._log.flush() if self._log.dirty else None
            took_s = self._clock.monotonic_s() - began_s
            return flushed

        def ended(done: "asyncio.Future[Any]") -> None:
            self._flush = None
            self._place.done_on_worker(took_s if is_small else None)
            if not done.cancelled():
                error = done.exception()
                flushed = done.result() if error is None else None
                self._settle(flushed, error, hard_state, messages)

        self._slow_from_s = self._clock.monotonic_s() + self._config.slow_disk_s
        self._place.given_to_worker()
        self._flush = asyncio.ensure_future(self._worker.run(persist))
        self._flush.add_done_callback(ended)

    async def close(self, *, usable: bool) -> None:
        """Wait for the flush under way, save what is pending if ``usable``, close the files.

        Raises:
            DiskFull, LogFenced: the files are closed all the same.
        """
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._flush is not None:
            await asyncio.wait([self._flush])
        await self._worker.run(lambda: self._close_files(usable))

    def _close_files(self, usable: bool) -> None:
        try:
            if usable:
                if self._hard_state is not None:
                    self._hard_state_file.save(self._hard_state)
                self._log.close()
        finally:
            self._hard_state_file.close()
            # No batch gets to the disk before its term: that would look like a lost hard state.
            self._log.abandon()

    def _settle(
        self,
        flushed: Flushed | None,
        error: BaseException | None,
        hard_state: HardState | None,
        messages: list[Outgoing],
    ) -> None:
        """A flush ended. It was of ``hard_state`` too; ``messages`` waited for it."""
        if isinstance(error, DiskFull):
            # Nothing was promised yet: keep all of it for the flush that has space again.
            if self._hard_state is None:
                self._hard_state = hard_state
            self._messages[:0] = messages
            self.full = error
            self._loop.call_later(self._config.disk_full_retry_s, self._retry)
            self._owner.disk_full(error)
        elif isinstance(error, Exception):
            self._owner.disk_failed(error)
        elif error is not None:
            raise error
        else:
            self._owner.durable(messages, flushed)
            self._owner.disk_idle()

    def _retry(self) -> None:
        self.full = None
        self._owner.disk_idle()
