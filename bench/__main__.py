"""``python -m bench [--quick] [--no-publish]``, from the root of the repository."""

import argparse
import shutil
import sys
from pathlib import Path

from bench.embedded import measure_embedded
from bench.figures import FULL, QUICK
from bench.replicated import measure_replicated
from bench.report import publish, render

DIRECTORY = Path(".run/bench")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the work, once; publishes nothing"
    )
    parser.add_argument(
        "--no-publish", action="store_true", help="leave bench/results.md and README.md alone"
    )
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True)
    try:
        figures = measure_embedded(DIRECTORY, scale) + measure_replicated(DIRECTORY, scale)
    except KeyboardInterrupt:
        print("bench: interrupted; no node is left running", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(DIRECTORY, ignore_errors=True)
    table = render(figures, scale)
    print(table)
    if not (options.quick or options.no_publish):
        publish(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
