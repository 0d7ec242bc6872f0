"""``python -m tla --traces N``: check more traces than the tests do. Short: ``make tla``."""

import argparse
import sys
import tempfile
from pathlib import Path

from tla.recorder import RecordedGroup, record_run, usable_seeds
from tla.tlc import refused_at, why_missing

_SHOWN = 12


def main() -> int:
    parser = argparse.ArgumentParser(prog="tla", description=__doc__)
    parser.add_argument("--traces", type=int, default=50, help="how many (default 50)")
    parser.add_argument("--start", type=int, default=0, help="the first seed (default 0)")
    options = parser.parse_args()
    if (missing := why_missing()) is not None:
        print(f"tla: {missing}", file=sys.stderr)
        return 1
    count = 0
    for seed in usable_seeds(options.traces, options.start):
        group = RecordedGroup(seed)
        record_run(group)
        with tempfile.TemporaryDirectory() as directory:
            refused = refused_at(Path(directory), group.events)
        if refused is not None:
            print(f"seed {seed}: Raft does not allow event {refused}, the last of these:")
            print("\n".join(group.events[max(0, refused + 1 - _SHOWN) : refused + 1]))
            return 1
        count += len(group.events)
        print(f"seed {seed}: {len(group.events)} events", flush=True)
    print(f"{options.traces} traces, {count} events: all behaviours of Raft")
    return 0


if __name__ == "__main__":
    sys.exit(main())
