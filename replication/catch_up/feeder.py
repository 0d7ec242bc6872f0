"""Reads for followers that are far behind, on the worker and at a bounded rate."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from quorumlog.errors import Closed, IndexOutOfRange, LogFenced
from quorumlog.log.batch import Batch
from quorumlog.log.log import Log
from quorumlog.ports import Worker
from quorumlog.replication.catch_up.pacing import CatchUpPacer
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.leadership import ColdRead
from quorumlog.types import Index, NodeId, Term

MAX_READ_BYTES: Final = 64 * 1024
"""Of one read; so small that followers and groups take turns, and that what producers send does not
wait long behind it: in a loop, on a connection, for a disk."""


class Feeding(Protocol):
    """The replica, as this needs it."""

    core: RaftCore
    log: Log

    def feed(self, peer: NodeId, batches: Sequence[Batch]) -> None: ...

    def fail(self, error: Exception) -> None: ...


class Feeder:
    """One read per follower at a time. Called in the event loop.

    Only what is committed is read: it is never cut, so the worker needs no lock. What is in memory
    the core sends by itself, unpaced: a follower that keeps up never comes here.
    """

    def __init__(self, replica: Feeding, worker: Worker, pacer: CatchUpPacer) -> None:
        self._replica = replica
        self._worker = worker
        self._pacer = pacer
        self._reads: dict[NodeId, asyncio.Task[list[Batch]]] = {}
        self._closing = asyncio.Event()
        self._watched: tuple[Term, Index] | None = None
        self._watched_since_s = 0.0

    def look(self) -> None:
        """Begin to read what the core asks for."""
        leadership = self._replica.core.leadership
        if leadership is None or self._closing.is_set():
            return
        self._time_commits()
        for peer, wanted in leadership.cold_reads.items():
            if peer not in self._reads:
                self._reads[peer] = task = asyncio.create_task(self._read(wanted))
                task.add_done_callback(partial(self._ended, peer, self._replica.core.term))

    def _time_commits(self) -> None:
        """Tell the pacer what a batch takes from here to its commit; of those under way, of one."""
        core = self._replica.core
        if self._watched is not None:
            term, index = self._watched
            if term == core.term and core.commit_index < index:
                return
            if term == core.term:
                self._pacer.committed(self._pacer.now() - self._watched_since_s)
            self._watched = None
        last_index = self._replica.log.last_index
        if core.commit_index < last_index:
            self._watched = (core.term, last_index)
            self._watched_since_s = self._pacer.now()

    async def close(self) -> None:
        """Wait for what is being read; nothing is read any more."""
        self._closing.set()
        if self._reads:
            await asyncio.wait(tuple(self._reads.values()))

    def _ended(self, peer: NodeId, term: Term, done: "asyncio.Task[list[Batch]]") -> None:
        del self._reads[peer]
        if done.cancelled() or self._replica.core.term != term:
            return
        error = done.exception()
        if error is None:
            self._replica.feed(peer, done.result())
        elif isinstance(error, Exception):
            self._replica.fail(error)

    async def _read(self, wanted: ColdRead) -> list[Batch]:
        """What is wanted, or the beginning of it; nothing when it cannot be had any more.

        Raises:
            Corrupt, StorageError
        """
        log = self._replica.log
        max_bytes = min(wanted.max_bytes, MAX_READ_BYTES)
        await self._wait(self._pacer.reserve(max_bytes))
        if self._closing.is_set():
            return []
        floor = log.commit_floor
        try:
            batches = await self._worker.run(partial(log.slice, wanted.first_index, max_bytes))
        except (Closed, LogFenced, IndexOutOfRange):
            return []  # deleted meanwhile: the core asks for something else, or nobody does
        # One batch is read whole, however large: those that are read next wait for it as well.
        self._pacer.reserve(max(0, sum([batch.size_bytes for batch in batches]) - max_bytes))
        return [batch for batch in batches if batch.header.index <= floor]

    async def _wait(self, delay_s: float) -> None:
        if delay_s > 0:
            try:
                async with asyncio.timeout(delay_s):
                    await self._closing.wait()
            except TimeoutError:
                return
