"""Finding one record in a small log and in a large one."""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.figures import Figure, Scale, microseconds, percentile
from bench.logs import FIRST_TIMESTAMP_MS, MIB, draft_of, make_log, open_log, segment_paths
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
            _read_all(path)
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
    drop = _drop_from_cache if is_cold else None
    times_s = _lookups_in_turns(small, large, scale.repeats, count, _read_record, drop)
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
    times_s = _lookups_in_turns(small, large, scale.repeats, count, _search_time, None)
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
    look_up: Callable[[Log, random.Random], None],
    before_round: Callable[[Path], None] | None,
) -> tuple[list[float], list[float]]:
    """Seconds of every lookup in the small and in the large log, which take short turns."""
    chosen = random.Random(_SEED)
    times_s: tuple[list[float], list[float]] = [], []
    logs = open_log(small), open_log(large)
    try:
        for _ in range(rounds):
            if before_round is not None:
                before_round(small)
                before_round(large)
            for begin in range(0, count, _LOOKUPS_IN_TURN):
                turn = min(_LOOKUPS_IN_TURN, count - begin)
                for log, taken in zip(logs, times_s, strict=True):
                    taken += _look_up_times_s(log, look_up, chosen, turn)
    finally:
        for log in logs:
            log.close()
    return times_s


def _look_up_times_s(
    log: Log, look_up: Callable[[Log, random.Random], None], chosen: random.Random, count: int
) -> Iterator[float]:
    for _ in range(count):
        started = time.perf_counter()
        look_up(log, chosen)
        yield time.perf_counter() - started


def _read_record(log: Log, chosen: random.Random) -> None:
    offset = chosen.randrange(log.end_offset)
    fetched = log.fetch(offset, 1, log.end_offset)
    batch = next(iterate_batches(fetched.data))
    record = next(decode_records(batch.header, batch.body, offset))
    if record.offset != offset:
        raise AssertionError(f"record {record.offset} was read where {offset} was asked for")


def _search_time(log: Log, chosen: random.Random) -> None:
    timestamp_ms = chosen.randrange(FIRST_TIMESTAMP_MS, log.last_timestamp_ms + 1)
    log.offset_for_time(timestamp_ms, log.end_offset)


def _read_all(directory: Path) -> None:
    """Have the whole log in the page cache, as far as it fits."""
    for path in segment_paths(directory):
        with path.open("rb", buffering=0) as file:
            while file.read(MIB):
                pass


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
