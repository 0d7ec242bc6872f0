"""The producer: records in, acknowledgements out; each record exactly once and in order."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from quorumlog.client.accumulator import DEFAULT_BATCH_BYTES
from quorumlog.client.encoding import Item, Run, cut_runs, encode_item
from quorumlog.client.lane import Lane, LaneServices
from quorumlog.client.models import RecordMetadata, RunMetadata, SendSummary
from quorumlog.client.note_calls import checked_token
from quorumlog.client.partitioner import StickyPartitioner, partition_of_key
from quorumlog.errors import Closed, InvalidArgument, PartitionOutOfRange, QuorumlogError
from quorumlog.log.compression import CODECS, DEFAULT_LEVEL, check_level, require_codec
from quorumlog.types import MAX_BATCH_BYTES, RecordData

DEFAULT_BUFFER_BYTES: Final = 32 * 1024 * 1024
DEFAULT_DELIVERY_TIMEOUT_S: Final = 120.0
CHUNK_RECORDS: Final = 10_000
"""Records that ``send_many`` takes from its iterable at a time."""


@dataclass(frozen=True, slots=True)
class ProducerOptions:
    """How a producer batches and how long it tries.

    Attributes:
        batch_bytes: a batch is closed before it grows over this (1 to 4 MiB): larger batches, more
            throughput and more memory.
        buffer_bytes: limit of encoded records that are not acknowledged; when full, sending waits.
        delivery_timeout_s: how long a record is tried before it fails.
        compression: ``zstd`` or None. A batch that does not get smaller is sent as it is. The nodes
            and all consumers need the library too.
        compression_level: 1 (fastest) to 22 (smallest). It is the event loop's time: for a batch
            of 1 MiB 3 to 7 ms at level 3, some 50 ms at 9, near a second at 19.
        fencing_token: of the lock that allows this producer to write (1 to 2^63 - 1). Once a
            partition has seen a newer one, every record fails with ``StaleFencingToken``; one that
            was sent before without an answer with OutcomeUnknown, and that as the cause.
    """

    batch_bytes: int = DEFAULT_BATCH_BYTES
    buffer_bytes: int = DEFAULT_BUFFER_BYTES
    delivery_timeout_s: float = DEFAULT_DELIVERY_TIMEOUT_S
    compression: str | None = None
    compression_level: int = DEFAULT_LEVEL
    fencing_token: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.batch_bytes <= MAX_BATCH_BYTES:
            raise InvalidArgument(f"batch_bytes is {self.batch_bytes}, not 1 to {MAX_BATCH_BYTES}")
        if self.buffer_bytes < self.batch_bytes:
            raise InvalidArgument("buffer_bytes is smaller than batch_bytes")
        if not self.delivery_timeout_s > 0:
            raise InvalidArgument("delivery_timeout_s is not positive")
        if self.fencing_token is not None:
            checked_token(self.fencing_token)
        check_level(self.compression_level)
        if self.compression is not None:
            if self.compression not in CODECS:
                raise InvalidArgument(
                    f"compression is {self.compression!r}, not {' or '.join(CODECS)} or None"
                )
            require_codec(CODECS[self.compression])


@dataclass(frozen=True, slots=True)
class SubmittedRun:
    """Some records of one ``submit_many`` call that share a fate.

    ``positions`` are theirs in the call; ``acknowledged`` ends with their offsets or their error.
    """

    positions: Sequence[int]
    acknowledged: "asyncio.Future[RunMetadata]"


class Producer:
    """Sends to one topic. Made by ``AsyncClient.producer``; belongs to its event loop.

    Records of one partition are appended in the order of the calls, each exactly once, through
    leader changes and lost answers. Records without a key go round the partitions batch by batch;
    those with one to ``crc32c(key) modulo partitions``.

    A record that could not be delivered within ``delivery_timeout_s`` fails with ``Unavailable``
    when it is surely not in the log and with ``OutcomeUnknown`` when it may be.
    """

    def __init__(
        self,
        topic: str,
        services: LaneServices,
        options: ProducerOptions,
        on_closed: "Callable[[Producer], None]",
    ) -> None:
        self.topic = topic
        self._on_closed = on_closed
        self._services = services
        self._options = options
        self._partition_count: int | None = None
        self._lanes: dict[int, Lane] = {}
        self._sticky = StickyPartitioner(services.rng)
        self._buffered_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._drained: asyncio.Future[None] | None = None
        self._unreported: QuorumlogError | None = None
        self._closed = False

    async def __aenter__(self) -> "Producer":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:
            self.abort()

    async def send(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> RecordMetadata:
        """Append one record and wait until it is committed.

        Cancelling the call stops the waiting, not the sending.

        Raises:
            RecordTooLarge, InvalidArgument, UnknownTopic, PartitionOutOfRange: nothing was sent.
            Unavailable: given up, surely not in the log.
            OutcomeUnknown: given up, perhaps in the log.
        """
        future = await self.submit(value, key=key, headers=headers, partition=partition)
        try:
            return await future
        except QuorumlogError as error:
            self.reported(error)
            raise

    async def submit(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> "asyncio.Future[RecordMetadata]":
        """Queue one record; the future ends with its acknowledgement, or fails as :meth:`send`
        does.

        Waits only for room in the buffer (and, the first time, for the topic's metadata). A failure
        nobody looked at is raised by :meth:`flush` or :meth:`close`.
        """
        if key is None and not headers and type(value) is bytes:
            encoded = encode_item(value)
        else:
            encoded = encode_item(RecordData(value, key, headers))
        await self._prepare(partition)
        await self._reserve(len(encoded))
        if partition is None:
            if key is None:
                partition = self._sticky.current(self._partitions())
            else:
                partition = partition_of_key(key, self._partitions())
        return self._lane(partition).add_record(encoded)

    async def submit_many(
        self, records: Sequence[Item], *, partition: int | None = None
    ) -> list[SubmittedRun]:
        """Queue many records (bare values, or ``RecordData``); one future per run of them.

        Waits only for room in the buffer. When a record is refused (RecordTooLarge …) none is
        queued. All of ``records`` is encoded at once: some MiB a call are enough.
        """
        return [run async for run in self.submit_runs(records, partition=partition)]

    async def submit_runs(
        self, records: Sequence[Item], *, partition: int | None = None
    ) -> AsyncIterator[SubmittedRun]:
        """:meth:`submit_many` run by run: at any time the caller knows what is queued."""
        await self._prepare(partition)
        runs: list[tuple[int | None, Run]] = []
        for chosen, items, positions in self._grouped(records, partition):
            for run in cut_runs(items, positions, self._options.batch_bytes):
                runs.append((chosen, run))
        for chosen, run in runs:
            await self._reserve(len(run.body))
            # The partition for records without a key moves on as batches fill up.
            target = self._sticky.current(self._partitions()) if chosen is None else chosen
            future = self._lane(target).add_run(run.body, len(run.positions))
            yield SubmittedRun(run.positions, future)

    async def send_many(
        self, records: Iterable[Item], *, partition: int | None = None
    ) -> SendSummary:
        """Append many records and wait until all are committed: the fastest way.

        ``records`` is read 10,000 at a time, no faster than they can be sent. After a failure no
        more is read, and the first error is raised once the fate of all that was sent is known.
        """
        bulk = BulkSend(self, partition)
        remaining = iter(records)
        while not bulk.failed and (chunk := list(itertools.islice(remaining, CHUNK_RECORDS))):
            await bulk.add(chunk)
        return await bulk.finish()

    async def flush(self) -> None:
        """Return when everything sent so far has been acknowledged or has failed.

        Raises:
            QuorumlogError: the first failure since the last flush that no ``send`` has raised.
        """
        while self._buffered_bytes > 0:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)
        error, self._unreported = self._unreported, None
        if error is not None:
            raise error

    async def close(self) -> None:
        """Flush, then refuse everything; idempotent. Takes at most the delivery timeout."""
        self._refuse()
        try:
            await self.flush()
        finally:
            self.abort()

    def abort(self) -> None:
        """Give up what is not acknowledged and refuse everything from now; does not wait."""
        self._refuse()
        for lane in self._lanes.values():
            lane.abort()
        self._lanes.clear()
        self._on_closed(self)

    # ------------------------------------------------------------------------------ LaneOwner

    def released(self, size_bytes: int) -> None:
        self._buffered_bytes -= size_bytes
        while self._waiting and self._fits(self._waiting[0][0]):
            reserved_bytes, future = self._waiting.popleft()
            if not future.done():
                self._buffered_bytes += reserved_bytes
                future.set_result(None)
        if self._buffered_bytes == 0 and self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def sealed(self, partition: int) -> None:
        self._sticky.batch_complete(partition, self._partitions())

    def failed(self, error: QuorumlogError) -> None:
        if self._unreported is None:
            self._unreported = error

    # ------------------------------------------------------------------------------ inside

    def _refuse(self) -> None:
        self._closed = True
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(Closed("this producer is closed"))
        self._waiting.clear()

    def reported(self, error: QuorumlogError) -> None:
        """The caller was told of ``error``: flush need not."""
        if error is self._unreported:
            self._unreported = None

    def _partitions(self) -> int:
        return self._partition_count or 1

    async def _prepare(self, partition: int | None) -> None:
        """See that the producer is open, the topic known, and ``partition`` one of its."""
        if self._closed:
            raise Closed("this producer is closed")
        if self._partition_count is None:
            self._partition_count = await self._services.leader_calls.partition_count(
                self.topic, self._options.delivery_timeout_s
            )
        if partition is not None and not 0 <= partition < self._partition_count:
            # Partitions may have been added.
            await self._services.routes.refresh(self.topic)
            self._partition_count = await self._services.routes.partition_count(self.topic)
            if not 0 <= partition < self._partition_count:
                raise PartitionOutOfRange(self.topic, partition, self._partition_count)

    def _fits(self, size_bytes: int) -> bool:
        return (
            self._buffered_bytes == 0
            or self._buffered_bytes + size_bytes <= self._options.buffer_bytes
        )

    async def _reserve(self, size_bytes: int) -> None:
        """Take ``size_bytes`` of the buffer, after those who wait already."""
        if self._closed:
            raise Closed("this producer is closed")
        if not self._waiting and self._fits(size_bytes):
            self._buffered_bytes += size_bytes
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.released(size_bytes)
            raise

    def _lane(self, partition: int) -> Lane:
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = Lane(
                self.topic,
                partition,
                self._services,
                self,
                self._options.batch_bytes,
                self._options.delivery_timeout_s,
                self._options.compression_level if self._options.compression else None,
                self._options.fencing_token or 0,
            )
        return lane

    def _grouped(
        self, records: Sequence[Item], partition: int | None
    ) -> list[tuple[int | None, Sequence[Item], Sequence[int]]]:
        """``records`` by partition, in order, with their positions; None: no key, any will do."""
        if partition is not None or set(map(type, records)) <= {bytes}:
            return [(partition, records, range(len(records)))]
        count = self._partitions()
        keyless = self._sticky.current(count)
        groups: dict[int, tuple[list[Item], list[int]]] = {}
        for position, item in enumerate(records):
            key = item.key if isinstance(item, RecordData) else None
            chosen = keyless if key is None else partition_of_key(key, count)
            items, positions = groups.setdefault(chosen, ([], []))
            items.append(item)
            positions.append(position)
        return [(chosen, items, positions) for chosen, (items, positions) in groups.items()]


class BulkSend:
    """One ``send_many``, chunk by chunk: add what there is, then finish."""

    def __init__(self, producer: Producer, partition: int | None) -> None:
        self._producer = producer
        self._partition = partition
        self._pending: deque[asyncio.Future[RunMetadata]] = deque()
        self._record_count = 0
        self._last_offsets: dict[int, int | None] = {}
        self._error: QuorumlogError | None = None

    @property
    def failed(self) -> bool:
        """Whether some record has failed: adding more makes no sense."""
        return self._error is not None

    async def add(self, chunk: Sequence[Item]) -> None:
        """Queue ``chunk``; waits for room only. Raises what ``submit_many`` does."""
        for run in await self._producer.submit_many(chunk, partition=self._partition):
            self._pending.append(run.acknowledged)
        while self._pending and self._pending[0].done():
            self._take(self._pending.popleft())
        # submit_many need not wait for anything; answers have to be read all the same.
        await asyncio.sleep(0)

    async def finish(self) -> SendSummary:
        """Wait for all that was added. Raises the first failure."""
        if self._pending:
            await asyncio.wait(self._pending)
        for future in self._pending:
            self._take(future)
        self._pending.clear()
        if self._error is not None:
            self._producer.reported(self._error)
            raise self._error
        return SendSummary(self._record_count, self._last_offsets)

    def _take(self, future: "asyncio.Future[RunMetadata]") -> None:
        error = future.exception()
        if error is None:
            run = future.result()
            self._record_count += run.record_count
            self._last_offsets[run.partition] = run.last_offset
        elif isinstance(error, QuorumlogError):
            self._error = self._error or error
        else:
            raise error
