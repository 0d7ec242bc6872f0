"""A node's own clocks: they start anywhere and run a little fast or slow."""

import random
from asyncio import AbstractEventLoop
from typing import Final

EPOCH_MS: Final = 1_700_000_000_000
"""The wall clock of an exact node at the start of a run."""


class SimClock:
    """``monotonic_s`` runs at ``1 + drift`` times the speed of the simulation; ``wall_ms`` may be
    set back or forth at any time (``skew_ms``)."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        *,
        offset_s: float = 0.0,
        drift: float = 0.0,
        skew_ms: int = 0,
    ) -> None:
        self._loop = loop
        self._offset_s = offset_s
        self._rate = 1.0 + drift
        self.skew_ms = skew_ms

    @staticmethod
    def drawn(
        loop: AbstractEventLoop, rng: random.Random, max_drift: float, max_skew_ms: int
    ) -> "SimClock":
        return SimClock(
            loop,
            offset_s=rng.uniform(0, 1000),
            drift=rng.uniform(-max_drift, max_drift),
            skew_ms=rng.randint(-max_skew_ms, max_skew_ms),
        )

    def monotonic_s(self) -> float:
        return self._offset_s + self._loop.time() * self._rate

    def wall_ms(self) -> int:
        return EPOCH_MS + self.skew_ms + int(self._loop.time() * 1000)
