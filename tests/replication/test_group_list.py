"""A node knows which groups it has had, also when their directories are gone."""

import asyncio
import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from quorumlog.errors import Corrupt, DiskFull, ProtocolError
from quorumlog.log.config import LogConfig
from quorumlog.log.hard_state import HardState
from quorumlog.replication.catch_up.starting_over import is_recovering
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.ready import Event, Recovered
from quorumlog.replication.group_files import GroupFiles
from quorumlog.replication.group_list import (
    TERMS_AHEAD,
    UNKNOWN,
    GroupList,
    decode_list,
    encode_list,
)
from quorumlog.replication.replica import Replica
from quorumlog.types import GroupId, NodeId, Term
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import FixedClock
from support.replica_cluster import GROUP, Cluster, draft, simulated, values_of

GROUPS = "data/groups"
LIST = "data/groups.list"
GOLDEN = Path(__file__).parent / "golden" / "groups.list"
SEVEN = GroupId(7)


def new_disk(seed: int = 1) -> SimDisk:
    disk = SimDisk(Random(seed))
    disk.make_directory(GROUPS)
    return disk


def files_on(disk: SimDisk) -> GroupFiles:
    return GroupFiles(disk, GROUPS, FixedClock())


def vote(disk: SimDisk, group: GroupId, term: int) -> None:
    """Open the group as a new process does, save a term, and close it."""
    opened = files_on(disk).open(group, LogConfig())
    try:
        opened.hard_state_file.save(HardState(Term(term), NodeId("n2")))
    finally:
        opened.close()


def empty(disk: SimDisk, group: GroupId, left: Sequence[str] = ()) -> None:
    """The directory stays, with the files of ``left`` in it."""
    disk.remove_directory(f"{GROUPS}/{group}")
    disk.make_directory(f"{GROUPS}/{group}")
    for name in left:
        disk.open(f"{GROUPS}/{group}/{name}", create=True).close()
    disk.sync_directory(GROUPS)


# -- the file ----------------------------------------------------------------------------------


def test_the_file_of_format_1_is_read_and_written_byte_for_byte() -> None:
    bounds = {GroupId(0): Term(65), GroupId(7): Term(300), GroupId(1 << 40): Term(1 << 33)}
    raw = GOLDEN.read_bytes()
    assert decode_list(raw) == (GroupId(9), bounds)
    assert encode_list(GroupId(9), bounds) == raw


@given(
    st.integers(0, UNKNOWN).map(GroupId),
    st.dictionaries(
        st.integers(0, (1 << 64) - 1).map(GroupId), st.integers(0, (1 << 64) - 1).map(Term)
    ),
)
def test_a_list_comes_out_as_it_went_in(known_from: GroupId, bounds: dict[GroupId, Term]) -> None:
    assert decode_list(encode_list(known_from, bounds)) == (known_from, bounds)


def test_a_list_with_any_bit_flipped_or_cut_anywhere_is_refused() -> None:
    raw = GOLDEN.read_bytes()
    for position in range(len(raw)):
        with pytest.raises(ProtocolError):
            decode_list(raw[:position])
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[position] ^= 1 << bit
            with pytest.raises(ProtocolError):
                decode_list(bytes(flipped))


# -- on a disk ---------------------------------------------------------------------------------


def test_a_group_is_listed_from_its_first_term_on_until_it_is_deleted() -> None:
    disk = new_disk()
    files = files_on(disk)
    opened = files.open(SEVEN, LogConfig())
    assert files.listed.groups() == []
    opened.hard_state_file.save(HardState(Term(1)))
    opened.close()
    assert GroupList(disk, GROUPS).groups() == [SEVEN]
    again = files_on(disk)
    again.remove(SEVEN)
    assert GroupList(disk, GROUPS).groups() == []
    files_on(disk).open(SEVEN, LogConfig()).close()


def test_a_directory_that_is_gone_is_noticed_and_begun_beyond_all_it_voted_in() -> None:
    for term in (1, 40, 64, 65, 66, 500):
        disk = new_disk()
        vote(disk, SEVEN, term)
        disk.remove_directory(f"{GROUPS}/7")
        disk.sync_directory(GROUPS)
        files = files_on(disk)
        with pytest.raises(Corrupt, match="a replica that was here"):
            files.open(SEVEN, LogConfig())
        assert files.start_over(SEVEN, "gone") is None
        opened = files.open(SEVEN, LogConfig())
        assert opened.recovering
        assert term < opened.hard_state.term <= term + TERMS_AHEAD
        assert opened.hard_state.vote is None
        opened.close()
        # What it acknowledges in the term that it begins in counts as well.
        bound = GroupList(disk, GROUPS).term_bound(SEVEN)
        assert bound is not None
        assert bound > opened.hard_state.term
        assert disk.list_directory(GROUPS) == ["7"]


def test_a_directory_that_was_emptied_is_noticed_as_one_that_is_gone() -> None:
    """And so is one in which only what can be made anew is left."""
    for left in ((), ("00000000000000000001.index",)):
        disk = new_disk()
        vote(disk, SEVEN, 40)
        empty(disk, SEVEN, left)
        files = files_on(disk)
        with pytest.raises(Corrupt, match="a replica that was here"):
            files.open(SEVEN, LogConfig())
        assert files.start_over(SEVEN, "emptied") is not None
        opened = files.open(SEVEN, LogConfig())
        assert opened.recovering
        assert opened.hard_state.term > 40
        opened.close()


def test_a_directory_that_was_only_begun_is_new() -> None:
    disk = new_disk()
    vote(disk, GroupId(3), 1)
    disk.make_directory(f"{GROUPS}/7")
    opened = files_on(disk).open(SEVEN, LogConfig())
    assert (opened.recovering, opened.hard_state) == (False, HardState())
    opened.close()


def test_who_lost_term_and_vote_and_has_no_batch_goes_on_beyond_them() -> None:
    """It acknowledged nothing; what it voted, it must not vote again."""
    disk = new_disk()
    vote(disk, SEVEN, 40)
    disk.remove(f"{GROUPS}/7/hard-state")
    for _ in range(2):
        opened = files_on(disk).open(SEVEN, LogConfig())
        assert not opened.recovering
        assert 40 < opened.hard_state.term <= 40 + TERMS_AHEAD
        assert opened.hard_state.vote is None
        # It may acknowledge in that term before it saves another one.
        assert disk.exists(f"{GROUPS}/7/hard-state")
        assert (GroupList(disk, GROUPS).term_bound(SEVEN) or 0) > opened.hard_state.term
        opened.close()


def test_elections_seldom_write_it() -> None:
    disk = new_disk()
    opened = files_on(disk).open(SEVEN, LogConfig())
    renames = disk.calls["rename"]
    for term in range(1, 641):
        opened.hard_state_file.save(HardState(Term(term)))
    opened.close()
    hard_state_made = 1
    assert disk.calls["rename"] - renames - hard_state_made == 640 // TERMS_AHEAD


def test_a_power_cut_at_every_call_neither_forgets_a_vote_nor_invents_a_loss() -> None:
    """A group is made, votes, and is opened again with a term beyond the bound."""
    outcomes = set()
    for change in range(1, 70):
        for seed in range(4):
            disk = new_disk(seed * 1000 + change)
            vote(disk, GroupId(3), 5)
            disk.crash_before(change)
            voted = 0
            try:
                for term in (1, 2, 2 + TERMS_AHEAD):
                    vote(disk, SEVEN, term)
                    voted = term
            except SimulatedCrash:
                pass
            disk.crash()
            files = files_on(disk)
            # What is on disk is no loss ...
            opened = files.open(SEVEN, LogConfig())
            assert not opened.recovering
            assert opened.hard_state.term >= voted
            opened.close()
            assert files.listed.is_whole
            # ... and what was promised is remembered without it.
            disk.remove_directory(f"{GROUPS}/7")
            bound = GroupList(disk, GROUPS).term_bound(SEVEN)
            assert (bound or 0) > voted or voted == 0
            outcomes.add(voted)
    assert outcomes == {0, 1, 2, 2 + TERMS_AHEAD}


def test_a_power_cut_while_a_lost_directory_is_begun_leaves_it_lost_or_begun() -> None:
    outcomes = set()
    for change in range(1, 25):
        for seed in range(6):
            disk = new_disk(seed * 1000 + change)
            vote(disk, SEVEN, 3)
            disk.remove_directory(f"{GROUPS}/7")
            disk.sync_directory(GROUPS)
            disk.crash_before(change)
            is_begun = False
            try:
                files_on(disk).start_over(SEVEN, "gone")
                is_begun = True
            except SimulatedCrash:
                pass
            disk.crash()
            files = files_on(disk)
            try:
                opened = files.open(SEVEN, LogConfig())
            except Corrupt:
                assert not is_begun
                files.start_over(SEVEN, "gone")
                opened = files.open(SEVEN, LogConfig())
                outcomes.add("lost")
            else:
                outcomes.add("begun")
            assert opened.recovering
            assert opened.hard_state.term > 3
            opened.close()
            assert disk.list_directory(GROUPS) == ["7"]
    assert outcomes == {"lost", "begun"}


def test_a_write_that_fails_anywhere_promises_nothing_and_can_be_tried_again() -> None:
    change = 0
    while True:
        change += 1
        disk = new_disk(change)
        vote(disk, GroupId(3), 5)
        listed = GroupList(disk, GROUPS)
        disk.fail_at(change)
        try:
            listed.cover(SEVEN, Term(9))
        except OSError:
            assert GroupId(3) in listed.groups()
            listed.cover(SEVEN, Term(9))
        else:
            break
        disk.crash()
        assert (GroupList(disk, GROUPS).term_bound(SEVEN) or 0) > 9
    assert change > 3


def test_a_full_disk_is_said_to_be_full() -> None:
    disk = new_disk()
    disk.fail_at(2, errno.ENOSPC)
    with pytest.raises(DiskFull, match="list of groups"):
        GroupList(disk, GROUPS).cover(SEVEN, Term(9))


# -- a list that is lost -----------------------------------------------------------------------


def damage(disk: SimDisk) -> None:
    disk.flip_bit(LIST, 11, 3)


def remove(disk: SimDisk) -> None:
    disk.remove(LIST)


def make_unreadable(disk: SimDisk) -> None:
    """Something else stands in its place."""
    disk.remove(LIST)
    disk.open(LIST, create=True).close()


@pytest.mark.parametrize("lose", [damage, remove, make_unreadable])
def test_a_list_that_is_lost_hides_no_group_and_lets_no_lost_one_vote(
    lose: Callable[[SimDisk], None],
) -> None:
    disk = new_disk()
    vote(disk, GroupId(3), 5)
    vote(disk, SEVEN, 90)
    disk.remove_directory(f"{GROUPS}/7")
    lose(disk)
    with capture_logs() as logs:
        files = files_on(disk)
        # Those that are here are opened, and listed again.
        files.open(GroupId(3), LogConfig()).close()
    assert [line["event"] for line in logs] == ["group_list_lost"]
    assert GroupList(disk, GROUPS).groups() == [GroupId(3)]
    # Those that are not may have been, so they stay closed ...
    for group in (SEVEN, GroupId(8)):
        with pytest.raises(Corrupt, match="may have been here"):
            files_on(disk).open(group, LogConfig())
        with pytest.raises(Corrupt, match="term and vote"):
            files_on(disk).start_over(group, "gone")
    # ... until the numbers say that they came later.
    files_on(disk).listed.know_from(GroupId(8))
    again = files_on(disk)
    again.open(GroupId(8), LogConfig()).close()
    again.listed.know_from(GroupId(9))
    assert not again.listed.may_lack(GroupId(8))
    with pytest.raises(Corrupt, match="may have been here"):
        again.open(SEVEN, LogConfig())


def test_a_directory_that_was_emptied_when_the_list_was_lost_may_have_been_anything() -> None:
    disk = new_disk()
    vote(disk, GroupId(3), 5)
    vote(disk, SEVEN, 90)
    empty(disk, SEVEN)
    disk.remove(LIST)
    files = files_on(disk)
    assert files.may_have_had(SEVEN)
    with pytest.raises(Corrupt, match="may have been here"):
        files.open(SEVEN, LogConfig())
    with pytest.raises(Corrupt, match="term and vote"):
        files.start_over(SEVEN, "emptied")
    files.listed.know_from(SEVEN)
    assert not files.may_have_had(SEVEN)
    files.open(SEVEN, LogConfig()).close()


def test_a_list_that_was_damaged_is_not_trusted_where_all_groups_are_gone_too() -> None:
    disk = new_disk()
    vote(disk, SEVEN, 90)
    disk.remove_directory(f"{GROUPS}/7")
    damage(disk)
    with pytest.raises(Corrupt, match="may have been here"):
        files_on(disk).open(SEVEN, LogConfig())


# -- in a cluster ------------------------------------------------------------------------------


async def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def cluster_of(size: int, count: int = 20) -> tuple[Cluster, Replica]:
    cluster = Cluster(size)
    cluster.log_config = replace(cluster.log_config, segment_bytes=4096)
    await cluster.open()
    leader = await cluster.leader()
    for number in range(count):
        await leader.propose(draft(b"%d/" % number + bytes(300)))
    await until(lambda: all(each.core.leader_id for each in cluster.replicas.values()))
    return cluster, leader


def lose_directory(cluster: Cluster, node: NodeId) -> None:
    cluster.power_cut(node)
    cluster.disks[node].remove_directory(f"groups/{GROUP}")


def replica_on(cluster: Cluster, node: NodeId) -> Replica:
    return cluster.hosts[node].replicas[GROUP]


@simulated
async def test_a_replica_whose_directory_is_gone_gets_everything_again_and_then_votes() -> None:
    cluster, leader = await cluster_of(3)
    node = next(n for n in cluster.nodes if n != cluster.node_of(leader))
    voted_in = leader.core.term
    lose_directory(cluster, node)
    with capture_logs() as logs:
        await cluster.open_node(node)
    events: list[Event] = []
    cluster.hosts[node]._events = lambda replica, event: events.append(event)
    assert "lost_group_begun" in [line["event"] for line in logs]
    assert replica_on(cluster, node).core.recovering
    assert replica_on(cluster, node).core.term > voted_in

    def is_whole() -> bool:
        serving = [host.replicas[GROUP] for host in cluster.hosts.values()]
        leaders = [each for each in serving if each.serving]
        return (
            not replica_on(cluster, node).core.recovering
            and len(leaders) == 1
            and values_of(replica_on(cluster, node)) == values_of(leaders[0])
        )

    await until(is_whole)
    assert len(values_of(replica_on(cluster, node))) == 20
    await until(lambda: Recovered() in events)
    assert not is_recovering(cluster.disks[node], f"groups/{GROUP}")
    await cluster.close()


@simulated
async def test_it_elects_nobody_who_lacks_what_it_acknowledged() -> None:
    """Two of three have a batch; one of them loses its directory, the other one is down."""
    cluster, leader = await cluster_of(3)
    first = cluster.node_of(leader)
    lost, lacking = (node for node in cluster.nodes if node != first)
    cluster.wire.cut.add(lacking)
    await leader.propose(draft(b"acknowledged"))
    lose_directory(cluster, lost)
    cluster.power_cut(first)
    cluster.wire.cut.clear()
    await cluster.open_node(lost)
    await asyncio.sleep(20)
    for node in (lost, lacking):
        assert not replica_on(cluster, node).serving
    await cluster.open_node(first)
    await until(lambda: any(replica_on(cluster, node).serving for node in (first, lacking)))
    await until(lambda: not replica_on(cluster, lost).core.recovering)
    await until(lambda: values_of(replica_on(cluster, lost))[-1:] == [draft(b"acknowledged").body])
    await cluster.close()


@simulated
async def test_an_only_voter_whose_directory_is_gone_does_not_begin_empty() -> None:
    cluster, leader = await cluster_of(1)
    node = cluster.node_of(leader)
    lose_directory(cluster, node)
    with capture_logs() as logs, pytest.raises(Corrupt, match="a replica that was here"):
        await cluster.open_node(node)
    assert "only_copy_damaged" in [line["event"] for line in logs]
    assert cluster.disks[node].list_directory("groups") == []


@simulated
async def test_a_host_says_what_its_list_may_lack_until_it_is_told_better() -> None:
    cluster, leader = await cluster_of(3, count=1)
    node = cluster.node_of(leader)
    host = cluster.hosts[node]
    assert not await host.lacks_groups()
    assert await host.stored_groups() == [GROUP]
    cluster.power_cut(node)
    cluster.disks[node].remove("groups.list")
    await cluster.open_node(node)
    host = cluster.hosts[node]
    assert await host.lacks_groups()
    nobody = Members(())
    with pytest.raises(Corrupt, match="may have been here"):
        await host.open_group(GroupId(2), nobody, cluster.new_machine(), cluster.log_config)
    await host.know_groups_from(GroupId(2))
    await host.open_group(GroupId(2), nobody, cluster.new_machine(), cluster.log_config)
    await cluster.close()
