"""A batch as a consumer gets it: decoded when asked for, and only as far as asked for."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from quorumlog.client.models import ConsumedRecord
from quorumlog.errors import InvalidBatch
from quorumlog.log._pb.record_pb2 import Record as RecordMessage
from quorumlog.log._pb.record_pb2 import RecordBatch
from quorumlog.log.batch import Batch
from quorumlog.types import NO_HEADERS, Offset


@dataclass(frozen=True, slots=True)
class ConsumedBatch:
    """Records ``[start, next_offset)`` of one partition, checksums verified.

    ``start`` may be inside ``batch``: what stands before it was delivered already. :meth:`values`
    costs about a quarter of :meth:`records`.
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
        return self.next_offset - self.start

    @property
    def timestamp_ms(self) -> int:
        """When the leader appended these records."""
        return self.batch.header.timestamp_ms

    def values(self) -> list[bytes | None]:
        """The values alone, in order; None for a record without one.

        Raises:
            InvalidBatch: the body does not hold what its header says.
        """
        return [
            message.value or (b"" if message.HasField("value") else None)
            for message in self._messages()
        ]

    def records(self) -> list[ConsumedRecord]:
        """All of each record. Raises InvalidBatch as :meth:`values` does."""
        topic, partition, timestamp_ms = self.topic, self.partition, self.timestamp_ms
        return [
            ConsumedRecord(
                Offset(offset),
                message.value if message.HasField("value") else None,
                message.key if message.HasField("key") else None,
                {header.key: header.value for header in message.headers}
                if message.headers
                else NO_HEADERS,
                timestamp_ms,
                topic,
                partition,
            )
            for offset, message in enumerate(self._messages(), self.start)
        ]

    def _messages(self) -> list[RecordMessage]:
        try:
            messages = list(RecordBatch.FromString(bytes(self.batch.body)).records)
        except DecodeError as error:
            raise InvalidBatch(f"the body is not an encoded RecordBatch: {error}") from error
        header = self.batch.header
        if len(messages) != header.record_count:
            raise InvalidBatch(
                f"the batch says {header.record_count} records, its body has {len(messages)}"
            )
        return messages[self.start - header.base_offset :]
