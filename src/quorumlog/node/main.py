"""Run a node as a process: event loop, signals, log output, exit code."""

import asyncio
import logging
import signal
import sys

import structlog

from quorumlog.errors import QuorumlogError
from quorumlog.node.config import NodeConfig
from quorumlog.node.node import Node
from quorumlog.system import raise_descriptor_limit


def run(config: NodeConfig) -> int:
    """Serve until SIGTERM or SIGINT; the exit code: 0 stopped, 1 failed (a line on stderr says
    why)."""
    configure_logging(config.log_level, config.log_format)
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            return runner.run(_serve(config))
        except QuorumlogError as error:
            print(f"quorumlog: {error}", file=sys.stderr)
            return 1


def _loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    try:
        import uvloop
    except ImportError:  # the platform has none: asyncio's own loop does the same, slower
        return None
    return uvloop.Loop


async def _serve(config: NodeConfig) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node = Node(config)
    await node.start()
    waits = [asyncio.create_task(stop.wait()), asyncio.create_task(node.failed.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await node.close()
    if node.failure is not None:
        raise node.failure
    return 0


def configure_logging(level: str, form: str) -> None:
    """structlog to stderr, as ``NodeConfig.log_level`` and ``log_format`` say."""
    is_terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer(default=str)
    if form == "console" or (form == "auto" and is_terminal):
        renderer = structlog.dev.ConsoleRenderer(colors=is_terminal, pad_event_to=22)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
