"""One rate for all that a node sends to replicas that catch up."""

from collections.abc import Callable


class CatchUpPacer:
    """Hands out times, so that no more than ``bytes_s`` leave in a second, all groups together.

    A token bucket without a bucket: who reserves waits until what was reserved before has left.
    """

    def __init__(self, bytes_s: int, now: Callable[[], float]) -> None:
        """``now`` is in seconds of a clock that never goes back."""
        self._bytes_s = bytes_s
        self._now = now
        self._free_at_s = 0.0

    def reserve(self, size_bytes: int) -> float:
        """Take room for ``size_bytes``; returns in how many seconds they may be read and sent."""
        now_s = self._now()
        starts_s = max(now_s, self._free_at_s)
        self._free_at_s = starts_s + size_bytes / self._bytes_s
        return starts_s - now_s
