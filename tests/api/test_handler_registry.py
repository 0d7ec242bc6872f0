"""What is no request, sent as raw bytes to every method of a node over a real connection."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from fakes.broker import FakeBroker
from fakes.requests import produce
from quorumlog.api._pb import (
    peer_pb2,
    peer_pb2_grpc,
    proglog_pb2,
    proglog_pb2_grpc,
    quorumlog_pb2,
    quorumlog_pb2_grpc,
)
from quorumlog.api.admin_service import AdminService
from quorumlog.api.handler_registry import HandlerRegistry
from quorumlog.api.limits import Limits
from quorumlog.api.log_service import LogService
from quorumlog.api.peer_service import PeerService
from quorumlog.api.proglog_service import ProglogService
from quorumlog.api.registration import add_log_service
from quorumlog.errors import InvalidArgument, UnknownTopic
from quorumlog.rpc_status import error_from_rpc

FILES = (quorumlog_pb2, proglog_pb2, peer_pb2, health_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
GARBAGE = b"\xff\xff\xff"


@pytest.fixture
async def served(
    broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[tuple[HandlerRegistry, grpc.aio.Channel]]:
    """gRPC itself has nothing to say of what comes."""
    server = grpc.aio.server()
    registry = HandlerRegistry(server)
    add_log_service(LogService(broker), registry)
    quorumlog_pb2_grpc.add_AdminServicer_to_server(AdminService(broker), registry)
    proglog_pb2_grpc.add_LogServicer_to_server(ProglogService(broker, Limits()), registry)
    never: Any = object()
    peer_pb2_grpc.add_PeerServicer_to_server(PeerService(never), registry)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), registry)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield registry, channel
    await server.stop(None)
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def send(channel: grpc.aio.Channel, method: str, encoded: bytes) -> Any:
    """The first answer, as bytes."""
    descriptor = METHODS[method]
    if not descriptor.client_streaming and not descriptor.server_streaming:
        return await channel.unary_unary(method)(encoded)
    if not descriptor.client_streaming:
        return await channel.unary_stream(method)(encoded).read()
    if not descriptor.server_streaming:
        return await channel.stream_unary(method)(iter([encoded]))
    call = channel.stream_stream(method)()
    await call.write(encoded)
    return await call.read()


@pytest.mark.parametrize("method", METHODS)
async def test_what_is_no_request_is_an_invalid_argument(
    served: tuple[HandlerRegistry, grpc.aio.Channel], method: str
) -> None:
    registry, channel = served
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(channel, method, GARBAGE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    error = error_from_rpc(caught.value)
    assert type(error) is InvalidArgument
    assert not error.retryable
    assert "request" in str(error)
    assert registry.undecodable == 1


async def test_the_connection_goes_on_and_typed_errors_are_what_they_were(
    broker: FakeBroker, served: tuple[HandlerRegistry, grpc.aio.Channel]
) -> None:
    _, channel = served
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError):
            await send(channel, "/quorumlog.v1.Log/Produce", GARBAGE)
    log: Any = quorumlog_pb2_grpc.LogStub(channel)
    assert (await log.Produce(produce(b"a"))).base_offset == 0
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await log.Produce(produce(b"a", topic="nobody"))
    assert isinstance(error_from_rpc(caught.value), UnknownTopic)
    start = quorumlog_pb2.Start(offset=0)
    consuming = log.Consume(quorumlog_pb2.ConsumeRequest(topic="t", start=start))
    assert (await consuming.read()).batches
    consuming.cancel()
    assert len(broker.submitted) == 1


async def test_a_flood_of_them_is_counted_and_seldom_logged(
    served: tuple[HandlerRegistry, grpc.aio.Channel],
) -> None:
    registry, channel = served
    with capture_logs() as lines:
        for _ in range(50):
            with pytest.raises(grpc.aio.AioRpcError):
                await send(channel, "/quorumlog.v1.Admin/CreateTopic", GARBAGE)
    assert registry.undecodable == 50
    (line,) = [each for each in lines if each["event"] == "request_not_decoded"]
    assert (line["method"], line["size_bytes"]) == ("/quorumlog.v1.Admin/CreateTopic", 3)
