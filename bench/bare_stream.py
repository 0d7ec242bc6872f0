"""A gRPC stream with nothing behind it: what replay is measured against.

``python -m bench.bare_stream HOST:PORT MESSAGES SIZE_BYTES`` serves ``MESSAGES`` equal messages to
every caller of ``/bench.Bare/Stream``; :func:`bare_stream_server` runs it as a process of its own.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final

import grpc
import grpc.aio

from examples.local_cluster import free_address

_METHOD: Final = "/bench.Bare/Stream"
_LIMIT: Final = 16 * 1024 * 1024
_START_TIMEOUT_S: Final = 20.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _LIMIT),
    ("grpc.max_send_message_length", _LIMIT),
)


@contextlib.contextmanager
def bare_stream_server(messages: int, size_bytes: int) -> Iterator[str]:
    """The address of a server of ``messages`` x ``size_bytes`` in another process."""
    address = free_address()
    command = [sys.executable, "-m", "bench.bare_stream", address, str(messages), str(size_bytes)]
    server = subprocess.Popen(command)
    try:
        yield address
    finally:
        server.kill()
        server.wait()


async def read_rate(address: str) -> float:
    """Bytes a second of one stream of all messages."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        await asyncio.wait_for(channel.channel_ready(), _START_TIMEOUT_S)
        started = time.perf_counter()
        received = 0
        async for message in channel.unary_stream(_METHOD)(b""):
            received += len(message)
        return received / (time.perf_counter() - started)


async def serve(address: str, messages: int, size_bytes: int) -> None:
    """Serve until the process ends."""
    message = bytes(size_bytes)

    async def stream(request: bytes, context: object) -> AsyncIterator[bytes]:
        for _ in range(messages):
            yield message

    server = grpc.aio.server(options=_OPTIONS)
    service, method = _METHOD.strip("/").split("/")
    handler = grpc.unary_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
