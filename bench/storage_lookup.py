"""Finding one record in a small log and in a large one."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.figures import Figure, Scale, microseconds, percentile
from bench.logs import FIRST_TIMESTAMP_MS, draft_of, make_log, open_log
from bench.storage_memory import memory_of_open_log
from quorumlog.log.batch import Draft, iterate_batches
from quorumlog.log.log import Log
from quorumlog.log.records import decode_records

_SMALL_BYTES: Final = 100_000_000
_LARGE_BYTES: Final = 10_000_000_000
_BATCH_BYTES: Final = 16 * 1024
_RECORD_BYTES: Final = 1000
_LOOKUPS: Final = 20_000
_COLD_LOOKUPS: Final = 1_000
_LOOKUPS_IN_TURN: Final = 100
_SEED: Final = 1


def measure_lookups(directory: Path, scale: Scale) -> list[Figure]:
    """Random reads, warm and cold, searches by time, and the memory that an open log takes."""
    small, large = directory / "small", directory / "large"
    draft = draft_of(_BATCH_BYTES, _RECORD_BYTES)
    try:
        for path, size_bytes in ((small, _SMALL_BYTES), (large, _LARGE_BYTES)):
            make_log(path, draft, scale.count(size_bytes) // len(draft.body) + 1)
        figures = [
            _random_reads(small, large, draft, scale, is_cold=False),
            _searches_by_time(small, large, draft, scale),
            memory_of_open_log(large, scale.count(_LARGE_BYTES), scale),
        ]
        figures.append(_random_reads(small, large, draft, scale, is_cold=True))
        return figures
    finally:
        shutil.rmtree(small, ignore_errors=True)
        shutil.rmtree(large, ignore_errors=True)


def _random_reads(small: Path, large: Path, draft: Draft, scale: Scale, *, is_cold: bool) -> Figure:
    count = scale.count(_COLD_LOOKUPS if is_cold else _LOOKUPS)
    times_s = _lookups_in_turns(small, large, scale.repeats, count, _read_record, is_cold=is_cold)
    return Figure(
        f"Read one record by offset, {'cold' if is_cold else 'warm'}",
        f"{_gigabytes(_LARGE_BYTES, scale)} log, {len(draft.body) // 1024} KiB batches of "
        f"{draft.record_count}, random offsets, decoded; "
        f"{'from the disk' if is_cold else 'from the page cache'}",
        _p50_and_p99(times_s[1]),
        f"p99 {_ratio_at(times_s, 99):.2f} x, p50 {_ratio_at(times_s, 50):.2f} x that of a "
        f"{_gigabytes(_SMALL_BYTES, scale)} log ({_p50_and_p99(times_s[0])})",
        "" if is_cold else "p99 2 x",
    )


def _searches_by_time(small: Path, large: Path, draft: Draft, scale: Scale) -> Figure:
    count = scale.count(_LOOKUPS)
    times_s = _lookups_in_turns(small, large, scale.repeats, count, _search_time, is_cold=False)
    return Figure(
        "offset_for_time",
        f"{_gigabytes(_LARGE_BYTES, scale)} log, {len(draft.body) // 1024} KiB batches, "
        "random times, warm",
        _p50_and_p99(times_s[1]),
        f"p99 {_ratio_at(times_s, 99):.2f} x that of a {_gigabytes(_SMALL_BYTES, scale)} log "
        f"({_p50_and_p99(times_s[0])})",
        "below 1,000 µs",
    )


def _lookups_in_turns(
    small: Path,
    large: Path,
    rounds: int,
    count: int,
    look_up: Callable[[Log, float], None],
    *,
    is_cold: bool,
) -> tuple[list[float], list[float]]:
    """Seconds of every lookup in the small and in the large log, which take short turns.

    Warm: each was done once before in the same round, so what it reads is in the page cache.
    """
    chosen = random.Random(_SEED)
    times_s: tuple[list[float], list[float]] = [], []
    logs = open_log(small), open_log(large)
    try:
        for _ in range(rounds):
            places = [chosen.random() for _ in range(count)]
            if is_cold:
                _drop_from_cache(small)
                _drop_from_cache(large)
            else:
                _take_turns(logs, look_up, places)
            for log_times_s, taken_s in zip(
                times_s, _take_turns(logs, look_up, places), strict=True
            ):
                log_times_s += taken_s
    finally:
        for log in logs:
            log.close()
    return times_s


def _take_turns(
    logs: tuple[Log, Log], look_up: Callable[[Log, float], None], places: list[float]
) -> tuple[list[float], list[float]]:
    """Seconds of every lookup of ``places``, in one log and in the other."""
    times_s: tuple[list[float], list[float]] = [], []
    for begin in range(0, len(places), _LOOKUPS_IN_TURN):
        for log, taken_s in zip(logs, times_s, strict=True):
            for place in places[begin : begin + _LOOKUPS_IN_TURN]:
                started = time.perf_counter()
                look_up(log, place)
                taken_s.append(time.perf_counter() - started)
    return times_s


def _read_record(log: Log, place: float) -> None:
    """Read and decode the record at ``place`` of the log: 0 is its start, 1 its end."""
    offset = int(log.end_offset * place)
    fetched = log.fetch(offset, 1, log.end_offset)
    batch = next(iterate_batches(fetched.data))
    record = next(decode_records(batch.header, batch.body, offset))
    if record.offset != offset:
        raise AssertionError(f"record {record.offset} was read where {offset} was asked for")


def _search_time(log: Log, place: float) -> None:
    """Find the offset of the time at ``place`` of what the log spans."""
    span_ms = log.last_timestamp_ms - FIRST_TIMESTAMP_MS
    log.offset_for_time(FIRST_TIMESTAMP_MS + int(span_ms * place), log.end_offset)


def _drop_from_cache(directory: Path) -> None:
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _ratio_at(times_s: tuple[list[float], list[float]], percent: float) -> float:
    return percentile(times_s[1], percent) / percentile(times_s[0], percent)


def _p50_and_p99(times_s: list[float]) -> str:
    return (
        f"p50 {microseconds(percentile(times_s, 50))}, p99 {microseconds(percentile(times_s, 99))}"
    )


def _gigabytes(full_bytes: int, scale: Scale) -> str:
    return f"{scale.count(full_bytes) / 1e9:g} GB"
