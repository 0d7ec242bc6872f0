"""Finding the first members: the seeds in ``--join``, tried until somebody answers."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Final

import structlog

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.limits import RateLimit
from quorumlog.discovery.resolver import Resolver
from quorumlog.discovery.wire.messages import Address
from quorumlog.errors import ConfigError, InvariantViolation

_log = structlog.get_logger(__name__)

MAX_SEEDS: Final = 64
MAX_ADDRESSES: Final = 256
"""Of one seed at one try; what is beyond is left out."""
_FIRST_WAIT_SHARE: Final = 1 / 40
_LOG_INTERVAL_S: Final = 30.0
_ADDRESSES: Final = "dns+a://"
_SERVICE: Final = "dns+srv://"
_NO_HOST: Final = re.compile(r"[]:/[\s]")
"""What neither a name nor an IPv4 address has in it."""
_SERVICE_NAME: Final = re.compile(r"(_[a-zA-Z0-9-]{1,62}\.){2}[a-zA-Z0-9_.-]{1,120}")


class SeedKind(Enum):
    """What a seed's name stands for."""

    MEMBER = "member"
    """One member: any of its addresses will do."""
    ADDRESSES = "addresses"
    """As many members as the name has addresses."""
    SERVICE = "service"
    """As many members as the name has SRV records, each with as many addresses as it has."""


@dataclass(frozen=True, slots=True)
class Seed:
    """``port`` is 0 for a service, whose records have it."""

    kind: SeedKind
    host: str
    port: int


def parse_seed(text: str) -> Seed:
    """``HOST:PORT``, ``dns+a://HOST:PORT`` or ``dns+srv://_SERVICE._PROTOCOL.NAME``, where HOST is
    a name, an IPv4 or a bracketed IPv6 address. Raises ``ConfigError``."""
    if "," in text:
        raise ConfigError(
            f"the seed {text!r} has a comma in it: give each seed by itself, --join A:7946 "
            '--join B:7946, in a file join = ["A:7946", "B:7946"]'
        )
    if text.startswith(_SERVICE):
        name = text.removeprefix(_SERVICE)
        if not _SERVICE_NAME.fullmatch(name):
            raise ConfigError(f"the seed {text!r} is not dns+srv://_SERVICE._PROTOCOL.NAME")
        return Seed(SeedKind.SERVICE, name, 0)
    kind = SeedKind.ADDRESSES if text.startswith(_ADDRESSES) else SeedKind.MEMBER
    written, _, port = text.removeprefix(_ADDRESSES).rpartition(":")
    host = _host(written)
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536
    if not host or not is_port:
        raise ConfigError(
            f"the seed {text!r} is not HOST:PORT, dns+a://HOST:PORT or "
            "dns+srv://_SERVICE._PROTOCOL.NAME, where HOST is a name, an IPv4 address or an IPv6 "
            "address in brackets"
        )
    return Seed(kind, host, int(port))


def _host(written: str) -> str:
    """Without the brackets of an IPv6 address; empty: it is none."""
    if written.startswith("[") and written.endswith("]"):
        try:
            return str(IPv6Address(written[1:-1]))
        except ValueError:
            return ""
    return "" if _NO_HOST.search(written) else written


class SeedFinder:
    """Calls the seeds until this node has company, and goes on looking for the others.

    ``exchange`` does a push/pull with an address and raises when it fails; ``running`` gives the
    addresses of the members that run, this node's own first and included; ``bound`` is where this
    node listens, perhaps at every address of the machine.
    Raises ``ConfigError``: a seed that cannot be, too many, no library for SRV records.
    """

    def __init__(
        self,
        seeds: Sequence[str],
        *,
        exchange: Callable[[Address], Awaitable[None]],
        running: Callable[[], list[Address]],
        bound: Address,
        resolver: Resolver,
        config: GossipConfig,
    ) -> None:
        if len(seeds) > MAX_SEEDS:
            raise ConfigError(f"there are {len(seeds)} seeds and the limit is {MAX_SEEDS}")
        self._seeds = {seed: parse_seed(seed) for seed in seeds}
        if any(seed.kind is SeedKind.SERVICE for seed in self._seeds.values()):
            resolver.require_services()
        self._resolver = resolver
        self._exchange = exchange
        self._running = running
        self._bound = bound
        self._config = config
        self._limits = {seed: RateLimit(_LOG_INTERVAL_S) for seed in seeds}
        self._said_own: set[str] = set()
        self._is_own: dict[str, bool] = {}
        """By seed, of its last try: whether it was this node, and nobody else."""

    @property
    def tried(self) -> bool:
        """Whether each seed was tried once, at all its addresses until one answered; what those
        who answered know is known here. True where there are none."""
        return len(self._is_own) == len(self._seeds)

    @property
    def only_this_node(self) -> bool:
        """Whether each seed was this node and nobody else when it was last tried; one that did not
        answer, or has no address, may be somebody else. True where there are none."""
        return self.tried and all(self._is_own.values())

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

    async def _try(self, text: str) -> None:
        """Call what one seed stands for, except the members that run."""
        seed = self._seeds[text]
        addresses: list[Address] = []
        reason: Exception | None = None
        try:
            async with asyncio.timeout(self._config.stream_timeout_s):
                addresses = await self._resolve(seed)
        except Exception as error:  # what a resolver does not expect is no reason to give up
            reason = error
        call = self._call_one if seed.kind is SeedKind.MEMBER else self._call_all
        found, failure = await call(addresses)
        self._is_own[text] = self._are_own(addresses)
        if not found and self._is_news(text):
            self._report(text, addresses, failure or reason)

    def _is_news(self, text: str) -> bool:
        """Whether to say of a seed that nobody was found. That it is this node only is no mistake,
        and said once, while nobody else is known."""
        if not self._is_own[text]:
            self._said_own.discard(text)
            return True
        is_said = text in self._said_own or len(self._running()) > 1
        self._said_own.add(text)
        return not is_said

    def _are_own(self, addresses: list[Address]) -> bool:
        """Whether they are this node's, as far as it can reach them: of its family of addresses."""
        own = {self._running()[0]}
        host, port = self._bound
        if ip_address(host).is_unspecified:
            own |= {("127.0.0.1", port), ("::1", port)}
        families = {":" in each[0] for each in (self._running()[0], self._bound)}
        reachable = [each for each in addresses if (":" in each[0]) in families]
        return bool(reachable) and own.issuperset(reachable)

    async def _resolve(self, seed: Seed) -> list[Address]:
        """At most ``MAX_ADDRESSES``, none twice. Raises ``OSError`` when nothing was found."""
        if seed.kind is not SeedKind.SERVICE:
            return (await self._resolver.addresses(seed.host, seed.port))[:MAX_ADDRESSES]
        targets = await self._resolver.services(seed.host)
        # A target "." says that the service is decidedly not here (RFC 2782).
        named = [target for target in targets if target.host not in ("", ".") and target.port]
        named.sort(key=lambda target: (target.priority, -target.weight, target.host, target.port))
        results = await asyncio.gather(
            *(self._resolver.addresses(each.host, each.port) for each in named[:MAX_ADDRESSES]),
            return_exceptions=True,
        )
        addresses: dict[Address, None] = {}
        reason = OSError(f"{seed.host} names no host")
        for result in results:
            if isinstance(result, OSError):
                reason = result
            elif isinstance(result, BaseException):
                raise result
            else:
                addresses.update(dict.fromkeys(result))
        if not addresses:
            raise reason
        return list(addresses)[:MAX_ADDRESSES]

    async def _call_one(self, addresses: list[Address]) -> tuple[bool, Exception | None]:
        """Until one is a member, this node included, or answers: whether so, and why not."""
        reason: Exception | None = None
        for address in addresses:
            if address in self._running():
                return True, None
            reason = await self._call(address)
            if reason is None:
                return True, None
        return False, reason

    async def _call_all(self, addresses: list[Address]) -> tuple[bool, Exception | None]:
        """Each that is no member: whether another member is among them, and why not.

        One after the other: the first answer tells of most of those behind it.
        """
        found = False
        reason: Exception | None = OSError("there is nobody but this node") if addresses else None
        for address in addresses:
            own, *others = self._running()
            if address == own:
                continue
            failure = None if address in others else await self._call(address)
            found = found or failure is None
            reason = failure or reason
        return found, reason

    async def _call(self, address: Address) -> Exception | None:
        try:
            await self._exchange(address)
        except InvariantViolation:
            raise
        except Exception as error:
            return error
        return None

    def _report(self, text: str, addresses: list[Address], reason: Exception | None) -> None:
        limit = self._limits[text]
        if limit.allows(asyncio.get_running_loop().time()):
            _log.warning(
                "seed_unreachable",
                seed=text,
                addresses=[f"{host}:{port}" for host, port in addresses],
                error=str(reason) or type(reason).__name__,
                alone=len(self._running()) <= 1,
                not_logged=limit.take_suppressed(),
            )
