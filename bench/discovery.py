"""Five members of gossip, and five nodes: how soon a newcomer is known, what they cost at rest."""

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from bench.figures import Figure, Scale, percentile
from bench.gossip_member import MemberProcess
from bench.partitions import process_usage
from examples.local_cluster import LocalCluster, NodeProcess, free_address
from quorumlog import Client
from quorumlog.errors import QuorumlogError

_MEMBERS: Final = 5
_JOINS: Final = 20
_NODE_JOINS: Final = 3
_SETTLED_S: Final = 10.0
_WATCHED_S: Final = 60.0
_LIMIT_S: Final = 60.0
_POLL_S: Final = 0.02


def measure_discovery(directory: Path, scale: Scale) -> list[Figure]:
    """Joins and idle CPU, of gossip alone and of whole nodes; some four minutes at full scale."""
    return [
        *asyncio.run(_measure_members(scale)),
        *_measure_nodes(directory, scale),
    ]


async def _measure_members(scale: Scale) -> list[Figure]:
    async with contextlib.AsyncExitStack() as stack:
        members: dict[str, MemberProcess] = {}

        async def start(name: str) -> None:
            seeds = [next(iter(members.values())).address] if members else []
            members[name] = await MemberProcess.start(name, seeds)
            stack.push_async_callback(members[name].stop)

        for number in range(1, _MEMBERS):
            await start(f"member-{number}")
        await _all_see_all(members)
        joins = []
        for number in range(scale.count(_JOINS)):
            newcomer = f"newcomer-{number}"
            await start(newcomer)
            joins.append(await _all_see_all(members) - members[newcomer].began_s)
            await members.pop(newcomer).stop()
        await start("member-5")
        await _all_see_all(members)
        shares = await _idle_shares(list(members.values()), max(6.0, _WATCHED_S * scale.factor))
    return [
        Figure(
            "A join, until all five see all five",
            f"{_MEMBERS} processes with gossip alone, settings for a local network, one seed; from "
            f"the start of the fifth one's gossip; {len(joins)} joins",
            f"{statistics.median(joins) * 1000:,.0f} ms",
            f"p90 {percentile(joins, 90) * 1000:,.0f}, most {max(joins) * 1000:,.0f} ms",
            goal="most < 2,000 ms",
        ),
        Figure(
            "An idle member of five",
            f"{_MEMBERS} processes with gossip alone, settings for a local network; CPU over "
            f"{max(6.0, _WATCHED_S * scale.factor):g} s, all threads",
            f"{', '.join(f'{share:.2f}' for share in sorted(shares))} % of a core",
            goal="< 0.5 %",
        ),
    ]


async def _all_see_all(members: dict[str, MemberProcess]) -> float:
    """When the last of them had heard of the last."""
    return max([await member.sees(list(members)) for member in members.values()])


async def _idle_shares(members: Sequence[MemberProcess], watched_s: float) -> list[float]:
    """Each one's share of a core, in percent."""
    await asyncio.sleep(_SETTLED_S)
    before, began_s = [member.cpu_s for member in members], time.monotonic()
    await asyncio.sleep(watched_s)
    after, took_s = [member.cpu_s for member in members], time.monotonic() - began_s
    return [(b - a) / took_s * 100 for a, b in zip(before, after, strict=True)]


def _measure_nodes(directory: Path, scale: Scale) -> list[Figure]:
    """Whole nodes: a fifth one joins four, with a new directory each time, and is removed."""
    joins = []
    environment = {"QUORUMLOG_LOG_LEVEL": "warning"}
    with LocalCluster(directory / "cluster", nodes=4, environment=environment) as cluster:
        seed = cluster.nodes[0].gossip
        for number in range(scale.count(_NODE_JOINS)):
            newcomer = NodeProcess(
                f"newcomer-{number}",
                directory / f"newcomer-{number}",
                listen=free_address(),
                gossip=free_address(),
                arguments=["--join", seed],
            )
            joins.append(_join(newcomer, cluster))
            newcomer.terminate()
        newcomer.start()
        newcomer.wait_serving()
        try:
            shares = _idle_nodes([*cluster.nodes, newcomer], max(6.0, _WATCHED_S * scale.factor))
        finally:
            newcomer.terminate()
    return [
        Figure(
            "A node joins four, until all five list it as registered and alive",
            f"{_MEMBERS} processes of `quorumlog serve`, defaults; from where the fifth begins to "
            f"gossip; {len(joins)} joins",
            f"{statistics.median(joins) * 1000:,.0f} ms",
            f"most {max(joins) * 1000:,.0f} ms",
        ),
        Figure(
            "An idle node of five",
            f"{_MEMBERS} processes of `quorumlog serve`, no partitions: gossip, and the metadata's "
            "group with its beats",
            f"{', '.join(f'{share:.1f}' for share in sorted(shares))} % of a core",
        ),
    ]


def _join(newcomer: NodeProcess, cluster: LocalCluster) -> float:
    with contextlib.ExitStack() as stack:
        addresses = [*cluster.servers, newcomer.listen]
        clients = [stack.enter_context(Client(address)) for address in addresses]
        for client in clients[:-1]:
            client.cluster_status()  # so that it is connected
        deadline_s = time.time() + _LIMIT_S
        newcomer.start()
        for client in clients:
            while not _lists(client, newcomer.name):
                if time.time() > deadline_s:
                    raise TimeoutError(f"{newcomer.name} is not listed everywhere")
                time.sleep(_POLL_S)
        return time.time() - _gossip_began_s(newcomer)


def _gossip_began_s(node: NodeProcess) -> float:
    """By the node's log: seconds since 1970."""
    lines = [json.loads(line) for line in node.output.read_text("utf-8").splitlines()]
    (began,) = [line for line in lines if line["event"] == "gossip_started"]
    return datetime.fromisoformat(began["timestamp"]).timestamp()


def _lists(client: Client, name: str) -> bool:
    try:
        nodes = client.cluster_status().nodes
    except QuorumlogError:
        return False  # it does not listen yet
    return any(
        node.name == name and node.state == "alive" and node.standing == "active" for node in nodes
    )


def _idle_nodes(nodes: Sequence[NodeProcess], watched_s: float) -> list[float]:
    """Each one's share of a core, in percent."""
    time.sleep(_SETTLED_S)
    before, began_s = [process_usage(node.pid).cpu_s for node in nodes], time.monotonic()
    time.sleep(watched_s)
    after, took_s = [process_usage(node.pid).cpu_s for node in nodes], time.monotonic() - began_s
    return [(b - a) / took_s * 100 for a, b in zip(before, after, strict=True)]
