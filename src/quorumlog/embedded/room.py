"""A bound on bytes that are on their way, for the tasks of one event loop."""

import asyncio
from collections import deque


class Room:
    """Lets ``limit_bytes`` in at a time, in the order of asking; more than that only alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._outside: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.used_bytes = 0

    @property
    def waiting(self) -> int:
        """Tasks that wait to be let in."""
        return len(self._outside)

    async def enter(self, size_bytes: int) -> None:
        """Wait for room and take ``size_bytes`` of it; give them back with ``leave``.

        A task that is cancelled here has taken nothing. Raises what ``refuse_all`` was given.
        """
        if not self._outside and self._has_room(size_bytes):
            self.used_bytes += size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = size_bytes, turn
        self._outside.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._outside:
                self._outside.remove(entry)
                # It may have held up smaller ones.
                self.leave(0)
            elif not turn.cancelled() and turn.exception() is None:
                # Its turn had just come.
                self.leave(size_bytes)
            raise

    def leave(self, size_bytes: int) -> None:
        """Give back ``size_bytes``, and let in who fits now."""
        self.used_bytes -= size_bytes
        while self._outside and self._has_room(self._outside[0][0]):
            admitted_bytes, turn = self._outside.popleft()
            if not turn.done():
                self.used_bytes += admitted_bytes
                turn.set_result(None)

    def refuse_all(self, error: Exception) -> None:
        """Raise ``error`` in every task that waits."""
        while self._outside:
            _, turn = self._outside.popleft()
            if not turn.done():
                turn.set_exception(error)

    def _has_room(self, size_bytes: int) -> bool:
        return not self.used_bytes or self.used_bytes + size_bytes <= self._limit_bytes
