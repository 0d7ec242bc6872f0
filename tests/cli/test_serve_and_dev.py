"""Starting nodes: the flags reach the node, and ``dev`` keeps its processes."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.runner import invoke
from client.fake_cluster import FakeCluster
from quorumlog.cli import dev as dev_module
from quorumlog.cli.dev import DevCluster
from quorumlog.errors import Unavailable
from quorumlog.node import main as node_main
from quorumlog.node.config import NodeConfig


def test_serve_hands_its_flags_to_the_node_and_returns_its_code(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[NodeConfig] = []

    def run(config: NodeConfig) -> int:
        served.append(config)
        return 1

    monkeypatch.setattr(node_main, "run", run)
    outcome = invoke(
        cluster,
        *("serve", "--data-dir", "d", "--listen", "127.0.0.1:1234", "--gossip", "127.0.0.1:1235"),
        *("--join", "a:1", "--join", "b:2", "--name", "n", "--bootstrap-expect", "3"),
        *("--keys", "k.toml", "--scrub-bytes-s", "5000"),
    )
    assert outcome.code == 1
    config = served[0]
    assert (config.data_dir, config.listen, config.gossip) == (
        "d",
        "127.0.0.1:1234",
        "127.0.0.1:1235",
    )
    assert (config.join, config.name, config.expect) == (("a:1", "b:2"), "n", 3)
    assert (config.keys, config.scrub_bytes_s) == ("k.toml", 5000)
    invoke(cluster, "serve")
    assert served[1] == NodeConfig()


def test_dev_starts_every_node_with_the_others_to_join() -> None:
    command = DevCluster(3, "data", 8000).command("node2")
    assert command[:4] == [sys.executable, "-m", "quorumlog", "serve"]
    assert command[4:] == [
        "--name=node2",
        "--data-dir=data/node2",
        "--listen=127.0.0.1:8001",
        "--gossip=127.0.0.1:8547",
        "--bootstrap-expect=3",
        "--join=127.0.0.1:8546",
        "--join=127.0.0.1:8548",
    ]


@pytest.mark.parametrize(
    ("kind", "above"), [(socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, dev_module.GOSSIP_PORT_ABOVE)]
)
def test_dev_names_the_port_that_is_taken(
    cluster: FakeCluster, kind: socket.SocketKind, above: int
) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        outcome = invoke(cluster, "dev", "--nodes", "1", "--base-port", str(port - above))
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert f"port {port} of 127.0.0.1 is in use" in outcome.err
    assert "--base-port" in outcome.err


class ScriptedDev(DevCluster):
    """Its nodes are small scripts instead of nodes."""

    def __init__(self, script: str, nodes: int = 1) -> None:
        super().__init__(nodes, "data", 8000)
        self.script = script
        self.said: list[str] = []
        self.waiting: list[tuple[str, asyncio.Event]] = []

    def command(self, name: str) -> list[str]:
        return [sys.executable, "-c", self.script]

    async def _announce(self) -> None:
        return

    def _say(self, name: str, text: str) -> None:
        self.said.append(f"{name}: {text}")
        for wanted, event in self.waiting:
            if sum(wanted in line for line in self.said) >= 1:
                event.set()

    async def until(self, text: str) -> str:
        event = asyncio.Event()
        self.waiting.append((text, event))
        self._say("test", "looks")
        async with asyncio.timeout(20):
            await event.wait()
        return next(line for line in self.said if text in line)


PATIENT = "import time; print('serving', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('serving', flush=True); time.sleep(60)"
)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


async def test_dev_shows_the_nodes_lines_and_stops_them_on_ctrl_c() -> None:
    dev = ScriptedDev(PATIENT, nodes=2)
    running = asyncio.ensure_future(dev.run())
    await dev.until("node1: serving")
    await dev.until("node2: serving")
    interrupt()
    assert await running == 0
    assert all(process.returncode == -signal.SIGTERM for process in dev._processes.values())


async def test_dev_starts_a_killed_node_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_module, "RESTART_AFTER_S", 0.0)
    dev = ScriptedDev(PATIENT)
    running = asyncio.ensure_future(dev.run())
    await dev.until("serving")
    first = dev._processes["node1"].pid
    dev.said.clear()
    os.kill(first, signal.SIGKILL)
    await dev.until("node1 was killed by signal 9; it starts again")
    await dev.until("node1: serving")
    assert dev._processes["node1"].pid != first
    interrupt()
    assert await running == 0


async def test_dev_kills_a_node_that_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_module, "STOP_TIMEOUT_S", 0.1)
    dev = ScriptedDev(STUBBORN)
    running = asyncio.ensure_future(dev.run())
    await dev.until("serving")
    interrupt()
    assert await running == 0
    assert dev._processes["node1"].returncode == -signal.SIGKILL


async def test_dev_gives_up_on_a_node_that_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_module, "RESTART_AFTER_S", 0.0)
    dev = ScriptedDev("print('the disk is gone'); raise SystemExit(1)")
    with pytest.raises(Unavailable, match="node1 cannot run"):
        await dev.run()
    assert dev.said.count("node1: the disk is gone") == dev_module.SHORT_LIVES_LIMIT


async def test_dev_nodes_do_not_inherit_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUORUMLOG_DATA_DIR", str(tmp_path))
    dev = ScriptedDev("import os; print('dir', os.environ.get('QUORUMLOG_DATA_DIR'), flush=True)")
    running: asyncio.Future[Any] = asyncio.ensure_future(dev.run())
    assert await dev.until("node1: dir") == "node1: dir None"
    interrupt()
    await running
