"""``python -m tla --traces N``: check more traces than the tests do. Short: ``make tla``."""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from tla.recorder import RecordedGroup, record_run, usable_seeds
from tla.tlc import refusals, why_missing
from tla.trace import Trace, kinds_of

_SHOWN: Final = 12
_TOGETHER: Final = 10
"""Traces of one Java process, if they are of the same nodes."""

_TIMEOUT_S: Final = 1800.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="tla", description=__doc__)
    parser.add_argument("--traces", type=int, default=50, help="how many (default 50)")
    parser.add_argument("--start", type=int, default=0, help="the first seed (default 0)")
    options = parser.parse_args()
    if (missing := why_missing()) is not None:
        print(f"tla: {missing}", file=sys.stderr)
        return 1
    seeds = usable_seeds(options.traces, options.start)
    kinds: Counter[str] = Counter()
    for at in range(0, len(seeds), _TOGETHER):
        groups = {seed: RecordedGroup(seed) for seed in seeds[at : at + _TOGETHER]}
        for group in groups.values():
            record_run(group)
            kinds.update(kinds_of(group.recorded))
        refused = _first_refused({seed: group.recorded for seed, group in groups.items()})
        if refused is not None:
            print(refused)
            return 1
        print(f"seeds {min(groups)} to {max(groups)}: {sum(kinds.values())} events", flush=True)
    print(f"{options.traces} traces, {sum(kinds.values())} events, all behaviours of Raft:")
    print(", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    return 0


def _first_refused(traces: dict[int, Trace]) -> str | None:
    """The event that Raft does not allow, with what led to it, for people; by seed."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for seed, trace in traces.items():
        alike.setdefault((trace.nodes, trace.voters), []).append(seed)
    for seeds in alike.values():
        with tempfile.TemporaryDirectory() as directory:
            found = refusals(Path(directory), [traces[seed] for seed in seeds], _TIMEOUT_S)
        for seed, at in zip(seeds, found, strict=True):
            if at is not None:
                shown = traces[seed].events[max(0, at + 1 - _SHOWN) : at + 1]
                heading = f"seed {seed}: Raft does not allow event {at}, the last of these:"
                return "\n".join([heading, *shown])
    return None


if __name__ == "__main__":
    sys.exit(main())
