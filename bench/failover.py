"""What the producers notice when a node dies, is away, and comes back."""

import asyncio
import statistics
import time
from typing import Final

from bench.figures import Figure, Scale, latency_percentiles, percentile, ratio
from examples.local_cluster import LocalCluster, NodeProcess
from quorumlog import AsyncClient
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.grpc_transport import GrpcConnector
from quorumlog.client.transport import ADMIN_SERVICE
from quorumlog.errors import QuorumlogError
from quorumlog.types import RecordData

_REPLICAS: Final = 3
_ELECTION_TIMEOUT_S: Final = 0.3
"""The default, which these nodes have."""

_KILLS: Final = 20
_RECORD_BYTES: Final = 1024
_SETTLED_S: Final = 1.0
_LEADER_LIMIT_S: Final = 20.0
_CAUGHT_UP_LIMIT_S: Final = 120.0


async def measure_failover(
    cluster: LocalCluster, client: AsyncClient, scale: Scale, configured: str
) -> list[Figure]:
    """Kills and starts nodes of ``cluster``, all of which serve before and after."""
    return [
        await _leader_killed(cluster, client, scale, configured),
        *await _follower_away(cluster, client, scale, configured),
        await _replica_added(cluster, client, scale),
    ]


async def _leader_killed(
    cluster: LocalCluster, client: AsyncClient, scale: Scale, configured: str
) -> Figure:
    """From the signal to the acknowledgement of a record that was sent after it."""
    topic = "failover"
    await client.create_topic(topic, partitions=1, replicas=_REPLICAS)
    times_s = []
    async with client.producer(topic) as producer:
        for number in range(max(1, scale.count(_KILLS))):
            await producer.send(b"before %d" % number)
            leader = await _leader_of(cluster, client, topic)
            started = time.perf_counter()
            leader.kill()
            await producer.send(b"after %d" % number)
            times_s.append(time.perf_counter() - started)
            await _start_again(leader)
    median_s = statistics.median(times_s)
    return Figure(
        "Leader killed with -9: until a record is acknowledged again",
        f"{configured}; election timeout {_ELECTION_TIMEOUT_S * 1000:.0f} ms; the producer's own "
        f"search for the new leader included; median of {len(times_s)} kills",
        f"{median_s * 1000:,.0f} ms; p90 {percentile(times_s, 90) * 1000:,.0f}, "
        f"most {max(times_s) * 1000:,.0f} ms",
        f"{median_s / _ELECTION_TIMEOUT_S:.1f} x the election timeout",
        "<= 2 x",
    )


async def _follower_away(
    cluster: LocalCluster, client: AsyncClient, scale: Scale, configured: str
) -> list[Figure]:
    topic = "away"
    await client.create_topic(topic, partitions=1, replicas=_REPLICAS)
    count = scale.count(50_000)
    normal, without, slower, times_s = [], [], [], []
    quiet_s: list[float] = []
    catching_up_s: list[float] = []
    for _ in range(scale.repeats):
        normal.append(await _produce_rate(client, topic, count))
        before_s = await _latencies(client, topic, scale.count(500))
        leader = await _leader_of(cluster, client, topic)
        follower = next(node for node in cluster.nodes if node is not leader)
        follower.kill()
        # Elections of what it led are over.
        await asyncio.sleep(_SETTLED_S)
        without.append(await _produce_rate(client, topic, count))
        end = await client.offset(topic, 0, "latest")
        await asyncio.to_thread(follower.start)
        meanwhile_s, took_s = await _latencies_until(client, topic, follower, end)
        slower.append(percentile(meanwhile_s, 99) / percentile(before_s, 99))
        times_s.append(took_s)
        quiet_s += before_s
        catching_up_s += meanwhile_s
    rate, away_rate = statistics.median(normal), statistics.median(without)
    return [
        Figure(
            "Produce, one follower dead",
            f"{configured}; {_RECORD_BYTES} B records, one producer, one partition",
            f"{away_rate:,.0f} records/s",
            f"{ratio(away_rate, rate)} of the rate with all three ({rate:,.0f} records/s)",
            ">= 90 %",
        ),
        Figure(
            "One record at a time while a follower starts and catches up",
            f"{configured}; 256 B; the follower lacks {count * _RECORD_BYTES / 1e6:,.0f} MB and is "
            f"back after {statistics.median(times_s):.1f} s, its start included",
            latency_percentiles(catching_up_s),
            f"p99 {statistics.median(slower):.1f} x what it was before "
            f"({latency_percentiles(quiet_s)})",
            "p99 <= 2 x",
        ),
    ]


async def _replica_added(cluster: LocalCluster, client: AsyncClient, scale: Scale) -> Figure:
    """A catch-up without the start of a process: a third replica on a node that runs."""
    count = scale.count(50_000)
    slower, times_s = [], []
    quiet_s: list[float] = []
    catching_up_s: list[float] = []
    for number in range(scale.repeats):
        topic = f"added-{number}"
        await client.create_topic(topic, partitions=1, replicas=_REPLICAS - 1)
        await _produce_rate(client, topic, count)
        before_s = await _latencies(client, topic, scale.count(1000))
        end = await client.offset(topic, 0, "latest")
        replicas = (await client.describe_topic(topic)).partitions[0].replicas
        nodes = (await client.cluster_status()).nodes
        added = next(node.address for node in nodes if node.id not in replicas)
        await client.alter_topic(topic, replicas=_REPLICAS)
        meanwhile_s, took_s = await _latencies_until(client, topic, cluster.node_at(added), end)
        before_s += await _latencies(client, topic, scale.count(1000))
        slower.append(percentile(meanwhile_s, 99) / percentile(before_s, 99))
        times_s.append(took_s)
        quiet_s += before_s
        catching_up_s += meanwhile_s
    return Figure(
        "One record at a time while a new replica catches up",
        f"3 processes, a third replica to two, fsync always; 256 B; it lacks "
        f"{count * _RECORD_BYTES / 1e6:,.0f} MB and has them after "
        f"{statistics.median(times_s):.1f} s",
        latency_percentiles(catching_up_s),
        f"p99 {statistics.median(slower):.1f} x what it is before and afterwards "
        f"({latency_percentiles(quiet_s)})",
        "p99 <= 2 x",
    )


async def _produce_rate(client: AsyncClient, topic: str, count: int) -> float:
    async with client.producer(topic) as producer:
        await producer.send(b"")
        started = time.perf_counter()
        await producer.send_many([RecordData(bytes(_RECORD_BYTES))] * count)
        return count / (time.perf_counter() - started)


async def _latencies(client: AsyncClient, topic: str, count: int) -> list[float]:
    latencies_s = []
    async with client.producer(topic) as producer:
        await producer.send(b"")
        for _ in range(count):
            started = time.perf_counter()
            await producer.send(bytes(256))
            latencies_s.append(time.perf_counter() - started)
    return latencies_s


async def _latencies_until(
    client: AsyncClient, topic: str, follower: NodeProcess, end: int
) -> tuple[list[float], float]:
    """The seconds of each record until ``follower`` has ``end`` records, and of all together."""
    started = time.perf_counter()
    caught_up = asyncio.create_task(_caught_up(follower, topic, end))
    latencies_s: list[float] = []
    async with client.producer(topic) as producer:
        while not caught_up.done():
            sent = time.perf_counter()
            await producer.send(bytes(256))
            latencies_s.append(time.perf_counter() - sent)
    await caught_up
    return latencies_s, time.perf_counter() - started


async def _caught_up(follower: NodeProcess, topic: str, end: int) -> None:
    """Return when ``follower`` itself knows ``end`` records of the topic to be committed."""
    connection = GrpcConnector().connect(follower.listen)
    request = pb.DescribeTopicRequest(name=topic)
    try:
        async with asyncio.timeout(_CAUGHT_UP_LIMIT_S):
            while True:
                await asyncio.sleep(0.05)
                try:
                    found = await connection.unary(
                        ADMIN_SERVICE + "DescribeTopic", request, pb.Topic, 1.0
                    )
                except QuorumlogError:
                    continue
                if found.partitions[0].high_watermark >= end:
                    return
    finally:
        await connection.close()


async def _start_again(node: NodeProcess) -> None:
    await asyncio.to_thread(node.start)
    await asyncio.to_thread(node.wait_serving)
    await asyncio.sleep(_SETTLED_S)


async def _leader_of(cluster: LocalCluster, client: AsyncClient, topic: str) -> NodeProcess:
    """The process that leads partition 0 of ``topic``, once there is one."""
    async with asyncio.timeout(_LEADER_LIMIT_S):
        while True:
            leader = (await client.describe_topic(topic)).partitions[0].leader
            for node in (await client.cluster_status()).nodes:
                if node.id == leader:
                    return cluster.node_at(node.address)
            await asyncio.sleep(0.05)
