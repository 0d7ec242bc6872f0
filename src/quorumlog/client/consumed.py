"""A batch as a consumer gets it: decoded when asked for, and only as far as asked for."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from quorumlog.client.models import ConsumedRecord
from quorumlog.log._pb.record_pb2 import Record as RecordMessage
from quorumlog.log.batch import Batch
from quorumlog.log.records import parse_records
from quorumlog.types import NO_HEADERS, Offset


@dataclass(frozen=True, slots=True)
class ConsumedBatch:
    """Records ``[start, next_offset)`` of one partition, checksums verified.

    ``start`` may be inside ``batch``: what stands before it was delivered already. Where compaction
    took records, some of the offsets have none. :meth:`values` costs about a quarter of
    :meth:`records`.
    """

    topic: str
    partition: int
    start: int
    batch: Batch

    @property
    def next_offset(self) -> int:
        return self.batch.header.next_offset

    @property
    def record_count(self) -> int:
        """How many offsets; of a batch that was compacted there are at most as many records."""
        return self.next_offset - self.start

    @property
    def timestamp_ms(self) -> int:
        """When the leader appended these records."""
        return self.batch.header.timestamp_ms

    def values(self) -> list[bytes | None]:
        """The values alone, in order; None for a record without one.

        Raises:
            InvalidBatch: the body does not hold what its header says.
            CodecUnavailable: it is compressed, and the library for that is not installed.
        """
        return [
            message.value or (b"" if message.HasField("value") else None)
            for message in self._messages()[1]
        ]

    def records(self) -> list[ConsumedRecord]:
        """All of each record. Raises as :meth:`values` does."""
        topic, partition, timestamp_ms = self.topic, self.partition, self.timestamp_ms
        base_offset = self.batch.header.base_offset
        return [
            ConsumedRecord(
                Offset(base_offset + delta),
                message.value if message.HasField("value") else None,
                message.key if message.HasField("key") else None,
                {header.key: header.value for header in message.headers}
                if message.headers
                else NO_HEADERS,
                timestamp_ms,
                topic,
                partition,
            )
            for delta, message in zip(*self._messages(), strict=True)
        ]

    def _messages(self) -> tuple[Sequence[int], Sequence[RecordMessage]]:
        """The records from ``start`` on, before them their offsets minus base_offset."""
        deltas, messages = parse_records(self.batch.header, self.batch.body)
        first = bisect_left(deltas, self.start - self.batch.header.base_offset)
        return deltas[first:], messages[first:]
