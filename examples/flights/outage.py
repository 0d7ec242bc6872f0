"""The outage: the node that leads partition 0 is killed, the others elect, it comes back."""

import asyncio
import time
from dataclasses import dataclass

from examples.flights.load import Acknowledgements
from examples.local_cluster import LocalCluster, NodeProcess
from quorumlog import AsyncClient
from quorumlog.client.models import RecordMetadata


@dataclass(frozen=True)
class Outage:
    node: NodeProcess
    partitions: frozenset[int]
    """What the node led when it was killed."""
    without_leader_s: float
    """From the kill to the acknowledgement of the first record that a new leader appended, of the
    partition that waited longest."""


async def leader_of(client: AsyncClient, topic: str, cluster: LocalCluster) -> NodeProcess:
    """The node that leads partition 0 of ``topic``."""
    while True:
        description = await client.describe_topic(topic)
        status = await client.cluster_status()
        leader = description.partitions[0].leader
        for node in status.nodes:
            if node.id == leader:
                return cluster.node_at(node.address)
        await asyncio.sleep(0.05)


async def kill_leader(
    client: AsyncClient,
    topic: str,
    cluster: LocalCluster,
    acknowledgements: Acknowledgements,
) -> Outage:
    """Kill the leader of partition 0 with SIGKILL; returns when all it led is written to again."""
    node = await leader_of(client, topic, cluster)
    partitions = await _led_by(client, topic, node)
    killed_s = time.monotonic()
    node.kill()
    dead_ms = time.time() * 1000
    recovered_s: dict[int, float] = {}
    recovered = asyncio.Event()

    def watch(metadata: RecordMetadata) -> None:
        # An acknowledgement may still be on its way from before. The leader stamps a record when it
        # appends it: what was stamped after the death was appended by a successor.
        if metadata.timestamp_ms > dead_ms:
            recovered_s.setdefault(metadata.partition, time.monotonic())
            if partitions <= recovered_s.keys():
                recovered.set()

    acknowledgements.watch(watch)
    await recovered.wait()
    return Outage(node, partitions, max(recovered_s[p] for p in partitions) - killed_s)


async def _led_by(client: AsyncClient, topic: str, node: NodeProcess) -> frozenset[int]:
    description = await client.describe_topic(topic)
    status = await client.cluster_status()
    node_id = next(other.id for other in status.nodes if other.address == node.listen)
    led = {p.partition for p in description.partitions if p.leader == node_id}
    return frozenset(led | {0})
