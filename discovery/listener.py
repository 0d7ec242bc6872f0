"""Connections that come in."""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

import structlog

from quorumlog.discovery.limits import RateLimit
from quorumlog.discovery.sockets import plain_host
from quorumlog.discovery.wire.messages import Address

_log = structlog.get_logger(__name__)

_LOG_INTERVAL_S: Final = 10.0
_PAUSE_S: Final = 0.1
_SOCKET_IS_GONE: Final = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)


class Listener:
    """Accepts connections on a listening socket, one in a turn of the event loop.

    ``take`` becomes the owner of each. An error of one connection, or no descriptor left for it,
    is waited out; ``lost`` is called when the listening socket itself is gone.
    """

    def __init__(
        self,
        listening: socket.socket,
        *,
        take: Callable[[socket.socket, Address], None],
        lost: Callable[[Exception], None],
    ) -> None:
        self._listening = listening
        self._take = take
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._limit = RateLimit(_LOG_INTERVAL_S)
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Idempotent."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening)
            self._listening.close()

    def _listen(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        try:
            connection, peer = self._listening.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._loop.remove_reader(self._listening)
            if error.errno in _SOCKET_IS_GONE:
                self._lost(error)
                return
            self._pause = self._loop.call_later(_PAUSE_S, self._listen)
            if self._limit.allows(self._loop.time()):
                _log.warning(
                    "gossip_accept_failed",
                    error=str(error),
                    not_logged=self._limit.take_suppressed(),
                )
            return
        connection.setblocking(False)
        self._take(connection, (plain_host(peer[0]), peer[1]))
