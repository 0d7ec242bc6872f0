"""Followers far behind are read for on the worker, at a bounded rate, and hold nobody up."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from quorumlog.log.batch import Kind
from quorumlog.replication.catch_up import feeder
from quorumlog.replication.catch_up.pacing import CatchUpPacer
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.messages import AppendRequest
from quorumlog.replication.replica import Replica
from quorumlog.replication.wire import decode
from quorumlog.types import GroupId, NodeId
from sim.disk import SimDisk, SimFile
from support.replica_cluster import Cluster, draft, simulated, values_of

SIZE_BYTES = 20_000
COUNT = 100


class WatchedDisk(SimDisk):
    """Counts the bytes that are read in the event loop: a worker says when it works."""

    in_worker = False
    watched = False
    loop_bytes = 0
    worker_bytes = 0

    def open_readonly(self, path: str) -> SimFile:
        return _watched(self, super().open_readonly(path))


def _watched(disk: WatchedDisk, file: SimFile) -> SimFile:
    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

        def read_at(self, position: int, size_bytes: int) -> bytes:
            if disk.watched and disk.in_worker:
                disk.worker_bytes += size_bytes
            elif disk.watched:
                disk.loop_bytes += size_bytes
            return file.read_at(position, size_bytes)

    return Watched()  # type: ignore[return-value]


async def far_behind(
    config: ReplicationConfig, count: int = COUNT, size_bytes: int = SIZE_BYTES
) -> tuple[Cluster, Replica, NodeId, WatchedDisk]:
    """A leader, and a follower that was cut off while ``count`` batches were committed."""
    cluster = Cluster(3)
    cluster.log_config = replace(cluster.log_config, tail_cache_bytes=0, segment_bytes=1 << 18)
    for node in cluster.nodes:
        cluster.disks[node] = WatchedDisk(cluster.disks[node].rng)
    await cluster.open(config)
    leader = await cluster.leader()
    await leader.propose(draft(b"first"))
    lost = next(node for node in cluster.nodes if cluster.replicas[node] is not leader)
    await asyncio.sleep(0.5)
    cluster.wire.cut.add(lost)
    for number in range(count):
        await leader.propose(draft(b"%d/" % number + bytes(size_bytes)))
    disk = cluster.disks[cluster.node_of(leader)]
    assert isinstance(disk, WatchedDisk)
    _tell_when_it_works(leader, disk)
    disk.watched = True
    return cluster, leader, lost, disk


def _tell_when_it_works(leader: Replica, disk: WatchedDisk) -> None:
    worker = leader._catch_up._feeder._worker
    run = worker.run

    def watched(function: Callable[[], object]) -> Any:
        def working() -> object:
            disk.in_worker = True
            try:
                return function()
            finally:
                disk.in_worker = False

        return run(working)

    worker.run = watched  # type: ignore[method-assign]


def tap_batches(cluster: Cluster, node: NodeId) -> list[tuple[float, int]]:
    """When how many bytes of batches reached ``node``, from now on."""
    seen: list[tuple[float, int]] = []
    deliver = cluster.wire.handlers[node]

    def tap(sender: NodeId, group: GroupId, payload: memoryview) -> None:
        if payload[0] == 3:
            message = decode(payload)
            assert isinstance(message, AppendRequest)
            sizes = [b.size_bytes for b in message.batches if b.header.kind is Kind.RECORDS]
            seen.append((asyncio.get_running_loop().time(), sum(sizes)))
        deliver(sender, group, payload)

    cluster.wire.handlers[node] = tap
    return seen


async def level(cluster: Cluster, node: NodeId, leader: Replica) -> None:
    async with asyncio.timeout(60):
        while values_of(cluster.replicas[node]) != values_of(leader):
            await asyncio.sleep(0.01)


@simulated
async def test_the_event_loop_reads_nothing_for_a_follower_far_behind() -> None:
    cluster, leader, lost, disk = await far_behind(ReplicationConfig())
    cluster.wire.cut.clear()
    await level(cluster, lost, leader)
    assert disk.worker_bytes > COUNT * SIZE_BYTES
    # Headers, to find where the logs agree.
    assert disk.loop_bytes < 10_000
    await cluster.close()


@simulated
async def test_it_gets_no_more_in_a_second_than_is_set_and_the_others_do_not_wait() -> None:
    config = ReplicationConfig(catch_up_bytes_s=512 * 1024)
    cluster, leader, lost, _ = await far_behind(config)
    seen = tap_batches(cluster, lost)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    cluster.wire.cut.clear()
    waits_s: list[float] = []
    for _ in range(50):
        asked_s = loop.time()
        await leader.propose(draft(b"meanwhile"))
        waits_s.append(loop.time() - asked_s)
        await asyncio.sleep(0.02)
    assert max(waits_s) < 0.02
    await level(cluster, lost, leader)
    took_s = loop.time() - began_s
    expected_s = COUNT * SIZE_BYTES / config.catch_up_bytes_s
    assert expected_s * 0.8 < took_s < expected_s * 2
    for start_s, _ in seen:
        within = [size for at_s, size in seen if start_s <= at_s < start_s + 1]
        assert sum(within) <= config.catch_up_bytes_s + 2 * feeder.MAX_READ_BYTES
    await cluster.close()


@simulated
async def test_a_batch_larger_than_a_read_counts_with_all_of_its_bytes() -> None:
    config = ReplicationConfig(catch_up_bytes_s=512 * 1024)
    size_bytes = 4 * feeder.MAX_READ_BYTES
    cluster, leader, lost, _ = await far_behind(config, count=10, size_bytes=size_bytes)
    began_s = asyncio.get_running_loop().time()
    cluster.wire.cut.clear()
    await level(cluster, lost, leader)
    took_s = asyncio.get_running_loop().time() - began_s
    # The last one waits for those before it alone.
    assert took_s > 9 * size_bytes / config.catch_up_bytes_s
    await cluster.close()


@simulated
async def test_a_follower_that_lacks_what_is_in_memory_is_not_paced() -> None:
    cluster = Cluster(3)
    await cluster.open(ReplicationConfig(catch_up_bytes_s=64 * 1024))
    leader = await cluster.leader()
    await leader.propose(draft(b"first"))
    lost = next(node for node in cluster.nodes if cluster.replicas[node] is not leader)
    cluster.wire.cut.add(lost)
    for number in range(COUNT):
        await leader.propose(draft(b"%d/" % number + bytes(SIZE_BYTES)))
    cluster.wire.cut.clear()
    began_s = asyncio.get_running_loop().time()
    await level(cluster, lost, leader)
    assert asyncio.get_running_loop().time() - began_s < 1
    await cluster.close()


@simulated
async def test_a_leader_that_closes_while_it_reads_waits_for_that() -> None:
    cluster, _, lost, _ = await far_behind(ReplicationConfig(catch_up_bytes_s=64 * 1024))
    cluster.wire.cut.clear()
    await asyncio.sleep(0.3)
    await cluster.close()
    assert lost not in cluster.wire.cut


@simulated
async def test_a_leader_that_is_deposed_sends_nothing_more_of_what_it_read() -> None:
    cluster, leader, lost, _ = await far_behind(ReplicationConfig(catch_up_bytes_s=64 * 1024))
    cluster.wire.cut.clear()
    await asyncio.sleep(0.3)
    third = next(n for n in cluster.nodes if n not in (lost, cluster.node_of(leader)))
    leader.transfer_leadership(third)
    async with asyncio.timeout(10):
        while not cluster.replicas[third].serving:
            await asyncio.sleep(0.01)
    await level(cluster, third, leader)
    assert leader.failure is None
    await cluster.close()


def test_the_rate_is_one_for_all_who_share_it() -> None:
    now_s = 5.0
    pacer = CatchUpPacer(1000, lambda: now_s)
    delays: Sequence[float] = [pacer.reserve(500) for _ in range(4)]
    assert delays == [0.0, 0.5, 1.0, 1.5]
    now_s = 60.0
    assert [pacer.reserve(500) for _ in range(2)] == [0.0, 0.5]
