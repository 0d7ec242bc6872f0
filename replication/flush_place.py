"""Where a flush is done: in the event loop, or on the worker.

The worker costs two hops between threads, on a busy machine several times what a quick disk takes
for a small write. In the event loop a flush costs all groups of the node the time of the disk.
"""

from typing import Final

_WEIGHT: Final = 0.125
"""Of the newest flush in the mean."""
_MOST_COUNTED: Final = 8
"""Limits that a flush counts for at most: one that hung sends the next few to the worker, not the
next hundred. A process that others push aside sees such flushes of the best of disks."""


class FlushPlace:
    """One per node: its groups share the event loop and, as a rule, the disk.

    The first flush goes to the worker: nothing is known of the disk then.
    """

    def __init__(self, limit_s: float) -> None:
        """``limit_s``: what small flushes took lately, at most, for one to be done in the loop."""
        self._limit_s = limit_s
        self._mean_s: float | None = None
        self._on_worker = 0
        self._free_at_s = 0.0

    def allows_loop(self, now_s: float) -> bool:
        """Whether a small flush may be done in the event loop at ``now_s``.

        Not while another group's is under way: it would wait for that one's. Nor for as long after
        one as that took: at least half of the loop's time is left to everything else.
        """
        return (
            self._mean_s is not None
            and self._mean_s < self._limit_s
            and self._on_worker == 0
            and now_s >= self._free_at_s
        )

    def done_in_loop(self, began_s: float, ended_s: float) -> None:
        """A flush was done in the event loop between these times of the monotonic clock."""
        self._note(ended_s - began_s)
        self._free_at_s = 2 * ended_s - began_s

    def given_to_worker(self) -> None:
        """A flush begins on the worker; :meth:`done_on_worker` follows."""
        self._on_worker += 1

    def done_on_worker(self, took_s: float | None) -> None:
        """It ended. ``took_s``: of one that was small, and without what it waited for a thread."""
        self._on_worker -= 1
        if took_s is not None:
            self._note(took_s)

    def _note(self, took_s: float) -> None:
        counted_s = min(took_s, _MOST_COUNTED * self._limit_s)
        mean_s = counted_s if self._mean_s is None else self._mean_s
        self._mean_s = mean_s + _WEIGHT * (counted_s - mean_s)
