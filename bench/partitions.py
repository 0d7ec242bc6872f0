"""A thousand partitions on three nodes: what they cost at rest, and when a node dies."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.figures import Figure, Scale
from examples.local_cluster import LocalCluster, NodeProcess
from quorumlog import Client
from quorumlog.errors import QuorumlogError

_PARTITIONS: Final = 1000
_TOPIC: Final = "many"
_SETTLED_S: Final = 5.0
_WATCHED_S: Final = 20.0
_LIMIT_S: Final = 120.0
_POLL_S: Final = 0.2
"""A look at a thousand partitions takes a node, and this process, 10 ms each."""


@dataclass(frozen=True)
class Usage:
    """Of one process, since its start."""

    cpu_s: float
    memory_bytes: int


def measure_partitions(directory: Path, scale: Scale) -> list[Figure]:
    """Idle CPU, memory, creation, failover, restart; some two minutes at full scale."""
    count = scale.count(_PARTITIONS)
    with (
        LocalCluster(directory / "cluster", environment={"QUORUMLOG_LOG_LEVEL": "warning"}) as c,
        Client(c.nodes[0].listen) as client,
    ):
        configured = f"{count:,} partitions, 3 processes, 3 replicas"
        before = _usages(c)
        created = _timed(lambda: _create(client, count))
        settled = _timed(lambda: _settle(client))
        return [
            _creation(configured, count, created, settled),
            *_rest(c, configured, count, before),
            *_death(c, client, configured, count),
        ]


def _create(client: Client, count: int) -> None:
    client.create_topic(_TOPIC, partitions=count, replicas=3)
    # Without waking the leaders: each question for its offsets does.
    _wait("a leader for each", lambda: all(_known_leaders(client)))
    _wait("an answer of each leader", lambda: len(client.offsets(_TOPIC)) == count)


def _settle(client: Client) -> None:
    """The first elections may have ended otherwise than the placement wants it."""
    preferred = _preferred(client)
    _wait("the leaders at first", lambda: _known_leaders(client) == preferred)


def _creation(configured: str, count: int, created_s: float, settled_s: float) -> Figure:
    return Figure(
        "Many partitions, created",
        f"{configured}; until the leader of every one answers",
        f"{created_s:,.1f} s",
        f"{created_s / count * 1000:,.1f} ms a partition; each where the placement wants it "
        f"{settled_s:,.0f} s later",
    )


def _rest(cluster: LocalCluster, configured: str, count: int, before: list[Usage]) -> list[Figure]:
    time.sleep(_SETTLED_S)
    first = _usages(cluster)
    time.sleep(_WATCHED_S)
    last = _usages(cluster)
    shares = [
        (after.cpu_s - earlier.cpu_s) / _WATCHED_S * 100
        for earlier, after in zip(first, last, strict=True)
    ]
    bytes_each = [
        (after.memory_bytes - earlier.memory_bytes) / count
        for earlier, after in zip(before, last, strict=True)
    ]
    return [
        Figure(
            "Many partitions, idle",
            f"{configured}; CPU over {_WATCHED_S:g} s",
            f"{', '.join(f'{share:.1f}' for share in shares)} % of a core a node",
            goal="< 5 %",
        ),
        Figure(
            "Many partitions, memory",
            f"{configured}; beyond what a node takes without any",
            f"{max(bytes_each) / 1000:,.0f} kB a partition and node",
            goal="< 100 kB",
        ),
    ]


def _death(cluster: LocalCluster, client: Client, configured: str, count: int) -> list[Figure]:
    victim = cluster.nodes[2]
    nodes = client.cluster_status().nodes
    victim_id = next(node.id for node in nodes if node.address == victim.listen)
    preferred = _preferred(client)
    led = preferred.count(victim_id)
    failed_over_s = _timed(lambda: _kill(victim, client, victim_id))
    started_s = _timed(lambda: _start(victim))
    returned_s = _timed(
        lambda: _wait("the leaders again", lambda: _known_leaders(client) == preferred)
    )
    return [
        Figure(
            "Many partitions, a node killed with -9",
            f"{configured}, idle; it led {led}; until each of them has another leader, as a third "
            "node tells",
            f"{failed_over_s:,.2f} s",
        ),
        Figure(
            "Many partitions, the node started again",
            f"{configured}; until it serves",
            f"{started_s:,.1f} s",
            f"its {led} leaders are back {returned_s:,.0f} s later",
        ),
    ]


def _kill(victim: NodeProcess, client: Client, victim_id: str) -> None:
    victim.kill()
    _wait("new leaders", lambda: not {None, victim_id} & {*_known_leaders(client)})


def _start(victim: NodeProcess) -> None:
    victim.start()
    victim.wait_serving()


def _known_leaders(client: Client) -> list[str | None]:
    """None: there is none, or the node that is asked has not got the partition open."""
    return [
        partition.leader if partition.term else None
        for partition in client.describe_topic(_TOPIC).partitions
    ]


def _preferred(client: Client) -> list[str | None]:
    return [partition.replicas[0] for partition in client.describe_topic(_TOPIC).partitions]


def _timed(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def _wait(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while True:
        try:
            if condition():
                return
        except QuorumlogError:
            pass  # it has no leader to ask for a moment
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {_LIMIT_S:g} s")
        time.sleep(_POLL_S)


def _usages(cluster: LocalCluster) -> list[Usage]:
    return [process_usage(node.pid) for node in cluster.nodes]


def process_usage(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Usage(cpu_s, resident * os.sysconf("SC_PAGE_SIZE"))
