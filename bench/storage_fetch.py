"""Reading a log from its start to its end, from the page cache."""

import os
import shutil
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.figures import Figure, Scale, in_turns, median_ratio, percent
from bench.logs import MIB, draft_of, make_log, open_log, segment_paths
from quorumlog.log.batch import HEADER_SIZE, Draft
from quorumlog.log.log import Log
from quorumlog.log.records import decode_records
from quorumlog.log.segment import DATA_START

_LOG_BYTES: Final = 256 * MIB
_KIB: Final = 1024
_READS: Final = ((16 * _KIB, MIB), (64 * _KIB, MIB), (64 * _KIB, 64 * _KIB), (16 * _KIB, 16 * _KIB))
"""Bytes of a batch, and of one fetch; the last two show what a call costs by itself."""
_VALUE_BYTES: Final = 100
_DECODED_BATCHES: Final = 5_000
_RECORDS_PER_BATCH: Final = 100


def measure_fetches(directory: Path, scale: Scale) -> list[Figure]:
    figures = []
    for batch_bytes, fetch_bytes in _READS:
        figures.append(_fetch(directory / "fetched", scale, batch_bytes, fetch_bytes))
        shutil.rmtree(directory / "fetched")
    figures.append(_decode(scale))
    return figures


def _fetch(directory: Path, scale: Scale, batch_bytes: int, fetch_bytes: int) -> Figure:
    draft = draft_of(batch_bytes - HEADER_SIZE, 1000)
    stored_bytes = HEADER_SIZE + len(draft.body)
    make_log(directory, draft, scale.count(_LOG_BYTES) // stored_bytes + 1)
    # Opened again: nothing of it is in memory.
    log = open_log(directory)
    try:
        with ExitStack() as opened:
            plan = _reads_of(directory, stored_bytes, fetch_bytes, opened)
            fetched, bare = in_turns(
                scale.repeats * 2,
                lambda: _fetch_rate(log, fetch_bytes),
                lambda: _pread_rate(plan),
            )
    finally:
        log.close()
    return Figure(
        f"Fetch, {batch_bytes // _KIB} KiB batches",
        f"one after the other, {fetch_bytes // _KIB} KiB a fetch, warm; headers checked",
        f"{statistics.median(fetched) / 1e6:,.0f} MB/s",
        f"{percent(median_ratio(fetched, bare))} of bare preads of the same sizes and file "
        f"({statistics.median(bare) / 1e6:,.0f} MB/s)",
        "70 %" if fetch_bytes > batch_bytes else "",
    )


def _fetch_rate(log: Log, fetch_bytes: int) -> float:
    """Bytes a second of fetching everything."""
    offset = size_bytes = 0
    end_offset = log.end_offset
    started = time.perf_counter()
    while offset < end_offset:
        fetched = log.fetch(offset, fetch_bytes, end_offset)
        size_bytes += len(fetched.data)
        offset = fetched.next_offset
    return size_bytes / (time.perf_counter() - started)


def _reads_of(
    directory: Path, stored_bytes: int, fetch_bytes: int, opened: ExitStack
) -> list[tuple[int, int, int]]:
    """Descriptor, size and position of the reads that fetch every batch of ``stored_bytes``."""
    step_bytes = max(1, fetch_bytes // stored_bytes) * stored_bytes
    reads = []
    for path in segment_paths(directory):
        descriptor = os.open(path, os.O_RDONLY)
        opened.callback(os.close, descriptor)
        end = os.fstat(descriptor).st_size
        reads += [
            (descriptor, min(step_bytes, end - position), position)
            for position in range(DATA_START, end, step_bytes)
        ]
    return reads


def _pread_rate(reads: list[tuple[int, int, int]]) -> float:
    """Bytes a second. What was read is kept until the next is there, as by one who uses it."""
    size_bytes = 0
    started = time.perf_counter()
    for descriptor, wanted_bytes, position in reads:
        data = os.pread(descriptor, wanted_bytes, position)
        size_bytes += len(data)
    return size_bytes / (time.perf_counter() - started)


def _decode(scale: Scale) -> Figure:
    draft = _batch_of_values()
    header = draft.stamp(1, 1, 0, 0).header
    count = scale.count(_DECODED_BATCHES)
    rates = []
    for _ in range(scale.repeats):
        decoded = 0
        started = time.perf_counter()
        for _ in range(count):
            for _record in decode_records(header, draft.body):
                decoded += 1
        rates.append(decoded / (time.perf_counter() - started))
    return Figure(
        "Decode",
        f"batches of {_RECORDS_PER_BATCH}, {_VALUE_BYTES} B values into Python records, "
        "each when it is asked for; one core",
        f"{statistics.median(rates):,.0f} records/s",
        goal="1,500,000 records/s",
    )


def _batch_of_values() -> Draft:
    return draft_of(_RECORDS_PER_BATCH * (_VALUE_BYTES + 4), _VALUE_BYTES)
