"""A replica whose log is damaged sets it aside, gets it again, and votes for nobody meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs

from quorumlog.errors import Corrupt, StorageError
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.log import Log, LogConfig
from quorumlog.log.segment import DATA_START
from quorumlog.replication.catch_up import recovery
from quorumlog.replication.catch_up.starting_over import (
    MAX_SET_ASIDE,
    Note,
    check_kept,
    is_recovering,
    read_note,
    recovered,
    set_aside_of,
    settle,
    start_over,
)
from quorumlog.replication.core.role import Role
from quorumlog.replication.replica import Replica
from quorumlog.types import GroupId, NodeId, Term
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import FixedClock
from support.replica_cluster import GROUP, Cluster, draft, machine_of, simulated, values_of

DIRECTORY = "groups/7"
STATE = HardState(Term(12), NodeId("n3"))

# -- on disk -----------------------------------------------------------------------------------


def damaged_disk(seed: int = 1) -> SimDisk:
    disk = SimDisk(Random(seed))
    disk.make_directory(DIRECTORY)
    Log.open(disk, DIRECTORY, LogConfig(), FixedClock()).close()
    file = HardStateFile(disk, f"{DIRECTORY}/hard-state")
    file.save(STATE)
    file.close()
    disk.sync_directory(DIRECTORY)
    return disk


def hard_state_in(disk: SimDisk, directory: str = DIRECTORY) -> HardState:
    file = HardStateFile(disk, f"{directory}/hard-state")
    try:
        return file.load()
    finally:
        file.close()


def is_begun(disk: SimDisk) -> bool:
    """Whether the new directory is there; it has to be the old one otherwise."""
    assert hard_state_in(disk) == STATE
    assert not disk.exists(f"{DIRECTORY}.new")
    names = disk.list_directory(DIRECTORY)
    if f"{1:020}.log" in names:
        assert not is_recovering(disk, DIRECTORY)
        assert set_aside_of(disk, DIRECTORY) == []
        return False
    assert is_recovering(disk, DIRECTORY)
    assert read_note(disk, DIRECTORY) == Note(5_000, 1, "rot")
    assert f"{1:020}.log" in disk.list_directory(f"{DIRECTORY}.damaged-1")
    return True


def test_term_and_vote_go_with_it_and_a_note_says_that_it_is_recovering() -> None:
    disk = damaged_disk()
    assert start_over(disk, DIRECTORY, "rot", 5_000) == f"{DIRECTORY}.damaged-1"
    assert is_begun(disk)
    recovered(disk, DIRECTORY)
    disk.crash()
    assert not is_recovering(disk, DIRECTORY)


def test_a_power_cut_at_every_call_leaves_the_old_directory_or_the_new_one() -> None:
    outcomes = set()
    for change in range(1, 30):
        for seed in range(8):
            disk = damaged_disk(seed * 100 + change)
            disk.crash_before(change)
            decided = False
            try:
                start_over(disk, DIRECTORY, "rot", 5_000)
                decided = True
            except SimulatedCrash:
                pass
            disk.crash()
            settle(disk, DIRECTORY)
            disk.crash()
            begun = is_begun(disk)
            assert begun or not decided
            outcomes.add((decided, begun))
    assert outcomes == {(False, False), (False, True), (True, True)}


def test_a_call_that_fails_anywhere_can_be_tried_again() -> None:
    change = 0
    while True:
        change += 1
        disk = damaged_disk(change)
        disk.fail_at(change)
        try:
            start_over(disk, DIRECTORY, "rot", 5_000)
        except (OSError, StorageError):
            settle(disk, DIRECTORY)
            if not is_begun(disk):
                start_over(disk, DIRECTORY, "rot", 5_000)
            assert is_begun(disk)
        else:
            break
    assert change > 10


def test_without_term_and_vote_nothing_is_begun() -> None:
    disk = damaged_disk()
    for position in (20, 4116, 8212, 12308):
        disk.flip_bit(f"{DIRECTORY}/hard-state", position, 1)
    with pytest.raises(Corrupt, match="term and vote"):
        start_over(disk, DIRECTORY, "rot", 5_000)
    assert disk.list_directory("groups") == ["7"]


def test_so_many_are_kept_and_not_one_is_deleted() -> None:
    disk = damaged_disk()
    for number in range(1, MAX_SET_ASIDE + 1):
        assert start_over(disk, DIRECTORY, "rot", 0) == f"{DIRECTORY}.damaged-{number}"
    before = disk.list_directory("groups")
    with pytest.raises(StorageError, match="look at the disk"):
        start_over(disk, DIRECTORY, "rot", 0)
    assert disk.list_directory("groups") == before
    disk.remove_directory(f"{DIRECTORY}.damaged-1")
    assert start_over(disk, DIRECTORY, "rot", 0) == f"{DIRECTORY}.damaged-{MAX_SET_ASIDE + 1}"


def test_a_damaged_note_is_a_note() -> None:
    disk = damaged_disk()
    start_over(disk, DIRECTORY, "rot", 5_000)
    whole = disk.content(f"{DIRECTORY}/recovering")
    head = "8813000000000000" + "01000000" + "03000000" + "0000000000000000"
    assert whole.hex() == "514c5201" + "ae0dc9f6" + head + "726f74"
    for position in range(len(whole)):
        disk.flip_bit(f"{DIRECTORY}/recovering", position, 2)
        assert is_recovering(disk, DIRECTORY)
        assert read_note(disk, DIRECTORY) is None
        disk.flip_bit(f"{DIRECTORY}/recovering", position, 2)
    disk.open(f"{DIRECTORY}/recovering").truncate(0)
    assert is_recovering(disk, DIRECTORY)
    assert read_note(disk, DIRECTORY) is None


def test_a_log_that_was_taken_away_is_noticed() -> None:
    disk = damaged_disk()
    check_kept(disk, DIRECTORY)
    disk.remove(f"{DIRECTORY}/{1:020}.log")
    with pytest.raises(Corrupt, match="has voted"):
        check_kept(disk, DIRECTORY)
    start_over(disk, DIRECTORY, "gone", 0)
    check_kept(disk, DIRECTORY)
    disk.make_directory("groups/8")
    check_kept(disk, "groups/8")


def test_a_log_that_was_never_made_is_noticed_where_term_and_vote_are() -> None:
    """As a crash leaves a file in the making, a file system check one that it emptied."""
    disk = damaged_disk()
    segment = f"{DIRECTORY}/{1:020}.log"
    for size_bytes in (0, 64, DATA_START):
        disk.open(segment).truncate(size_bytes)
        with pytest.raises(Corrupt):
            check_kept(disk, DIRECTORY)
    disk.remove(f"{DIRECTORY}/hard-state")
    check_kept(disk, DIRECTORY)


def test_a_replica_that_recovers_and_has_no_term_and_vote_stays_closed() -> None:
    disk = damaged_disk()
    start_over(disk, DIRECTORY, "rot", 0)
    disk.remove(f"{DIRECTORY}/hard-state")
    with pytest.raises(Corrupt, match="term and vote"):
        check_kept(disk, DIRECTORY)
    with pytest.raises(Corrupt, match="term and vote"):
        start_over(disk, DIRECTORY, "rot", 0)


# -- in a group --------------------------------------------------------------------------------


async def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def cluster_with(count: int = 40, size: int = 3) -> tuple[Cluster, Replica]:
    cluster = Cluster(size)
    cluster.log_config = replace(cluster.log_config, segment_bytes=4096, tail_cache_bytes=0)
    await cluster.open()
    leader = await cluster.leader()
    for number in range(count):
        await leader.propose(draft(b"%d/" % number + bytes(300)))
    await until(lambda: all(r.applied_index == leader.log.last_index for r in here(cluster)))
    return cluster, leader


def here(cluster: Cluster) -> list[Replica]:
    return [host.replicas[GROUP] for host in cluster.hosts.values() if GROUP in host.replicas]


def replica_on(cluster: Cluster, node: NodeId) -> Replica:
    return cluster.hosts[node].replicas[GROUP]


def follower_of(cluster: Cluster, leader: Replica) -> NodeId:
    return next(node for node in cluster.nodes if cluster.replicas[node] is not leader)


def segments_on(cluster: Cluster, node: NodeId) -> list[str]:
    directory = f"groups/{GROUP}"
    names = cluster.disks[node].list_directory(directory)
    return [f"{directory}/{name}" for name in names if name.endswith(".log")]


def rot(cluster: Cluster, node: NodeId, segment: int) -> None:
    """Flip a bit in the first batch of a segment."""
    cluster.disks[node].flip_bit(segments_on(cluster, node)[segment], DATA_START + 90, 3)


def report_damage(cluster: Cluster, node: NodeId) -> None:
    """As somebody in the process of ``node`` would who read the log."""
    host, process = cluster.hosts[node], cluster.wire.processes[node]
    process.context().run(host.report_damage, GROUP, Corrupt("file", 1, "this", "that"))


def is_whole(cluster: Cluster, node: NodeId, leader: Replica) -> bool:
    replica = cluster.hosts[node].replicas.get(GROUP)
    return (
        replica is not None
        and replica.failure is None
        and not replica.core.recovering
        and replica.applied_index == leader.log.last_index
        and values_of(replica) == values_of(leader)
        and not is_recovering(cluster.disks[node], f"groups/{GROUP}")
    )


@simulated
async def test_rot_found_at_open_is_set_aside_and_the_replica_gets_everything_again() -> None:
    cluster, leader = await cluster_with()
    lost = follower_of(cluster, leader)
    # After a crash the last segment is read.
    cluster.power_cut(lost)
    rot(cluster, lost, -1)
    term = leader.core.term
    await cluster.open_node(lost)
    again = replica_on(cluster, lost)
    assert again.core.recovering
    assert again.core.term == term
    assert again.log.last_index == 0
    await leader.propose(draft(b"meanwhile"))
    await until(lambda: is_whole(cluster, lost, leader))
    assert set_aside_of(cluster.disks[lost], f"groups/{GROUP}") == [f"groups/{GROUP}.damaged-1"]
    await cluster.close()


@simulated
async def test_rot_that_a_leader_finds_gives_leadership_away_and_is_mended() -> None:
    cluster, leader = await cluster_with()
    node = cluster.node_of(leader)
    values = list(values_of(leader))
    machine = machine_of(leader)
    rot(cluster, node, 1)
    report_damage(cluster, node)
    assert leader.failure is not None
    del cluster.replicas[node]
    new = await cluster.leader()
    await new.propose(draft(b"next"))
    await until(lambda: is_whole(cluster, node, new))
    again = replica_on(cluster, node)
    assert machine_of(again) is machine
    assert machine.values[: len(values)] == values
    assert sorted(set(machine.applied)) == machine.applied, "something was applied twice"
    await cluster.close()


@simulated
async def test_rot_found_while_a_follower_is_read_for_starts_the_leader_over() -> None:
    cluster, leader = await cluster_with(5)
    lost = follower_of(cluster, leader)
    cluster.wire.cut.add(lost)
    for number in range(60):
        await leader.propose(draft(b"more %d/" % number + bytes(300)))
    node = cluster.node_of(leader)
    for segment in range(1, len(segments_on(cluster, node)) - 1):
        rot(cluster, node, segment)
    cluster.wire.cut.clear()
    await until(lambda: leader.failure is not None)
    del cluster.replicas[node]
    new = await cluster.leader()
    await until(lambda: is_whole(cluster, node, new) and is_whole(cluster, lost, new))
    await cluster.close()


@simulated
async def test_until_it_has_everything_again_it_votes_for_nobody() -> None:
    cluster, leader = await cluster_with()
    lost = follower_of(cluster, leader)
    report_damage(cluster, lost)
    await until(lambda: replica_on(cluster, lost).core.recovering)
    cluster.wire.cut.add(lost)
    await until(lambda: leader.serving)
    third = next(n for n in cluster.nodes if n not in (lost, cluster.node_of(leader)))
    await leader.propose(draft(b"the two others have this"))
    # Now the leader is gone and comes back no more; what is left is one whole replica of three.
    cluster.power_cut(cluster.node_of(leader))
    cluster.wire.cut.clear()
    with capture_logs() as logs:
        await asyncio.sleep(recovery.PATIENCE_S + 10)
    assert not replica_on(cluster, third).serving
    assert replica_on(cluster, lost).core.recovering
    assert replica_on(cluster, lost).core.role is Role.FOLLOWER
    (said,) = [line for line in logs if line["event"] == "recovering_without_leader"]
    assert "quorumlog log repair" in said["way_out"]
    # The first one is back: there is a leader again, and a third voter soon.
    node = cluster.node_of(leader)
    await cluster.open_node(node)
    await until(lambda: any(replica.serving for replica in here(cluster)))
    new = next(replica for replica in here(cluster) if replica.serving)
    assert replica_on(cluster, lost) is not new
    await until(lambda: is_whole(cluster, lost, new))
    await cluster.close()


@simulated
async def test_a_log_whose_only_file_was_emptied_is_gotten_again_before_it_votes() -> None:
    cluster, leader = await cluster_with(2)
    node = follower_of(cluster, leader)
    await cluster.hosts[node].close()
    (segment,) = segments_on(cluster, node)
    for name in cluster.disks[node].list_directory(f"groups/{GROUP}"):
        if name != "hard-state":
            cluster.disks[node].remove(f"groups/{GROUP}/{name}")
    cluster.disks[node].open(segment, create=True).close()
    cluster.wire.cut.add(node)
    await cluster.open_node(node)
    assert replica_on(cluster, node).core.recovering
    cluster.wire.cut.clear()
    await until(lambda: is_whole(cluster, node, leader))
    await cluster.close()


@simulated
async def test_a_log_without_term_and_vote_is_gotten_again_beyond_all_it_voted_in() -> None:
    cluster, leader = await cluster_with(2)
    node = follower_of(cluster, leader)
    await cluster.hosts[node].close()
    voted_in = hard_state_in(cluster.disks[node], f"groups/{GROUP}").term
    cluster.disks[node].remove(f"groups/{GROUP}/hard-state")
    await cluster.open_node(node)
    assert replica_on(cluster, node).core.recovering
    assert replica_on(cluster, node).core.term > voted_in
    del cluster.replicas[node]
    await until(lambda: any(is_whole(cluster, node, r) for r in here(cluster) if r.serving))
    await cluster.close()


@simulated
async def test_a_log_without_term_and_vote_stays_closed_where_no_list_knows_it() -> None:
    cluster, leader = await cluster_with(2)
    node = follower_of(cluster, leader)
    await cluster.hosts[node].close()
    cluster.disks[node].remove(f"groups/{GROUP}/hard-state")
    cluster.disks[node].remove("groups.list")
    before = cluster.disks[node].list_directory(f"groups/{GROUP}")
    with pytest.raises(Corrupt, match="term and vote"):
        await cluster.open_node(node)
    assert cluster.disks[node].list_directory(f"groups/{GROUP}") == before
    await cluster.close()


@simulated
async def test_a_restart_while_it_recovers_goes_on_recovering() -> None:
    cluster, leader = await cluster_with()
    lost = follower_of(cluster, leader)
    report_damage(cluster, lost)
    await until(lambda: replica_on(cluster, lost).core.recovering)
    cluster.power_cut(lost)
    cluster.wire.cut.add(lost)
    await cluster.open_node(lost)
    assert replica_on(cluster, lost).core.recovering
    cluster.wire.cut.clear()
    await until(lambda: is_whole(cluster, lost, leader))
    await cluster.close()


@simulated
async def test_a_power_cut_at_any_moment_of_it_is_fine() -> None:
    clusters = []  # what has died in them is kept from the destructors
    for delay_ms in range(0, 120, 4):
        cluster, leader = await cluster_with(12)
        clusters.append(cluster)
        lost = follower_of(cluster, leader)
        report_damage(cluster, lost)
        await asyncio.sleep(delay_ms / 1000)
        cluster.power_cut(lost)
        await cluster.open_node(lost)
        await until(lambda c=cluster, n=lost, r=leader: is_whole(c, n, r))  # type: ignore[misc]
        await cluster.close()


@simulated
async def test_the_only_voter_stays_closed_and_the_way_out_is_said() -> None:
    cluster, leader = await cluster_with(size=1)
    node = cluster.node_of(leader)
    with capture_logs() as logs:
        report_damage(cluster, node)
        await asyncio.sleep(1)
    (said,) = [line for line in logs if line["event"] == "only_copy_damaged"]
    assert "quorumlog log repair" in said["way_out"]
    assert replica_on(cluster, node) is leader
    await leader.propose(draft(b"what is whole is served"))
    # After a crash the last segment is read at open.
    cluster.power_cut(node)
    rot(cluster, node, -1)
    with pytest.raises(Corrupt):
        await cluster.open_node(node)
    assert cluster.disks[node].list_directory("groups") == [str(GROUP)]


@simulated
async def test_after_so_many_times_it_stays_closed() -> None:
    cluster, leader = await cluster_with(5)
    lost = follower_of(cluster, leader)
    for _ in range(MAX_SET_ASIDE):
        report_damage(cluster, lost)
        await until(lambda: is_whole(cluster, lost, leader))
    with capture_logs() as logs:
        report_damage(cluster, lost)
        await asyncio.sleep(2)
    assert replica_on(cluster, lost).failure is not None
    (said,) = [line for line in logs if line["event"] == "group_stays_closed"]
    assert "look at the disk" in said["error"]
    await leader.propose(draft(b"the others go on"))
    await cluster.hosts[lost].remove_group(GroupId(GROUP))
    assert cluster.disks[lost].list_directory("groups") == []
    await cluster.close()


@simulated
async def test_an_answer_from_before_the_loss_ends_nothing() -> None:
    cluster, leader = await cluster_with()
    lost = follower_of(cluster, leader)
    answers: list[tuple[Any, ...]] = []
    deliver = cluster.wire.handlers[lost]

    def hold_back(sender: NodeId, group: GroupId, payload: memoryview) -> None:
        if payload[0] == 67:
            answers.append((sender, group, bytes(payload)))
        else:
            deliver(sender, group, payload)

    cluster.wire.handlers[lost] = hold_back
    report_damage(cluster, lost)
    await until(lambda: len(answers) > 1)
    await until(lambda: replica_on(cluster, lost).log.last_index == leader.log.last_index)
    report_damage(cluster, lost)
    await asyncio.sleep(1)
    asked_before = answers[0]
    sender, group, payload = asked_before
    deliver(sender, group, memoryview(payload))
    await asyncio.sleep(1)
    assert replica_on(cluster, lost).core.recovering
    cluster.wire.handlers[lost] = deliver
    await until(lambda: is_whole(cluster, lost, leader))
    await cluster.close()
