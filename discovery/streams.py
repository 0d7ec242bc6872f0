"""TCP exchanges: one message out, one back, within a deadline."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from enum import Enum
from typing import Final

from quorumlog.discovery.wire.codec import encode_message, encode_push_pull
from quorumlog.discovery.wire.envelope import Envelope, EnvelopeDecoder
from quorumlog.discovery.wire.messages import Ack, Address, Ping, PushPull, RemoteError
from quorumlog.discovery.wire.messages import StreamMessage as Message
from quorumlog.errors import ProtocolError

_CHUNK_BYTES: Final = 64 * 1024
_CLOSE_TIMEOUT_S: Final = 1.0


class _Waits(Enum):
    """What came is decoded, and is not all."""

    TOKEN = 0


_WAITS: Final = _Waits.TOKEN


async def exchange_state(
    address: Address,
    state: PushPull,
    timeout_s: float,
    envelope: Envelope,
    turns: asyncio.Lock | None = None,
) -> PushPull:
    """Send ``state`` to the member at ``address`` and return its own.

    Raises ``OSError`` (``TimeoutError`` included) when it cannot be reached in time and
    ``ProtocolError`` when it answers something else. ``turns`` see ``read_message``.
    """
    answer = await _ask(address, encode_push_pull(state), timeout_s, envelope, turns)
    if isinstance(answer, PushPull):
        return answer
    reason = answer.text if isinstance(answer, RemoteError) else type(answer).__name__
    raise ProtocolError(f"{address[0]}:{address[1]} answered a push/pull with: {reason}")


async def ping(
    address: Address,
    message: Ping,
    timeout_s: float,
    envelope: Envelope,
    turns: asyncio.Lock | None = None,
) -> Ack:
    """Ping over TCP. Raises as ``exchange_state`` does."""
    answer = await _ask(address, encode_message(message), timeout_s, envelope, turns)
    if isinstance(answer, Ack):
        return answer
    raise ProtocolError(f"{address[0]}:{address[1]} answered a ping with {type(answer).__name__}")


async def read_message(
    reader: asyncio.StreamReader, decoder: EnvelopeDecoder, turns: asyncio.Lock | None = None
) -> Message:
    """The one message of a stream. Raises ``ProtocolError``, also when it ends before.

    The event loop goes on between the steps of decoding it. Streams that share ``turns`` make one
    step in a turn of the loop, all together.
    """
    turns = turns or asyncio.Lock()
    while True:
        with transport_errors():
            data = await reader.read(_CHUNK_BYTES)
        if not data:
            raise ProtocolError("a gossip stream ended within a message")
        steps = decoder.steps(data)
        while True:
            async with turns:
                message = next(steps, _WAITS)
                if isinstance(message, _Waits):
                    break
                if message is not None:
                    return message
                await asyncio.sleep(0)


async def write_message(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Returns once most of it was handed to the system. Raises ``OSError``."""
    with transport_errors():
        writer.write(data)
        await writer.drain()


async def close_writer(writer: asyncio.StreamWriter) -> None:
    """Close once what was written is sent, or drop it when the peer does not take it."""
    try:
        with transport_errors():
            writer.close()
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await writer.wait_closed()
    except OSError:
        """It is gone, or will be in a moment."""
    finally:
        writer.transport.abort()


async def open_stream(
    connection: socket.socket,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Take over a connected socket. Raises ``OSError``, and has closed it then."""
    try:
        with transport_errors():
            return await asyncio.open_connection(sock=connection)
    except BaseException:
        connection.close()
        raise


@contextlib.contextmanager
def transport_errors() -> Iterator[None]:
    """Makes one ``OSError`` of what the transports of different event loops raise.

    One that the peer has reset is closed under the hands of who uses it: asyncio's own loop
    ignores that or raises ``OSError``, uvloop ``RuntimeError`` and ``AttributeError``.
    """
    try:
        yield
    except (RuntimeError, AttributeError, ValueError) as error:
        raise ConnectionResetError(f"the stream is closed: {error}") from error


async def _ask(
    address: Address,
    question: bytes,
    timeout_s: float,
    envelope: Envelope,
    turns: asyncio.Lock | None,
) -> Message:
    async with asyncio.timeout(timeout_s):
        with transport_errors():
            reader, writer = await asyncio.open_connection(*address)
        try:
            await write_message(writer, envelope.wrap_message(question, dialled=True))
            return await read_message(reader, envelope.message_decoder(dialled=True), turns)
        finally:
            await close_writer(writer)
