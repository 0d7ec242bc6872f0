"""A number that only grows, and those who wait for it."""

import asyncio

from quorumlog.types import Offset


class Watermark:
    """The first offset that is not committed yet."""

    def __init__(self, value: Offset) -> None:
        self.value = value
        self._waiting: list[asyncio.Future[None]] = []
        self._closed: Exception | None = None

    def advance(self, value: Offset) -> None:
        if value > self.value:
            self.value = value
            self._wake()

    def close(self, error: Exception) -> None:
        """Everybody waiting, and everybody who comes later, gets ``error``."""
        self._closed = error
        self._wake()

    async def wait_above(self, offset: int, timeout_s: float) -> bool:
        """Wait until ``value > offset``; False when ``timeout_s`` went by first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self.value <= offset:
            if self._closed is not None:
                raise self._closed
            remaining_s = deadline - loop.time()
            if remaining_s <= 0:
                return False
            changed = loop.create_future()
            self._waiting.append(changed)
            timer = loop.call_later(remaining_s, _resolve, changed)
            try:
                await changed
            finally:
                timer.cancel()
                if changed in self._waiting:
                    self._waiting.remove(changed)
        return True

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            _resolve(changed)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
