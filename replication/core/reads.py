"""Reads that a leader may answer: a round or the lease confirms them (§8; dissertation §6.4).

A *round* is a number that every AppendRequest carries and every answer gives back. An answer to
round ``r`` says: at a moment after ``r`` was opened, its sender had no newer leader. A majority of
such answers says that nobody else was elected before ``r`` was opened, so this leader's commit
index of that moment, once its term's no-op is committed, is not behind anybody's.

The *lease* is the same for free. Whoever takes a leader's request votes for nobody within an
election timeout E of its own clock, also over a restart (:mod:`.election`). So while a majority has
answered a round that was opened less than ``lease_fraction`` * E ago by the leader's clock, nobody
else was elected. Let clocks run at 1 - d to 1 + d seconds a second: the leader thinks that at most
0.75 E / (1 - d) have passed, its followers wait for E / (1 + d) at least. With d = 0.1 that is
0.83 E and 0.91 E; from d = 1/7 on the lease would lie. A round counts from when it was *opened*,
before any request with it left: from the answer's arrival, the lease would count the way there
and back as promised time. Who orders an election with TimeoutNow breaks the promises, at a moment
that nobody knows: it has no lease again in that term.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from quorumlog.errors import Overloaded
from quorumlog.types import Index

_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class _Read:
    number: int
    round: int
    index: Index


class Reads:
    """The rounds of one leadership and the reads that wait for them."""

    def __init__(self, now: float, *, keep_s: float, max_waiting: int) -> None:
        """``keep_s``: how long after its opening a round is of use to the lease."""
        self.round = 1
        """The newest one; what is sent now carries it."""
        self._keep_s = keep_s
        self._max_waiting = max_waiting
        self._opened_at: deque[float] = deque([now])
        self._has_left = False
        self._waiting: deque[_Read] = deque()
        self._reads = 0

    def open_round(self, now: float) -> None:
        """What is sent from here on carries a round that nobody has heard of yet."""
        if not self._has_left:
            return
        self._has_left = False
        self.round += 1
        opened_at = self._opened_at
        opened_at.append(now)
        while opened_at[0] < now - self._keep_s:
            opened_at.popleft()

    def sent(self) -> None:
        """A request with :attr:`round` is on its way."""
        self._has_left = True

    def opened_at(self, number: int) -> float:
        """When round ``number`` was opened; long ago for one that is of no use any more."""
        at = number - self.round - 1
        return self._opened_at[at] if at >= -len(self._opened_at) else _NEVER

    def wait(self, index: Index, now: float) -> int:
        """A read wants ``index`` committed, and a round from now on confirmed. Its number.

        Raises:
            Overloaded: too many wait.
        """
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(
                f"{self._max_waiting} reads wait for this leader to be confirmed: "
                "try again in a moment"
            )
        self.open_round(now)
        self._reads += 1
        self._waiting.append(_Read(self._reads, self.round, index))
        return self._reads

    @property
    def are_waiting(self) -> bool:
        return bool(self._waiting)

    def take_allowed(self, confirmed_round: int, commit_index: Index) -> list[tuple[int, Index]]:
        """(number, index) of the reads that may be answered once ``index`` is applied, in order."""
        allowed: list[tuple[int, Index]] = []
        waiting = self._waiting
        # Rounds and indexes never decrease from one read to the next.
        while waiting and waiting[0].round <= confirmed_round and waiting[0].index <= commit_index:
            read = waiting.popleft()
            allowed.append((read.number, read.index))
        return allowed
