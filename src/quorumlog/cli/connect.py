"""What all commands that talk to a cluster share: their options, the client, the event loop."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from quorumlog.client.client import AsyncClient
    from quorumlog.client.transport import Connector

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

SERVER_VARIABLE: Final = "QUORUMLOG_SERVER"
DEFAULT_SERVER: Final = "127.0.0.1:7400"


@dataclass(slots=True)
class CliContext:
    """One run of the command line; the options fill it in."""

    json: bool = False
    servers: list[str] = field(default_factory=list)
    timeout_s: float = 30.0
    connector: "Connector | None" = None


class Interrupted(Exception):
    """Ctrl-C. Not KeyboardInterrupt: click would print a line of its own for that."""


pass_context = click.make_pass_decorator(CliContext)


def client_options(command: Command) -> Command:
    """Add ``--server``, ``--timeout`` and ``--json``; their values go into the CliContext."""
    for option in (
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_store("json"),
            help="Print JSON, for programs.",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0.1),
            default=30.0,
            show_default=True,
            metavar="SECONDS",
            expose_value=False,
            callback=_store("timeout_s"),
            help="How long to try.",
        ),
        click.option(
            "--server",
            multiple=True,
            metavar="HOST:PORT",
            expose_value=False,
            callback=_store("servers"),
            help=f"A node of the cluster, any live one; repeatable. [default: ${SERVER_VARIABLE} "
            f"(comma separated), else {DEFAULT_SERVER}]",
        ),
    ):
        command = option(command)
    return command


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        state = context.ensure_object(CliContext)
        setattr(state, name, list(value) if isinstance(value, tuple) else value)

    return callback


def servers_of(context: CliContext) -> list[str]:
    """The servers to ask: flags, else the environment, else the default.

    Raises:
        click.BadParameter: one is not HOST:PORT.
    """
    from quorumlog.client.addresses import parse_address
    from quorumlog.errors import InvalidArgument

    listed = os.environ.get(SERVER_VARIABLE, "").split(",")
    servers = context.servers or [item for item in map(str.strip, listed) if item]
    try:
        return [parse_address(server) for server in servers or [DEFAULT_SERVER]]
    except InvalidArgument as error:
        hint = "--server" if context.servers else SERVER_VARIABLE
        raise click.BadParameter(str(error), param_hint=hint) from error


def new_client(context: CliContext) -> "AsyncClient":
    """Only inside the event loop that will use it."""
    from quorumlog.client.client import DEFAULT_CONNECT_TIMEOUT_S, AsyncClient

    return AsyncClient(
        *servers_of(context),
        connector=context.connector,
        request_timeout_s=context.timeout_s,
        connect_timeout_s=min(DEFAULT_CONNECT_TIMEOUT_S, context.timeout_s),
    )


def with_client(context: CliContext, work: "Callable[[AsyncClient], Coroutine[Any, Any, T]]") -> T:
    """Run ``work`` with a client, which is closed afterwards."""

    async def main() -> T:
        async with new_client(context) as client:
            return await work(client)

    return run_async(main())


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run in a new event loop; Ctrl-C cancels ``main`` and then raises Interrupted."""
    from quorumlog.client.background import new_event_loop

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            return runner.run(main)
        except KeyboardInterrupt:
            raise Interrupted from None
