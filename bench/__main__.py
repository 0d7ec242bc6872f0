"""``python -m bench [PART]... [--quick] [--no-publish]``, from the repository."""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.discovery import measure_discovery
from bench.figures import FULL, QUICK, Figure, Scale
from bench.partitions import measure_partitions
from bench.replicated import measure_replicated
from bench.report import publish, render
from bench.storage import measure_storage

DIRECTORY: Final = Path(".run/bench")
PARTS: Final[dict[str, Callable[[Path, Scale], list[Figure]]]] = {
    "storage": measure_storage,
    "replicated": measure_replicated,
    "partitions": measure_partitions,
    "discovery": measure_discovery,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all if none")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the work, once; publishes nothing"
    )
    parser.add_argument(
        "--no-publish", action="store_true", help="leave bench/results.md and README.md alone"
    )
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {sorted(unknown)[0]!r}: the parts are {', '.join(PARTS)}")
    scale = QUICK if options.quick else FULL
    for part in options.parts or PARTS:
        shutil.rmtree(DIRECTORY, ignore_errors=True)
        DIRECTORY.mkdir(parents=True)
        try:
            table = render(PARTS[part](DIRECTORY, scale), scale)
        except KeyboardInterrupt:
            print("bench: interrupted; no node is left running", file=sys.stderr)
            return 130
        finally:
            shutil.rmtree(DIRECTORY, ignore_errors=True)
        print(table, flush=True)
        if not (options.quick or options.no_publish):
            publish(part, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
