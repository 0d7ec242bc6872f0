"""A log of keyed records that is compacted, beside a model of what was ever appended to it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event

from quorumlog.log.batch import SPARSE, Batch, Draft, Kind
from quorumlog.log.cleaning.compaction import CompactionReport, Compactor
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from quorumlog.log.pacer import StopSignal
from quorumlog.log.records import decode_records, encode_body
from quorumlog.ports import Disk
from quorumlog.types import Index, Record, RecordData
from stored.batches import DIRECTORY

CONFIG = LogConfig(segment_bytes=1024, index_interval_bytes=128, tail_cache_bytes=0)
"""Nothing that was flushed is read from memory: what is on disk is what a test finds."""

ALWAYS = Compaction(min_dirty_ratio=0.0, tombstone_delay_s=100.0)
"""A pass whenever there is anything to look at."""

Pair = tuple[bytes | None, bytes | None]
"""Key and value."""


class WallClock:
    """Stands still until a test moves it; tells the same time on both clocks."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return round(self.now_s * 1000)


@dataclass
class Model:
    """Everything that was ever appended, by offset and by index."""

    records: dict[int, Record] = field(default_factory=dict)
    batches: dict[Index, Batch] = field(default_factory=dict)
    clean_since_s: dict[int, float] = field(default_factory=dict)
    """When a tombstone was first found to be all that is left of its key."""
    gone: set[int] = field(default_factory=set)

    def copy(self) -> "Model":
        return Model(
            dict(self.records), dict(self.batches), dict(self.clean_since_s), set(self.gone)
        )

    def newest(self) -> dict[bytes, int]:
        """The newest offset of every key."""
        return {
            record.key: offset for offset, record in self.records.items() if record.key is not None
        }


class KeyedLog:
    """A log with a model; every method leaves both in step."""

    def __init__(
        self,
        disk: Disk,
        settings: Compaction = ALWAYS,
        config: LogConfig = CONFIG,
        stop: StopSignal | None = None,
    ) -> None:
        self.disk = disk
        self.settings = settings
        self.config = config
        self.clock = WallClock()
        self.stop = stop or Event()
        self.model = Model()
        self.start_offset = 0
        self.open()

    def open(self) -> None:
        self.log = Log.open(self.disk, DIRECTORY, self.config, self.clock)
        self.compactor = Compactor(
            self.log,
            self.disk,
            DIRECTORY,
            self.config.segment_bytes,
            self.settings,
            self.clock,
            self.stop,
            self.config.keys,
        )

    def reopen(self) -> None:
        self.log.close()
        self.open()

    def append(self, *pairs: Pair, producer_id: int = 0, term: int | None = None) -> Batch:
        """One batch with ``pairs``; without any it is a no-op."""
        if pairs:
            body = encode_body([RecordData(value, key) for key, value in pairs])
            plain = Draft.of(body, len(pairs))
        else:
            plain = Draft.of(b"", 0, Kind.NOOP)
        draft = Draft(
            plain.body, plain.body_crc, plain.record_count, plain.kind, producer_id=producer_id
        )
        log = self.log
        batch = draft.stamp(
            log.next_index, term or max(log.last_term, 1), log.end_offset, self.clock.wall_ms()
        )
        log.append([batch])
        self.note(batch)
        return batch

    def note(self, batch: Batch) -> None:
        self.model.batches[batch.header.index] = batch
        if batch.header.kind == Kind.RECORDS:
            for record in decode_records(batch.header, batch.body):
                self.model.records[record.offset] = record

    def seal(self) -> None:
        """Commit what is there, and let compaction get at all of it."""
        self.flush()
        self.log.roll()
        self.log.flush()

    def flush(self) -> None:
        self.log.flush()
        self.log.advance_commit_floor(self.log.last_index)

    def compact(self) -> CompactionReport | None:
        report = self.compactor.run()
        self.check()
        return report

    def stored(self) -> list[Batch]:
        return list(self.log.batches(self.log.start_index))

    def records(self) -> dict[int, Record]:
        """What a reader finds, by offset."""
        start = self.log.start_offset
        return {
            record.offset: record for record in records_in(self.stored()) if record.offset >= start
        }

    def check(self) -> None:
        """What is found is what was appended, and everything is found that has to stay."""
        batches = self.stored()
        check_dense(batches, self.log)
        found = self.records()
        model = self.model
        for offset, record in found.items():
            assert record == model.records[offset], f"another record at {offset}"
        self._check_newest(found)
        for offset, record in model.records.items():
            if record.key is None and offset >= self.log.start_offset:
                assert offset in found, f"record {offset} without a key went"
        self._check_headers(batches)

    def _check_newest(self, found: dict[int, Record]) -> None:
        model, now_s = self.model, self.clock.now_s
        by_key: dict[bytes, list[int]] = {}
        for offset, record in found.items():
            if record.key is not None:
                by_key.setdefault(record.key, []).append(offset)
        for key, newest in model.newest().items():
            if newest < self.log.start_offset:
                continue
            if newest in found:
                assert newest not in model.gone, f"record {newest} came back"
                if model.records[newest].value is None and by_key[key] == [newest]:
                    model.clean_since_s.setdefault(newest, now_s)
                continue
            assert model.records[newest].value is None, f"newest record {newest} of {key!r} went"
            assert key not in by_key, f"{key!r} lives again without its tombstone {newest}"
            if newest not in model.gone:
                age_s = now_s - model.clean_since_s[newest]
                assert age_s >= self.settings.tombstone_delay_s, f"tombstone {newest} at {age_s} s"
                model.gone.add(newest)

    def _check_headers(self, batches: Sequence[Batch]) -> None:
        """Batches of other kinds stay as they were, of every producer the newest header."""
        stored = {batch.header.index: batch for batch in batches}
        newest: dict[int, Index] = {}
        for index, batch in self.model.batches.items():
            if index < self.log.start_index:
                continue
            if batch.header.kind != Kind.RECORDS:
                assert (stored[index].head, stored[index].body) == (batch.head, batch.body)
            elif batch.header.producer_id:
                newest[batch.header.producer_id] = index
        for index in newest.values():
            kept, first = stored[index].header, self.model.batches[index].header
            assert (kept.producer_id, kept.producer_epoch, kept.sequence) == (
                first.producer_id,
                first.producer_epoch,
                first.sequence,
            )
            assert (kept.record_count, kept.base_offset) == (first.record_count, first.base_offset)


def records_in(batches: Sequence[Batch]) -> Iterator[Record]:
    for batch in batches:
        if batch.header.kind == Kind.RECORDS:
            yield from decode_records(batch.header, batch.body)


def check_dense(batches: Sequence[Batch], log: Log) -> None:
    """Indexes and offsets follow one another without a hole up to the end of the log."""
    index, offset = log.start_index, batches[0].header.base_offset if batches else log.end_offset
    for batch in batches:
        header = batch.header
        assert (header.index, header.base_offset) == (index, offset)
        assert header.kind == Kind.RECORDS or not header.flags & SPARSE
        index, offset = header.next_index, header.next_offset
    assert (index, offset) == (log.next_index, log.end_offset)
