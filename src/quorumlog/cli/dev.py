"""``quorumlog dev``: a cluster of real node processes in one terminal."""

import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

import click

from quorumlog.cli.connect import run_async
from quorumlog.errors import AddressInUse, QuorumlogError, Unavailable

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 7400
GOSSIP_PORT_ABOVE: Final = 546
"""The first gossip port is the first gRPC port and so much: 7946 for 7400."""

RESTART_AFTER_S: Final = 2.0
STOP_TIMEOUT_S: Final = 10.0
READY_TIMEOUT_S: Final = 60.0
SHORT_LIFE_S: Final = 5.0
SHORT_LIVES_LIMIT: Final = 3
"""A node that ends so soon so many times in a row has a reason that a restart will not mend."""

_COLOURS: Final = ("cyan", "magenta", "yellow", "green", "blue")


@click.command()
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True)
@click.option(
    "--data-dir", metavar="DIR", default="./quorumlog-dev", show_default=True, help="Kept."
)
@click.option(
    "--base-port",
    type=click.IntRange(1, 64_000),
    default=DEFAULT_PORT,
    show_default=True,
    help=f"gRPC of the first node; gossip begins {GOSSIP_PORT_ABOVE} above it.",
)
def dev(nodes: int, data_dir: str, base_port: int) -> int:
    """Run a local cluster until Ctrl-C.

    Every node is a process of its own, with its data in DIR, and is started again two seconds after
    it died: `kill -9` one and see what happens. Next time the cluster goes on with its data.
    """
    check_ports(nodes, base_port)
    return run_async(DevCluster(nodes, data_dir, base_port).run())


def check_ports(nodes: int, base_port: int) -> None:
    """Raises AddressInUse, naming the first port that is taken."""
    for number in range(nodes):
        gossip_port = base_port + GOSSIP_PORT_ABOVE + number
        for port, kind in (
            (base_port + number, socket.SOCK_STREAM),
            (gossip_port, socket.SOCK_STREAM),
            (gossip_port, socket.SOCK_DGRAM),
        ):
            with socket.socket(socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, port))
                except OSError as error:
                    raise AddressInUse(
                        f"port {port} of {HOST} is in use: stop what uses it (another "
                        "`quorumlog dev`?) or choose others with --base-port"
                    ) from error


class DevCluster:
    """Starts the nodes, shows what they say, restarts those that die, stops all of them."""

    def __init__(self, nodes: int, data_dir: str, base_port: int) -> None:
        self._names = [f"node{number}" for number in range(1, nodes + 1)]
        self._data_dir = Path(data_dir)
        self._base_port = base_port
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stop = asyncio.Event()
        self._failure: str | None = None

    async def run(self) -> int:
        """Until Ctrl-C, SIGTERM, or a node that cannot be kept alive; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(self._keep(name)) for name in self._names]
            ready = tasks.create_task(self._announce())
            await self._stop.wait()
            ready.cancel()
            self._say("dev", "stopping")
            await asyncio.gather(*keepers)
        if self._failure is not None:
            raise Unavailable(self._failure)
        self._say("dev", "stopped")
        return 0

    def command(self, name: str) -> list[str]:
        """How the node is started."""
        number = self._names.index(name)
        others = [other for other in range(len(self._names)) if other != number]
        gossip_port = self._base_port + GOSSIP_PORT_ABOVE
        joins = [f"--join={HOST}:{gossip_port + other}" for other in others]
        return [
            *(sys.executable, "-m", "quorumlog", "serve"),
            f"--name={name}",
            f"--data-dir={self._data_dir / name}",
            f"--listen={HOST}:{self._base_port + number}",
            f"--gossip={HOST}:{gossip_port + number}",
            f"--bootstrap-expect={len(self._names)}",
            *joins,
        ]

    async def _keep(self, name: str) -> None:
        """Have the node run until all stop."""
        short_lives = 0
        while not self._stop.is_set():
            started_s = time.monotonic()
            code = await self._run_once(name)
            if self._stop.is_set():
                return
            lived_s = time.monotonic() - started_s
            short_lives = short_lives + 1 if lived_s < SHORT_LIFE_S and code > 0 else 0
            if short_lives >= SHORT_LIVES_LIMIT:
                self._failure = f"{name} cannot run: its last lines above say why"
                self._stop.set()
                return
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            self._say("dev", f"{name} {how}; it starts again in {RESTART_AFTER_S:g} s")
            await self._stopping_within(RESTART_AFTER_S)

    async def _run_once(self, name: str) -> int:
        # The settings of this terminal are not those of the nodes.
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("QUORUMLOG_")
        }
        environment["QUORUMLOG_LOG_FORMAT"] = "console"
        process = await asyncio.create_subprocess_exec(
            *self.command(name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        self._processes[name] = process
        self._say("dev", f"{name} runs as process {process.pid}")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._show_output(name, process))
            end = tasks.create_task(process.wait())
            stop = tasks.create_task(self._stop.wait())
            await asyncio.wait([end, stop], return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if process.returncode is None:
                await self._end(name, process)
        return process.returncode or 0

    async def _end(self, name: str, process: asyncio.subprocess.Process) -> None:
        """SIGTERM, and SIGKILL for one that does not leave in time."""
        process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            self._say("dev", f"{name} did not stop within {STOP_TIMEOUT_S:g} s and is killed")
            process.kill()

    async def _show_output(self, name: str, process: asyncio.subprocess.Process) -> None:
        output = process.stdout
        while output is not None:
            try:
                line = await output.readline()
            except ValueError:
                # Longer than the stream's limit, which has dropped it.
                continue
            if not line:
                return
            self._say(name, line.decode(errors="replace").rstrip())

    async def _stopping_within(self, delay_s: float) -> bool:
        try:
            async with asyncio.timeout(delay_s):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    def _all_run(self) -> bool:
        return len(self._processes) == len(self._names) and all(
            process.returncode is None for process in self._processes.values()
        )

    async def _announce(self) -> None:
        """Say when the cluster can be used, and how."""
        from quorumlog.client.client import AsyncClient

        servers = [f"{HOST}:{self._base_port + number}" for number in range(len(self._names))]
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        async with AsyncClient(*servers, request_timeout_s=1.0) as client:
            while True:
                try:
                    status = await client.cluster_status()
                    complete = len(status.nodes) >= len(self._names)
                    if status.leader is not None and complete and self._all_run():
                        break
                except QuorumlogError:
                    pass
                if time.monotonic() > deadline_s:
                    self._say("dev", f"not ready after {READY_TIMEOUT_S:g} s; see the lines above")
                    return
                await asyncio.sleep(0.2)
        server = "" if self._base_port == DEFAULT_PORT else f" --server {servers[0]}"
        replicas = min(3, len(self._names))
        for line in (
            f"ready: {len(self._names)} nodes at {', '.join(servers)}. In another terminal:",
            f"  quorumlog topic create t --partitions 3 --replicas {replicas}{server}",
            f"  seq 1 100000 | quorumlog produce t{server}",
            f"  quorumlog consume t --from earliest --count 100000{server} | tail -1",
            f"  quorumlog cluster status{server}",
            "Ctrl-C stops it; the data stays in " + str(self._data_dir),
        ):
            self._say("dev", line)

    def _say(self, name: str, text: str) -> None:
        prefix = f"{name:<5} | "
        if sys.stdout.isatty() and name in self._names:
            colour = _COLOURS[self._names.index(name) % len(_COLOURS)]
            prefix = click.style(prefix, fg=colour)
        print(f"{prefix}{text}", flush=True)
