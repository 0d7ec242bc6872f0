"""Reads that wait until this node may answer them, and has applied what they have to see."""

import asyncio
from collections import deque

from quorumlog.replication.core.core import RaftCore
from quorumlog.types import Index


class Barriers:
    """First those that the core has to allow, then those whose index has to be applied."""

    def __init__(self) -> None:
        self._asked: dict[int, asyncio.Future[Index]] = {}
        self._allowed: deque[tuple[Index, asyncio.Future[Index]]] = deque()

    def ask(self, core: RaftCore, applied_index: Index, now: float) -> "asyncio.Future[Index]":
        """Done at once under the lease. It may be left alone, also when it fails.

        Raises:
            NotLeader, Overloaded.
        """
        barrier: asyncio.Future[Index] = asyncio.get_running_loop().create_future()
        index = core.lease_index(now)
        if index is None:
            self._asked[core.read(now)] = barrier
        elif index > applied_index:
            self._allowed.append((index, barrier))
        else:
            barrier.set_result(applied_index)
        barrier.add_done_callback(_note)
        return barrier

    def allowed(self, number: int, index: Index) -> None:
        """The core allows read ``number``; ``index`` may have to be applied yet."""
        barrier = self._asked.pop(number, None)
        if barrier is not None:
            self._allowed.append((index, barrier))

    def applied(self, index: Index) -> None:
        """Everything through ``index`` is applied."""
        waiting = self._allowed
        # One behind another with a later index waits a little longer than it has to.
        while waiting and waiting[0][0] <= index:
            _, barrier = waiting.popleft()
            if not barrier.done():
                barrier.set_result(index)

    def deposed(self, error: Exception) -> None:
        """The core will not allow what it was asked. What it did allow stays right."""
        asked, self._asked = self._asked, {}
        for barrier in asked.values():
            if not barrier.done():
                barrier.set_exception(error)

    def fail(self, error: Exception) -> None:
        """Nothing more will be applied here."""
        self.deposed(error)
        for _, barrier in self._allowed:
            if not barrier.done():
                barrier.set_exception(error)
        self._allowed.clear()


def _note(barrier: "asyncio.Future[Index]") -> None:
    """Look at the exception: whoever asked may be gone, which is nothing to complain about."""
    if not barrier.cancelled():
        barrier.exception()
