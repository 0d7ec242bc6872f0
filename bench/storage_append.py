"""Appends to one log that is not synced, against the system's calls alone."""

import shutil
import statistics
import time
from pathlib import Path
from typing import Final

import quorumlog
from bench.baselines import write_rate
from bench.figures import Figure, Scale, in_turns, median_ratio, percent
from bench.logs import SEGMENT_BYTES, draft_of, open_log
from quorumlog.log.batch import HEADER_SIZE, Draft
from quorumlog.log.records import encode_body
from quorumlog.types import RecordData

_BATCH_BYTES: Final = 64 * 1024
_VALUE_BYTES: Final = 100
_RECORDS_PER_BATCH: Final = 100


def measure_appends(directory: Path, scale: Scale) -> list[Figure]:
    return [
        _ready_made_batches(directory, scale),
        _values_in_batches(directory, scale),
    ]


def _ready_made_batches(directory: Path, scale: Scale) -> Figure:
    draft = draft_of(_BATCH_BYTES, 1000)
    block = bytes(HEADER_SIZE) + bytes(draft.body)
    count = scale.count(4096)
    measured, bare = in_turns(
        scale.repeats,
        lambda: _append_batches(directory / "batches", draft, count),
        lambda: write_rate(directory / "bare", block, count, SEGMENT_BYTES),
    )
    return Figure(
        "Append, ready-made 64 KiB batches",
        "both synced every 64 MiB only: where a segment is sealed",
        f"{statistics.median(measured) / 1e6:,.0f} MB/s",
        f"{percent(median_ratio(measured, bare))} of bare writes of the same bytes "
        f"({statistics.median(bare) / 1e6:,.0f} MB/s)",
        "80 %",
    )


def _append_batches(directory: Path, draft: Draft, count: int) -> float:
    """Bytes a second of stamping, appending and writing ``draft`` ``count`` times."""
    log = open_log(directory)
    try:
        started = time.perf_counter()
        for _ in range(count):
            log.append([draft.stamp(log.next_index, 1, log.end_offset, log.last_timestamp_ms)])
            log.flush()
        elapsed_s = time.perf_counter() - started
    finally:
        log.close()
        shutil.rmtree(directory)
    return (HEADER_SIZE + len(draft.body)) * count / elapsed_s


def _values_in_batches(directory: Path, scale: Scale) -> Figure:
    values = [bytes(_VALUE_BYTES)] * _RECORDS_PER_BATCH
    block = bytes(HEADER_SIZE) + encode_body([RecordData(value) for value in values])
    count = scale.count(10_000)

    def append() -> float:
        with quorumlog.open(directory / "values", fsync="never") as log:
            started = time.perf_counter()
            for _ in range(count):
                log.append_batch(values)
            elapsed_s = time.perf_counter() - started
        shutil.rmtree(directory / "values")
        return _RECORDS_PER_BATCH * count / elapsed_s

    def bare() -> float:
        blocks_per_s = write_rate(directory / "bare", block, count, SEGMENT_BYTES) / len(block)
        return _RECORDS_PER_BATCH * blocks_per_s

    measured, written = in_turns(scale.repeats, append, bare)
    return Figure(
        f"Append, Python values in batches of {_RECORDS_PER_BATCH}",
        f"one thread, fsync never, {_VALUE_BYTES} B values",
        f"{statistics.median(measured):,.0f} records/s",
        f"{1 / median_ratio(measured, written):.1f} x the time of bare writes of the same bytes",
        "600,000 records/s",
    )
