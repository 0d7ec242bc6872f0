"""The memory that a log takes."""

import shutil
import statistics
from pathlib import Path
from typing import Final

from bench.child import run_child
from bench.figures import Figure, Scale

_READS: Final = 1000
_BATCHES: Final = 20_000


def memory_of_open_log(directory: Path, size_bytes: int, scale: Scale) -> Figure:
    """What the log of ``size_bytes`` in ``directory`` takes in a fresh process."""
    runs = [run_child("memory", directory, scale.count(_READS)) for _ in range(scale.repeats)]
    opened = statistics.median(run[0] for run in runs)
    read = statistics.median(run[1] for run in runs)
    return Figure(
        "Memory of an open log",
        f"{size_bytes / 1e9:g} GB log in a fresh process, beyond what the process takes once "
        "quorumlog is imported",
        f"{opened / 1e6:.1f} MB",
        f"{read / 1e6:.1f} MB after {scale.count(_READS):,} random reads",
        "5 MB",
    )


def memory_over_time(directory: Path, scale: Scale) -> Figure:
    """By how much a process grows while the log it keeps stays the same size."""
    batches = scale.count(_BATCHES)
    runs = []
    for _ in range(scale.repeats):
        runs += run_child("grow", directory / "growing", batches)
        shutil.rmtree(directory / "growing")
    return Figure(
        "Memory over time",
        f"{batches:,} batches of 100, 100 B values; 1 MiB segments, the newest 8 MiB kept",
        f"{statistics.median(runs) / 1e6:.1f} MB more at the end than after a quarter",
        goal="steady",
    )
