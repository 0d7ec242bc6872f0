"""Appends to one log, against the system's calls alone."""

import os
import shutil
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
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
_SINGLE_BYTES: Final = 256
_ROUNDS_PER_REPEAT: Final = 8
"""Latency of the disk drifts in seconds: such rounds are short and many."""
_THREADS: Final = 32


def measure_appends(directory: Path, scale: Scale) -> list[Figure]:
    return [
        _ready_made_batches(directory, scale),
        _values_in_batches(directory, scale),
        _single_records(directory, scale),
        _many_threads(directory, scale),
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


def _single_records(directory: Path, scale: Scale) -> Figure:
    value = bytes(_SINGLE_BYTES)
    block = bytes(HEADER_SIZE) + encode_body([RecordData(value)])
    rounds = scale.repeats * _ROUNDS_PER_REPEAT
    count = scale.count(100)
    descriptor = os.open(directory / "bare", os.O_CREAT | os.O_WRONLY)
    try:
        # Preallocated as segments are: a file that grows costs a journal entry a sync.
        os.posix_fallocate(descriptor, 0, len(block) * count * rounds)
        os.fsync(descriptor)
        with quorumlog.open(directory / "single") as log:
            measured, bare = in_turns(
                rounds,
                lambda: _append_time_s(log, value, count),
                lambda: _synced_write_time_s(descriptor, block, count),
            )
    finally:
        os.close(descriptor)
        (directory / "bare").unlink()
        shutil.rmtree(directory / "single", ignore_errors=True)
    return Figure(
        "Append, one record at a time",
        f"one thread, fsync always, {_SINGLE_BYTES} B",
        f"{statistics.median(measured) * 1000:.3f} ms a record",
        f"{median_ratio(measured, bare):.2f} x a bare write + fdatasync of the same bytes "
        f"({statistics.median(bare) * 1000:.3f} ms)",
        "1.2 x",
    )


def _append_time_s(log: quorumlog.EmbeddedLog, value: bytes, count: int) -> float:
    """Seconds of one append, on average."""
    started = time.perf_counter()
    for _ in range(count):
        log.append(value)
    return (time.perf_counter() - started) / count


def _synced_write_time_s(descriptor: int, block: bytes, count: int) -> float:
    """Seconds of one ``os.write`` + ``fdatasync``, on average."""
    started = time.perf_counter()
    for _ in range(count):
        os.write(descriptor, block)
        os.fdatasync(descriptor)
    return (time.perf_counter() - started) / count


def _many_threads(directory: Path, scale: Scale) -> Figure:
    value = bytes(_SINGLE_BYTES)
    each = scale.count(100)
    with (
        quorumlog.open(directory / "threads") as log,
        ThreadPoolExecutor(_THREADS) as pool,
    ):

        def together() -> float:
            started = time.perf_counter()
            for done in [pool.submit(_append_time_s, log, value, each) for _ in range(_THREADS)]:
                done.result()
            return _THREADS * each / (time.perf_counter() - started)

        many, one = in_turns(scale.repeats, together, lambda: 1 / _append_time_s(log, value, each))
    shutil.rmtree(directory / "threads")
    return Figure(
        f"Append, {_THREADS} threads, one record in flight each",
        f"fsync always, {_SINGLE_BYTES} B",
        f"{statistics.median(many):,.0f} records/s",
        f"{median_ratio(many, one):.1f} x one thread ({statistics.median(one):,.0f} records/s)",
        "5 x",
    )
