"""The real transport against a small real server on the loopback."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api._pb import quorumlog_pb2_grpc as pb_grpc
from quorumlog.client.grpc_transport import GrpcConnector
from quorumlog.client.transport import LOG_SERVICE, Connection
from quorumlog.errors import NotLeader, OutcomeUnknown, ProtocolError, Unavailable
from quorumlog.rpc_status import status_of


class Servicer(pb_grpc.LogServicer):
    """Answers what each test needs."""

    async def InitProducer(self, request: Any, context: Any) -> pb.InitProducerResponse:
        return pb.InitProducerResponse(producer_id=42)

    async def Fetch(self, request: Any, context: Any) -> pb.FetchResponse:
        if request.topic == "slow":
            await asyncio.Event().wait()
        code, message, metadata = status_of(NotLeader(leader="other:7400"))
        await context.abort(code, message, metadata)
        raise AssertionError

    async def Consume(self, request: Any, context: Any) -> AsyncIterator[pb.FetchResponse]:
        for number in range(3):
            yield pb.FetchResponse(next_offset=number)
        if request.follow:
            await asyncio.Event().wait()

    async def ProduceStream(
        self, requests: AsyncIterator[pb.ProduceRequest], context: Any
    ) -> AsyncIterator[pb.ProduceResponse]:
        async for request in requests:
            yield pb.ProduceResponse(request_id=request.request_id)
            if request.request_id == 13:
                return


@pytest.fixture
async def server() -> AsyncIterator[tuple[grpc.aio.Server, str]]:
    server = grpc.aio.server()
    pb_grpc.add_LogServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield server, f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def connection(server: tuple[grpc.aio.Server, str]) -> AsyncIterator[Connection]:
    connection = GrpcConnector().connect(server[1])
    yield connection
    await connection.close()


async def test_a_unary_call_and_its_typed_error(connection: Connection) -> None:
    response = await connection.unary(
        LOG_SERVICE + "InitProducer", pb.InitProducerRequest(), pb.InitProducerResponse, 5.0
    )
    assert response.producer_id == 42
    with pytest.raises(NotLeader) as caught:
        await connection.unary(LOG_SERVICE + "Fetch", pb.FetchRequest(), pb.FetchResponse, 5.0)
    assert caught.value.leader == "other:7400"


async def test_no_answer_in_time_is_an_unknown_outcome(connection: Connection) -> None:
    with pytest.raises(OutcomeUnknown):
        await connection.unary(
            LOG_SERVICE + "Fetch", pb.FetchRequest(topic="slow"), pb.FetchResponse, 0.05
        )


async def test_nobody_listening_is_unavailable() -> None:
    connection = GrpcConnector().connect("127.0.0.1:1")
    with pytest.raises(Unavailable):
        await connection.unary(LOG_SERVICE + "Fetch", pb.FetchRequest(), pb.FetchResponse, 5.0)
    stream = connection.stream(LOG_SERVICE + "ProduceStream", pb.ProduceResponse)
    with pytest.raises(Unavailable):
        await stream.receive()
    await connection.close()


async def test_a_duplex_stream_ends_in_order_when_the_server_ends_it(
    connection: Connection,
) -> None:
    stream = connection.stream(LOG_SERVICE + "ProduceStream", pb.ProduceResponse)
    for number in (1, 2, 13):
        await stream.send(pb.ProduceRequest(request_id=number))
        response = await stream.receive()
        assert response is not None
        assert response.request_id == number
    assert await stream.receive() is None
    with pytest.raises(Unavailable):
        await stream.send(pb.ProduceRequest(request_id=14))


async def test_a_server_stream_is_read_to_its_end(connection: Connection) -> None:
    stream = connection.stream(LOG_SERVICE + "Consume", pb.FetchResponse, pb.ConsumeRequest())
    offsets = []
    while (response := await stream.receive()) is not None:
        offsets.append(response.next_offset)
    assert offsets == [0, 1, 2]


async def test_cancelling_a_stream_ends_a_pending_receive_with_an_error_not_a_cancellation(
    connection: Connection,
) -> None:
    request = pb.ConsumeRequest(follow=True)
    stream = connection.stream(LOG_SERVICE + "Consume", pb.FetchResponse, request)
    for _ in range(3):
        await stream.receive()
    pending = asyncio.ensure_future(stream.receive())
    await asyncio.sleep(0)
    stream.cancel()
    with pytest.raises(Unavailable):
        await pending
    with pytest.raises(Unavailable):
        await stream.receive()


async def test_a_cancelled_task_stays_cancelled(connection: Connection) -> None:
    request = pb.ConsumeRequest(follow=True)
    stream = connection.stream(LOG_SERVICE + "Consume", pb.FetchResponse, request)
    for _ in range(3):
        await stream.receive()
    pending = asyncio.ensure_future(stream.receive())
    await asyncio.sleep(0)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    stream.cancel()


async def test_a_stopped_server_breaks_the_stream(
    server: tuple[grpc.aio.Server, str], connection: Connection
) -> None:
    stream = connection.stream(LOG_SERVICE + "ProduceStream", pb.ProduceResponse)
    await stream.send(pb.ProduceRequest(request_id=1))
    await stream.receive()
    await server[0].stop(None)
    with pytest.raises((Unavailable, OutcomeUnknown)):
        await stream.receive()


async def test_a_closed_connection_says_so() -> None:
    connection = GrpcConnector().connect("127.0.0.1:1")
    await connection.close()
    await connection.close()
    with pytest.raises(Unavailable):
        await connection.unary(LOG_SERVICE + "Fetch", pb.FetchRequest(), pb.FetchResponse, 5.0)


async def test_an_answer_that_cannot_be_decoded_is_neither_an_answer_nor_the_end() -> None:
    """gRPC hands out nothing in its place."""

    async def answer(request: bytes, context: object) -> bytes:
        return b"\xff\xff\xff"

    async def answers(request: bytes, context: object) -> AsyncIterator[bytes]:
        yield b"\xff\xff\xff"

    handlers = {
        "InitProducer": grpc.unary_unary_rpc_method_handler(answer),
        "Consume": grpc.unary_stream_rpc_method_handler(answers),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(LOG_SERVICE.strip("/"), handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection = GrpcConnector().connect(f"127.0.0.1:{port}")
    with pytest.raises(OutcomeUnknown, match="InitProducer cannot be decoded"):
        await connection.unary(
            f"{LOG_SERVICE}InitProducer", pb.InitProducerRequest(), pb.InitProducerResponse, 5.0
        )
    stream = connection.stream(f"{LOG_SERVICE}Consume", pb.FetchResponse, pb.ConsumeRequest())
    with pytest.raises(ProtocolError, match="cannot be decoded"):
        await stream.receive()
    await connection.close()
    await server.stop(None)
