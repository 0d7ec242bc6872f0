"""Keeps what may happen a thousand times a second from being logged as often."""


class RateLimit:
    """Allows one event per ``interval_s`` and counts the others."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_at = float("-inf")
        self._suppressed = 0

    def allows(self, now: float) -> bool:
        if now < self._next_at:
            self._suppressed += 1
            return False
        self._next_at = now + self._interval_s
        return True

    def take_suppressed(self) -> int:
        """Events that were not allowed since the last call."""
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
