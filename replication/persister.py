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
    """At most one flush at a time, on the worker: hard state first, then the log, then messages.

    ``full`` is the error of a disk without space while nothing is tried, None otherwise.
    """

    def __init__(
        self,
        *,
        log: Log,
        hard_state_file: HardStateFile,
        worker: Worker,
        config: ReplicationConfig,
        clock: Clock,
        owner: PersisterOwner,
    ) -> None:
        self.full: DiskFull | None = None
        self._log = log
        self._hard_state_file = hard_state_file
        self._worker = worker
        self._config = config
        self._clock = clock
        self._owner = owner
        self._hard_state: HardState | None = None
        self._messages: list[Outgoing] = []
        self._flush: asyncio.Future[Any] | None = None
        self._slow_from_s = 0.0

    @property
    def sync_due_s(self) -> float | None:
        """When, on the monotonic clock, :meth:`start` has something to do by itself."""
        # No flush begins while one is under way, nor before a full disk is tried again.
        return self._log.sync_due_s if self._flush is None and self.full is None else None

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
        if self._flush is not None or self.full is not None:
            return
        hard_state, self._hard_state = self._hard_state, None
        messages, self._messages = self._messages, []
        if hard_state is None and not self._log.dirty:
            self._owner.durable(messages, None)
            return

        def persist() -> Flushed | None:
            if hard_state is not None:
                self._hard_state_file.save(hard_state)
            return self._log.flush() if self._log.dirty else None

        self._slow_from_s = self._clock.monotonic_s() + self._config.slow_disk_s
        self._flush = asyncio.ensure_future(self._worker.run(persist))
        self._flush.add_done_callback(lambda done: self._ended(done, hard_state, messages))

    async def close(self, *, usable: bool) -> None:
        """Wait for the flush under way, save what is pending if ``usable``, close the files.

        Raises:
            DiskFull, LogFenced: the files are closed all the same.
        """
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

    def _ended(
        self, done: "asyncio.Future[Any]", hard_state: HardState | None, messages: list[Outgoing]
    ) -> None:
        self._flush = None
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, DiskFull):
            # Nothing was promised yet: keep all of it for the flush that has space again.
            if self._hard_state is None:
                self._hard_state = hard_state
            self._messages[:0] = messages
            self.full = error
            asyncio.get_running_loop().call_later(self._config.disk_full_retry_s, self._retry)
            self._owner.disk_full(error)
        elif isinstance(error, Exception):
            self._owner.disk_failed(error)
        else:
            self._owner.durable(messages, done.result())
            self._owner.disk_idle()

    def _retry(self) -> None:
        self.full = None
        self._owner.disk_idle()
