"""Seeded storms: whatever leaders, connections and replies do, every acknowledged record is in the
log exactly once and in order, and a consumer sees each exactly once."""

import asyncio
import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.fake_cluster import FakeCluster
from client.virtual import run
from quorumlog.client.client import AsyncClient
from quorumlog.client.producer import Producer
from quorumlog.errors import OutcomeUnknown, Overloaded, QuorumlogError, Unavailable

FAULTS = (
    "elect",
    "kill",
    "start",
    "hang",
    "break",
    "calm",
    "lossy",
    "overload",
    "doubt",
    "release",
)


async def storm(cluster: FakeCluster, rng: random.Random, rounds: int) -> None:
    """Faults for a while, then a whole cluster again."""
    for _ in range(rounds):
        await asyncio.sleep(rng.uniform(0.0, 1.5))
        address = rng.choice(cluster.addresses)
        fault = rng.choice(FAULTS)
        if fault == "kill":
            cluster.kill(address)
        elif fault == "start":
            cluster.start(address)
            cluster.nodes[address].hung = False
        elif fault == "hang":
            cluster.nodes[address].hung = True
        elif fault == "break":
            cluster.break_streams(address)
        elif fault == "calm":
            cluster.lose_reply = cluster.lose_request = 0.0
        elif fault == "lossy":
            cluster.lose_reply, cluster.lose_request = rng.random() / 2, rng.random() / 2
        elif fault == "overload":
            cluster.produce_script.append(Overloaded("full"))
        elif fault == "doubt":
            cluster.produce_script.append(rng.choice([OutcomeUnknown("?"), Unavailable("?")]))
        elif fault == "release":
            cluster.takes_packed = not cluster.takes_packed
        elect(cluster, rng)
    heal(cluster, rng)


def elect(cluster: FakeCluster, rng: random.Random) -> None:
    alive = [node.address for node in cluster.nodes.values() if node.up and not node.hung]
    for partition in cluster.partitions():
        if partition.leader not in alive or rng.random() < 0.2:
            cluster.elect(partition, rng.choice(alive) if alive and rng.random() < 0.8 else None)


def heal(cluster: FakeCluster, rng: random.Random) -> None:
    cluster.lose_reply = cluster.lose_request = 0.0
    cluster.produce_script.clear()
    for node in cluster.nodes.values():
        node.up, node.hung = True, False
    for partition in cluster.partitions():
        if partition.leader is None:
            cluster.elect(partition, rng.choice(cluster.addresses))


async def produce(
    producer: Producer, rng: random.Random, count: int, partitions: int
) -> dict[bytes, QuorumlogError | None]:
    """Send ``count`` records; what became of each."""
    pending = []
    for number in range(count):
        partition = rng.randrange(partitions)
        value = f"{partition}:{number}".encode()
        pending.append((value, await producer.submit(value, partition=partition)))
        if rng.random() < 0.1:
            await asyncio.sleep(rng.uniform(0.0, 0.3))
    outcome: dict[bytes, QuorumlogError | None] = {}
    for value, future in pending:
        try:
            await future
            outcome[value] = None
        except QuorumlogError as error:
            outcome[value] = error
    return outcome


async def weather(seed: int, delivery_timeout_s: float) -> None:
    rng = random.Random(seed)
    cluster = FakeCluster(3, seed)
    partitions = cluster.add_topic("t", 3)
    client = AsyncClient(*cluster.addresses, connector=cluster, rng=rng)
    async with client, client.consumer("t") as consumer:
        storming = asyncio.ensure_future(storm(cluster, rng, 20))
        producer = client.producer(
            "t", batch_bytes=rng.choice([1, 100, 1000]), delivery_timeout_s=delivery_timeout_s
        )
        outcome = await produce(producer, rng, 200, 3)
        if delivery_timeout_s > 100:
            assert not [error for error in outcome.values() if error is not None]
        await storming
        producer.abort()
        for partition in partitions:
            check(partition.values(), outcome)
            prefix = f"{partition.number}:".encode()
            for value, error in outcome.items():
                if value.startswith(prefix) and error is None:
                    assert value in partition.values(), f"{value!r} was acknowledged and is lost"
                if isinstance(error, Unavailable):
                    assert value not in partition.values(), f"{value!r} failed and is in the log"
        await check_consumed(consumer, cluster)


def check(stored: list[bytes | None], outcome: dict[bytes, QuorumlogError | None]) -> None:
    assert len(set(stored)) == len(stored), "a record is there twice"
    acknowledged = [int(v.split(b":")[1]) for v in stored if v is not None and outcome[v] is None]
    assert acknowledged == sorted(acknowledged), "acknowledged records are out of order"


async def check_consumed(consumer: object, cluster: FakeCluster) -> None:
    seen: dict[int, list[bytes | None]] = {}
    total = sum(partition.end_offset for partition in cluster.partitions())
    async with asyncio.timeout(300):
        async for record in consumer:  # type: ignore[attr-defined]
            partition = seen.setdefault(record.partition, [])
            assert record.offset == len(partition), "an offset was skipped or repeated"
            partition.append(record.value)
            if sum(map(len, seen.values())) == total:
                break
    for fake in cluster.partitions():
        assert seen.get(fake.number, []) == fake.values()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
@example(seed=1)
def test_with_time_enough_every_record_is_acknowledged_exactly_once_and_in_order(seed: int) -> None:
    run(weather(seed, delivery_timeout_s=600.0))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
@example(seed=3242)
def test_with_little_time_what_fails_is_surely_absent_or_said_to_be_in_doubt(seed: int) -> None:
    run(weather(seed, delivery_timeout_s=3.0))
