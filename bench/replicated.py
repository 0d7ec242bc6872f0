"""Three nodes as processes, three replicas, fsync before every acknowledgement."""

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.bare_stream import bare_stream_server, read_rate
from bench.baselines import synced_write_rate
from bench.etcd import etcd_cluster
from bench.failover import measure_failover
from bench.figures import Figure, Scale, rate, ratio
from bench.single_records import measure_single_records
from examples.local_cluster import LocalCluster
from quorumlog import AsyncClient
from quorumlog.client.consumed import ConsumedBatch
from quorumlog.types import RecordData

_REPLICAS: Final = 3
_MESSAGE_BYTES: Final = 1024 * 1024
"""Block of the bare write and message of the bare stream: what batches grow to under load."""

_CONFIGURED: Final = "3 processes, 3 replicas, fsync always"


def measure_replicated(directory: Path, scale: Scale) -> list[Figure]:
    """Produce, replay, latency, concurrency and failover; some five minutes at full scale."""
    import uvloop

    with (
        LocalCluster(directory / "cluster") as cluster,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_measure(cluster, directory, scale))


async def _measure(cluster: LocalCluster, directory: Path, scale: Scale) -> list[Figure]:
    async with AsyncClient(*cluster.servers) as client:
        figures = []
        for record_bytes, records in ((1024, 100_000), (100, 500_000)):
            count = scale.count(records)
            figures.append(await _produce(client, directory, scale, record_bytes, count))
            figures.extend(await _replay(client, scale, record_bytes, count))
        with etcd_cluster(directory / "etcd") as etcd:
            figures += await measure_single_records(
                client, cluster.servers, scale, _CONFIGURED, etcd
            )
        figures += await measure_failover(cluster, client, scale, _CONFIGURED)
        return figures


def _topic_of(record_bytes: int) -> str:
    return f"records-{record_bytes}"


async def _produce(
    client: AsyncClient, directory: Path, scale: Scale, record_bytes: int, count: int
) -> Figure:
    topic = _topic_of(record_bytes)
    await client.create_topic(topic, partitions=1, replicas=_REPLICAS)
    records = [RecordData(bytes(record_bytes))] * count
    rates, bare_rates = [], []
    for _ in range(scale.repeats):
        bare_rates.append(
            synced_write_rate(directory / "bare", bytes(_MESSAGE_BYTES), scale.count(200)) / 3
        )
        async with client.producer(topic) as producer:
            await producer.send(b"")
            started = time.perf_counter()
            await producer.send_many(records)
            rates.append(count / (time.perf_counter() - started))
    measured, bare = statistics.median(rates), statistics.median(bare_rates)
    return Figure(
        f"Produce, {record_bytes} B records",
        f"{_CONFIGURED}; one producer, one partition, batches up to 1 MiB",
        rate(measured, record_bytes),
        f"{ratio(measured * record_bytes, bare)} of a third of bare write + fdatasync of 1 MiB "
        f"blocks ({bare / 1e6:,.0f} MB/s)",
    )


async def _replay(client: AsyncClient, scale: Scale, record_bytes: int, count: int) -> list[Figure]:
    """Reads what :func:`_produce` left, once as batches and once as values."""
    size_bytes = scale.repeats * count * record_bytes
    batch_rates, value_rates, bare_rates = [], [], []
    for _ in range(scale.repeats):
        with bare_stream_server(max(1, size_bytes // _MESSAGE_BYTES), _MESSAGE_BYTES) as address:
            bare_rates.append(await read_rate(address))
        batch_rates.append(await _read(client, record_bytes, lambda batch: batch.record_count))
        value_rates.append(await _read(client, record_bytes, lambda batch: len(batch.values())))
    batches, values = statistics.median(batch_rates), statistics.median(value_rates)
    bare = statistics.median(bare_rates)
    source = "one consumer, one partition, from the leader's page cache"
    return [
        Figure(
            f"Replay, {record_bytes} B records",
            f"{source}; batches with their checksums verified",
            rate(batches, record_bytes),
            f"{ratio(batches * record_bytes, bare)} of a bare gRPC stream of 1 MiB messages "
            f"({bare / 1e6:,.0f} MB/s)",
        ),
        Figure(
            f"Replay, {record_bytes} B records, decoded",
            f"{source}; a list of values a batch",
            rate(values, record_bytes),
        ),
    ]


async def _read(
    client: AsyncClient, record_bytes: int, count: Callable[[ConsumedBatch], int]
) -> float:
    """Records a second from offset 0 to the end."""
    seen = 0
    started = time.perf_counter()
    async with client.consumer(_topic_of(record_bytes), follow=False) as consumer:
        async for batch in consumer.batches():
            seen += count(batch)
    return seen / (time.perf_counter() - started)
