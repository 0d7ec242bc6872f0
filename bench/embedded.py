"""The log in this process: no server, no replicas."""

import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import quorumlog
from bench.baselines import synced_write_s, write_rate
from bench.figures import Figure, Scale, ratio
from quorumlog.log.batch import Draft
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from quorumlog.log.records import encode_body
from quorumlog.system import SystemClock, SystemDisk
from quorumlog.types import RecordData

_BATCH_BYTES: Final = 64 * 1024
_SEGMENT_BYTES: Final = 64 * 1024 * 1024
_RECORD_BYTES: Final = 256
_RECORDS_PER_BATCH: Final = 100


def measure_embedded(directory: Path, scale: Scale) -> list[Figure]:
    """Appends of ready-made batches, of single records and of small batches."""
    return [
        _ready_made_batches(directory, scale),
        _single_records(directory, scale),
        _small_batches(directory, scale),
    ]


def _ready_made_batches(directory: Path, scale: Scale) -> Figure:
    body = encode_body([RecordData(bytes(1000))] * (_BATCH_BYTES // 1007))
    count = scale.count(4096)

    def append() -> float:
        return _append_batches(directory / "batches", body, count)

    measured, bare = _alternately(
        scale, append, lambda: write_rate(directory / "bare", body, count, _SEGMENT_BYTES)
    )
    return Figure(
        "Embedded append, ready-made 64 KiB batches",
        "one replica, both synced every 64 MiB only: where a segment is sealed",
        f"{measured / 1e6:,.0f} MB/s",
        f"{ratio(measured, bare)} of bare writes of the same bytes ({bare / 1e6:,.0f} MB/s)",
    )


def _append_batches(directory: Path, body: bytes, count: int) -> float:
    """Bytes a second of stamping, appending and writing ``body`` ``count`` times."""
    log = Log.open(
        SystemDisk(), str(directory), LogConfig(_SEGMENT_BYTES, fsync="never"), SystemClock()
    )
    try:
        records = len(body) // 1007
        draft = Draft.of(body, records)
        started = time.perf_counter()
        for _ in range(count):
            log.append([draft.stamp(log.next_index, 1, log.end_offset, log.last_timestamp_ms)])
            log.flush()
        return len(body) * count / (time.perf_counter() - started)
    finally:
        log.close()
        shutil.rmtree(directory)


def _single_records(directory: Path, scale: Scale) -> Figure:
    value = bytes(_RECORD_BYTES)
    count = scale.count(1000)

    def append() -> float:
        with quorumlog.open(directory / "single") as log:
            started = time.perf_counter()
            for _ in range(count):
                log.append(value)
            elapsed_s = time.perf_counter() - started
        shutil.rmtree(directory / "single")
        return elapsed_s / count

    measured, bare = _alternately(
        scale, append, lambda: synced_write_s(directory / "bare", value, count)
    )
    return Figure(
        "Embedded append, one record at a time",
        f"one replica, fsync always, {_RECORD_BYTES} B",
        f"{measured * 1000:.2f} ms a record",
        f"{measured / bare:.2f} x a bare write + fdatasync ({bare * 1000:.2f} ms)",
    )


def _small_batches(directory: Path, scale: Scale) -> Figure:
    values = [bytes(_RECORD_BYTES)] * _RECORDS_PER_BATCH
    count = scale.count(1000)

    def append() -> float:
        with quorumlog.open(directory / "small") as log:
            started = time.perf_counter()
            for _ in range(count):
                log.append_batch(values)
            elapsed_s = time.perf_counter() - started
        shutil.rmtree(directory / "small")
        return elapsed_s / count

    block = encode_body([RecordData(value) for value in values])
    measured, bare = _alternately(
        scale, append, lambda: synced_write_s(directory / "bare", block, count)
    )
    return Figure(
        f"Embedded append, batches of {_RECORDS_PER_BATCH}",
        f"one replica, fsync always, {_RECORD_BYTES} B records",
        f"{_RECORDS_PER_BATCH / measured:,.0f} records/s",
        f"{measured / bare:.2f} x the time of a bare write + fdatasync of the same bytes",
    )


def _alternately(
    scale: Scale, measure: Callable[[], float], bare: Callable[[], float]
) -> tuple[float, float]:
    """The medians of both, run in turns: what disturbs the machine then disturbs both."""
    pairs = [(measure(), bare()) for _ in range(scale.repeats)]
    return statistics.median(m for m, _ in pairs), statistics.median(b for _, b in pairs)
