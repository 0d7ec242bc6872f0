"""Decoders of what people write on a command line: addresses, seeds, places to start at."""

from datetime import datetime
from typing import Final

import click

from fuzz.target import Target, expect
from quorumlog.cli.consume import parse_start
from quorumlog.client.addresses import parse_address
from quorumlog.discovery.seeds import SeedKind, parse_seed
from quorumlog.errors import ConfigError, InvalidArgument

_CONTEXT: Final = click.Context(click.Command("consume"))
_PARAMETER: Final = click.Option(["--from"])


def _text(data: bytes) -> str:
    """As Python gives a process its arguments."""
    return data.decode("utf-8", "surrogateescape")


def _check_seed(data: bytes) -> None:
    seed = parse_seed(_text(data))
    expect(bool(seed.host), "a seed has a name")
    expect((seed.port == 0) == (seed.kind is SeedKind.SERVICE), "all but a service have a port")
    expect(0 <= seed.port <= 65_535, "a port is one")


def _check_server(data: bytes) -> None:
    address = parse_address(_text(data))
    expect(parse_address(address) == address, "an address is one")
    expect(1 <= int(address.rpartition(":")[2]) <= 65_535, "a port is one")


def _check_start(data: bytes) -> None:
    try:
        start = parse_start(_CONTEXT, _PARAMETER, _text(data))
    except click.BadParameter as error:
        raise InvalidArgument(error.message) from error
    if isinstance(start, datetime):
        expect(start.tzinfo is not None, "a time has a zone")
    else:
        expect(start in ("earliest", "latest") or isinstance(start, int), "it is a place")


TEXT_TARGETS: Final = (
    Target(
        "seed",
        _check_seed,
        (ConfigError,),
        lambda: [b"node-2:7946", b"[::1]:7946", b"dns+a://q.local:7946", b"dns+srv://_q._udp.a.b"],
    ),
    Target("server", _check_server, (InvalidArgument,), lambda: [b"127.0.0.1:7400", b"[::1]:1"]),
    Target(
        "start-on-command-line",
        _check_start,
        (InvalidArgument,),
        lambda: [b"earliest", b"latest", b"17", b"2026-01-31T12:00Z", b"2026-01-31"],
    ),
)
