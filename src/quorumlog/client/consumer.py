"""The consumer: records of one or more partitions, each once, in order within its partition."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.consumed import ConsumedBatch
from quorumlog.client.models import ConsumedRecord
from quorumlog.client.note_calls import NoteCalls
from quorumlog.client.reader import PartitionReader, ReaderOptions, ReaderServices
from quorumlog.client.starts import Start, start_message
from quorumlog.client.tasks import Tasks
from quorumlog.client.transport import LOG_SERVICE
from quorumlog.errors import Closed, InvalidArgument, PartitionOutOfRange
from quorumlog.types import MAX_MESSAGE_BYTES

DEFAULT_FETCH_BYTES: Final = 1024 * 1024
DEFAULT_PREFETCH_BYTES: Final = 4 * 1024 * 1024
DEFAULT_RETRY_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """How a consumer reads.

    Attributes:
        follow: wait for new records at the end of the log; otherwise the consumer ends there.
        max_bytes: about how much the server sends in one message (at least one batch).
        prefetch_bytes: limit of what waits in memory per partition (overrun by one message).
        retry_timeout_s: how long a partition is tried without any answer before the consumer fails.
        request_timeout_s: limit of the calls that find the first offsets, and of a commit.
        checkpoint: the name of one that says where to begin, and that ``commit`` moves.
    """

    follow: bool = True
    max_bytes: int = DEFAULT_FETCH_BYTES
    prefetch_bytes: int = DEFAULT_PREFETCH_BYTES
    retry_timeout_s: float = DEFAULT_RETRY_TIMEOUT_S
    request_timeout_s: float = 30.0
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_bytes <= MAX_MESSAGE_BYTES:
            raise InvalidArgument(f"max_bytes is {self.max_bytes}, not 1 to {MAX_MESSAGE_BYTES}")
        if self.prefetch_bytes < 1:
            raise InvalidArgument("prefetch_bytes is not positive")
        if not (self.retry_timeout_s > 0 and self.request_timeout_s > 0):
            raise InvalidArgument("a timeout is not positive")


class Consumer:
    """Iterate it for records, or :meth:`batches` for speed. Made by ``AsyncClient.consumer``.

    Partitions take turns, batch by batch. A partition that has no leader for a while holds up
    nothing but itself. The set of partitions is fixed when the consumer is opened. One task may
    iterate at a time.

    Raises (while iterating):
        OffsetOutOfRange: the records at this position are gone (retention), or it is past the end.
        Unavailable: a partition could not be read for ``retry_timeout_s``.
        ProtocolError, InvalidBatch: what the leader sends is damaged, again and again.
    """

    def __init__(
        self,
        topic: str,
        partitions: Sequence[int] | None,
        start: Start | Mapping[int, Start],
        services: ReaderServices,
        options: ConsumerOptions,
        on_closed: "Callable[[Consumer], None]",
    ) -> None:
        self.topic = topic
        self._wanted = partitions
        self._start = start
        self._services = services
        self._options = options
        self._on_closed = on_closed
        self._tasks = Tasks()
        self._notes = NoteCalls(services.leader_calls, options.request_timeout_s)
        self._committed: dict[int, int] = {}
        self._readers: dict[int, PartitionReader] = {}
        self._reading: dict[int, asyncio.Task[None]] = {}
        self._turn: list[int] = []
        self._positions: dict[int, int] = {}
        self._current: ConsumedBatch | None = None
        self._records: list[ConsumedRecord] = []
        self._next_record = 0
        self._wakeup: asyncio.Future[None] | None = None
        self._opened = False
        self._closed = False

    async def __aenter__(self) -> "Consumer":
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Find the first offset of every partition and begin to read; idempotent.

        ``latest`` means: what is appended after this.

        Raises:
            UnknownTopic, PartitionOutOfRange, OffsetOutOfRange, InvalidArgument.
        """
        if self._closed:
            raise Closed("this consumer is closed")
        if self._opened:
            return
        self._opened = True
        try:
            await self._begin_all()
        except BaseException:
            # With nothing to read it would look like one at the end of the log.
            self._opened = False
            raise

    async def _begin_all(self) -> None:
        count = await self._services.leader_calls.partition_count(
            self.topic, self._options.request_timeout_s
        )
        wanted = range(count) if self._wanted is None else sorted(set(self._wanted))
        for partition in wanted:
            if not 0 <= partition < count:
                raise PartitionOutOfRange(self.topic, partition, count)
        starts: dict[int, Start] = {}
        for partition in wanted:
            if isinstance(self._start, Mapping):
                starts[partition] = self._start.get(partition, "earliest")
            else:
                starts[partition] = self._start
        if self._options.checkpoint is not None:
            name = self._options.checkpoint
            self._committed = await self._notes.checkpoint(self.topic, name, wanted)
            starts.update(self._committed)
        offsets = await asyncio.gather(
            *(self._find(partition, start) for partition, start in starts.items())
        )
        for partition, offset in zip(starts, offsets, strict=True):
            self._begin(partition, offset)

    @property
    def partitions(self) -> tuple[int, ...]:
        """What is read, in order; empty before :meth:`open`."""
        return tuple(sorted(self._readers))

    def position(self, partition: int) -> int:
        """The offset of the next record this consumer returns from ``partition``."""
        if partition not in self._positions:
            raise InvalidArgument(f"partition {partition} is not among those this consumer reads")
        return self._positions[partition]

    async def seek(self, partition: int, start: Start) -> None:
        """Go on from ``start`` in this partition; what was read ahead of it is dropped."""
        await self.open()
        self.position(partition)
        offset = await self._find(partition, start)
        reading = self._reading.pop(partition)
        reading.cancel()
        if self._current is not None and self._current.partition == partition:
            self._current = None
            self._records = []
        self._begin(partition, offset)

    async def commit(self, *, rewind: bool = False) -> dict[int, int]:
        """Move the checkpoint to where this consumer is: all records it has returned are done with.

        Replicated and durable when this returns; a consumer of that name begins there. Returns the
        checkpoint by partition, of those where it differed. It goes back only with ``rewind``.

        Raises:
            InvalidArgument: the consumer was opened without a checkpoint.
            Unavailable, OutcomeUnknown: as ``AsyncClient.commit_checkpoint``.
        """
        await self.open()
        return await self.commit_positions(self._positions, rewind)

    async def commit_positions(
        self, positions: Mapping[int, int], rewind: bool = False
    ) -> dict[int, int]:
        """:meth:`commit` for who is not as far as this consumer: next offset by partition."""
        name = self._options.checkpoint
        if name is None:
            raise InvalidArgument("there is no checkpoint to move: name one to `consumer`")
        moved = {
            partition: position
            for partition, position in positions.items()
            if position != self._committed.get(partition)
        }
        committed = await self._notes.commit(self.topic, name, moved, rewind)
        self._committed.update(committed)
        return committed

    def __aiter__(self) -> AsyncIterator[ConsumedRecord]:
        return self

    async def __anext__(self) -> ConsumedRecord:
        while self._current is None or self._next_record >= len(self._records):
            batch = await self._next_batch()
            if batch is None:
                raise StopAsyncIteration
            self._records = batch.records()
            self._next_record = 0
            self._current = batch
        record = self._records[self._next_record]
        self._next_record += 1
        self._positions[record.partition] = record.offset + 1
        return record

    async def batches(self) -> AsyncIterator[ConsumedBatch]:
        """The same records batch by batch; the position moves when a batch is returned."""
        while (batch := await self.next_batch()) is not None:
            yield batch

    async def next_batch(self) -> ConsumedBatch | None:
        """The next batch, or None at the end of the log when not following. Safe to cancel."""
        batch = self._rest_of_current()
        if batch is None:
            batch = await self._next_batch()
        if batch is not None:
            self._positions[batch.partition] = batch.next_offset
        return batch

    async def close(self) -> None:
        """Stop reading; idempotent."""
        self._closed = True
        self._notify()
        await self._tasks.close()
        self._on_closed(self)

    def _rest_of_current(self) -> ConsumedBatch | None:
        """What record-wise iteration has left of the batch it is in."""
        current, self._current = self._current, None
        if current is None or self._next_record >= len(self._records):
            return None
        start = self._positions[current.partition]
        return ConsumedBatch(self.topic, current.partition, start, current.batch)

    async def _next_batch(self) -> ConsumedBatch | None:
        await self.open()
        while True:
            if self._closed:
                raise Closed("this consumer is closed")
            for at, partition in enumerate(self._turn):
                reader = self._readers[partition]
                if reader.has_batch:
                    self._turn.append(self._turn.pop(at))
                    batch, start = reader.take()
                    return ConsumedBatch(self.topic, partition, start, batch)
                if reader.error is not None:
                    raise reader.error
            if all(reader.ended for reader in self._readers.values()):
                return None
            self._wakeup = asyncio.get_running_loop().create_future()
            await self._wakeup

    def _notify(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def _begin(self, partition: int, offset: int) -> None:
        reader = PartitionReader(
            self.topic,
            partition,
            offset,
            self._services,
            ReaderOptions(
                self._options.follow,
                self._options.max_bytes,
                self._options.prefetch_bytes,
                self._options.retry_timeout_s,
            ),
            self._notify,
        )
        self._readers[partition] = reader
        self._positions[partition] = offset
        if partition not in self._turn:
            self._turn.append(partition)
        self._reading[partition] = self._tasks.start(
            reader.run(), f"consume-{self.topic}-{partition}"
        )

    async def _find(self, partition: int, start: Start) -> int:
        response = await self._services.leader_calls.call(
            self.topic,
            partition,
            LOG_SERVICE + "ListOffsets",
            pb.ListOffsetsRequest(
                topic=self.topic, partition=partition, start=start_message(start)
            ),
            pb.ListOffsetsResponse,
            self._options.request_timeout_s,
        )
        return response.offset
