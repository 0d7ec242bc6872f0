"""Records that are waited for one by one: alone, from 64 producers, from 64 tasks of one."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Final

from bench.etcd import EtcdClient, etcd_version
from bench.figures import Figure, Scale, latency_percentiles, percentile
from quorumlog import AsyncClient

_REPLICAS: Final = 3
_VALUE: Final = bytes(256)
_CLIENTS: Final = 64
_WARM_UP: Final = 100
_ROUNDS: Final = 5
"""In each both are measured, in turns: what disturbs the machine disturbs both."""

NO_ETCD: Final = "no etcd on this machine"

_Send = Callable[[bytes], Awaitable[object]]


async def measure_single_records(
    client: AsyncClient, scale: Scale, configured: str, etcd: str | None
) -> list[Figure]:
    """``etcd`` is the address of its leader, if there is one."""
    peer = None if etcd is None else EtcdClient(etcd)
    try:
        return [
            await _one_at_a_time(client, scale, configured, peer),
            await _many_producers(client, scale, configured, peer),
            await _shared_producer(client, scale, configured),
        ]
    finally:
        if peer is not None:
            await peer.close()


async def _one_at_a_time(
    client: AsyncClient, scale: Scale, configured: str, peer: EtcdClient | None
) -> Figure:
    topic = "latency"
    await client.create_topic(topic, partitions=1, replicas=_REPLICAS)
    count = scale.count(3_000) // _ROUNDS
    ours_s: list[float] = []
    peers_s: list[float] = []
    async with client.producer(topic) as producer:
        await _timed(producer.send, _WARM_UP)
        if peer is not None:
            await _timed(peer.put, _WARM_UP)
        for _ in range(_ROUNDS):
            ours_s += await _timed(producer.send, count)
            if peer is not None:
                peers_s += await _timed(peer.put, count)
    compared, goal = NO_ETCD, ""
    if peers_s:
        ratios = [percentile(ours_s, p) / percentile(peers_s, p) for p in (50, 99)]
        compared = (
            f"p50 {ratios[0]:.2f} x, p99 {ratios[1]:.2f} x of a put of 256 B to three members of "
            f"etcd {etcd_version()} on the same disk ({latency_percentiles(peers_s)})"
        )
        goal = "p50 <= 0.7 x, p99 <= 1 x"
    return Figure(
        "One record at a time, latency",
        f"{configured}; 256 B, one producer that waits for every acknowledgement",
        f"{latency_percentiles(ours_s)}; {1 / statistics.fmean(ours_s):,.0f} records/s",
        compared,
        goal,
    )


async def _timed(send: _Send, count: int) -> list[float]:
    """Seconds of each of ``count`` sends, one after the other."""
    latencies_s = []
    for _ in range(count):
        started = time.perf_counter()
        await send(_VALUE)
        latencies_s.append(time.perf_counter() - started)
    return latencies_s


async def _all_at_once(sends: list[_Send], each: int) -> tuple[float, list[float]]:
    """Sends a second of all of ``sends`` together, and the seconds that each took."""
    started = time.perf_counter()
    timed = await asyncio.gather(*(_timed(send, each) for send in sends))
    elapsed_s = time.perf_counter() - started
    return len(sends) * each / elapsed_s, [latency for one in timed for latency in one]


async def _many_producers(
    client: AsyncClient, scale: Scale, configured: str, peer: EtcdClient | None
) -> Figure:
    """As 64 programs would: 64 producer ids, nothing shared but the connection."""
    topic, each = "many", max(1, scale.count(500) // _ROUNDS)
    await client.create_topic(topic, partitions=1, replicas=_REPLICAS)
    producers = [client.producer(topic) for _ in range(_CLIENTS)]
    rates, peers_rates = [], []
    latencies_s: list[float] = []
    await asyncio.gather(*(producer.send(b"") for producer in producers))
    for _ in range(_ROUNDS):
        rate, timed = await _all_at_once([producer.send for producer in producers], each)
        rates.append(rate)
        latencies_s += timed
        if peer is not None:
            peers_rates.append((await _all_at_once([peer.put] * _CLIENTS, each))[0])
    for producer in producers:
        await producer.close()
    measured = statistics.median(rates)
    compared, goal = NO_ETCD, ""
    if peers_rates:
        peers = statistics.median(peers_rates)
        compared = f"{measured / peers:.2f} x {_CLIENTS} puts in flight to etcd ({peers:,.0f}/s)"
        goal = ">= 1 x"
    return Figure(
        f"{_CLIENTS} producers, one record in flight each",
        f"{configured}; 256 B, one client, one partition",
        f"{measured:,.0f} records/s; {latency_percentiles(latencies_s)}",
        compared,
        goal,
    )


async def _shared_producer(client: AsyncClient, scale: Scale, configured: str) -> Figure:
    """As one program with 64 tasks would: their records share batches."""
    topic, each = "shared", scale.count(1000)
    await client.create_topic(topic, partitions=1, replicas=_REPLICAS)
    async with client.producer(topic) as producer:
        await producer.send(b"")
        rate, latencies_s = await _all_at_once([producer.send] * _CLIENTS, each)
    return Figure(
        f"{_CLIENTS} tasks of one producer, one record in flight each",
        f"{configured}; 256 B, one partition",
        f"{rate:,.0f} records/s; {latency_percentiles(latencies_s)}",
    )
