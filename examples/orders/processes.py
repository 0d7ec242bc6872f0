"""Three nodes as processes, and a client for them."""

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from examples.local_cluster import free_address
from examples.orders.node import Addresses, Plan, encode_plan

NAMES: Final = ("a", "b", "c")
_START_S: Final = 20.0
_STOP_S: Final = 10.0
_POLL_S: Final = 0.05


class DemoFailed(Exception):
    """Something did not come out as the example says."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]


def ask(address: str, method: str, path: str, key: str | None = None) -> Answer:
    """One HTTP request; ``key`` becomes the ``Idempotency-Key``. Raises OSError."""
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(method, path, headers={"Idempotency-Key": key} if key else {})
        response = connection.getresponse()
        return Answer(response.status, json.loads(response.read()), dict(response.getheaders()))
    except http.client.HTTPException as error:
        raise ConnectionError(f"{address}: {error!r}") from error
    finally:
        connection.close()


class Processes:
    """The nodes of a plan; each has ``<directory>/<name>/`` and writes ``<name>.log`` beside it."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        self.plan = plan
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        data_dir = str(self._directory / name)
        command = [sys.executable, "-m", "examples.orders.node", name, encode_plan(self.plan)]
        with (self._directory / f"{name}.log").open("ab") as output:
            self._running[name] = subprocess.Popen(
                [*command, data_dir],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """SIGKILL: no goodbye, nothing flushed."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def wait_ready(self) -> None:
        """Return when every running node answers a current read. Raises DemoFailed."""
        deadline = time.monotonic() + _START_S
        for name in list(self._running):
            while not self._is_ready(name):
                if time.monotonic() > deadline or self._running[name].poll() is not None:
                    log = (self._directory / f"{name}.log").read_text("utf-8", errors="replace")
                    raise DemoFailed(f"node {name} is not ready: {log[-500:]}")
                time.sleep(_POLL_S)

    def _is_ready(self, name: str) -> bool:
        try:
            # Whatever orders there are: 404 is a current answer too.
            return ask(self.plan[name].http, "GET", "/orders/none").status in (200, 404)
        except OSError:
            return False

    def stop(self) -> None:
        """SIGTERM to all, then SIGKILL to what is left. Idempotent."""
        running, self._running = self._running, {}
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        for process in running.values():
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def local_plan() -> Plan:
    """Three nodes on free ports of loopback."""
    return {name: Addresses(free_address(), free_address()) for name in NAMES}


@contextlib.contextmanager
def running(directory: Path, plan: Plan) -> Iterator[Processes]:
    """All nodes of ``plan``, ready; none is left behind."""
    processes = Processes(directory, plan)
    try:
        for name in plan:
            processes.start(name)
        processes.wait_ready()
        yield processes
    finally:
        processes.stop()
