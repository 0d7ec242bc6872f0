"""Many seeds, perhaps on several cores: progress, rates, and what failed."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sim.simulation import Result, SimulationFailed, run

Outcome = Result | tuple[int, str]
"""What a seed gave: its result, or the seed and the text of its failure."""


@dataclass(slots=True)
class Tally:
    """What the seeds that are done gave so far; times in seconds."""

    total: int
    started_s: float = field(default_factory=time.monotonic)
    done: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    virtual_s: float = 0.0
    messages: int = 0
    faults: int = 0
    elections: int = 0
    records: int = 0

    def add(self, outcome: Outcome) -> None:
        self.done += 1
        if not isinstance(outcome, Result):
            self.failures.append(outcome)
            return
        self.virtual_s += outcome.virtual_s
        self.messages += outcome.messages
        self.faults += outcome.faults
        self.elections += outcome.elections
        self.records += outcome.records

    @property
    def elapsed_s(self) -> float:
        return max(time.monotonic() - self.started_s, 1e-6)

    def line(self) -> str:
        """One line of progress."""
        hours_a_minute = self.virtual_s / 3600 / (self.elapsed_s / 60)
        return (
            f"{self.done}/{self.total} seeds, {len(self.failures)} failed, "
            f"{self.done / self.elapsed_s:.1f} seeds/s, "
            f"{hours_a_minute:.2f} simulated hours a minute"
        )

    def summary(self) -> str:
        return (
            f"{self.line()}; {self.virtual_s / 3600:.2f} hours, {self.messages} messages, "
            f"{self.faults} faults, {self.elections} elections, {self.records} records read"
        )


def outcome_of(seed: int) -> Outcome:
    try:
        return run(seed)
    except SimulationFailed as failure:
        return seed, str(failure)


def run_seeds(
    seeds: Iterable[int], total: int, jobs: int, progress: Callable[[Tally], None]
) -> Tally:
    """Run ``seeds``, of which there are ``total``; ``progress`` is called after each."""
    tally = Tally(total)
    with _outcomes(seeds, jobs) as outcomes:
        for outcome in outcomes:
            tally.add(outcome)
            progress(tally)
    return tally


@contextmanager
def _outcomes(seeds: Iterable[int], jobs: int) -> Iterator[Iterator[Outcome]]:
    if jobs == 1:
        yield map(outcome_of, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield pool.imap_unordered(outcome_of, seeds, chunksize=8)
