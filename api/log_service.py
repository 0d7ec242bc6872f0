"""``quorumlog.v1.Log``: produce, fetch, consume."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing

from quorumlog.api._pb import quorumlog_pb2, quorumlog_pb2_grpc
from quorumlog.api.convert import draft_of, produce_response, start_of
from quorumlog.api.fetch_message import FetchMessage
from quorumlog.api.limits import Limits
from quorumlog.api.produce_stream import ProduceStream
from quorumlog.api.status import CallContext, abort, aborting
from quorumlog.broker.port import At, BrokerPort
from quorumlog.errors import InvalidArgument, QuorumlogError


class LogService(quorumlog_pb2_grpc.LogServicer):
    """Checks, converts and hands on; the broker decides. One instance serves a node's calls.

    Added to a server by ``quorumlog.api.registration.add_log_service``.
    """

    def __init__(self, broker: BrokerPort, limits: Limits | None = None) -> None:
        self._broker = broker
        self._limits = limits or Limits()

    @aborting
    async def Produce(
        self, request: quorumlog_pb2.ProduceRequest, context: CallContext
    ) -> quorumlog_pb2.ProduceResponse:
        if request.more:
            raise InvalidArgument("only a ProduceStream takes several requests in a message")
        draft = draft_of(request.batch, self._limits)
        outcome = self._broker.submit(
            request.topic, request.partition, draft, request.batch.fencing_token
        )
        # A caller that leaves must not cancel a future which its retry may be waiting for.
        return produce_response(await asyncio.shield(outcome), request.request_id)

    @aborting
    async def ProduceAt(
        self, request: quorumlog_pb2.ProduceAtRequest, context: CallContext
    ) -> quorumlog_pb2.ProduceResponse:
        batch = request.batch
        ack = await self._broker.append_at(
            request.topic,
            request.partition,
            draft_of(batch, self._limits),
            request.expected_end,
            batch.fencing_token,
        )
        return produce_response(ack)

    async def ProduceStream(
        self, requests: AsyncIterable[quorumlog_pb2.ProduceRequest], context: CallContext
    ) -> AsyncIterator[quorumlog_pb2.ProduceResponse]:
        stream = ProduceStream(self._broker, self._limits)
        try:
            async with aclosing(stream.responses(requests)) as responses:
                async for response in responses:
                    yield response
        except QuorumlogError as error:
            await abort(context, error)

    @aborting
    async def Fetch(
        self, request: quorumlog_pb2.FetchRequest, context: CallContext
    ) -> FetchMessage:
        offset = await self._offset(request.topic, request.partition, request.start)
        wait_s = min(request.max_wait_ms / 1000, self._limits.max_wait_s)
        fetch = await self._broker.fetch(
            request.topic, request.partition, offset, self._fetch_bytes(request.max_bytes), wait_s
        )
        return FetchMessage.of(fetch)

    async def Consume(
        self, request: quorumlog_pb2.ConsumeRequest, context: CallContext
    ) -> AsyncIterator[FetchMessage]:
        """Follows from the tail by waiting in the broker; gRPC's flow control paces the reading."""
        topic, partition = request.topic, request.partition
        max_bytes = self._fetch_bytes(request.max_bytes)
        wait_s = self._limits.heartbeat_s if request.follow else 0.0
        try:
            offset = await self._offset(topic, partition, request.start)
            while True:
                fetch = await self._broker.fetch(topic, partition, offset, max_bytes, wait_s)
                yield FetchMessage.of(fetch)
                offset = fetch.next_offset
                if not request.follow and offset >= fetch.high_watermark:
                    return
        except QuorumlogError as error:
            await abort(context, error)

    @aborting
    async def ListOffsets(
        self, request: quorumlog_pb2.ListOffsetsRequest, context: CallContext
    ) -> quorumlog_pb2.ListOffsetsResponse:
        found = await self._broker.find_offset(
            request.topic, request.partition, start_of(request.start)
        )
        return quorumlog_pb2.ListOffsetsResponse(
            offset=found.offset,
            log_start_offset=found.log_start_offset,
            high_watermark=found.high_watermark,
        )

    @aborting
    async def InitProducer(
        self, request: quorumlog_pb2.InitProducerRequest, context: CallContext
    ) -> quorumlog_pb2.InitProducerResponse:
        producer_id, epoch = await self._broker.allocate_producer()
        return quorumlog_pb2.InitProducerResponse(producer_id=producer_id, producer_epoch=epoch)

    @aborting
    async def Fence(
        self, request: quorumlog_pb2.FenceRequest, context: CallContext
    ) -> quorumlog_pb2.FenceResponse:
        token = await self._broker.fence(request.topic, request.partition, request.token)
        return quorumlog_pb2.FenceResponse(token=token)

    @aborting
    async def SetCheckpoint(
        self, request: quorumlog_pb2.SetCheckpointRequest, context: CallContext
    ) -> quorumlog_pb2.SetCheckpointResponse:
        offset = await self._broker.set_checkpoint(
            request.topic, request.partition, request.name, request.offset, request.rewind
        )
        return quorumlog_pb2.SetCheckpointResponse(offset=offset)

    @aborting
    async def ForgetCheckpoint(
        self, request: quorumlog_pb2.ForgetCheckpointRequest, context: CallContext
    ) -> quorumlog_pb2.ForgetCheckpointResponse:
        await self._broker.forget_checkpoint(request.topic, request.partition, request.name)
        return quorumlog_pb2.ForgetCheckpointResponse()

    @aborting
    async def GetNotes(
        self, request: quorumlog_pb2.NotesRequest, context: CallContext
    ) -> quorumlog_pb2.Notes:
        notes = await self._broker.notes(request.topic, request.partition)
        return quorumlog_pb2.Notes(
            fencing_token=notes.fencing_token, checkpoints=dict(notes.checkpoints)
        )

    async def _offset(self, topic: str, partition: int, message: quorumlog_pb2.Start) -> int:
        start = start_of(message)
        if isinstance(start, At):
            return start.offset
        return (await self._broker.find_offset(topic, partition, start)).offset

    def _fetch_bytes(self, asked: int) -> int:
        return min(asked or self._limits.fetch_bytes, self._limits.max_fetch_bytes)
