"""One rate for all that a node sends to replicas that catch up; less while its producers suffer.

How long commits take is measured in any case, and what they take while nobody catches up is the
measure. While somebody does, a commit that takes over ``SUFFERS`` times that lowers the rate and
every other one raises it again, such that about one commit in thirteen is that late at most. Only
the effect is looked at: whether disk, network or CPU is what is shared does not matter.

It yields for a while only. A group with a replica that is behind is one failure nearer to standing
still: after ``PATIENCE_S`` the least rate doubles, and again, until it is the whole rate.
"""

from collections.abc import Callable
from math import inf
from typing import Final

LEAST_SHARE: Final = 1 / 8
"""Of the rate: where it begins, and what is left to those that catch up at first."""

PATIENCE_S: Final = 10.0
SUFFERS: Final = 2.0
LOWER: Final = 0.7
RAISE: Final = 1.03

QUIET_S: Final = 1.0
"""Without a reservation for so long nobody catches up."""

IDLE_S: Final = 2.0
"""Without a commit for so long there is nobody to yield to."""

_WEIGHT: Final = 0.02
"""Of one commit in what commits take."""

_OUTLIER: Final = 4.0
"""Times what commits take: what took longer counts as much and no more."""


class CatchUpPacer:
    """Hands out times, so that no more than ``bytes_s`` leave in a second, all groups together.

    A token bucket without a bucket: who reserves waits until what was reserved before has left.
    """

    def __init__(self, bytes_s: int, now: Callable[[], float]) -> None:
        """``now`` is in seconds of a clock that never goes back."""
        self.now = now
        self._bytes_s = bytes_s
        self._free_at_s = 0.0
        self._reserved_at_s = -inf
        self._began_at_s = 0.0
        self._share = 1.0
        self._committed_at_s = -inf
        self._usual_s: float | None = None

    @property
    def bytes_s(self) -> float:
        """The rate at present."""
        if self.now() - self._committed_at_s > IDLE_S:
            return self._bytes_s
        return self._bytes_s * self._share

    def reserve(self, size_bytes: int) -> float:
        """Take room for ``size_bytes``; returns in how many seconds they may be read and sent."""
        now_s = self.now()
        if now_s - max(self._reserved_at_s, self._free_at_s) > QUIET_S:
            self._began_at_s = now_s
            self._share = 1.0 if self._usual_s is None else LEAST_SHARE
        self._reserved_at_s = now_s
        starts_s = max(now_s, self._free_at_s)
        self._free_at_s = starts_s + size_bytes / self.bytes_s
        return starts_s - now_s

    def longest_s(self, size_bytes: int) -> float:
        """How long ``size_bytes`` take at most: at the least share of the rate."""
        return size_bytes / (self._bytes_s * LEAST_SHARE)

    def committed(self, took_s: float) -> None:
        """A batch that this node leads was committed ``took_s`` after it was proposed."""
        now_s = self.now()
        self._committed_at_s = now_s
        usual_s = self._usual_s
        if now_s - max(self._reserved_at_s, self._free_at_s) > QUIET_S:
            self._usual_s = took_s if usual_s is None else _blended(usual_s, took_s)
        elif usual_s is not None:
            factor = LOWER if took_s > SUFFERS * usual_s else RAISE
            self._share = min(1.0, max(self._least_share(now_s), self._share * factor))

    def _least_share(self, now_s: float) -> float:
        doublings = int((now_s - self._began_at_s) / PATIENCE_S)
        return min(1.0, LEAST_SHARE * 2.0 ** min(doublings, 3))


def _blended(usual_s: float, took_s: float) -> float:
    # One that waited for an election says nothing about those that wait for nothing.
    return usual_s + _WEIGHT * (min(took_s, _OUTLIER * usual_s) - usual_s)
