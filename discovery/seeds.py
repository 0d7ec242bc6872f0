"""Finding the first members: the addresses in ``--join``, tried until somebody answers."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.limits import RateLimit
from quorumlog.discovery.wire.messages import Address
from quorumlog.errors import ConfigError, ProtocolError

_log = structlog.get_logger(__name__)

MAX_SEEDS: Final = 64
_FIRST_WAIT_SHARE: Final = 1 / 40
_LOG_INTERVAL_S: Final = 30.0


def parse_seed(text: str) -> Address:
    """``HOST:PORT`` with a name, an IPv4 or a bracketed IPv6 address. Raises ``ConfigError``."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ConfigError(f"the seed {text!r} is not HOST:PORT")
    return host, int(port)


async def resolve(host: str, port: int) -> list[Address]:
    """Every numeric address of ``host``, in the resolver's order. Raises ``OSError``."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(info[4][0]), port) for info in found))


class SeedFinder:
    """Calls the seeds until this node has company, and goes on looking for the others.

    ``exchange`` does a push/pull with an address and raises when it fails; ``running`` gives the
    addresses of the members that run, this node's own first and included.
    """

    def __init__(
        self,
        seeds: Sequence[str],
        *,
        exchange: Callable[[Address], Awaitable[None]],
        running: Callable[[], list[Address]],
        config: GossipConfig,
    ) -> None:
        if len(seeds) > MAX_SEEDS:
            raise ConfigError(f"there are {len(seeds)} seeds and the limit is {MAX_SEEDS}")
        self._seeds = {seed: parse_seed(seed) for seed in seeds}
        self._exchange = exchange
        self._running = running
        self._config = config
        self._limits = {seed: RateLimit(_LOG_INTERVAL_S) for seed in seeds}

    async def run(self) -> None:
        """Until cancelled. While alone the wait doubles from a fortieth of ``seed_retry_s``.

        With company only seeds that are no members are called: two halves of a cluster that
        started apart find each other so.
        """
        if not self._seeds:
            return
        longest_s = self._config.seed_retry_s
        first_s = longest_s * _FIRST_WAIT_SHARE
        wait_s = first_s
        while True:
            await asyncio.gather(*(self._try(seed) for seed in self._seeds))
            if len(self._running()) > 1:
                wait_s = first_s
                await asyncio.sleep(longest_s)
            else:
                await asyncio.sleep(wait_s)
                wait_s = min(longest_s, 2 * wait_s)

    async def _try(self, seed: str) -> None:
        """Call every address of one seed that is no running member, until one answers."""
        reason: Exception | None = None
        try:
            async with asyncio.timeout(self._config.stream_timeout_s):
                addresses = await resolve(*self._seeds[seed])
        except OSError as error:
            addresses, reason = [], error
        for address in addresses:
            if address in self._running():
                return
            try:
                await self._exchange(address)
                return
            except (OSError, ProtocolError) as error:
                reason = error
        limit = self._limits[seed]
        now = asyncio.get_running_loop().time()
        if limit.allows(now):
            _log.warning(
                "seed_unreachable",
                seed=seed,
                addresses=[f"{host}:{port}" for host, port in addresses],
                error=str(reason) or type(reason).__name__,
                alone=len(self._running()) <= 1,
                not_logged=limit.take_suppressed(),
            )
