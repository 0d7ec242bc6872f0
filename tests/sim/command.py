"""The command behind ``make sim`` and its like: seeds from here to there, progress, what failed."""

import argparse
import sys
import time
from typing import Final

from sim.campaign import Run, SeedFailed, Tally, run_seeds

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


def main(run: Run, target: str, description: str, arguments: list[str] | None = None) -> int:
    """Run the seeds that the command line names; the exit code. ``target`` is that of make."""
    parser = argparse.ArgumentParser(prog=target, description=description)
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--start", type=int, default=0, help="the first one (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.jobs < 1 or options.start < 0:
        parser.error("--seeds and --jobs are at least 1, --start is at least 0")
    seeds = range(options.start, options.start + options.seeds)
    if options.trace:
        return _trace(run, seeds)
    tally = run_seeds(run, seeds, options.seeds, options.jobs, Progress())
    print(tally.summary())
    for _, text in tally.failures[:SHOWN_FAILURES]:
        print(f"\n{text}")
    for seed, text in tally.failures[SHOWN_FAILURES:]:
        print(f"\nmake {target} SEEDS=1 START={seed}: {text.splitlines()[0]}")
    return 1 if tally.failures else 0


def _trace(run: Run, seeds: range) -> int:
    for seed in seeds:
        try:
            print(run(seed, echo=print))
        except SeedFailed as failure:
            print(failure)
            return 1
    return 0
