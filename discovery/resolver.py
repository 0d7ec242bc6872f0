"""Names into addresses, asked again at every try: where the first members are can change."""

import asyncio
import socket
from dataclasses import dataclass
from typing import Final, Protocol

from quorumlog.discovery.wire.messages import Address
from quorumlog.errors import ConfigError

_LOOKUP_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """One SRV record (RFC 2782); a lower ``priority`` is to be tried first."""

    host: str
    port: int
    priority: int = 0
    weight: int = 0


class Resolver(Protocol):
    """What finding the first members needs of DNS."""

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Every numeric address of ``host``, IPv4 and IPv6, in the order to try. Raises
        ``OSError``."""
        ...

    async def services(self, name: str) -> list[ServiceTarget]:
        """What the SRV records of ``name`` say. Raises ``OSError``, also where there are none."""
        ...

    def require_services(self) -> None:
        """Raises ``ConfigError`` when ``services`` can never work here."""
        ...


class SystemResolver:
    """The machine's own: its resolver library for addresses, dnspython for SRV records.

    ``name_server`` is asked for SRV records in place of those in /etc/resolv.conf.
    """

    def __init__(self, name_server: Address | None = None) -> None:
        self._name_server = name_server

    async def addresses(self, host: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            # Python's word for a label that is empty or longer than 63 bytes.
            raise OSError(f"{host!r} is no name that DNS can have: {error}") from error
        return list(dict.fromkeys((str(info[4][0]), port) for info in found))

    async def services(self, name: str) -> list[ServiceTarget]:
        # Imported here: it takes 80 ms, and who has no SRV seed does not need it.
        from dns.asyncresolver import Resolver as DnsResolver
        from dns.exception import DNSException
        from dns.rdtypes.IN.SRV import SRV

        try:
            # Made anew: the file with the name servers can change while a node runs.
            resolver = DnsResolver(configure=self._name_server is None)
            if self._name_server is not None:
                host, resolver.port = self._name_server
                resolver.nameservers = [host]
            answer = await resolver.resolve(name, "SRV", lifetime=_LOOKUP_TIMEOUT_S, search=True)
        except DNSException as error:
            raise OSError(f"{name} has no SRV records: {error}") from error
        records = [record for record in answer if isinstance(record, SRV)]
        return [
            ServiceTarget(
                record.target.to_text(omit_final_dot=True),
                record.port,
                record.priority,
                record.weight,
            )
            for record in records
        ]

    def require_services(self) -> None:
        try:
            import dns.asyncresolver  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "a seed dns+srv:// needs the package dnspython, which is not installed: "
                "run `pip install 'quorumlog[dns]'`"
            ) from error
