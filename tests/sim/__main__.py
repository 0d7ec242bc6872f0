"""``python -m sim --seeds N --start S``: run the simulator. ``make sim`` is the short way."""

import argparse
import sys
import time
from typing import Final

from sim.campaign import Tally, run_seeds
from sim.simulation import SimulationFailed, run

PROGRESS_S: Final = 10.0
"""Between two lines of progress where nobody watches; a terminal gets five a second."""

SHOWN_FAILURES: Final = 3


class Progress:
    """Writes failures to stderr at once, and the line of progress not too often."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = 0
        self._next_s = 0.0 if self._terminal else time.monotonic() + PROGRESS_S

    def __call__(self, tally: Tally) -> None:
        now_s = time.monotonic()
        for seed, text in tally.failures[self._shown :]:
            print(f"seed {seed}: {text.splitlines()[0]}", file=sys.stderr, flush=True)
        self._shown = len(tally.failures)
        if now_s >= self._next_s:
            self._next_s = now_s + (0.2 if self._terminal else PROGRESS_S)
            print(tally.line(), end="\r" if self._terminal else "\n", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sim", description="Simulate whole clusters from seeds.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--start", type=int, default=0, help="the first one (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.jobs < 1 or options.start < 0:
        parser.error("--seeds and --jobs are at least 1, --start is at least 0")
    seeds = range(options.start, options.start + options.seeds)
    if options.trace:
        return _trace(seeds)
    tally = run_seeds(seeds, options.seeds, options.jobs, Progress())
    print(tally.summary())
    for _, text in tally.failures[:SHOWN_FAILURES]:
        print(f"\n{text}")
    for seed, text in tally.failures[SHOWN_FAILURES:]:
        print(f"\nmake sim SEEDS=1 START={seed}: {text.splitlines()[0]}")
    return 1 if tally.failures else 0


def _trace(seeds: range) -> int:
    for seed in seeds:
        try:
            print(run(seed, echo=print))
        except SimulationFailed as failure:
            print(failure)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
