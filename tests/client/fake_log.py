"""A partition of the fake cluster: committed at once, with the log's rules for producers."""

import asyncio
from dataclasses import dataclass, field

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.broker.notes import Notes
from quorumlog.errors import (
    DuplicateSequence,
    InvalidBatch,
    OffsetOutOfRange,
    OutOfOrderSequence,
    StaleFencingToken,
    WrongExpectedOffset,
)
from quorumlog.log.batch import Batch, Draft, join_batches
from quorumlog.log.records import check_records, decode_records
from quorumlog.types import Record

REMEMBERED_BATCHES = 5


@dataclass
class FakePartition:
    """``leader`` and ``replicas`` are addresses."""

    topic: str
    number: int
    replicas: list[str]
    leader: str | None
    term: int = 1
    start_offset: int = 0
    batches: list[Batch] = field(default_factory=list)
    producers: dict[tuple[int, int], list[tuple[int, int, int, int]]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    notes: Notes = field(default_factory=Notes)

    @property
    def end_offset(self) -> int:
        return self.batches[-1].header.next_offset if self.batches else self.start_offset

    def append(self, message: pb.Batch, timestamp_ms: int) -> tuple[int, int]:
        """Base offset and timestamp; raises what a broker answers."""
        if crc32c(message.body) != message.body_crc:
            raise InvalidBatch("checksum")
        check_records(message.body, message.record_count, codec=message.codec)
        who = (message.producer_id, message.producer_epoch)
        done = self.producers.setdefault(who, [])
        expected = done[-1][0] + done[-1][1] if done else 0
        for sequence, count, base_offset, stamp in done[-REMEMBERED_BATCHES:]:
            if (sequence, count) == (message.sequence, message.record_count):
                return base_offset, stamp
        if message.fencing_token:
            self.fence(message.fencing_token)
        if message.sequence < expected:
            raise DuplicateSequence("appended long ago")
        if message.sequence > expected:
            raise OutOfOrderSequence(expected, message.sequence)
        base_offset = self.end_offset
        draft = Draft(message.body, message.body_crc, message.record_count, codec=message.codec)
        self.batches.append(
            draft.stamp(len(self.batches) + 1, self.term, base_offset, timestamp_ms)
        )
        done.append((message.sequence, message.record_count, base_offset, timestamp_ms))
        self.changed.set()
        self.changed = asyncio.Event()
        return base_offset, timestamp_ms

    def append_at(self, message: pb.Batch, expected_end: int, timestamp_ms: int) -> tuple[int, int]:
        """As :meth:`append`, which knows a batch that came before."""
        done = self.producers.get((message.producer_id, message.producer_epoch), [])
        is_known = any(sequence == message.sequence for sequence, *_ in done)
        if not is_known and self.end_offset != expected_end:
            raise WrongExpectedOffset(expected_end, self.end_offset)
        return self.append(message, timestamp_ms)

    def fence(self, token: int) -> None:
        if token < self.notes.fencing_token:
            raise StaleFencingToken(token, self.notes.fencing_token)
        self.notes = self.notes.fenced(token)

    def find(self, start: pb.Start) -> int:
        kind = start.WhichOneof("at")
        if kind == "offset":
            if not self.start_offset <= start.offset <= self.end_offset:
                raise OffsetOutOfRange(start.offset, self.start_offset, self.end_offset)
            return start.offset
        if kind == "timestamp_ms":
            for batch in self.batches:
                if batch.header.timestamp_ms >= start.timestamp_ms:
                    return batch.header.base_offset
            return self.end_offset
        return self.end_offset if kind == "latest" else self.start_offset

    def read(self, offset: int, max_bytes: int) -> tuple[bytes, int]:
        """Whole batches from the one that has ``offset``, and the offset behind them."""
        self.find(pb.Start(offset=offset))
        chosen: list[Batch] = []
        size_bytes = 0
        for batch in self.batches:
            if batch.header.next_offset <= offset:
                continue
            if chosen and size_bytes + batch.size_bytes > max_bytes:
                break
            chosen.append(batch)
            size_bytes += batch.size_bytes
        next_offset = chosen[-1].header.next_offset if chosen else offset
        return join_batches(chosen), next_offset

    def records(self) -> list[Record]:
        return [
            record for batch in self.batches for record in decode_records(batch.header, batch.body)
        ]

    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records()]
