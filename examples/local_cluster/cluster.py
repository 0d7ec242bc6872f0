"""Several nodes that form one cluster."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from examples.local_cluster.node_process import NodeProcess, wait_all_serving
from examples.local_cluster.ports import free_address


@dataclass(frozen=True)
class Place:
    """Where a node runs: its addresses, settings of its own, and a command that starts it."""

    listen: str
    gossip: str
    environment: Mapping[str, str] = field(default_factory=dict)
    launcher: Sequence[str] = ()


class LocalCluster:
    """``nodes`` processes that find each other by gossip and form a cluster once all are there.

    As a context manager: it serves when the block begins, and no process is left when it ends,
    whatever happens. The data stays.
    """

    def __init__(
        self,
        directory: Path,
        nodes: int = 3,
        environment: Mapping[str, str] | None = None,
        places: Sequence[Place] | None = None,
    ) -> None:
        """``directory`` gets a ``node-N/`` each; ``environment``: settings (``QUORUMLOG_…``).

        ``places``: where each node is to run, when free ports on loopback will not do.
        """
        if places is None:
            places = [Place(free_address(), free_address()) for _ in range(nodes)]
        # Every node is given the addresses of all: it then finds the others also after all of them
        # have been stopped. Its own is among them, which does no harm.
        joins = [argument for place in places for argument in ("--join", place.gossip)]
        self.nodes = [
            NodeProcess(
                f"node-{number}",
                directory / f"node-{number}",
                listen=place.listen,
                gossip=place.gossip,
                arguments=["--bootstrap-expect", str(len(places)), *joins],
                environment={**(environment or {}), **place.environment},
                launcher=place.launcher,
            )
            for number, place in enumerate(places, start=1)
        ]

    @property
    def servers(self) -> list[str]:
        """The ``HOST:PORT`` of every node, for a client."""
        return [node.listen for node in self.nodes]

    def node_at(self, address: str) -> NodeProcess:
        """The node that listens on ``address``."""
        return next(node for node in self.nodes if node.listen == address)

    def start(self) -> None:
        """Start every node and wait until all of them serve.

        Raises:
            NodeFailed: one of them does not.
        """
        for node in self.nodes:
            node.start()
        wait_all_serving(self.nodes)

    def stop(self) -> None:
        """SIGTERM to all that run, wait for all, kill what is left. Idempotent."""
        running = [node for node in self.nodes if node.running]
        with contextlib.ExitStack() as last_resort:
            for node in running:
                last_resort.callback(_kill_if_running, node)
            for node in running:
                node.ask_to_stop()
            for node in running:
                node.wait()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _kill_if_running(node: NodeProcess) -> None:
    if node.running:
        node.kill()
