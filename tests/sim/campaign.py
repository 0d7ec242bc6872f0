"""Many seeds, perhaps on several cores: progress, rates, and what failed."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol


class SeedFailed(AssertionError):
    """A seed found something; the text has all that is needed to look into it."""


class Result(Protocol):
    """What a run that found nothing was like."""

    @property
    def virtual_s(self) -> float: ...

    def counts(self) -> dict[str, int]:
        """What is added up over all seeds, by what it is called."""
        ...


class Run(Protocol):
    """A function of a module, so that other processes find it by its name."""

    def __call__(self, seed: int, echo: Callable[[str], None] | None = None) -> Result:
        """Run one seed; ``echo`` gets every line of the trace. Raises SeedFailed."""
        ...


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
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.done += 1
        if isinstance(outcome, tuple):
            self.failures.append(outcome)
            return
        self.virtual_s += outcome.virtual_s
        self.counts.update(outcome.counts())

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
        counted = ", ".join(f"{count} {what}" for what, count in self.counts.items())
        return f"{self.line()}; {self.virtual_s / 3600:.2f} hours, {counted}"


def outcome_of(run: Run, seed: int) -> Outcome:
    try:
        return run(seed)
    except SeedFailed as failure:
        return seed, str(failure)


def run_seeds(
    run: Run, seeds: Iterable[int], total: int, jobs: int, progress: Callable[[Tally], None]
) -> Tally:
    """Run ``seeds``, of which there are ``total``; ``progress`` is called after each."""
    tally = Tally(total)
    with _outcomes(run, seeds, jobs) as outcomes:
        for outcome in outcomes:
            tally.add(outcome)
            progress(tally)
    return tally


@contextmanager
def _outcomes(run: Run, seeds: Iterable[int], jobs: int) -> Iterator[Iterator[Outcome]]:
    work = partial(outcome_of, run)
    if jobs == 1:
        yield map(work, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield pool.imap_unordered(work, seeds, chunksize=8)
