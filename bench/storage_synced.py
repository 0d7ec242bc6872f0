"""Appends of one record, each durable before the next, by one thread and by many."""

import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import quorumlog
from bench.baselines import BareGroupCommit
from bench.figures import Figure, Scale, in_turns, median_ratio, percent
from quorumlog.log.batch import HEADER_SIZE
from quorumlog.log.records import encode_body
from quorumlog.types import RecordData

_VALUE: Final = bytes(256)
_BLOCK: Final = bytes(HEADER_SIZE) + encode_body([RecordData(_VALUE)])
"""As many bytes as a record takes in the log."""
_THREADS: Final = 32
_ROUNDS_PER_REPEAT: Final = 8
"""Latency of the disk drifts in seconds: such rounds are short and many."""


def measure_synced_appends(directory: Path, scale: Scale) -> list[Figure]:
    return [*_one_thread(directory, scale), _many_threads(directory, scale)]


def _one_thread(directory: Path, scale: Scale) -> list[Figure]:
    rounds = scale.repeats * _ROUNDS_PER_REPEAT
    count = scale.count(100)
    growing = os.open(directory / "growing", os.O_CREAT | os.O_WRONLY)
    preallocated = _preallocated(directory / "preallocated", count * rounds)
    try:
        with quorumlog.open(directory / "single") as log:
            measured, grown, written = in_turns(
                rounds,
                lambda: _append_time_s(log, count),
                lambda: _synced_write_time_s(growing, count),
                lambda: _synced_write_time_s(preallocated, count),
            )
    finally:
        os.close(growing)
        os.close(preallocated)
        shutil.rmtree(directory / "single", ignore_errors=True)
        (directory / "growing").unlink()
        (directory / "preallocated").unlink()
    return [
        _against(
            "Append, one record at a time",
            "of the same bytes at the end of a plain file",
            (measured, grown),
            "1.2 x",
        ),
        _against(
            "Append, one record at a time, against a preallocated file",
            "of the same bytes into a file whose space was reserved before, as that of segments is",
            (measured, written),
        ),
    ]


def _preallocated(path: Path, records: int) -> int:
    """A descriptor of a file with room for ``records``."""
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.posix_fallocate(descriptor, 0, len(_BLOCK) * records)
    os.fsync(descriptor)
    return descriptor


def _against(
    what: str, bare: str, times_s: tuple[Sequence[float], Sequence[float]], goal: str = ""
) -> Figure:
    """The append and the bare calls, of which ``times_s`` has the seconds of one."""
    measured, compared = times_s
    return Figure(
        what,
        f"one thread, fsync always, {len(_VALUE)} B",
        f"{statistics.median(measured) * 1000:.3f} ms a record",
        f"{median_ratio(measured, compared):.2f} x os.write + fdatasync {bare} "
        f"({statistics.median(compared) * 1000:.3f} ms)",
        goal,
    )


def _append_time_s(log: quorumlog.EmbeddedLog, count: int) -> float:
    """Seconds of one append, on average."""
    started = time.perf_counter()
    for _ in range(count):
        log.append(_VALUE)
    return (time.perf_counter() - started) / count


def _synced_write_time_s(descriptor: int, count: int) -> float:
    """Seconds of one ``os.write`` + ``fdatasync``, on average."""
    started = time.perf_counter()
    for _ in range(count):
        os.write(descriptor, _BLOCK)
        os.fdatasync(descriptor)
    return (time.perf_counter() - started) / count


def _many_threads(directory: Path, scale: Scale) -> Figure:
    rounds = scale.repeats * _ROUNDS_PER_REPEAT
    each = scale.count(50)
    descriptor = _preallocated(directory / "preallocated", _THREADS * each * rounds)
    try:
        with (
            quorumlog.open(directory / "threads") as log,
            BareGroupCommit(descriptor) as bare,
            ThreadPoolExecutor(_THREADS) as pool,
        ):
            many, one, handed = in_turns(
                rounds,
                lambda: _rate_together(pool, each, lambda: log.append(_VALUE)),
                lambda: 1 / _append_time_s(log, each),
                lambda: _rate_together(pool, each, lambda: bare.append(_BLOCK)),
            )
    finally:
        os.close(descriptor)
        (directory / "preallocated").unlink()
        shutil.rmtree(directory / "threads", ignore_errors=True)
    return Figure(
        f"Append, {_THREADS} threads, one record in flight each",
        f"fsync always, {len(_VALUE)} B",
        f"{statistics.median(many):,.0f} records/s",
        f"{median_ratio(many, one):.1f} x one thread ({statistics.median(one):,.0f} records/s); "
        f"{percent(median_ratio(many, handed))} of {_THREADS} bare Python threads that hand the "
        "same bytes to one that writes and syncs, and sleep until it has "
        f"({statistics.median(handed):,.0f} a second)",
        "5 x",
    )


def _rate_together(pool: ThreadPoolExecutor, each: int, append: Callable[[], object]) -> float:
    """Calls of ``append`` a second, when every thread makes ``each`` of them."""

    def work() -> None:
        for _ in range(each):
            append()

    started = time.perf_counter()
    for done in [pool.submit(work) for _ in range(_THREADS)]:
        done.result()
    return _THREADS * each / (time.perf_counter() - started)
