"""Packets in and out over one UDP socket, whatever the event loop makes of it."""

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

import structlog

from quorumlog.discovery.limits import RateLimit
from quorumlog.discovery.sockets import Reach, plain_host
from quorumlog.discovery.wire.messages import Address

_log = structlog.get_logger(__name__)

_LOG_INTERVAL_S: Final = 10.0


class PacketProtocol(asyncio.DatagramProtocol):
    """Packets over one bound UDP socket.

    ``lost`` is called with the reason when the socket is closed by anybody but its owner.
    """

    def __init__(
        self,
        bound: socket.socket,
        *,
        receive: Callable[[bytes, Address], None],
        lost: Callable[[Exception], None],
    ) -> None:
        self._receive = receive
        self._lost = lost
        self._reach = Reach(bound)
        self._transport: asyncio.DatagramTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._limit = RateLimit(_LOG_INTERVAL_S)
        # While 64 KiB wait packets are dropped: what matters of them is sent again.
        self._writable = True
        self._closing = False
        self._closed = asyncio.Event()
        self.unsent = 0
        """Packets that could not be sent where they should have gone."""

    def send(self, data: bytes, address: Address) -> None:
        """Send a packet, or lose it; never raises, whatever ``address`` is."""
        if self._transport is None or not self._writable:
            return
        host, port = self._reach.of(address[0]), address[1]
        # asyncio's own transport closes for an impossible port.
        if host is None or not 0 < port < 65_536:
            self._note(address, "this node's socket has no way to this kind of address")
            return
        try:
            self._transport.sendto(data, (host, port))
        except Exception as error:  # which one is for the event loop to choose
            self._note(address, str(error))

    async def close(self) -> None:
        """Idempotent."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable = False
        self._closed.set()
        if not self._closing:
            self._lost(exc or OSError("the UDP socket of gossip was closed"))

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._receive(data, (plain_host(addr[0]), addr[1]))

    def error_received(self, exc: Exception) -> None:
        self._note(None, str(exc))

    def _note(self, address: Address | None, reason: str) -> None:
        """One packet less; that its destination is not there, a probe will find out."""
        self.unsent += 1
        if self._limit.allows(self._loop.time()):
            _log.debug(
                "packet_undeliverable",
                address=address,
                error=reason,
                not_logged=self._limit.take_suppressed(),
            )
