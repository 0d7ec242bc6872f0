"""How long it takes to open a small log and a large one."""

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.child import run_child
from bench.figures import Figure, Scale, in_turns, median_ratio
from bench.logs import SEGMENT_BYTES, make_log, open_log
from bench.sparse_disk import SparseDisk
from quorumlog.log.batch import Draft
from quorumlog.types import MAX_BATCH_BYTES

_BATCHES_IN_SEGMENT: Final = SEGMENT_BYTES // MAX_BATCH_BYTES - 1
"""Each is a header longer than its body, so one less fits."""
_BATCHES_IN_LAST: Final = 12
_LARGE_SEGMENTS: Final = 800
_ROUNDS_PER_REPEAT: Final = 4


def measure_open(directory: Path, scale: Scale) -> list[Figure]:
    """Opening after a clean stop and after a kill; the last segments hold the same."""
    small, large = directory / "small", directory / "large"
    draft = Draft.of(bytes(MAX_BATCH_BYTES), 1)
    segments = scale.count(_LARGE_SEGMENTS)
    disk = SparseDisk(draft.body)
    try:
        make_log(small, draft, _BATCHES_IN_LAST, disk)
        make_log(large, draft, segments * _BATCHES_IN_SEGMENT + _BATCHES_IN_LAST, disk)
        return [
            _opening("after a clean stop", small, large, scale, lambda _: None),
            _opening("after a kill", small, large, scale, lambda path: run_child("die", path, 1)),
        ]
    finally:
        shutil.rmtree(small, ignore_errors=True)
        shutil.rmtree(large, ignore_errors=True)


def _opening(
    when: str, small: Path, large: Path, scale: Scale, prepare: Callable[[Path], object]
) -> Figure:
    def open_time_s(path: Path) -> float:
        prepare(path)
        started = time.perf_counter()
        log = open_log(path)
        elapsed_s = time.perf_counter() - started
        log.close()
        return elapsed_s

    long, short = in_turns(
        scale.repeats * _ROUNDS_PER_REPEAT, lambda: open_time_s(large), lambda: open_time_s(small)
    )
    segments = scale.count(_LARGE_SEGMENTS)
    return Figure(
        f"Open, {when}",
        f"{segments * SEGMENT_BYTES / 1e9:.3g} GB in {segments + 1} segments, sparse files, warm",
        f"{statistics.median(long) * 1000:.2f} ms",
        f"{median_ratio(long, short):.2f} x that of a "
        f"{_BATCHES_IN_LAST * MAX_BATCH_BYTES / 1e6:.0f} MB log "
        f"({statistics.median(short) * 1000:.2f} ms)",
        "the same",
    )
