"""Logs to measure on, made quickly."""

from pathlib import Path
from typing import Final

from quorumlog.log.batch import Draft
from quorumlog.log.config import FSYNC_NEVER, LogConfig
from quorumlog.log.log import Log
from quorumlog.log.records import encode_body
from quorumlog.ports import Disk
from quorumlog.system import SystemClock, SystemDisk
from quorumlog.types import RecordData

MIB: Final = 1024 * 1024
SEGMENT_BYTES: Final = 64 * MIB
FIRST_TIMESTAMP_MS: Final = 1_700_000_000_000
_UNFLUSHED_BYTES: Final = MIB


def open_log(directory: Path, disk: Disk | None = None) -> Log:
    """The log in ``directory``, synced only where a segment is sealed."""
    config = LogConfig(SEGMENT_BYTES, fsync=FSYNC_NEVER)
    return Log.open(disk or SystemDisk(), str(directory), config, SystemClock())


def draft_of(batch_bytes: int, record_bytes: int) -> Draft:
    """As many records of ``record_bytes`` as fit in a body of ``batch_bytes``, at least one."""
    record = RecordData(bytes(record_bytes))
    count = max(1, batch_bytes // len(encode_body([record])))
    return Draft.of(encode_body([record] * count), count)


def make_log(directory: Path, draft: Draft, batches: int, disk: Disk | None = None) -> None:
    """A closed log of ``batches`` times ``draft``, a millisecond apart."""
    log = open_log(directory, disk)
    try:
        append_many(log, draft, batches)
    finally:
        log.close()


def append_many(log: Log, draft: Draft, batches: int) -> None:
    """Append ``draft`` so many times, each a millisecond after the one before."""
    for _ in range(batches):
        timestamp_ms = max(FIRST_TIMESTAMP_MS, log.last_timestamp_ms + 1)
        log.append([draft.stamp(log.next_index, 1, log.end_offset, timestamp_ms)])
        if log.unflushed_bytes >= _UNFLUSHED_BYTES:
            log.flush()
    log.flush()


def segment_paths(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def disk_bytes(directory: Path) -> int:
    """What the files of ``directory`` take up."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())
