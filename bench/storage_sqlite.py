"""The same records in SQLite: the table that one would write by hand."""

import json
import os
import random
import shutil
import sqlite3
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import quorumlog
from bench.figures import Figure, Scale, in_turns, median_ratio
from bench.logs import disk_bytes
from quorumlog.types import NO_HEADERS, Offset, Record

_VALUE_BYTES: Final = 100
_RECORDS_PER_BATCH: Final = 100
_SYNCED_BATCHES: Final = 1_000
_BATCHES: Final = 5_000
_CREATE: Final = (
    "CREATE TABLE log (offset INTEGER PRIMARY KEY, key BLOB, value BLOB, timestamp INTEGER)"
)
_INSERT: Final = "INSERT INTO log (key, value, timestamp) VALUES (?, ?, ?)"
_SELECT: Final = "SELECT offset, key, value, timestamp FROM log WHERE offset >= ? ORDER BY offset"
_CONFIGURED: Final = f"batches of {_RECORDS_PER_BATCH}, {_VALUE_BYTES} B values without keys"


def measure_against_sqlite(directory: Path, scale: Scale) -> list[Figure]:
    values = _random_values()
    return [
        _appends(directory, scale, values, "always", "FULL", _SYNCED_BATCHES, "1.5 x"),
        _appends(directory, scale, values, "never", "OFF", _BATCHES, "3 x"),
        _replay(directory, scale, values),
        _disk(directory, scale, values, "random values, not compressed", None),
        _disk(directory, scale, _event_values(), "values of JSON, zstd", "zstd"),
    ]


class SqliteLog:
    """A log as a table, in WAL mode."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(f"PRAGMA synchronous={synchronous}")
        self._connection.execute(_CREATE)

    def append_batch(self, values: Sequence[bytes]) -> None:
        timestamp_ms = time.time_ns() // 1_000_000
        with self._connection:
            self._connection.executemany(_INSERT, [(None, value, timestamp_ms) for value in values])

    def rows(self) -> sqlite3.Cursor:
        return self._connection.execute(_SELECT, (0,))

    def close(self) -> None:
        """Writes the WAL back and removes it."""
        self._connection.close()


def _appends(
    directory: Path,
    scale: Scale,
    values: Sequence[bytes],
    fsync: str,
    synchronous: str,
    batches: int,
    goal: str,
) -> Figure:
    count = scale.count(batches)
    path = directory / "against"

    def append() -> float:
        with quorumlog.open(path, fsync=fsync) as log:
            return _append_rate(log, values, count, path)

    def insert() -> float:
        path.mkdir()
        table = SqliteLog(path / "log.sqlite", synchronous)
        try:
            return _append_rate(table, values, count, path)
        finally:
            table.close()

    appended, inserted = in_turns(scale.repeats, append, insert)
    return Figure(
        f"Append against SQLite, fsync {fsync}",
        f"{_CONFIGURED}; SQLite: WAL, synchronous={synchronous}, a transaction a batch",
        f"{statistics.median(appended):,.0f} records/s",
        f"{median_ratio(appended, inserted):.1f} x SQLite "
        f"({statistics.median(inserted):,.0f} records/s)",
        goal,
    )


def _append_rate(
    log: quorumlog.EmbeddedLog | SqliteLog, values: Sequence[bytes], count: int, path: Path
) -> float:
    """Records a second; the files are removed, the log stays open."""
    started = time.perf_counter()
    for _ in range(count):
        log.append_batch(values)
    elapsed_s = time.perf_counter() - started
    shutil.rmtree(path)
    return len(values) * count / elapsed_s


def _replay(directory: Path, scale: Scale, values: Sequence[bytes]) -> Figure:
    path = directory / "replayed"
    count = scale.count(_BATCHES)
    path.mkdir()
    table = SqliteLog(path / "log.sqlite", "OFF")
    for _ in range(count):
        table.append_batch(values)
    with quorumlog.open(path / "log", fsync="never") as log:
        for _ in range(count):
            log.append_batch(values)
    # Opened again: nothing of it is in memory.
    with quorumlog.open(path / "log") as log:
        read, made, rows = in_turns(
            scale.repeats,
            lambda: _read_rate(log),
            lambda: _record_rate(table),
            lambda: _row_rate(table),
        )
    table.close()
    shutil.rmtree(path)
    return Figure(
        "Replay against SQLite",
        f"{_CONFIGURED}, {count * len(values):,} of them into Python records, warm; SQLite: WAL, "
        "SELECT in the order of offsets",
        f"{statistics.median(read):,.0f} records/s",
        f"{median_ratio(read, made):.2f} x SQLite's rows made records "
        f"({statistics.median(made):,.0f} a second), "
        f"{median_ratio(read, rows):.2f} x its bare tuples",
        "1 x",
    )


def _read_rate(log: quorumlog.EmbeddedLog) -> float:
    started = time.perf_counter()
    for _record in log.read():
        pass
    return log.end_offset / (time.perf_counter() - started)


def _record_rate(table: SqliteLog) -> float:
    count = 0
    started = time.perf_counter()
    for offset, key, value, timestamp_ms in table.rows():
        Record(Offset(offset), value, key, NO_HEADERS, timestamp_ms)
        count += 1
    return count / (time.perf_counter() - started)


def _row_rate(table: SqliteLog) -> float:
    count = 0
    started = time.perf_counter()
    for _row in table.rows():
        count += 1
    return count / (time.perf_counter() - started)


def _disk(
    directory: Path, scale: Scale, values: Sequence[bytes], which: str, compression: str | None
) -> Figure:
    count = scale.count(_BATCHES)
    records = count * len(values)
    path = directory / "stored"
    path.mkdir()
    table = SqliteLog(path / "log.sqlite", "OFF")
    with quorumlog.open(path / "log", fsync="never", compression=compression) as log:
        for _ in range(count):
            table.append_batch(values)
            log.append_batch(values)
    table.close()
    stored, inserted = disk_bytes(path / "log") / records, _sqlite_bytes(path) / records
    shutil.rmtree(path)
    return Figure(
        f"Disk used, {which}",
        f"{_CONFIGURED}, {records:,} of them; closed, so without "
        "SQLite's WAL and what the log preallocates",
        f"{stored:.1f} bytes a record",
        f"{stored / inserted:.2f} x SQLite ({inserted:.1f} bytes)",
        "0.7 x",
    )


def _sqlite_bytes(path: Path) -> int:
    return sum(os.stat(file).st_blocks * 512 for file in path.glob("log.sqlite*"))


def _random_values() -> list[bytes]:
    chosen = random.Random(0)
    return [chosen.randbytes(_VALUE_BYTES) for _ in range(_RECORDS_PER_BATCH)]


def _event_values() -> list[bytes]:
    """Events as services write them, padded to the same size."""
    chosen = random.Random(0)
    return [
        json.dumps(
            {
                "type": chosen.choice(["order_placed", "order_paid", "order_shipped"]),
                "order": chosen.randrange(10**9),
                "customer": chosen.randrange(10**6),
                "amount": chosen.randrange(10**5) / 100,
            }
        )
        .encode()
        .ljust(_VALUE_BYTES)[:_VALUE_BYTES]
        for _ in range(_RECORDS_PER_BATCH)
    ]
