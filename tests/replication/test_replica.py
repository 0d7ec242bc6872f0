"""A replica on its ports: what it promises when disks fill, fail, or it is deposed."""

import asyncio
import errno
from contextlib import suppress

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
from quorumlog.log.config import LogConfig
from quorumlog.replication import opening as opening_module
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.role import Role
from quorumlog.types import GroupId, Index, NodeId
from support.replica_cluster import GROUP, Cluster, Machine, draft, simulated, values_of


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
    assert len(cluster.replicas[follower]._driver.persister._messages) <= 100
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


@simulated
async def test_a_stale_leader_behind_a_partition_answers_no_read() -> None:
    cluster = Cluster(3)
    await cluster.open()
    old = await cluster.leader()
    await old.propose(draft(b"first"))
    await asyncio.sleep(0.2)
    assert old.read_barrier().done(), "the lease is not free"
    cluster.wire.cut.add(cluster.node_of(old))
    asked: list[asyncio.Future[Index]] = []
    answered_at = cut_at = asyncio.get_running_loop().time()

    def note(barrier: asyncio.Future[Index]) -> None:
        nonlocal answered_at
        if barrier.exception() is None:
            answered_at = asyncio.get_running_loop().time()

    while old.core.role is Role.LEADER:
        asked.append(old.read_barrier())
        asked[-1].add_done_callback(note)
        await asyncio.sleep(0.005)
    new = await cluster.leader()
    await new.propose(draft(b"second"))
    results = await asyncio.gather(*asked, return_exceptions=True)
    refused = [result for result in results if isinstance(result, NotLeader)]
    assert 0 < len(refused) < len(results)
    assert all(isinstance(result, NotLeader) for result in results[-len(refused) :])
    assert answered_at - cut_at < 0.75 * RaftConfig().election_timeout_s
    with pytest.raises(NotLeader):
        old.read_barrier()
    cluster.wire.cut.clear()
    await cluster.close()


@simulated
async def test_a_read_without_a_lease_asks_a_majority_and_waits_for_what_is_applied() -> None:
    cluster = Cluster(3)
    await cluster.open(ReplicationConfig(raft=RaftConfig(lease_fraction=0.0)))
    leader = await cluster.leader()
    outcome = leader.propose(draft(b"first"))
    before = leader.read_barrier()
    assert not before.done()
    await outcome
    barrier = leader.read_barrier()
    assert not barrier.done()
    assert await barrier >= leader.log.last_index
    await before
    assert values_of(leader) == [bytes(draft(b"first").body)]
    await cluster.close()


@simulated
async def test_reads_that_wait_fail_when_the_replica_closes_or_is_fenced() -> None:
    cluster = Cluster(3)
    await cluster.open(ReplicationConfig(raft=RaftConfig(lease_fraction=0.0)))
    leader = await cluster.leader()
    cluster.wire.cut.add(cluster.node_of(leader))
    waiting = leader.read_barrier()
    leader._fence(OSError("gone"))
    with pytest.raises(LogFenced):
        await waiting
    with pytest.raises(LogFenced):
        leader.read_barrier()
    cluster.wire.cut.clear()
    del cluster.replicas[cluster.node_of(leader)]
    other = await cluster.leader()
    waiting = other.read_barrier()
    await other.close()
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        other.read_barrier()
    await cluster.close()


@simulated
async def test_a_leader_whose_disk_hangs_lets_one_lead_that_is_ahead_of_it() -> None:
    cluster = Cluster(3)
    await cluster.open()
    old = await cluster.leader()
    await old.propose(draft(b"before"))
    cluster.slow_down(cluster.node_of(old), 30.0)
    # The followers commit it without this disk, and know nothing of its trouble.
    await old.propose(draft(b"meanwhile"))
    began_s = asyncio.get_running_loop().time()
    async with asyncio.timeout(10):
        while old.core.role is Role.LEADER:
            await asyncio.sleep(0.01)
    assert 1.5 < asyncio.get_running_loop().time() - began_s < 2.5
    new = await cluster.leader()
    await new.propose(draft(b"after"))
    assert values_of(new) == [bytes(draft(v).body) for v in (b"before", b"meanwhile", b"after")]
    assert old.failure is None
    cluster.slow_down(cluster.node_of(old), 0.001)
    await asyncio.sleep(40)
    assert values_of(old) == values_of(new)
    await cluster.close()


@simulated
async def test_when_all_disks_hang_their_leader_stays_and_takes_proposals() -> None:
    cluster = Cluster(3)
    await cluster.open()
    leader = await cluster.leader()
    await leader.propose(draft(b"before"))
    await asyncio.sleep(0.5)
    for node in cluster.nodes:
        cluster.slow_down(node, 8.0)
    outcome = leader.propose(draft(b"late"))
    term = leader.core.term
    async with asyncio.timeout(30):
        while not outcome.done():
            leader.propose(draft(b"later"))
            await asyncio.sleep(0.1)
    assert (leader.serving, leader.core.term) == (True, term)
    await cluster.close()


@simulated
async def test_followers_of_a_fenced_leader_elect_within_two_election_timeouts() -> None:
    cluster = Cluster(3)
    await cluster.open()
    old = await cluster.leader()
    await old.propose(draft(b"kept"))
    cluster.disks[cluster.node_of(old)].fail_at(2, errno.EIO)
    old.propose(draft(b"unknown"))
    while old.failure is None:
        await asyncio.sleep(0.001)
    fenced_s = asyncio.get_running_loop().time()
    del cluster.replicas[cluster.node_of(old)]
    new = await cluster.leader()
    assert asyncio.get_running_loop().time() - fenced_s < 2.2 * RaftConfig().election_timeout_s
    await new.propose(draft(b"next"))
    await cluster.close()
    await old.close()


@simulated
async def test_a_disk_that_fails_while_an_opening_is_given_up_does_not_hide_that() -> None:
    cluster = Cluster(1)
    started = asyncio.Event()

    async def wait_for_ever(**arguments: object) -> None:
        started.set()
        await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opening_module, "find_states", wait_for_ever)
        opening = asyncio.create_task(cluster.open())
        await started.wait()
        cluster.disks[NodeId("n0")].fail_at(1, errno.EIO)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


@simulated
async def test_a_network_slower_than_the_election_timeout_has_a_leader_that_stays() -> None:
    """Each way takes longer than a follower would wait; the beats tell so (sleep/delays.py)."""
    cluster = Cluster(3)
    cluster.wire.delay_s = 2 * RaftConfig().election_timeout_s
    await cluster.open()
    leader = await cluster.leader()
    term = leader.core.term
    for number in range(10):
        await leader.propose(draft(b"%d" % number))
        await asyncio.sleep(1)
    assert leader.core.term == term
    cluster.wire.delay_s = 0.0005
    await asyncio.sleep(5)
    await cluster.close()


@simulated
async def test_patience_that_is_over_holds_up_no_election() -> None:
    cluster = Cluster(3)
    cluster.wire.delay_s = 2 * RaftConfig().election_timeout_s
    await cluster.open()
    old = await cluster.leader()
    await asyncio.sleep(3)
    for number in range(5):
        await old.propose(draft(b"awake %d" % number))
    for replica in cluster.replicas.values():
        replica.core._patience_drawn = 5.0  # the most
    cluster.wire.delay_s = 0.0005
    cut_s = asyncio.get_running_loop().time()
    cluster.wire.cut = {cluster.node_of(old)}
    new = await cluster.leader()
    assert new is not old
    # As long as it lasted it would be another six seconds: half of it is forgotten after 1.7 s.
    assert asyncio.get_running_loop().time() - cut_s < 3
    await cluster.close()
