"""One direction of a simulated connection: messages in order, a bounded number of them unread."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from sim.network import SimNetwork
from sim.process import Process

WINDOW: Final = 16
"""Messages sent and not yet read; then the sender waits, as for flow control."""

Item = TypeVar("Item")


class Pipe:
    """``put`` and ``finish`` are the sender's, ``get`` is the receiver's."""

    def __init__(self, network: SimNetwork, sender: str, receiver: Process) -> None:
        self._network = network
        self._link = (sender, receiver.name)
        self._receiver = receiver
        self._arrived: deque[bytes] = deque()
        self._unread = 0
        self._last_arrival_s = 0.0
        self._end: Exception | None = None
        self._ended = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        return self._ended

    def put(self, message: bytes) -> None:
        self._unread += 1
        self._schedule(self._arrive, message)

    async def room(self) -> None:
        """Wait until the receiver has read enough. Raises what the pipe ended with."""
        while self._unread >= WINDOW and not self._ended:
            self._writer = self._network.loop.create_future()
            await self._writer
        if self._end is not None:
            raise self._end

    def finish(self, error: Exception | None = None) -> None:
        """End in order: the receiver gets everything first, then ``error`` or the end."""
        self._schedule(self.fail, error)

    def fail(self, error: Exception | None) -> None:
        """End now: what has arrived can still be read. Idempotent."""
        if self._ended:
            return
        self._ended = True
        self._end = error
        _wake(self._reader)
        _wake(self._writer)

    async def get(self) -> bytes | None:
        """The next message; None at the end in order. Raises what the pipe ended with."""
        while not self._arrived:
            if self._ended:
                if self._end is not None:
                    raise self._end
                return None
            self._reader = self._network.loop.create_future()
            await self._reader
        self._unread -= 1
        _wake(self._writer)
        return self._arrived.popleft()

    def _arrive(self, message: bytes) -> None:
        if not self._ended:
            self._arrived.append(message)
            _wake(self._reader)

    def _schedule(self, action: Callable[[Item], None], argument: Item) -> None:
        loop = self._network.loop
        when_s = max(self._last_arrival_s, loop.time() + self._network.delay_s())
        self._last_arrival_s = when_s
        loop.call_at(when_s, action, argument, context=self._receiver.context())


def _wake(waiting: "asyncio.Future[None] | None") -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
