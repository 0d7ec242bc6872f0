"""What goes over TCP: states exchanged and pings, asked for and answered."""

import asyncio
import socket
from collections.abc import Callable, Coroutine

import structlog

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.rejections import Rejections
from quorumlog.discovery.streams import (
    close_writer,
    exchange_state,
    open_stream,
    ping,
    read_message,
    write_message,
)
from quorumlog.discovery.wire.codec import encode_message, encode_push_pull
from quorumlog.discovery.wire.envelope import Envelope
from quorumlog.discovery.wire.messages import Address, Ping, PushPull
from quorumlog.errors import InvariantViolation, ProtocolError

_log = structlog.get_logger(__name__)


class Exchanges:
    """The streams of one member. ``spawn`` runs a task that its owner ends; ``changed`` is called
    when the core has been told something.

    Nothing that comes over one stream, and nothing that becomes of it, harms more than this stream.
    """

    def __init__(
        self,
        core: GossipCore,
        envelope: Envelope,
        *,
        config: GossipConfig,
        rejections: Rejections,
        spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
        changed: Callable[[], None],
    ) -> None:
        self._core = core
        self._envelope = envelope
        self._config = config
        self._rejections = rejections
        self._spawn = spawn
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._streams = 0
        self._turns = asyncio.Lock()

    def accept(self, connection: socket.socket, peer: Address) -> None:
        """Answer a stream that came in; one more than ``max_streams`` is closed at once."""
        if self._streams >= self._config.max_streams:
            connection.close()
            return

        def done(_: object) -> None:
            self._streams -= 1
            connection.close()

        self._streams += 1
        self._spawn(self._serve(connection, peer)).add_done_callback(done)

    def open_exchange(self, address: Address) -> None:
        self._spawn(self._exchange_quietly(address))

    def open_ping(self, address: Address, message: Ping, timeout_s: float) -> None:
        self._spawn(self._ping(address, message, timeout_s))

    async def join(self, address: Address) -> None:
        """Push and pull with a seed. Raises ``OSError`` or ``ProtocolError``."""
        await self._push_pull(address, join=True)

    async def _serve(self, connection: socket.socket, peer: Address) -> None:
        try:
            reader, writer = await open_stream(connection)
            try:
                await self._answer_stream(reader, writer)
            finally:
                await close_writer(writer)
        except InvariantViolation:
            raise
        except Exception as error:
            self._rejections.count(peer, error, self._loop.time())

    async def _answer_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A state is merged first, so that the answer refutes at once."""
        async with asyncio.timeout(self._config.stream_timeout_s):
            decoder = self._envelope.message_decoder(dialled=False)
            answer = self._answer(await read_message(reader, decoder, self._turns))
            if answer is not None:
                await write_message(writer, self._envelope.wrap_message(answer, dialled=False))

    def _answer(self, message: object) -> bytes | None:
        if isinstance(message, PushPull):
            self._core.receive_push_pull(message, self._loop.time())
            self._changed()
            return encode_push_pull(self._core.local_state(join=False))
        if isinstance(message, Ping):
            ack = self._core.answer_ping(message)
            return None if ack is None else encode_message(ack)
        return None

    async def _exchange_quietly(self, address: Address) -> None:
        try:
            await self._push_pull(address, join=False)
        except (OSError, ProtocolError) as error:
            _log.debug("exchange_failed", address=address, error=str(error))

    async def _push_pull(self, address: Address, *, join: bool) -> None:
        state = self._core.local_state(join=join)
        timeout_s = self._config.stream_timeout_s
        answer = await exchange_state(address, state, timeout_s, self._envelope, self._turns)
        self._core.receive_push_pull(answer, self._loop.time())
        self._changed()

    async def _ping(self, address: Address, message: Ping, timeout_s: float) -> None:
        try:
            ack = await ping(address, message, timeout_s, self._envelope, self._turns)
        except (OSError, ProtocolError) as error:
            _log.debug("stream_ping_failed", address=address, error=str(error))
            return
        self._core.receive_stream_ack(ack, self._loop.time())
        self._changed()
