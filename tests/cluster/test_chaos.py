"""Real processes killed with -9 at random while records flow: each exactly once, in order.

``make chaos SECONDS=120`` goes on for longer than the tests do.
"""

import asyncio
import os
import random
import time
from pathlib import Path

from examples.local_cluster import LocalCluster
from quorumlog import AsyncClient

SECONDS = float(os.environ.get("CHAOS_SECONDS", "10"))
PARTITIONS = 3
RUN = 500


def values_of(partition: int, numbers: range) -> list[bytes]:
    return [b"%d:%d" % (partition, number) for number in numbers]


class Chaos:
    def __init__(self, cluster: LocalCluster, client: AsyncClient, seed: int) -> None:
        self.cluster = cluster
        self.client = client
        self.rng = random.Random(seed)
        self.stop_at = time.monotonic() + SECONDS
        self.acknowledged = [0] * PARTITIONS
        self.seen: list[list[bytes | None]] = [[] for _ in range(PARTITIONS)]
        self.kills = 0

    @property
    def over(self) -> bool:
        return time.monotonic() > self.stop_at

    async def produce(self, partition: int) -> None:
        async with self.client.producer("t") as producer:
            while not self.over:
                first = self.acknowledged[partition]
                values = values_of(partition, range(first, first + RUN))
                await producer.send_many(values, partition=partition)
                self.acknowledged[partition] = first + RUN
                await asyncio.sleep(0.01)

    async def consume(self) -> None:
        async with self.client.consumer("t", start="earliest") as consumer:
            async for batch in consumer.batches():
                self.seen[batch.partition] += batch.values()

    async def kill(self) -> None:
        while not self.over:
            await asyncio.sleep(self.rng.uniform(0.5, 2.0))
            node = self.rng.choice(self.cluster.nodes)
            await asyncio.to_thread(node.kill)
            self.kills += 1
            await asyncio.sleep(self.rng.uniform(0.0, 1.5))
            await asyncio.to_thread(node.start)
            await asyncio.to_thread(node.wait_serving)

    async def caught_up(self) -> None:
        async with asyncio.timeout(30):
            while any(
                len(seen) < count for seen, count in zip(self.seen, self.acknowledged, strict=True)
            ):
                await asyncio.sleep(0.05)


async def test_records_flow_exactly_once_and_in_order_while_nodes_are_killed(
    tmp_path: Path,
) -> None:
    with LocalCluster(tmp_path, nodes=3) as cluster:
        async with AsyncClient(*cluster.servers) as client:
            await client.create_topic("t", partitions=PARTITIONS, replicas=3)
            chaos = Chaos(cluster, client, seed=1)
            consuming = asyncio.create_task(chaos.consume())
            async with asyncio.TaskGroup() as tasks:
                for partition in range(PARTITIONS):
                    tasks.create_task(chaos.produce(partition))
                tasks.create_task(chaos.kill())
            await chaos.caught_up()
            consuming.cancel()
            assert chaos.kills
            for partition, count in enumerate(chaos.acknowledged):
                assert chaos.seen[partition] == values_of(partition, range(count))
            replay: list[list[bytes | None]] = [[] for _ in range(PARTITIONS)]
            async with client.consumer("t", start="earliest", follow=False) as consumer:
                async for batch in consumer.batches():
                    replay[batch.partition] += batch.values()
            assert replay == chaos.seen
