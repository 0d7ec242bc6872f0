"""A replica on its ports: what it promises when disks fill, fail, or it is deposed."""

import asyncio
import errno
import json
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from quorumlog.errors import (
    Closed,
    DiskFull,
    LogFenced,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from quorumlog.log.batch import Batch, BatchHeader, Draft, Kind
from quorumlog.log.config import LogConfig
from quorumlog.log.records import encode_body
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import Buffer, GroupId, NodeId, RecordData
from sim.clock import SimClock
from sim.disk import SimDisk
from sim.loop import SimLoop
from sim.process import Process
from sim.worker import SimWorker, WorkerSpeed

GROUP = GroupId(1)


class Machine:
    """Counts what it applied."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.pending = 0

    def apply(self, batch: Batch) -> int:
        if batch.header.kind is Kind.RECORDS:
            self.values.append(bytes(batch.body))
        return batch.header.base_offset

    def snapshot(self) -> bytes:
        return json.dumps([value.hex() for value in self.values]).encode()

    def restore(self, snapshot: bytes) -> None:
        self.values = [bytes.fromhex(value) for value in json.loads(snapshot)]

    def appended(self, header: BatchHeader) -> None:
        self.pending += 1

    def leadership_lost(self) -> None:
        self.pending = 0


class Wire:
    """Delivers to every other node in a later turn; nodes can be cut off."""

    def __init__(self) -> None:
        self.handlers: dict[NodeId, Callable[[NodeId, GroupId, memoryview], None]] = {}
        self.cut: set[NodeId] = set()

    def port(self, node: NodeId) -> "Port":
        return Port(self, node)


class Port:
    def __init__(self, wire: Wire, node: NodeId) -> None:
        self.wire = wire
        self.node = node

    def send(self, peer: NodeId, group: GroupId, payload: Buffer) -> None:
        asyncio.get_running_loop().call_later(0.0005, self._deliver, peer, group, bytes(payload))

    def _deliver(self, peer: NodeId, group: GroupId, payload: bytes) -> None:
        if not {self.node, peer} & self.wire.cut and peer in self.wire.handlers:
            self.wire.handlers[peer](self.node, group, memoryview(payload))

    def on_message(self, handler: Callable[[NodeId, GroupId, memoryview], None]) -> None:
        self.wire.handlers[self.node] = handler


class Cluster:
    def __init__(self, size: int, fsync: str = "always") -> None:
        self.log_config = LogConfig(segment_bytes=8 << 20, fsync=fsync)
        self.nodes = [NodeId(f"n{number}") for number in range(size)]
        self.wire = Wire()
        self.disks = {node: SimDisk(random.Random(node)) for node in self.nodes}
        self.hosts: dict[NodeId, GroupHost] = {}
        self.replicas: dict[NodeId, Replica] = {}

    async def open(self, config: ReplicationConfig | None = None) -> None:
        for node in self.nodes:
            await self.open_node(node, config)

    async def open_node(self, node: NodeId, config: ReplicationConfig | None = None) -> None:
        process = Process(node)
        host = GroupHost(
            node_id=node,
            directory="groups",
            disk=self.disks[node],
            clock=SimClock(asyncio.get_running_loop()),
            worker=SimWorker(process, random.Random(node), WorkerSpeed()),
            transport=self.wire.port(node),
            rng=random.Random(node),
            config=config,
        )
        self.hosts[node] = host
        self.replicas[node] = await host.open_group(
            GROUP, Members(tuple(self.nodes)), Machine(), self.log_config
        )

    async def leader(self) -> Replica:
        async with asyncio.timeout(10):
            while True:
                for replica in self.replicas.values():
                    if replica.serving and replica.core.leader_id not in self.wire.cut:
                        return replica
                await asyncio.sleep(0.01)

    def node_of(self, replica: Replica) -> NodeId:
        return next(node for node, each in self.replicas.items() if each is replica)

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.close()


def values_of(replica: Replica) -> list[bytes]:
    machine = replica.state_machine
    assert isinstance(machine, Machine)
    return machine.values


def draft(value: bytes) -> Draft:
    return Draft.of(encode_body([RecordData(value)]), 1)


def simulated(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        loop = SimLoop(end_s=120)
        try:
            loop.run_until_complete(scenario())
        finally:
            loop.dispose()

    run.__name__ = scenario.__name__
    run.__doc__ = scenario.__doc__
    return run


@simulated
async def test_a_proposal_gives_what_the_state_machine_returned() -> None:
    cluster = Cluster(3)
    await cluster.open()
    leader = await cluster.leader()
    offsets = await asyncio.gather(*(leader.propose(draft(b"%d" % n)) for n in range(50)))
    assert offsets == list(range(50))
    assert leader.high_watermark.value == 50
    await asyncio.sleep(0.1)
    assert all(values_of(replica) == values_of(leader) for replica in cluster.replicas.values())
    await cluster.close()


@simulated
async def test_a_restart_applies_everything_again_exactly_once() -> None:
    cluster = Cluster(1)
    await cluster.open()
    leader = await cluster.leader()
    for number in range(20):
        await leader.propose(draft(b"%d" % number))
    before = values_of(leader)
    await cluster.close()
    cluster.disks["n0"].crash()
    await cluster.open()
    assert values_of(await cluster.leader()) == before
    await cluster.close()


@simulated
async def test_a_deposed_leader_fails_its_pending_proposals_as_unknown() -> None:
    cluster = Cluster(3)
    await cluster.open()
    old = await cluster.leader()
    await old.propose(draft(b"kept"))
    cluster.wire.cut.add(cluster.node_of(old))
    outcome = old.propose(draft(b"lost"))
    new = await cluster.leader()
    assert new is not old
    await new.propose(draft(b"next"))
    with pytest.raises(OutcomeUnknown):
        await outcome
    with pytest.raises(NotLeader):
        old.propose(draft(b"refused"))
    cluster.wire.cut.clear()
    async with asyncio.timeout(10):
        while old.high_watermark.value < 2:
            await asyncio.sleep(0.01)
    assert values_of(old) == values_of(new)
    assert len(values_of(new)) == 2
    await cluster.close()


@simulated
async def test_a_full_disk_refuses_and_goes_on_when_there_is_space() -> None:
    cluster = Cluster(1)
    await cluster.open()
    leader = await cluster.leader()
    await leader.propose(draft(b"before"))
    disk = cluster.disks["n0"]
    disk.capacity_bytes = 0
    outcome = leader.propose(draft(bytes(900_000)))
    await asyncio.sleep(0.5)
    while outcome.done():  # it still fitted into preallocated space
        outcome = leader.propose(draft(bytes(900_000)))
        await asyncio.sleep(0.5)
    with pytest.raises(DiskFull):
        leader.propose(draft(b"refused"))
    assert leader.failure is None
    disk.capacity_bytes = None
    await asyncio.wait_for(outcome, 10)
    assert await leader.propose(draft(b"after")) > 1
    await cluster.close()


@simulated
async def test_a_failed_sync_fences_the_replica_and_the_others_go_on() -> None:
    cluster = Cluster(3)
    await cluster.open()
    old = await cluster.leader()
    await old.propose(draft(b"kept"))
    node = cluster.node_of(old)
    cluster.disks[node].fail_at(2, errno.EIO)  # the write is the first
    outcome = old.propose(draft(b"unknown"))
    async with asyncio.timeout(10):
        while old.failure is None:
            await asyncio.sleep(0.01)
    assert outcome.done(), "a fenced replica left a proposal waiting"
    with pytest.raises(LogFenced):
        old.propose(draft(b"refused"))
    del cluster.replicas[node]
    new = await cluster.leader()
    await new.propose(draft(b"next"))
    assert values_of(new)[0] == bytes(draft(b"kept").body)
    if outcome.exception() is not None:
        with pytest.raises(OutcomeUnknown):
            await outcome
    await cluster.close()


@simulated
async def test_what_is_not_committed_is_bounded() -> None:
    cluster = Cluster(3)
    await cluster.open(ReplicationConfig(max_pending_bytes=4 << 20))
    leader = await cluster.leader()
    cluster.wire.cut.add(cluster.node_of(leader))
    outcomes = [leader.propose(draft(bytes(1_000_000))) for _ in range(4)]
    with pytest.raises(Overloaded, match="the limit is"):
        leader.propose(draft(bytes(1_000_000)))
    await cluster.leader()
    results = await asyncio.gather(*outcomes, return_exceptions=True)
    assert all(isinstance(result, OutcomeUnknown) for result in results)
    await cluster.close()


@simulated
async def test_closing_fails_what_waits_and_refuses_what_comes() -> None:
    cluster = Cluster(3)
    await cluster.open()
    leader = await cluster.leader()
    cluster.wire.cut.add(cluster.node_of(leader))
    outcome = leader.propose(draft(b"waits"))
    reader = asyncio.ensure_future(leader.high_watermark.wait_above(10, 60))
    await asyncio.sleep(0)
    await leader.close()
    with pytest.raises(OutcomeUnknown):
        await outcome
    with pytest.raises(Closed):
        await reader
    with pytest.raises(Closed):
        leader.propose(draft(b"refused"))
    await leader.close()


@simulated
async def test_garbage_from_a_peer_changes_nothing() -> None:
    cluster = Cluster(3)
    await cluster.open()
    leader = await cluster.leader()
    for payload in (b"", b"\xff", b"\x03" + bytes(20), bytes(100)):
        leader.receive(NodeId("n9"), memoryview(payload))
    assert await leader.propose(draft(b"fine")) == 0
    await cluster.close()


@simulated
async def test_closing_a_host_closes_every_group_also_when_one_cannot_write() -> None:
    cluster = Cluster(1)
    await cluster.open()
    host = cluster.hosts["n0"]
    machine, members = Machine(), Members(tuple(cluster.nodes))
    other = await host.open_group(GroupId(2), members, machine, LogConfig())
    leader = await cluster.leader()
    while not other.serving:
        await asyncio.sleep(0.01)
    cluster.disks["n0"].capacity_bytes = 0
    leader.propose(draft(bytes(1_000_000)))
    await host.close()
    with pytest.raises(Closed):
        other.propose(draft(b"refused"))
    assert not host.replicas


@simulated
async def test_a_full_disk_before_the_first_term_is_saved_only_delays_the_election() -> None:
    cluster = Cluster(3)
    await cluster.open()
    for disk in cluster.disks.values():
        disk.capacity_bytes = 0
    await asyncio.sleep(3)
    assert [replica.failure for replica in cluster.replicas.values()] == [None] * 3
    for disk in cluster.disks.values():
        disk.capacity_bytes = None
    await (await cluster.leader()).propose(draft(b"in the end"))
    await cluster.close()


@simulated
async def test_an_interval_sync_that_is_due_on_a_full_disk_does_not_spin() -> None:
    cluster = Cluster(1, fsync="interval")
    await cluster.open()
    leader = await cluster.leader()
    await asyncio.sleep(1)
    await leader.propose(draft(b"written, not synced"))
    cluster.disks["n0"].capacity_bytes = 0
    outcome = leader.propose(draft(bytes(900_000)))
    await asyncio.sleep(5)  # a busy loop is a Livelock here
    cluster.disks["n0"].capacity_bytes = None
    assert await asyncio.wait_for(outcome, 10) == 1
    await cluster.close()


@simulated
async def test_what_waits_for_a_full_disk_is_bounded() -> None:
    cluster = Cluster(3)
    await cluster.open(ReplicationConfig(max_waiting_messages=50))
    leader = await cluster.leader()
    follower = next(node for node in cluster.nodes if cluster.replicas[node] is not leader)
    cluster.disks[follower].capacity_bytes = 0
    for _ in range(5):
        await leader.propose(draft(bytes(900_000)))
    await asyncio.sleep(30)
    assert leader.serving
    assert len(cluster.replicas[follower]._persister._messages) <= 100
    cluster.disks[follower].capacity_bytes = None
    async with asyncio.timeout(10):
        while cluster.replicas[follower].high_watermark.value < 5:
            await asyncio.sleep(0.01)
    await cluster.close()


@simulated
async def test_a_close_that_is_cancelled_goes_on_and_the_next_one_waits_for_it() -> None:
    cluster = Cluster(1)
    await cluster.open()
    leader = await cluster.leader()
    outcome = leader.propose(draft(b"waits"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(cluster.hosts["n0"].close_group(GROUP))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert not leader.serving
    await cluster.close()
    assert outcome.done()
    with pytest.raises(Closed):
        leader.log.flush()


@simulated
async def test_a_follower_that_lost_its_unsynced_tail_in_a_power_cut_gets_it_again() -> None:
    cluster = Cluster(3, fsync="interval")
    await cluster.open()
    leader = await cluster.leader()
    await leader.propose(draft(b"synced"))
    await asyncio.sleep(1)
    outcomes = [leader.propose(draft(b"%d" % number)) for number in range(200)]
    await asyncio.gather(*outcomes)
    await asyncio.sleep(0.02)
    node = next(node for node in cluster.nodes if cluster.replicas[node] is not leader)
    lost = cluster.replicas[node]
    lost.receive = lambda sender, payload: None  # type: ignore[method-assign]
    lost._closed = True
    cluster.disks[node].crash()
    await cluster.open_node(node)
    again = cluster.replicas[node]
    assert again.log.last_index < leader.log.last_index, "nothing was lost: this tests nothing"
    term = leader.core.term
    async with asyncio.timeout(10):
        while again.applied_index < leader.log.last_index:
            await asyncio.sleep(0.01)
    assert (leader.serving, leader.core.term) == (True, term), "an election hid it"
    assert values_of(again) == values_of(leader)
    for each in (cluster.replicas[other] for other in cluster.nodes):
        await each.close()


@simulated
async def test_a_leader_whose_disk_is_full_lets_another_lead_and_comes_back() -> None:
    cluster = Cluster(3)
    await cluster.open()
    old = await cluster.leader()
    await old.propose(draft(b"before"))
    disk = cluster.disks[cluster.node_of(old)]
    disk.capacity_bytes = 0
    async with asyncio.timeout(20):
        while old.serving:
            with suppress(Unavailable, DiskFull, OutcomeUnknown):
                await old.propose(draft(bytes(900_000)))
            await asyncio.sleep(0.01)
    new = await cluster.leader()
    assert new is not old
    await new.propose(draft(b"after"))
    assert old.failure is None
    disk.capacity_bytes = None
    async with asyncio.timeout(20):
        while old.high_watermark.value < new.high_watermark.value:
            await asyncio.sleep(0.01)
    assert values_of(old) == values_of(new)
    await cluster.close()
