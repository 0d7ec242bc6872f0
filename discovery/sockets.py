"""The pair of sockets gossip needs: UDP and TCP on one port."""

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final, cast

import structlog

from quorumlog.discovery.wire.messages import Address
from quorumlog.errors import AddressInUse, ConfigError

_log = structlog.get_logger(__name__)

_BIND_TRIES: Final = 16
_BACKLOG: Final = 64
_RECEIVE_BUFFER_BYTES: Final = 1024 * 1024


def bind_pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A bound UDP socket and a listening TCP socket on one port; port 0 takes any free one.

    Raises ``AddressInUse``, and ``ConfigError`` for an address that is not this machine's.
    """
    for _ in range(_BIND_TRIES if port == 0 else 1):
        stream = _bind(host, port, socket.SOCK_STREAM)
        try:
            packets = _bind(host, stream.getsockname()[1], socket.SOCK_DGRAM)
        except AddressInUse:
            stream.close()
            continue
        stream.listen(_BACKLOG)
        return packets, stream
    raise _in_use(host, port)


def reachable_host(bound_host: str) -> str:
    """The address to tell others when ``bound_host`` is what this node is bound to.

    A wildcard stands for the address that the default route leaves from, else loopback.
    """
    host = ip_address(bound_host)
    if not host.is_unspecified:
        return bound_host
    family, far, loopback = (
        (socket.AF_INET, "192.0.2.1", "127.0.0.1")
        if host.version == 4
        else (socket.AF_INET6, "2001:db8::1", "::1")
    )
    # Connecting a UDP socket sends nothing: it only asks the routing table.
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))
        except OSError:
            return loopback
        return str(probe.getsockname()[0])


def bound_address(bound: socket.socket) -> Address:
    name = bound.getsockname()
    return str(name[0]), int(name[1])


class PacketProtocol(asyncio.DatagramProtocol):
    """``writable`` is False while 64 KiB wait for the socket: packets are dropped meanwhile,
    and what matters of them is sent again."""

    transport: asyncio.DatagramTransport

    def __init__(self, receive: Callable[[bytes, Address], None]) -> None:
        self._receive = receive
        self.writable = True
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable = False
        self.closed.set()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._receive(data, (addr[0], addr[1]))

    def error_received(self, exc: Exception) -> None:
        """A destination is not there; its probe will find out."""
        _log.debug("packet_undeliverable", error=str(exc))


def _bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0][0]
    except OSError as error:
        raise ConfigError(f"the gossip address {host}:{port} is unusable: {error}") from error
    bound = socket.socket(family, kind)
    try:
        bound.setblocking(False)
        if kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise _in_use(host, port) from error
        raise ConfigError(f"the gossip address {host}:{port} is unusable: {error}") from error
    return bound


def _in_use(host: str, port: int) -> AddressInUse:
    return AddressInUse(
        f"the gossip address {host}:{port} is in use: stop what uses it, or choose another one"
    )
