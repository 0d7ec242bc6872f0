"""``python -m stored --seeds N --start S``: let logs die. ``make storage`` is the short way.

A seed is a scenario, of random operations or one of the table, and twenty disasters in it.
"""

import argparse
import multiprocessing
import sys
import time
from typing import Final

from stored.campaign import DISASTERS, run

PROGRESS_S: Final = 10.0
SHOWN_FAILURES: Final = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="stored", description="Let logs die in many ways.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--start", type=int, default=0, help="the first one (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    options = parser.parse_args()
    if options.seeds < 1 or options.jobs < 1 or options.start < 0:
        parser.error("--seeds and --jobs are at least 1, --start is at least 0")
    seeds = range(options.start, options.start + options.seeds)
    began_s = shown_s = time.monotonic()
    failed = 0
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        results = pool.imap(run, seeds, chunksize=4)
        for done, (seed, failure) in enumerate(zip(seeds, results, strict=True), 1):
            if failure:
                failed += 1
                print(f"make storage SEEDS=1 START={seed}: {failure.splitlines()[0]}")
                if failed <= SHOWN_FAILURES:
                    print(failure)
            if time.monotonic() - shown_s > PROGRESS_S:
                shown_s = time.monotonic()
                print(f"{done}/{len(seeds)} seeds, {failed} failed", file=sys.stderr, flush=True)
    rate = len(seeds) / max(time.monotonic() - began_s, 1e-6)
    print(f"{len(seeds)} seeds, {DISASTERS} disasters each, {failed} failed, {rate:.1f} seeds/s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
