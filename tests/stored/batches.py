"""Batches and logs for tests of the storage engine."""

from collections.abc import Sequence

from quorumlog.log.batch import Batch, Draft, Kind
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from quorumlog.log.records import encode_body
from quorumlog.ports import Disk
from quorumlog.types import RecordData

DIRECTORY = "data"

SMALL = LogConfig(segment_bytes=2048, index_interval_bytes=256, tail_cache_bytes=512)
"""A segment holds about ten batches, so that a short test rolls a few times."""


class FixedClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return 1_000


def open_log(disk: Disk, config: LogConfig = SMALL, clock: FixedClock | None = None) -> Log:
    return Log.open(disk, DIRECTORY, config, clock or FixedClock())


def next_batch(
    log: Log, term: int = 1, values: Sequence[bytes] = (b"value",), timestamp_ms: int | None = None
) -> Batch:
    """The batch that continues ``log``; without values it is a no-op."""
    if timestamp_ms is None:
        timestamp_ms = max(1_000 + log.next_index, log.last_timestamp_ms)
    if values:
        body = encode_body([RecordData(value) for value in values])
        draft = Draft.of(body, len(values))
    else:
        draft = Draft.of(b"", 0, Kind.NOOP)
    return draft.stamp(log.next_index, term, log.end_offset, timestamp_ms)


def append(
    log: Log, count: int = 1, term: int = 1, values: Sequence[bytes] = (b"value",)
) -> list[Batch]:
    """Append ``count`` batches; each value gets the batch's index in front of it."""
    appended = []
    for _ in range(count):
        tagged = [b"%d-%d-%s" % (log.next_index, term, value) for value in values]
        batch = next_batch(log, term, tagged)
        log.append([batch])
        appended.append(batch)
    return appended


def plain(batches: Sequence[Batch]) -> list[tuple[bytes, bytes]]:
    """Batches in a form that compares by content."""
    return [(bytes(batch.head), bytes(batch.body)) for batch in batches]


def content(log: Log) -> list[tuple[bytes, bytes]]:
    """Everything in ``log``, bodies checked where they come from disk."""
    return plain(list(log.batches(log.start_index)))
