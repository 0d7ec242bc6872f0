"""Records that are waited for one by one: alone, and 64 at a time, from producers of one client,
from clients of their own, from tasks of one producer."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
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
    client: AsyncClient, servers: Sequence[str], scale: Scale, configured: str, etcd: str | None
) -> list[Figure]:
    """``servers`` are those of ``client``; ``etcd`` the address of its leader, if there is one."""
    peer = None if etcd is None else EtcdClient(etcd)
    try:
        return [
            await _one_at_a_time(client, scale, configured, peer),
            await _many_producers(client, scale, configured, peer),
            await _many_clients(client, servers, scale, configured, etcd),
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


async def _all_at_once(sends: Sequence[_Send], each: int) -> tuple[float, list[float]]:
    """Sends a second of all of ``sends`` together, and the seconds that each took."""
    started = time.perf_counter()
    timed = await asyncio.gather(*(_timed(send, each) for send in sends))
    elapsed_s = time.perf_counter() - started
    return len(sends) * each / elapsed_s, [latency for one in timed for latency in one]


async def _many_producers(
    client: AsyncClient, scale: Scale, configured: str, peer: EtcdClient | None
) -> Figure:
    """As one program with 64 producers would: they share its connection, and messages on it."""
    await client.create_topic("many", partitions=1, replicas=_REPLICAS)
    producers = [client.producer("many") for _ in range(_CLIENTS)]
    sends = [producer.send for producer in producers]
    puts = [] if peer is None else [peer.put] * _CLIENTS
    try:
        measured, compared = await _against_etcd(sends, puts, scale)
    finally:
        await asyncio.gather(*(producer.close() for producer in producers))
    return Figure(
        f"{_CLIENTS} producers, one record in flight each",
        f"{configured}; 256 B, one partition; the producers of one client, which sends in one "
        "message what waits; the puts share a connection as well",
        measured,
        compared,
        ">= 1 x" if puts else "",
    )


async def _many_clients(
    client: AsyncClient, servers: Sequence[str], scale: Scale, configured: str, etcd: str | None
) -> Figure:
    """As 64 programs would, but for the process that they share: nothing is sent together."""
    await client.create_topic("clients", partitions=1, replicas=_REPLICAS)
    async with contextlib.AsyncExitStack() as stack:
        sends: list[_Send] = []
        puts: list[_Send] = []
        for _ in range(_CLIENTS):
            one = await stack.enter_async_context(AsyncClient(*servers))
            sends.append(one.producer("clients").send)
            if etcd is not None:
                peer = EtcdClient(etcd)
                stack.push_async_callback(peer.close)
                puts.append(peer.put)
        measured, compared = await _against_etcd(sends, puts, scale)
    return Figure(
        f"{_CLIENTS} clients, one record in flight each",
        f"{configured}; 256 B, one partition; a connection each, and so for the puts",
        measured,
        compared,
    )


async def _against_etcd(
    sends: Sequence[_Send], puts: Sequence[_Send], scale: Scale
) -> tuple[str, str]:
    """The rate of ``sends`` in turns with that of ``puts``: what was measured, and the ratio."""
    each = max(1, scale.count(500) // _ROUNDS)
    rates, peers_rates = [], []
    latencies_s: list[float] = []
    await asyncio.gather(*(send(b"") for send in [*sends, *puts]))
    for _ in range(_ROUNDS):
        rate, timed = await _all_at_once(sends, each)
        rates.append(rate)
        latencies_s += timed
        if puts:
            peers_rates.append((await _all_at_once(puts, each))[0])
    measured = statistics.median(rates)
    shown = f"{measured:,.0f} records/s; {latency_percentiles(latencies_s)}"
    if not puts:
        return shown, NO_ETCD
    peers = statistics.median(peers_rates)
    return shown, f"{measured / peers:.2f} x {len(puts)} puts in flight to etcd ({peers:,.0f}/s)"


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
