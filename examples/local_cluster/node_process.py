"""One node as a process: ``python -m quorumlog serve`` with its own directory and ports."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from examples.local_cluster.health import serves

STOP_TIMEOUT_S: Final = 15.0
"""A node that got SIGTERM leaves within seconds; one that does not is killed."""

_POLL_S: Final = 0.05


class NodeFailed(Exception):
    """A node ended, or did not begin to serve, when it should have; carries its last output."""


class NodeProcess:
    """A node that can be killed and started again on the same directory and addresses.

    The process is the leader of a session of its own: a Ctrl-C on the terminal reaches this program
    alone, which then stops its nodes in its own way.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        listen: str,
        gossip: str,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        """``directory`` gets ``data/`` and ``output.log``; ``arguments``: flags of ``serve``.

        ``launcher`` is a command that becomes the one behind it, such as ``ip netns exec NAME``.
        """
        self.name = name
        self.listen = listen
        self.gossip = gossip
        self.data = directory / "data"
        self.output = directory / "output.log"
        self._arguments = tuple(arguments)
        self._environment = dict(environment or {})
        self._launcher = tuple(launcher)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._started().pid

    def start(self) -> None:
        """Start the process; does not wait for it to serve. ``output.log`` is appended to."""
        if self.running:
            raise NodeFailed(f"{self.name} runs already")
        self.output.parent.mkdir(parents=True, exist_ok=True)
        command = [
            *self._launcher,
            *(sys.executable, "-m", "quorumlog", "serve"),
            *("--name", self.name, "--data-dir", str(self.data)),
            *("--listen", self.listen, "--gossip", self.gossip),
            *self._arguments,
        ]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment() | self._environment,
                start_new_session=True,
            )

    def wait_serving(self, timeout_s: float = 30.0) -> None:
        """Wait until the node's health service says SERVING: it knows its cluster and answers.

        Raises:
            NodeFailed: it ended, or did not serve within ``timeout_s``.
        """
        wait_all_serving([self], timeout_s)

    def check_running(self) -> None:
        """Raises NodeFailed with the node's last words when it has ended."""
        if not self.running:
            raise NodeFailed(
                f"{self.name} ended with exit code {self.wait()}: {self.last_output()}"
            )

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone: it cannot flush or say goodbye."""
        process = self._started()
        process.kill()
        process.wait()

    def pause(self) -> None:
        """SIGSTOP: the process stands still, its connections stay open."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        self._started().send_signal(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """SIGTERM: the node hands its leaderships over, flushes and ends. Does not wait."""
        self._started().send_signal(signal.SIGTERM)

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """:meth:`ask_to_stop` and :meth:`wait`; the exit code."""
        self.ask_to_stop()
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the process to end; the exit code, ``-SIGKILL`` when it had to be killed."""
        process = self._started()
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def last_output(self, lines: int = 3) -> str:
        """The end of what the node has written."""
        if not self.output.exists():
            return "(no output)"
        text = self.output.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:]) or "(no output)"

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise NodeFailed(f"{self.name} was never started")
        return self._process


def wait_all_serving(nodes: Sequence[NodeProcess], timeout_s: float = 30.0) -> None:
    """Wait until all of ``nodes`` serve; raises as :meth:`NodeProcess.wait_serving`, at once when
    any of them ends."""
    deadline = time.monotonic() + timeout_s
    waiting = list(nodes)
    while waiting := [node for node in waiting if not serves(node.listen)]:
        for node in nodes:
            node.check_running()
        if time.monotonic() > deadline:
            node = waiting[0]
            raise NodeFailed(
                f"{node.name} does not serve after {timeout_s:.0f} s: {node.last_output()}"
            )
        time.sleep(_POLL_S)


def clean_environment() -> dict[str, str]:
    """This process's environment without the settings of some other quorumlog in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QUORUMLOG_")}
