"""The pair of sockets gossip needs: UDP and TCP on one port."""

import errno
import socket
from ipaddress import ip_address
from typing import Final

from quorumlog.discovery.wire.messages import Address
from quorumlog.errors import AddressInUse, ConfigError

_BIND_TRIES: Final = 16
_BACKLOG: Final = 64
_RECEIVE_BUFFER_BYTES: Final = 1024 * 1024
_MAPPED: Final = "::ffff:"
"""An IPv4 address as IPv6 sockets have it."""


def bind_pair(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A bound UDP socket and a listening TCP socket on one port; port 0 takes any free one.

    Raises ``AddressInUse``, and ``ConfigError`` for an address that is not this machine's.
    """
    check_port(host, port)
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


def check_port(host: str, port: int) -> None:
    """Raises ``ConfigError`` for a port that cannot be; 0 stands for any."""
    if not 0 <= port < 65_536:
        raise ConfigError(f"the gossip address {host}:{port} has no port from 0 to 65535")


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


class Reach:
    """Which addresses a bound socket can send to, and how it has them."""

    def __init__(self, bound: socket.socket) -> None:
        self._is_v6 = bound.family == socket.AF_INET6
        self._is_v4 = not self._is_v6 or _is_for_both(bound)

    def of(self, host: str) -> str | None:
        """``host`` as the socket wants it; None where there is no way to addresses of its kind."""
        if ":" in host:
            return host if self._is_v6 else None
        if not self._is_v4:
            return None
        return _MAPPED + host if self._is_v6 else host


def plain_host(host: str) -> str:
    """The address that a socket says is another's, as members have it."""
    return host.removeprefix(_MAPPED)


def bound_address(bound: socket.socket) -> Address:
    name = bound.getsockname()
    return str(name[0]), int(name[1])


def _is_for_both(bound: socket.socket) -> bool:
    """An IPv6 socket that also sends to and hears IPv4 addresses."""
    is_any = ip_address(bound_address(bound)[0]).is_unspecified
    return is_any and not bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0][0]
    except (OSError, UnicodeError) as error:
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
