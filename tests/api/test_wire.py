"""The services behind a real gRPC server on the loopback interface."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from fakes.broker import FakeBroker
from fakes.requests import produce, values_of
from quorumlog.api._pb import (
    proglog_pb2,
    proglog_pb2_grpc,
    quorumlog_pb2,
    quorumlog_pb2_grpc,
)
from quorumlog.api.admin_service import AdminService
from quorumlog.api.limits import Limits
from quorumlog.api.log_service import LogService
from quorumlog.api.proglog_service import ProglogService
from quorumlog.api.registration import add_log_service
from quorumlog.errors import (
    InvalidArgument,
    NotLeader,
    OffsetOutOfRange,
    QuorumlogError,
    UnknownTopic,
)
from quorumlog.rpc_status import error_from_rpc
from quorumlog.types import MAX_MESSAGE_BYTES

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)


@pytest.fixture
async def channel(broker: FakeBroker) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(options=OPTIONS)
    add_log_service(LogService(broker), server)
    quorumlog_pb2_grpc.add_AdminServicer_to_server(AdminService(broker), server)
    proglog_pb2_grpc.add_LogServicer_to_server(ProglogService(broker), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        yield channel
    await server.stop(None)


def log_stub(channel: grpc.aio.Channel) -> Any:
    return quorumlog_pb2_grpc.LogStub(channel)


async def rpc_failure(call: Any) -> QuorumlogError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value)


async def test_typed_errors_survive_the_wire(broker: FakeBroker, channel: grpc.aio.Channel) -> None:
    log = log_stub(channel)
    unknown = await rpc_failure(log.Produce(produce(b"a", topic="nö")))
    assert isinstance(unknown, UnknownTopic)
    assert unknown.topic == "nö"
    request = quorumlog_pb2.FetchRequest(topic="t", start=quorumlog_pb2.Start(offset=5))
    outside = await rpc_failure(log.Fetch(request))
    assert isinstance(outside, OffsetOutOfRange)
    assert (outside.offset, outside.start, outside.end) == (5, 0, 0)
    broker.lead_elsewhere("t", "b")
    moved = await rpc_failure(log.Produce(produce(b"a")))
    assert isinstance(moved, NotLeader)
    assert moved.leader == "b:7400"
    huge = await rpc_failure(log.Produce(produce(b"a", topic="x" * 100_000)))
    assert type(huge) is UnknownTopic


async def test_a_message_over_the_limit_is_not_retryable(channel: grpc.aio.Channel) -> None:
    big = produce(b"x" * (MAX_MESSAGE_BYTES + 1))
    error = await rpc_failure(log_stub(channel).Produce(big))
    assert type(error) is InvalidArgument


async def test_a_pack_of_millions_is_refused_before_it_is_parsed(
    broker: FakeBroker, channel: grpc.aio.Channel
) -> None:
    hostile = b"\x2a\x00" * 1_000_000
    kind = quorumlog_pb2.ProduceResponse.FromString
    single = channel.unary_unary("/quorumlog.v1.Log/Produce", response_deserializer=kind)
    await rpc_failure(single(hostile))
    stream = channel.stream_stream("/quorumlog.v1.Log/ProduceStream", response_deserializer=kind)()
    await stream.write(hostile)
    assert type(await rpc_failure(stream.read())) is InvalidArgument
    assert broker.submitted == []


async def test_a_produce_stream_answers_errors_and_goes_on(
    broker: FakeBroker, channel: grpc.aio.Channel
) -> None:
    stream = log_stub(channel).ProduceStream()
    requests = [
        produce(b"a", request_id=1),
        produce(b"b", request_id=2, topic="nope"),
        produce(b"c", request_id=3, partition=1),
    ]
    for request in requests:
        await stream.write(request)
    answers = [await stream.read() for _ in requests]
    await stream.write(produce(b"d", request_id=4))
    answers.append(await stream.read())
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert {each.request_id: each.error.reason for each in answers} == {
        1: "",
        2: "UNKNOWN_TOPIC",
        3: "",
        4: "",
    }
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_follower_gets_what_is_produced_and_its_cancellation_ends_the_handler(
    broker: FakeBroker, channel: grpc.aio.Channel
) -> None:
    before = len(asyncio.all_tasks())
    consumer = log_stub(channel).Consume(quorumlog_pb2.ConsumeRequest(topic="t", follow=True))
    for value in (b"a", b"b"):
        await log_stub(channel).Produce(produce(value))
        assert values_of(await consumer.read()) == [value]
    consumer.cancel()
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0)


async def test_an_abandoned_produce_stream_leaves_no_task_behind(
    broker: FakeBroker, channel: grpc.aio.Channel
) -> None:
    before = len(asyncio.all_tasks())
    broker.held = True
    stream = log_stub(channel).ProduceStream()
    await stream.write(produce(b"a"))
    async with asyncio.timeout(5):
        while not broker.submitted:
            await asyncio.sleep(0)
        stream.cancel()
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0)
    broker.commit("t")


async def test_a_stream_of_one_mebibyte_batches_is_read_back_whole(
    broker: FakeBroker, channel: grpc.aio.Channel
) -> None:
    limits = Limits()
    value = b"x" * (limits.max_record_bytes - 1)

    async def requests() -> AsyncIterator[quorumlog_pb2.ProduceRequest]:
        for at in range(20):
            yield produce(value, request_id=at)

    answers = [each.request_id async for each in log_stub(channel).ProduceStream(requests())]
    assert answers == list(range(20))
    request = quorumlog_pb2.ConsumeRequest(topic="t", max_bytes=limits.max_fetch_bytes)
    read = [each async for each in log_stub(channel).Consume(request)]
    assert sum(len(values_of(each)) for each in read) == 20


async def test_a_proglog_client_works_unchanged(channel: grpc.aio.Channel) -> None:
    log: Any = proglog_pb2_grpc.LogStub(channel)
    record = proglog_pb2.Record(value=b"hello world")
    produced = await log.Produce(proglog_pb2.ProduceRequest(record=record))
    assert produced.offset == 0
    consumed = await log.Consume(proglog_pb2.ConsumeRequest(offset=produced.offset))
    assert consumed.record.value == b"hello world"
    error = await rpc_failure(log.Consume(proglog_pb2.ConsumeRequest(offset=1)))
    assert isinstance(error, OffsetOutOfRange)
    servers = await log.GetServers(proglog_pb2.GetServersRequest())
    assert [each.id for each in servers.servers if each.is_leader] == ["a"]
