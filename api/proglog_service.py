"""``log.v1.Log``, the service of "Distributed Services with Go": topic ``default``, partition 0.

Its clients send Produce to the leader that GetServers names and Consume to the followers, so any
replica answers Consume from what it knows to be committed. The topic is made on first use.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Final, NoReturn

from quorumlog.api._pb import proglog_pb2, proglog_pb2_grpc, quorumlog_pb2
from quorumlog.api.admin_service import create_topic
from quorumlog.api.limits import Limits
from quorumlog.api.pipeline import ProducePipeline, Submission
from quorumlog.api.proposing import CATCH_UP_TIMEOUT_S, propose
from quorumlog.api.status import CallContext, abort
from quorumlog.broker.metadata_wait import wait_for_metadata
from quorumlog.broker.port import BrokerPort, Fetch, ProduceAck
from quorumlog.errors import (
    OffsetOutOfRange,
    OutcomeUnknown,
    QuorumlogError,
    TopicExists,
)
from quorumlog.log.batch import Draft, iterate_batches
from quorumlog.log.records import decode_records, encode_body
from quorumlog.types import DEFAULT_TOPIC, RecordData

PARTITION: Final = 0

_LOOK_AGAIN_S: Final = 0.02


class ProglogService(proglog_pb2_grpc.LogServicer):
    def __init__(self, broker: BrokerPort, limits: Limits | None = None) -> None:
        self._broker = broker
        self._limits = limits or Limits()
        self._led = False

    async def Produce(
        self, request: proglog_pb2.ProduceRequest, context: CallContext
    ) -> proglog_pb2.ProduceResponse:
        try:
            await self._ensure_topic()
            ack = await asyncio.shield(self._submit(request))
        except QuorumlogError as error:
            await _abort(context, error)
        return proglog_pb2.ProduceResponse(offset=ack.base_offset)

    async def ProduceStream(
        self, requests: AsyncIterable[proglog_pb2.ProduceRequest], context: CallContext
    ) -> AsyncIterator[proglog_pb2.ProduceResponse]:
        """Pipelined, answered in order; the first error ends the stream."""
        try:
            await self._ensure_topic()
            pipeline = ProducePipeline(self._accept, self._limits)
            async with aclosing(pipeline.answers(requests)) as answers:
                async for ready in answers:
                    for answer in ready:
                        if isinstance(answer.outcome, QuorumlogError):
                            raise answer.outcome
                        yield proglog_pb2.ProduceResponse(offset=answer.outcome.base_offset)
        except QuorumlogError as error:
            await _abort(context, error)

    async def Consume(
        self, request: proglog_pb2.ConsumeRequest, context: CallContext
    ) -> proglog_pb2.ConsumeResponse:
        try:
            await self._ensure_topic()
            fetch = await self._fetch(request.offset, max_bytes=1, wait_s=0.0)
            record = next(_records(fetch, request.offset), None)
            if record is None:
                raise OffsetOutOfRange(request.offset, fetch.log_start_offset, fetch.high_watermark)
        except QuorumlogError as error:
            await _abort(context, error)
        return proglog_pb2.ConsumeResponse(record=record)

    async def ConsumeStream(
        self, request: proglog_pb2.ConsumeRequest, context: CallContext
    ) -> AsyncIterator[proglog_pb2.ConsumeResponse]:
        """Follows the tail; from beyond it, waits until the log gets there, as the book's does."""
        offset = request.offset
        try:
            await self._ensure_topic()
            while True:
                fetch = await self._fetch_from(offset)
                for record in _records(fetch, offset):
                    yield proglog_pb2.ConsumeResponse(record=record)
                offset = max(offset, fetch.next_offset)
        except QuorumlogError as error:
            await _abort(context, error)

    async def GetServers(
        self, request: proglog_pb2.GetServersRequest, context: CallContext
    ) -> proglog_pb2.GetServersResponse:
        """Before the topic exists the metadata's leader stands for its leader."""
        try:
            metadata = self._broker.metadata
            if metadata.has_topic(DEFAULT_TOPIC):
                group = metadata.partition(DEFAULT_TOPIC, PARTITION).group
                leader = self._broker.partition_status(group).leader
            else:
                leader = self._broker.cluster_status().leader
        except QuorumlogError as error:
            await _abort(context, error)
        return proglog_pb2.GetServersResponse(
            servers=[
                proglog_pb2.Server(id=node.id, rpc_addr=node.address, is_leader=node.id == leader)
                for node in metadata.nodes()
            ]
        )

    def _submit(self, request: proglog_pb2.ProduceRequest) -> "asyncio.Future[ProduceAck]":
        record = RecordData(request.record.value)
        body = encode_body([record], self._limits.max_record_bytes)
        return self._broker.submit(DEFAULT_TOPIC, PARTITION, Draft.of(body, 1))

    def _accept(self, request: proglog_pb2.ProduceRequest) -> tuple[Submission]:
        outcome: asyncio.Future[ProduceAck] | QuorumlogError
        try:
            outcome = self._submit(request)
        except QuorumlogError as error:
            outcome = error
        return (Submission(PARTITION, 0, len(request.record.value), outcome),)

    async def _fetch(self, offset: int, max_bytes: int, wait_s: float) -> Fetch:
        return await self._broker.fetch(
            DEFAULT_TOPIC, PARTITION, offset, max_bytes, wait_s, allow_follower=True
        )

    async def _fetch_from(self, offset: int) -> Fetch:
        """From ``offset``, or where that is beyond the end, whatever comes next there."""
        limits = self._limits
        try:
            return await self._fetch(offset, limits.fetch_bytes, limits.heartbeat_s)
        except OffsetOutOfRange as error:
            if offset < error.end:
                raise
            return await self._fetch(error.end, limits.fetch_bytes, limits.heartbeat_s)

    async def _ensure_topic(self) -> None:
        """Make the topic if need be, and wait until it can be used for the first time."""
        if not self._broker.metadata.has_topic(DEFAULT_TOPIC):
            await self._create_topic()
        if not self._led:
            await self._first_election()

    async def _create_topic(self) -> None:
        metadata = self._broker.metadata
        request = quorumlog_pb2.CreateTopicRequest(name=DEFAULT_TOPIC)
        try:
            await propose(self._broker, create_topic(self._broker, request))
        except TopicExists:
            if not await wait_for_metadata(
                metadata, lambda: metadata.has_topic(DEFAULT_TOPIC), CATCH_UP_TIMEOUT_S
            ):
                raise OutcomeUnknown(
                    f"topic {DEFAULT_TOPIC!r} exists, but this node did not hear of it in time"
                ) from None

    async def _first_election(self) -> None:
        """Give the new partition's first leader time: the book's clients do not try again.

        Waits once in this node's life, and only where a replica is that will know. A replica has no
        event to wait for before it is open.
        """
        info = self._broker.metadata.partition(DEFAULT_TOPIC, PARTITION)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CATCH_UP_TIMEOUT_S
        while self._broker.node_id in info.replicas and loop.time() < deadline:
            status = self._broker.partition_status(info.group)
            if status.exact or (status.term and status.leader not in (None, self._broker.node_id)):
                break
            await asyncio.sleep(_LOOK_AGAIN_S)
        self._led = True


def _records(fetch: Fetch, start: int) -> Iterator[proglog_pb2.Record]:
    """The fetched records from offset ``start`` on."""
    for batch in iterate_batches(fetch.data):
        for record in decode_records(batch.header, batch.body, start):
            yield proglog_pb2.Record(
                value=record.value or b"", offset=record.offset, term=batch.header.term
            )


async def _abort(context: CallContext, error: QuorumlogError) -> NoReturn:
    localized = None
    if isinstance(error, OffsetOutOfRange):
        localized = f"The requested offset is outside the log's range: {error.offset}"
    await abort(context, error, localized)
