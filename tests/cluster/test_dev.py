"""``quorumlog dev``: the cluster in one terminal."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.local_cluster import free_address, serves
from quorumlog.cli.dev import check_ports
from quorumlog.errors import AddressInUse
from support.command_line import COMMAND, environment_for, succeed, succeed_json
from support.waiting import wait_for

LINES = 100_000


class Dev:
    """The command, running in a session of its own as in a terminal of its own."""

    def __init__(self, directory: Path) -> None:
        self._output = directory / "output"
        port = free_ports()
        self.servers = [f"127.0.0.1:{port + number}" for number in range(3)]
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "dev", "--base-port", str(port), "--data-dir", str(directory / "data")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment_for([]),
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def node_pids(self, name: str) -> list[int]:
        """The processes that node ``name`` was so far, as the command says it."""
        return [int(pid) for pid in re.findall(rf"{name} runs as process (\d+)", self.output)]

    def signal_all(self, number: int) -> None:
        """What a terminal does at Ctrl-C: the command and its nodes all get the signal."""
        os.killpg(self.process.pid, number)


def free_ports() -> int:
    """A base port for which the command finds all it needs free."""
    while True:
        port = int(free_address().rpartition(":")[2])
        try:
            check_ports(3, port)
        except AddressInUse:
            continue
        return port


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    dev = Dev(tmp_path)
    try:
        wait_for("the three nodes", lambda: all(map(serves, dev.servers)), timeout_s=30)
        yield dev
    finally:
        if dev.process.poll() is None:
            dev.signal_all(signal.SIGKILL)
            dev.process.wait()


def test_it_takes_records_brings_a_killed_node_back_and_ends_at_ctrl_c(dev: Dev) -> None:
    servers = dev.servers
    succeed(servers, "topic", "create", "t", "--partitions", "3", "--replicas", "3")
    succeed(servers, "produce", "t", stdin="".join(f"{n}\n" for n in range(LINES // 2)))

    os.kill(dev.node_pids("node1")[0], signal.SIGKILL)
    succeed(servers, "produce", "t", stdin="".join(f"{n}\n" for n in range(LINES // 2, LINES)))
    consumed = succeed(servers, "consume", "t", "--from", "earliest", "--count", str(LINES))
    assert sorted(map(int, consumed.split())) == list(range(LINES))

    wait_for("node1's second life", lambda: len(dev.node_pids("node1")) == 2)
    wait_for("node1", lambda: serves(servers[0]))
    assert len(succeed_json(servers[:1], "cluster", "status")["nodes"]) == 3

    dev.signal_all(signal.SIGINT)
    assert dev.process.wait(timeout=15) == 0, dev.output
    pids = [pid for name in ("node1", "node2", "node3") for pid in dev.node_pids(name)]
    assert len(pids) == 4
    assert not any(map(is_running, pids))
    assert "Traceback" not in dev.output
