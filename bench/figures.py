"""A measured figure, and the small statistics behind it."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    what: str
    configured: str
    """Whatever the figure depends on: replicas, fsync, batch, size."""
    measured: str
    compared: str = ""
    """The same work without quorumlog in the same run, and the ratio to it."""
    goal: str = ""
    """What ``compared``, or ``measured`` where nothing is compared, has to be."""


@dataclass(frozen=True)
class Scale:
    """How much work a run does."""

    repeats: int
    factor: float
    """Of the full number of records and bytes."""

    def count(self, full: int, multiple_of: int = 1) -> int:
        """``full`` scaled, at least one ``multiple_of`` and a multiple of it."""
        return max(1, round(full * self.factor / multiple_of)) * multiple_of


FULL = Scale(repeats=5, factor=1.0)
QUICK = Scale(repeats=1, factor=0.1)


def in_turns(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """What each of ``measures`` returned in each round.

    They run one after the other in every round, so what disturbs the machine for longer than a
    round disturbs all of them; every other round runs them backwards, for none is always first.
    """
    results: list[list[float]] = [[] for _ in measures]
    for number in range(rounds):
        order = range(len(measures))
        for each in reversed(order) if number % 2 else order:
            results[each].append(measures[each]())
    return results


def median_ratio(measured: Sequence[float], compared: Sequence[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(m / c for m, c in zip(measured, compared, strict=True))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` % of ``values`` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def latency_percentiles(latencies_s: Sequence[float]) -> str:
    """p50, p90, p99 and p99.9 in milliseconds."""
    shown = (50, 90, 99, 99.9)
    return ", ".join(f"p{p:g} {percentile(latencies_s, p) * 1000:.2f}" for p in shown) + " ms"


def rate(records: float, record_bytes: int) -> str:
    """``records`` a second in words."""
    return f"{records:,.0f} records/s, {records * record_bytes / 1e6:,.1f} MB/s"


def ratio(measured: float, bare: float) -> str:
    return percent(measured / bare)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"
