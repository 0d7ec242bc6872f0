"""Lamport clocks, and which of the messages stamped by them were here before."""

from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

from quorumlog.discovery.wire.serf_messages import MAX_LAMPORT

Token = TypeVar("Token", bound=Hashable)

WINDOW: Final = 512
"""Messages that are older than the clock by more than this are not taken, as in Serf."""

MAX_PER_TIME: Final = 64
MAX_BYTES: Final = 256 * 1024
"""Most that the messages remembered may hold; beyond it the oldest are forgotten."""


class LamportClock:
    """``time`` is larger than every time witnessed, and at most ``MAX_LAMPORT``."""

    def __init__(self) -> None:
        self.time = 1

    def advance(self) -> int:
        """A time for something new."""
        time = self.time
        self.witness(time)
        return time

    def witness(self, time: int) -> None:
        if time >= self.time:
            self.time = min(time + 1, MAX_LAMPORT)


class RecentMessages(Generic[Token]):
    """The messages of the last ``WINDOW`` times, each taken once."""

    def __init__(self) -> None:
        self._by_time: dict[int, dict[Token, int]] = {}
        self._size_bytes = 0
        self._minimum = 0

    def __iter__(self) -> Iterator[Token]:
        """From the oldest time on."""
        for time in sorted(self._by_time):
            yield from self._by_time[time]

    def ignore_before(self, time: int) -> None:
        """Take nothing that is older from now on."""
        self._minimum = max(self._minimum, time)

    def take(self, time: int, token: Token, size_bytes: int, now: int) -> bool:
        """Whether ``token`` is new; it counts as seen then. ``now`` is the clock's time."""
        if time < self._minimum or time < now - WINDOW:
            return False
        tokens = self._by_time.get(time, {})
        if token in tokens or len(tokens) >= MAX_PER_TIME:
            return False
        self._by_time.setdefault(time, tokens)[token] = size_bytes
        self._size_bytes += size_bytes
        self._forget(now)
        return True

    def _forget(self, now: int) -> None:
        for time in [time for time in self._by_time if time < now - WINDOW]:
            self._drop(time)
        while self._size_bytes > MAX_BYTES and len(self._by_time) > 1:
            oldest = min(self._by_time)
            self._drop(oldest)
            self.ignore_before(oldest + 1)

    def _drop(self, time: int) -> None:
        self._size_bytes -= sum(self._by_time.pop(time).values())
