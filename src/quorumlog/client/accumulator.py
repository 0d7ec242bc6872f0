"""Batches on their way: being filled, then waiting for their acknowledgement."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.models import RecordMetadata, RunMetadata
from quorumlog.errors import QuorumlogError
from quorumlog.log.batch import CODEC_NONE, MAX_RECORDS_PER_BATCH
from quorumlog.log.compression import shrink

DEFAULT_BATCH_BYTES: Final = 1024 * 1024
"""A batch is closed before it grows over this many bytes (one record may)."""


@dataclass(frozen=True, slots=True)
class ProducerIdentity:
    """From InitProducer: no one else has it, so the partition can tell a retry from news."""

    producer_id: int
    epoch: int


class OpenBatch:
    """The batch of a partition that still takes records."""

    __slots__ = (
        "deadline_s",
        "parts",
        "record_count",
        "record_futures",
        "run_futures",
        "size_bytes",
    )

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.parts: list[bytes] = []
        self.size_bytes = 0
        self.record_count = 0
        self.record_futures: list[tuple[asyncio.Future[RecordMetadata], int]] = []
        self.run_futures: list[tuple[asyncio.Future[RunMetadata], int, int]] = []

    def has_room(self, size_bytes: int, record_count: int, limit_bytes: int) -> bool:
        return (
            self.size_bytes + size_bytes <= limit_bytes
            and self.record_count + record_count <= MAX_RECORDS_PER_BATCH
        )

    def add_record(self, encoded: bytes, future: "asyncio.Future[RecordMetadata]") -> None:
        self.record_futures.append((future, self.record_count))
        self._add(encoded, 1)

    def add_run(
        self, encoded: bytes, record_count: int, future: "asyncio.Future[RunMetadata]"
    ) -> None:
        self.run_futures.append((future, self.record_count, record_count))
        self._add(encoded, record_count)

    def _add(self, encoded: bytes, record_count: int) -> None:
        self.parts.append(encoded)
        self.size_bytes += len(encoded)
        self.record_count += record_count

    def seal(self, compression_level: int | None = None) -> "SealedBatch":
        """The batch as it will be sent, compressed where a level is given and it gets smaller."""
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        codec = CODEC_NONE
        if compression_level is not None:
            body, codec = shrink(body, compression_level)
        return SealedBatch(
            body,
            crc32c(body),
            codec,
            self.size_bytes,
            self.record_count,
            self.deadline_s,
            self.record_futures,
            self.run_futures,
        )


@dataclass(slots=True, eq=False)
class SealedBatch:
    """A batch that takes no more records, until it is acknowledged or given up.

    ``size_bytes`` is what its records take of the producer's buffer: before compression.
    ``identity`` and ``sequence`` are given when it is first sent and stay through every retry.
    ``in_doubt``: an attempt ended such that the log may have the batch, or may yet get it.
    """

    body: bytes
    body_crc: int
    codec: int
    size_bytes: int
    record_count: int
    deadline_s: float
    record_futures: list[tuple["asyncio.Future[RecordMetadata]", int]]
    run_futures: list[tuple["asyncio.Future[RunMetadata]", int, int]]
    identity: ProducerIdentity | None = None
    sequence: int = 0
    in_doubt: bool = False
    answer: "pb.ProduceResponse | QuorumlogError | None" = field(default=None, repr=False)

    def message(self) -> pb.Batch:
        batch = pb.Batch(
            body=self.body,
            record_count=self.record_count,
            body_crc=self.body_crc,
            codec=self.codec,
        )
        if self.identity is not None:
            batch.producer_id = self.identity.producer_id
            batch.producer_epoch = self.identity.epoch
            batch.sequence = self.sequence
        return batch

    def acknowledge(
        self, topic: str, partition: int, base_offset: int | None, timestamp_ms: int
    ) -> None:
        """Tell everybody who waits. ``base_offset`` None: the log has it, where is not known."""
        for record_future, at in self.record_futures:
            if not record_future.done():
                offset = None if base_offset is None else base_offset + at
                record_future.set_result(RecordMetadata(topic, partition, offset, timestamp_ms))
        for run_future, at, count in self.run_futures:
            if not run_future.done():
                offset = None if base_offset is None else base_offset + at
                run_future.set_result(RunMetadata(topic, partition, offset, count, timestamp_ms))

    def fail(self, error: QuorumlogError) -> None:
        futures: list[asyncio.Future[RecordMetadata] | asyncio.Future[RunMetadata]] = []
        futures.extend(future for future, _ in self.record_futures)
        futures.extend(future for future, _, _ in self.run_futures)
        for future in futures:
            if not future.done():
                future.set_exception(error)
                # Whoever never looks at the future hears of the failure from flush() or close().
                future.exception()
