"""The start of a group's log: every replica follows what was committed, and restarts keep it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from quorumlog.broker.partition import PartitionMachine
from quorumlog.errors import Closed
from quorumlog.log.config import LogConfig
from quorumlog.log.state_snapshot import StateSnapshot, load_newest, save_snapshot
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.replica import Replica
from quorumlog.replication.state_machine import LogStart
from quorumlog.types import Index, NodeId, Offset
from support.replica_cluster import GROUP, Cluster, draft, simulated

RECORD = bytes(300)
DIRECTORY = "groups/1"
RARELY = ReplicationConfig(state_interval_bytes=1 << 40)
EVERY_BATCH = ReplicationConfig(state_interval_bytes=1)


async def cluster_with(
    size: int, records: int, config: ReplicationConfig = RARELY
) -> tuple[Cluster, Replica]:
    """Records of their own batches, about three in a segment; everybody has applied them."""
    cluster = Cluster(size, machine=PartitionMachine)
    cluster.log_config = LogConfig(segment_bytes=1200, index_interval_bytes=256)
    await cluster.open(config)
    leader = await cluster.leader()
    for _ in range(records):
        await leader.propose(draft(RECORD))
    return cluster, leader


def machine_of(replica: Replica) -> PartitionMachine:
    machine = replica.state_machine
    assert isinstance(machine, PartitionMachine)
    return machine


async def trim(leader: Replica, offset: int, free_index: int) -> LogStart:
    start = await leader.propose(machine_of(leader).start_draft(offset, free_index))
    assert isinstance(start, LogStart)
    return start


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def segments_of(cluster: Cluster, node: NodeId) -> list[str]:
    names = cluster.disks[node].list_directory(DIRECTORY)
    return [name for name in names if name.endswith(".log")]


@simulated
async def test_all_replicas_begin_where_the_command_says_once_it_is_committed() -> None:
    cluster, leader = await cluster_with(3, 10)
    cut_off = next(node for node in cluster.nodes if node != cluster.node_of(leader))
    cluster.wire.cut.add(cut_off)
    assert await trim(leader, 7, 6) == LogStart(Offset(7), Index(6))
    assert leader.log.start_offset == 7
    assert cluster.replicas[cut_off].log.start_offset == 0
    cluster.wire.cut.clear()
    await until(lambda: all(each.log.start_offset == 7 for each in cluster.replicas.values()))
    states = {each.state_machine.snapshot() for each in cluster.replicas.values()}
    assert len(states) == 1
    await cluster.close()


@simulated
async def test_a_start_that_is_not_committed_moves_nothing() -> None:
    cluster, leader = await cluster_with(3, 5)
    cluster.wire.cut.add(cluster.node_of(leader))
    outcome = leader.propose(machine_of(leader).start_draft(4, 3))
    await asyncio.sleep(0.1)
    assert leader.log.start_offset == 0
    await cluster.close()
    assert outcome.exception() is not None


@simulated
async def test_segments_go_as_far_as_they_hold_deleted_records_only_and_nobody_needs_them() -> None:
    cluster, leader = await cluster_with(1, 13)
    before = segments_of(cluster, NodeId("n0"))
    await trim(leader, 12, 5)
    # The index 5 lies in the second segment: that one has batches others may need.
    assert await leader.trimmer.remove_deleted(1 << 40) == 1
    assert segments_of(cluster, NodeId("n0")) == before[1:]
    await trim(leader, 12, 12)
    assert await leader.trimmer.remove_deleted(9) == 2
    assert await leader.trimmer.remove_deleted(1 << 40) == 1
    assert leader.log.start_index > 9
    await cluster.close()


@simulated
async def test_what_the_core_does_not_know_to_be_durable_stays() -> None:
    cluster, leader = await cluster_with(1, 13)
    await trim(leader, 12, 12)
    # As between the end of a flush and the turn of the loop that hears of it.
    leader.core._durable_index = Index(5)
    assert await leader.trimmer.remove_deleted(1 << 40) == 1
    assert leader.log.start_index <= 5
    await cluster.close()


@simulated
async def test_the_last_segment_is_sealed_as_soon_as_all_in_it_is_deleted() -> None:
    cluster, leader = await cluster_with(1, 2)
    await trim(leader, 2, 3)
    await trim(leader, 2, 4)
    assert leader.log.active_base_offset == 2
    assert await leader.trimmer.remove_deleted(1 << 40) == 1
    assert len(segments_of(cluster, NodeId("n0"))) == 1
    assert leader.log.last_index == 5
    await cluster.close()


@simulated
async def test_a_roll_seals_the_last_segment_without_a_further_batch() -> None:
    cluster, leader = await cluster_with(1, 1)
    before = len(segments_of(cluster, NodeId("n0")))
    leader.trimmer.roll()
    await until(lambda: len(segments_of(cluster, NodeId("n0"))) == before + 1)
    infos, _ = await leader.trimmer.segments_before_damage()
    assert (infos[-1].is_active, infos[-1].base_offset) == (True, 1)
    await cluster.close()


@pytest.mark.parametrize("config", [RARELY, EVERY_BATCH], ids=["from the log", "from the state"])
@pytest.mark.parametrize("is_clean", [True, False], ids=["stopped", "killed"])
def test_a_restart_keeps_the_start(config: ReplicationConfig, is_clean: bool) -> None:
    @simulated
    async def scenario() -> None:
        cluster, leader = await cluster_with(1, 12, config)
        node = NodeId("n0")
        await trim(leader, 8, 8)
        assert await leader.trimmer.remove_deleted(1 << 40) > 0
        state = leader.state_machine.snapshot()
        await asyncio.sleep(0.1)
        disk = cluster.disks[node].copy()
        await cluster.close()
        if not is_clean:
            cluster.disks[node] = disk
        await cluster.open_node(node, config)
        replica = cluster.replicas[node]
        await until(lambda: replica.serving)
        assert replica.log.start_offset == 8
        assert replica.log.start_index > 1
        assert replica.high_watermark.value == 12
        assert replica.state_machine.snapshot() == state
        await cluster.close()

    scenario()


@simulated
async def test_the_state_moves_the_start_of_a_log_whose_own_mark_is_older() -> None:
    cluster, leader = await cluster_with(1, 6, EVERY_BATCH)
    node = NodeId("n0")
    old = cluster.disks[node].copy()
    await trim(leader, 5, 0)
    await asyncio.sleep(0.1)
    saved = load_newest(cluster.disks[node], DIRECTORY, 1 << 40).snapshot
    assert saved is not None
    await cluster.close()
    for name in old.list_directory(DIRECTORY):
        if name.endswith(".state"):
            old.remove(f"{DIRECTORY}/{name}")
    cluster.disks[node] = old
    with_state(cluster, saved)
    await cluster.open_node(node, EVERY_BATCH)
    assert cluster.replicas[node].log.start_offset == 5
    await cluster.close()


def with_state(cluster: Cluster, saved: StateSnapshot) -> None:
    """Give the log, which ends before ``saved`` was made, that state as of its own last batch."""
    as_of_before = replace(saved, index=Index(saved.index - 1))
    save_snapshot(cluster.disks[NodeId("n0")], DIRECTORY, as_of_before)


@simulated
async def test_a_configuration_is_saved_before_its_batch_is_removed() -> None:
    cluster, leader = await cluster_with(1, 6)
    node = NodeId("n0")
    members = Members(tuple(cluster.nodes), (NodeId("learner"),))
    await leader.propose_members(members)
    for _ in range(8):
        await leader.propose(draft(RECORD))
    await trim(leader, 14, 14)
    cluster.disks[node].capacity_bytes = 0
    assert await leader.trimmer.remove_deleted(1 << 40) == 2
    assert leader.log.start_index <= 8, "the configuration is batch 8"
    cluster.disks[node].capacity_bytes = None
    assert await leader.trimmer.remove_deleted(1 << 40) > 0
    assert leader.log.start_index > 8
    saved = load_newest(cluster.disks[node], DIRECTORY, 1 << 40).snapshot
    assert saved is not None
    assert Members.decode(saved.configuration) == members
    disk = cluster.disks[node].copy()
    await cluster.close()
    cluster.disks[node] = disk
    await cluster.open_node(node, RARELY)
    assert cluster.replicas[node].core.members == members
    await cluster.close()


async def after_a_move(config: ReplicationConfig) -> tuple[Cluster, Replica, NodeId, Members]:
    """A group of three, whose logs begin behind the batch that made a learner; and a follower of
    it that is stopped."""
    cluster, leader = await cluster_with(3, 6, config)
    node = next(node for node in cluster.nodes if node != cluster.node_of(leader))
    members = Members(tuple(cluster.nodes), (NodeId("learner"),))
    await leader.propose_members(members)
    for _ in range(8):
        await leader.propose(draft(RECORD))
    await trim(leader, 14, 14)
    replicas = list(cluster.replicas.values())
    await until(lambda: all(each.applied_index == leader.applied_index for each in replicas))
    await asyncio.sleep(0.1)
    follower = cluster.replicas[node]
    assert await follower.trimmer.remove_deleted(1 << 40) > 0
    assert follower.log.start_index > 8, "the configuration is batch 8"
    await cluster.hosts[node].close()
    return cluster, leader, node, members


def states_of(cluster: Cluster, node: NodeId) -> list[str]:
    names = cluster.disks[node].list_directory(DIRECTORY)
    return [f"{DIRECTORY}/{name}" for name in names if name.endswith(".state")]


@simulated
async def test_who_lost_the_configuration_with_its_states_starts_over() -> None:
    cluster, _, node, members = await after_a_move(EVERY_BATCH)
    for path in states_of(cluster, node):
        cluster.disks[node].flip_bit(path, 60, 3)
    cluster.wire.cut.add(node)
    await cluster.open_node(node, EVERY_BATCH)
    replica = cluster.hosts[node].replicas[GROUP]
    assert (replica.log.last_index, replica.core.recovering) == (0, True)
    cluster.wire.cut.clear()
    await until(lambda: not cluster.hosts[node].replicas[GROUP].core.recovering)
    await until(lambda: cluster.hosts[node].replicas[GROUP].core.members == members)
    await cluster.close()


@simulated
async def test_a_later_configuration_in_the_log_does_without_the_states() -> None:
    cluster, leader, node, _ = await after_a_move(EVERY_BATCH)
    await cluster.open_node(node, EVERY_BATCH)
    later = Members(tuple(cluster.nodes), (NodeId("other"),))
    await leader.propose_members(later)
    replica = cluster.replicas[node]
    await until(lambda: replica.applied_index == leader.applied_index)
    await cluster.hosts[node].close()
    for path in states_of(cluster, node):
        cluster.disks[node].flip_bit(path, 60, 3)
    await cluster.open_node(node, EVERY_BATCH)
    core = cluster.replicas[node].core
    assert (core.members, core.recovering) == (later, False)
    await cluster.close()


@simulated
async def test_the_configuration_of_a_state_that_the_machine_cannot_read_holds() -> None:
    cluster, _, node, members = await after_a_move(EVERY_BATCH)
    disk = cluster.disks[node]
    newest = load_newest(disk, DIRECTORY, 1 << 40).snapshot
    assert newest is not None
    for path in states_of(cluster, node):
        disk.remove(path)
    save_snapshot(disk, DIRECTORY, replace(newest, state=b"of a later release"))
    await cluster.open_node(node, EVERY_BATCH)
    replica = cluster.hosts[node].replicas[GROUP]
    assert replica.log.start_index > 8
    assert (replica.core.members, replica.core.recovering) == (members, False)
    await cluster.close()


@simulated
async def test_a_log_that_lost_its_first_batches_before_any_state_was_saved_goes_on() -> None:
    cluster, leader = await cluster_with(3, 8)
    await trim(leader, 6, 6)
    node = next(node for node in cluster.nodes if node != cluster.node_of(leader))
    follower = cluster.replicas[node]
    await until(lambda: follower.applied_index == leader.applied_index)
    await asyncio.sleep(0.1)
    assert await follower.trimmer.remove_deleted(1 << 40) > 0
    cluster.power_cut(node)
    assert states_of(cluster, node) == []
    await cluster.open_node(node, RARELY)
    replica = cluster.replicas[node]
    assert replica.log.start_index > 1
    assert (replica.core.members, replica.core.recovering) == (leader.core.members, False)
    await cluster.close()


@simulated
async def test_a_close_waits_for_what_is_under_way_and_begins_nothing_more() -> None:
    cluster, leader = await cluster_with(1, 13)
    await trim(leader, 12, 12)
    removing = asyncio.create_task(leader.trimmer.remove_deleted(1 << 40))
    await asyncio.sleep(0)
    removing.cancel()
    await cluster.close()
    assert len(segments_of(cluster, NodeId("n0"))) == 1
    with pytest.raises(Closed):
        await leader.trimmer.segments_before_damage()
