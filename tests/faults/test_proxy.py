"""The proxy does what it is told, to connections that are there already too."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from examples.local_cluster import free_address
from faults.proxy import FaultProxy

BIG = bytes(range(256)) * 4096


class Echo:
    """Sends back what comes."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.ensure_future(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
            writer.write_eof()
        writer.transport.abort()


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    upstream, echo = free_address(), Echo()
    host, _, port = upstream.rpartition(":")
    server = await asyncio.start_server(echo.accept, host, int(port))
    async with FaultProxy(free_address(), upstream) as proxy:
        yield proxy
    server.close()
    await asyncio.gather(*echo.tasks)
    await asyncio.sleep(0)


@asynccontextmanager
async def connected(
    proxy: FaultProxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = proxy.listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_all_bytes_and_the_end_pass_both_ways(proxy: FaultProxy) -> None:
    async with connected(proxy) as (reader, writer):
        writer.write(BIG)
        writer.write_eof()
        assert await reader.read(-1) == BIG


async def test_what_is_delayed_arrives_later_and_whole(proxy: FaultProxy) -> None:
    proxy.inbound.delay_s = proxy.outbound.delay_s = 0.02
    async with connected(proxy) as (reader, writer):
        started_s = asyncio.get_running_loop().time()
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        assert asyncio.get_running_loop().time() - started_s >= 0.04


async def test_what_is_throttled_takes_its_time(proxy: FaultProxy) -> None:
    proxy.inbound.bytes_s = 100_000.0
    async with connected(proxy) as (reader, writer):
        started_s = asyncio.get_running_loop().time()
        writer.write(bytes(10_000))
        assert await reader.readexactly(10_000) == bytes(10_000)
        assert asyncio.get_running_loop().time() - started_s >= 0.08


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
async def test_a_stalled_direction_holds_everything_back_until_it_is_healed(
    proxy: FaultProxy, direction: str
) -> None:
    async with connected(proxy) as (reader, writer):
        proxy.stall(inbound=direction == "inbound", outbound=direction == "outbound")
        writer.write(b"ping")
        answer = asyncio.ensure_future(reader.readexactly(4))
        done, _ = await asyncio.wait([answer], timeout=0.05)
        assert not done
        proxy.heal()
        assert await answer == b"ping"


async def test_broken_connections_end_at_the_client_and_new_ones_work(proxy: FaultProxy) -> None:
    async with connected(proxy) as (reader, writer):
        writer.write(b"ping")
        await reader.readexactly(4)
        assert proxy.break_connections() == 1
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
    async with connected(proxy) as (reader, writer):
        writer.write(b"pong")
        assert await reader.readexactly(4) == b"pong"


async def test_a_proxy_that_refuses_ends_new_connections_at_once(proxy: FaultProxy) -> None:
    proxy.refusing = True
    async with connected(proxy) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
