"""Reads one partition from an offset on, through broken streams and leader changes.

What a leader sends is checked (CRC-32C of header and body, as the producer made it), cut to what
was not delivered before, and kept in a small buffer until the consumer takes it.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.leader_calls import LeaderCalls
from quorumlog.client.nodes import Nodes
from quorumlog.client.retry import Backoff, worth_another_attempt
from quorumlog.client.routes import Routes
from quorumlog.client.transport import LOG_SERVICE, Stream
from quorumlog.errors import (
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    ProtocolError,
    QuorumlogError,
    Unavailable,
)
from quorumlog.log.batch import Batch, Kind, iterate_batches

SILENCE_LIMIT_S: Final = 15.0
"""A stream without a message for so long is broken: a leader sends a heartbeat every 5 s."""

DAMAGED_LIMIT: Final = 3
"""Damaged responses in a row before it is no accident of the way but rot at the source."""


@dataclass(frozen=True, slots=True)
class ReaderServices:
    """What the readers of one client share."""

    nodes: Nodes
    routes: Routes
    leader_calls: LeaderCalls
    rng: random.Random


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """See ``AsyncClient.consumer``. ``prefetch_bytes`` is of one partition."""

    follow: bool
    max_bytes: int
    prefetch_bytes: int
    retry_timeout_s: float


class PartitionReader:
    """Run by one task (:meth:`run`); the consumer takes batches with :meth:`take`.

    ``on_ready`` is called whenever there is something new: a batch, the end, an error.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,
        services: ReaderServices,
        options: ReaderOptions,
        on_ready: Callable[[], None],
    ) -> None:
        self.partition = partition
        self.ended = False
        self.error: QuorumlogError | None = None
        self.high_watermark = 0
        self._topic = topic
        self._fetched_offset = offset
        self._services = services
        self._options = options
        self._on_ready = on_ready
        self._ready: deque[tuple[Batch, int]] = deque()
        self._ready_bytes = 0
        self._room: asyncio.Future[None] | None = None
        self._progress_s = 0.0
        self._damaged = 0
        self._has_read = False

    @property
    def has_batch(self) -> bool:
        return bool(self._ready)

    def take(self) -> tuple[Batch, int]:
        """The next batch and the first offset in it that was not delivered before."""
        batch, start = self._ready.popleft()
        self._ready_bytes -= batch.size_bytes
        if self._room is not None and self._ready_bytes < self._options.prefetch_bytes:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None
        return batch, start

    async def run(self) -> None:
        """Read until the end (unless following), an error that is final, or cancellation."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(self._services.rng)
        avoid: str | None = None
        self._progress_s = loop.time()
        try:
            while not self.ended:
                before = self._progress_s
                address = ""
                try:
                    address = await self._services.routes.leader(self._topic, self.partition, avoid)
                    await self._stream_from(address)
                    continue
                except QuorumlogError as error:
                    failure = error
                if self._progress_s > before:
                    backoff.reset()
                fresh = backoff.fresh
                delay_s = backoff.next_s()
                await self._note_failure(address, failure, loop.time() + delay_s)
                avoid = address or None
                if isinstance(failure, NotLeader) and failure.leader and fresh:
                    continue
                await asyncio.sleep(delay_s)
        except QuorumlogError as error:
            self.error = error
        finally:
            self._on_ready()

    async def _note_failure(self, address: str, error: QuorumlogError, until_s: float) -> None:
        """Raise ``error`` when it is final; otherwise let the next attempt look elsewhere."""
        if until_s - self._progress_s >= self._options.retry_timeout_s:
            raise self._services.nodes.exhausted(error)
        if isinstance(error, ProtocolError):
            self._damaged += 1
            if self._damaged >= DAMAGED_LIMIT:
                raise error
            return
        # What was read was committed and cannot be beyond the end: such a leader is behind, not we.
        if isinstance(error, OffsetOutOfRange) and error.offset > error.end and self._has_read:
            return
        if address:
            await self._services.leader_calls.note_failure(
                self._topic, self.partition, address, error
            )
        elif not worth_another_attempt(error):
            raise error

    async def _stream_from(self, address: str) -> None:
        """Read from one node until its stream ends; sets ``ended`` at the end of the log."""
        stream = self._services.nodes.connection(address).stream(
            LOG_SERVICE + "Consume",
            pb.FetchResponse,
            pb.ConsumeRequest(
                topic=self._topic,
                partition=self.partition,
                start=pb.Start(offset=self._fetched_offset),
                max_bytes=self._options.max_bytes,
                follow=self._options.follow,
            ),
        )
        try:
            while (response := await self._receive(stream, address)) is not None:
                self._progress_s = asyncio.get_running_loop().time()
                self._accept(response)
                await self._wait_for_room()
        finally:
            stream.cancel()
        if self._options.follow:
            raise Unavailable(f"{address} ended the stream")
        self.ended = True

    async def _receive(
        self, stream: Stream[pb.FetchResponse], address: str
    ) -> pb.FetchResponse | None:
        try:
            async with asyncio.timeout(SILENCE_LIMIT_S):
                return await stream.receive()
        except TimeoutError as error:
            raise OutcomeUnknown(f"{address} was silent for {SILENCE_LIMIT_S:g} s") from error

    def _accept(self, response: pb.FetchResponse) -> None:
        """Take in whole batches; those delivered before, and their part of a batch, are skipped.

        So are gaps: compaction took all records that stood there.

        Where to go on follows from the batches alone: nothing a peer says can make records be
        skipped.

        Raises:
            ProtocolError: damaged, or with a gap: nothing of the damaged part is taken.
        """
        self.high_watermark = response.high_watermark
        for batch in self._checked(response.batches):
            start = self._fetched_offset
            self._fetched_offset = batch.header.next_offset
            self._has_read = True
            if batch.header.kind == Kind.RECORDS:
                self._ready.append((batch, start))
                self._ready_bytes += batch.size_bytes
        self._damaged = 0
        if self._ready:
            self._on_ready()

    def _checked(self, data: bytes) -> Iterator[Batch]:
        for batch in iterate_batches(data):
            header = batch.header
            if header.next_offset <= self._fetched_offset:
                continue
            if header.base_offset > self._fetched_offset:
                raise ProtocolError(
                    f"partition {self.partition} of {self._topic!r}: expected offset "
                    f"{self._fetched_offset}, the next batch begins at {header.base_offset}"
                )
            yield batch

    async def _wait_for_room(self) -> None:
        while self._ready_bytes >= self._options.prefetch_bytes:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
