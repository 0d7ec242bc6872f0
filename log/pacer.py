"""Work in the background at a bounded rate that can be stopped at any moment."""

from typing import Final, Protocol

from quorumlog.ports import Clock

MIN_BYTES_S: Final = 4096
"""The lowest rate that settings take: a page a second."""

_SHORTEST_WAIT_S: Final = 0.02
"""Shorter waits are put off until they add up: a thread that wakes costs more than it gives."""


class StopSignal(Protocol):
    """Tells background work to end, and lets it wait meanwhile; ``threading.Event`` is one."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float) -> bool:
        """Return True as soon as the signal is set, else False after ``timeout`` seconds."""
        ...


class Stopped(Exception):
    """The signal was set: the work ends where it is."""


class Pacer:
    """Holds work back to ``bytes_s`` bytes a second of input and output together."""

    def __init__(self, bytes_s: int, clock: Clock, stop: StopSignal) -> None:
        self._bytes_s = bytes_s
        self._clock = clock
        self._stop = stop
        self._paid_until_s = 0.0
        self.spent_bytes = 0

    def spend(self, size_bytes: int) -> None:
        """Account for bytes that were read or written, and wait until they are within the rate.

        Raises:
            Stopped
        """
        self.spent_bytes += size_bytes
        now_s = self._clock.monotonic_s()
        self._paid_until_s = max(self._paid_until_s, now_s) + size_bytes / self._bytes_s
        wait_s = self._paid_until_s - now_s
        if wait_s < _SHORTEST_WAIT_S:
            wait_s = 0.0
        if self._stop.is_set() or (wait_s and self._stop.wait(wait_s)):
            raise Stopped
