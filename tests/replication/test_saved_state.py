"""A start takes the newest state that is whole and of this log, and applies what is behind it."""

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from quorumlog.errors import ConfigError, LogFenced
from quorumlog.log.state_snapshot import StateSnapshot, load_newest, save_snapshot
from quorumlog.replication import saved_state
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.replica import Replica
from quorumlog.replication.saved_state import BATCH_COST_BYTES
from quorumlog.types import Index, NodeId, Offset, Term
from sim.disk import SimDisk
from support.replica_cluster import Cluster, draft, machine_of, simulated, values_of

NODE = NodeId("n0")
DIRECTORY = "groups/1"
END = 1 << 40
EVERY_BATCH = ReplicationConfig(state_interval_bytes=1)


async def produce(replica: Replica, *values: bytes) -> None:
    for value in values:
        await replica.propose(draft(value))


async def cluster_with(
    count: int, config: ReplicationConfig | None = None
) -> tuple[Cluster, Replica]:
    """One replica that leads and has applied a no-op and ``count`` records."""
    cluster = Cluster(1)
    await cluster.open(config)
    leader = await cluster.leader()
    await produce(leader, *(b"%d" % number for number in range(count)))
    return cluster, leader


async def restarted(
    cluster: Cluster, disk: SimDisk | None = None, config: ReplicationConfig | None = None
) -> Replica:
    """The replica after a clean stop; with ``disk``, as it starts on that one instead."""
    await cluster.close()
    if disk is not None:
        cluster.disks[NODE] = disk
    await cluster.open_node(NODE, config)
    return cluster.replicas[NODE]


async def after_saves(cluster: Cluster) -> SimDisk:
    """What the disk would hold if the process were killed now, its saves all done."""
    await asyncio.sleep(0.1)
    return cluster.disks[NODE].copy()


def saved_indexes(disk: SimDisk) -> list[int]:
    names = disk.list_directory(DIRECTORY)
    return [int(name.split(".")[0]) for name in names if name.endswith(".state")]


def newest(disk: SimDisk) -> StateSnapshot:
    snapshot = load_newest(disk, DIRECTORY, END).snapshot
    assert snapshot is not None
    return snapshot


def path_of(index: int) -> str:
    return f"{DIRECTORY}/{index:020}.state"


def refusals(logs: Sequence[dict[str, object]]) -> list[str]:
    return [str(line["error"]) for line in logs if line["event"] == "state_snapshot_refused"]


@simulated
async def test_after_a_clean_stop_nothing_is_applied_again() -> None:
    cluster, leader = await cluster_with(20)
    before, watermark = values_of(leader), leader.high_watermark.value
    again = await restarted(cluster)
    assert values_of(again) == before
    assert again.applied_index == again.core.commit_index == again.log.last_index == 21
    assert again.high_watermark.value == watermark == 20
    assert machine_of(again).applied == []
    leader = await cluster.leader()
    await produce(leader, b"more")
    assert values_of(leader) == [*before, draft(b"more").body]
    assert machine_of(leader).applied == [22, 23]
    await cluster.close()


@simulated
async def test_after_a_kill_only_what_is_behind_the_newest_state_is_applied() -> None:
    size_bytes = draft(b"0").stamp(1, 1, 0, 0).size_bytes
    config = ReplicationConfig(state_interval_bytes=8 * (size_bytes + BATCH_COST_BYTES))
    cluster, _ = await cluster_with(30, config)
    killed = await after_saves(cluster)
    (older, newer) = saved_indexes(killed)
    assert 8 <= newer - older <= 9
    again = await restarted(cluster, killed, config)
    assert again.applied_index == newer
    leader = await cluster.leader()
    assert machine_of(leader).applied == list(range(newer + 1, leader.log.last_index + 1))
    assert len(values_of(leader)) == 30
    await cluster.close()


@simulated
async def test_a_start_applies_small_batches_a_few_in_a_turn() -> None:
    size_bytes = draft(b"00").stamp(1, 1, 0, 0).size_bytes
    config = ReplicationConfig(apply_chunk_bytes=10 * (size_bytes + BATCH_COST_BYTES))
    cluster, _ = await cluster_with(60)
    replica = await restarted(cluster, await after_saves(cluster), config)
    turns = [replica.applied_index]
    while turns[-1] < 60:
        await asyncio.sleep(0)
        turns.append(replica.applied_index)
    assert turns[0] < 60
    assert max(after - before for before, after in pairwise(turns)) in range(9, 12)
    await cluster.close()


@simulated
async def test_below_the_interval_nothing_is_saved_before_the_stop() -> None:
    cluster, leader = await cluster_with(20)
    assert saved_indexes(await after_saves(cluster)) == []
    await cluster.close()
    assert saved_indexes(cluster.disks[NODE]) == [leader.log.last_index]
    assert ReplicationConfig().state_interval_bytes == 64 * 1024 * 1024
    with pytest.raises(ConfigError, match="state_interval_bytes"):
        ReplicationConfig(state_interval_bytes=0)


@simulated
async def test_a_stop_saves_nothing_where_nothing_was_applied_since() -> None:
    cluster, leader = await cluster_with(5)
    await cluster.close()
    calls = cluster.disks[NODE].calls["rename"]
    alone = Cluster(2)
    alone.disks[NODE] = cluster.disks[NODE]
    await alone.open_node(NODE)  # one of two: it cannot lead, so it appends nothing
    await alone.close()
    assert cluster.disks[NODE].calls["rename"] == calls
    assert saved_indexes(cluster.disks[NODE]) == [leader.log.last_index]


@simulated
async def test_a_damaged_state_is_passed_over_and_said_so() -> None:
    cluster, _ = await cluster_with(10, EVERY_BATCH)
    killed = await after_saves(cluster)
    older, newer = saved_indexes(killed)
    killed.flip_bit(path_of(newer), 60, 3)
    with capture_logs() as logs:
        again = await restarted(cluster, killed)
    assert again.applied_index == older
    assert [path_of(newer) in text for text in refusals(logs)] == [True]
    await cluster.close()

    killed = killed.copy()
    killed.flip_bit(path_of(newer), 60, 3)
    for index in saved_indexes(killed):
        killed.flip_bit(path_of(index), 60, 3)
    again = await restarted(cluster, killed)
    assert again.applied_index == 0
    leader = await cluster.leader()
    assert values_of(leader) == [each.body for each in leader.log.batches(2) if each.body]
    await cluster.close()


@simulated
async def test_a_state_that_the_machine_cannot_read_is_passed_over() -> None:
    cluster, _ = await cluster_with(10, EVERY_BATCH)
    killed = await after_saves(cluster)
    older, newer = saved_indexes(killed)
    save_snapshot(killed, DIRECTORY, replace(newest(killed), state=b"of a later release"))
    with capture_logs() as logs:
        again = await restarted(cluster, killed)
    assert (again.applied_index, len(values_of(again))) == (older, older - 1)
    assert ["not a state of this machine" in text for text in refusals(logs)] == [True]
    assert newer > older
    await cluster.close()


@simulated
async def test_a_state_beyond_the_end_of_the_log_is_not_taken_and_goes_with_the_next() -> None:
    # A leader may have applied, on the word of others, what its own disk then lost.
    cluster, _ = await cluster_with(5)
    killed = await after_saves(cluster)
    save_snapshot(killed, DIRECTORY, StateSnapshot(Index(90), Term(1), Offset(89), 0, b"", b"[]"))
    again = await restarted(cluster, killed)
    assert (again.applied_index, again.core.commit_index) < (90, 90)
    leader = await cluster.leader()
    assert len(values_of(leader)) == 5
    await cluster.close()
    assert saved_indexes(killed) == [leader.log.last_index]


@simulated
async def test_a_state_of_another_term_is_of_another_log_and_not_taken() -> None:
    cluster, _ = await cluster_with(5, EVERY_BATCH)
    killed = await after_saves(cluster)
    older, newer = saved_indexes(killed)
    true = newest(killed)
    save_snapshot(killed, DIRECTORY, replace(true, term=Term(true.term + 1)))
    with capture_logs() as logs:
        again = await restarted(cluster, killed)
    assert again.applied_index == older < newer
    assert ["another log" in text for text in refusals(logs)] == [True]
    await cluster.close()


@simulated
async def test_a_state_from_before_the_start_of_the_log_is_not_taken() -> None:
    cluster, leader = await cluster_with(5)
    killed = await after_saves(cluster)
    save_snapshot(killed, DIRECTORY, StateSnapshot(Index(3), Term(1), Offset(2), 0, b"", b"[]"))
    log = leader.log
    assert log.roll()
    await produce(leader, b"next")
    log.advance_start(5)
    await asyncio.sleep(0.1)
    assert log.remove_deleted() == 1
    assert log.start_index == 7
    removed = await after_saves(cluster)
    for index in (3, 6):
        snapshot = StateSnapshot(Index(index), Term(1), Offset(index - 1), 0, b"", b"[]")
        disk = removed.copy()
        save_snapshot(disk, DIRECTORY, snapshot)
        with capture_logs() as logs:
            again = await restarted(cluster, disk)
        # The state at the log's start is what to begin with; one before that is not.
        assert (again.high_watermark.value, len(refusals(logs))) == (5, int(index == 3))
        leader = await cluster.leader()
        assert values_of(leader)[0] == draft(b"next").body
    await cluster.close()


@simulated
async def test_the_state_holds_what_is_committed_and_nothing_behind_it() -> None:
    cluster = Cluster(2)
    await cluster.open(EVERY_BATCH)
    leader = await cluster.leader()
    await produce(leader, b"safe")
    cluster.wire.cut = set(cluster.nodes)
    pending = leader.propose(draft(b"lost"))
    await asyncio.sleep(0.05)
    assert leader.log.durable_index > leader.applied_index
    node, applied = cluster.node_of(leader), leader.applied_index
    await cluster.close()
    assert pending.exception() is not None
    assert newest(cluster.disks[node]).index == applied
    assert saved_indexes(cluster.disks[node])[-1] == applied


@simulated
async def test_replicas_save_the_same_bytes_at_the_same_index() -> None:
    cluster = Cluster(3)
    await cluster.open(EVERY_BATCH)
    leader = await cluster.leader()
    await produce(leader, *(b"%d" % number for number in range(10)))
    await asyncio.sleep(0.3)
    await cluster.close()
    contents = {disk.content(path_of(leader.log.last_index)) for disk in cluster.disks.values()}
    assert len(contents) == 1


@simulated
async def test_members_are_those_of_the_state_and_of_the_log_behind_it() -> None:
    cluster, leader = await cluster_with(3)
    await leader.propose_members(Members((NODE,), (NodeId("learner"),)))
    await produce(leader, b"x")
    again = await restarted(cluster)
    assert newest(cluster.disks[NODE]).index == again.applied_index
    assert again.core.members == Members((NODE,), (NodeId("learner"),))
    leader = await cluster.leader()
    await leader.propose_members(Members((NODE,), (NodeId("other"),)))
    killed = await after_saves(cluster)
    assert newest(killed).index < leader.log.last_index
    again = await restarted(cluster, killed)
    assert again.core.members == Members((NODE,), (NodeId("other"),))
    for _ in range(3):
        # Each start but the first knows it from the state alone, and saves it again.
        await cluster.leader()
        again = await restarted(cluster)
        assert again.core.members == Members((NODE,), (NodeId("other"),))
    await cluster.close()


@simulated
async def test_what_cannot_be_saved_is_tried_again_and_stops_nobody() -> None:
    changes = 6  # create, cut, write, sync, rename, sync of the directory
    for change in range(1, changes + 1):
        cluster, leader = await cluster_with(3)
        await cluster.close()
        await cluster.open_node(NODE, EVERY_BATCH)
        leader = await cluster.leader()
        await asyncio.sleep(0.1)
        saver, disk = leader._saver, cluster.disks[NODE]
        disk.fail_at(change, errno.ENOSPC)
        header = next(iter(leader.log.headers(leader.applied_index)))
        with capture_logs() as logs:
            await saver._write(saver._take(header))
        assert [line["event"] for line in logs] == ["state_not_saved"], change
        assert leader.failure is None
        await produce(leader, b"on")
        await cluster.close()
        assert newest(disk).index == leader.applied_index


@simulated
async def test_a_stop_waits_for_the_save_under_way() -> None:
    cluster, leader = await cluster_with(0, EVERY_BATCH)
    await asyncio.sleep(0.1)
    outcome = leader.propose(draft(b"x"))
    await outcome
    assert leader._saver._saving is not None
    await leader.close()
    assert leader._saver._saving is None
    assert saved_indexes(cluster.disks[NODE])[-1] == leader.applied_index
    await cluster.close()


@simulated
async def test_a_bug_in_saving_fences_the_replica() -> None:
    cluster, leader = await cluster_with(0, EVERY_BATCH)
    await asyncio.sleep(0.1)

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_state, "save_snapshot", broken)
        await produce(leader, b"x")
        await asyncio.sleep(0.1)
    assert isinstance(leader.failure, ZeroDivisionError)
    with pytest.raises(LogFenced):
        leader.propose(draft(b"y"))
    await cluster.close()


@simulated
async def test_a_fenced_replica_saves_no_state_when_it_closes() -> None:
    cluster, leader = await cluster_with(3)
    leader._fence(ZeroDivisionError("a bug"))
    await cluster.close()
    assert saved_indexes(cluster.disks[NODE]) == []


@simulated
async def test_while_the_log_waits_for_a_full_disk_no_state_goes_that_the_log_would_need() -> None:
    cluster = Cluster(3)
    await cluster.open(EVERY_BATCH)
    leader = await cluster.leader()
    await produce(leader, b"1", b"2", b"3")
    await asyncio.sleep(0.2)
    node = next(each for each in cluster.nodes if cluster.replicas[each] is not leader)
    disk, replica = cluster.disks[node], cluster.replicas[node]
    disk.fail_at(1, errno.ENOSPC)
    for number in range(4, 9):
        await produce(leader, b"%d" % number)
        await asyncio.sleep(0.05)
    durable_index = replica.log.durable_index
    older_index = await replica.trimmer.older_saved_index()
    killed = disk.copy()
    assert durable_index + 2 < replica.applied_index == saved_indexes(killed)[-1]
    assert 0 < older_index < durable_index
    assert len([index for index in saved_indexes(killed) if index <= durable_index]) == 2
    await cluster.close()
