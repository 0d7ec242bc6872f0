"""How long a suspect has to refute, and how well this node itself is (Lifeguard §IV)."""

import math

from quorumlog.discovery.config import GossipConfig


class Suspicion:
    """The time left to one suspect: it begins long and shrinks with every independent accuser.

    None is the accuser where it is only hearsay that somebody suspects it: that confirms nothing.
    With ``n`` of ``k`` confirmations the timeout is
    ``max - (max - min) * log(n + 1) / log(k + 1)``; in a cluster too small for ``k`` others it is
    ``min`` at once, and longer while this node doubts itself (``put_off``).
    """

    def __init__(self, accuser: str | None, members: int, config: GossipConfig, now: float) -> None:
        wanted = config.suspicion_multiplier - 2
        others = members - 2
        self._wanted = wanted if others >= wanted else 0
        self._too_few = 0 < others < wanted
        scale = max(1.0, math.log10(max(1, members)))
        self._min_s = config.suspicion_multiplier * scale * config.probe_interval_s
        self._max_s = config.suspicion_max_multiplier * self._min_s
        self._accusers = set() if accuser is None else {accuser}
        self._started_at = now
        self.deadline = now + self._timeout_s()
        """When the suspect is declared dead."""

    def confirm(self, accuser: str | None, now: float) -> bool:
        """Count one more accuser; False when it is known already or enough have spoken."""
        enough = len(self._accusers) > self._wanted
        if accuser is None or enough or accuser in self._accusers:
            return False
        self._accusers.add(accuser)
        self.deadline = max(now, self._started_at + self._timeout_s())
        return True

    def put_off(self, health_score: int, now: float) -> bool:
        """Wait longer, with ``now`` at the deadline; False when the time is up.

        Where the others are too few to confirm anything, but some could have been heard, the
        accuser's own health stands in for them: the shortest time ``health_score`` + 1 times, up
        to the longest. Of two members neither can tell which of them is unwell.
        """
        if not self._too_few:
            return False
        self.deadline = self._started_at + min(self._max_s, (health_score + 1) * self._min_s)
        return self.deadline > now

    def _timeout_s(self) -> float:
        if self._wanted < 1:
            return self._min_s
        share = math.log(max(1, len(self._accusers))) / math.log(self._wanted + 1)
        return max(self._min_s, self._max_s - share * (self._max_s - self._min_s))


class LocalHealth:
    """A score from 0 (well) to ``awareness_max - 1``: a node that hears nobody doubts itself.

    Its own timeouts are multiplied by score + 1.
    """

    def __init__(self, awareness_max: int) -> None:
        self._max = awareness_max - 1
        self._score = 0

    @property
    def score(self) -> int:
        return self._score

    def apply(self, delta: int) -> None:
        self._score = min(self._max, max(0, self._score + delta))

    def scale(self, duration_s: float) -> float:
        return duration_s * (self._score + 1)
