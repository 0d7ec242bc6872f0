"""A follower that needs what its leader's log has no more is given the leader's state."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from quorumlog.errors import ProtocolError
from quorumlog.log.install import DRAFT_NAME
from quorumlog.log.state_snapshot import LogOrigin, StateSnapshot, load_newest
from quorumlog.replication.catch_up import messages, state_sender
from quorumlog.replication.catch_up.messages import (
    ChunkAnswer,
    EndAnswer,
    EndQuestion,
    StateChunk,
    StateId,
    decode,
    encode,
)
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.replica import Replica
from quorumlog.types import Buffer, GroupId, Index, NodeId, Offset, Term
from support.replica_cluster import GROUP, Cluster, draft, machine_of, simulated, values_of

END = 1 << 40
DIRECTORY = "groups/1"


async def produce(replica: Replica, count: int, size_bytes: int = 300) -> None:
    for number in range(count):
        await replica.propose(draft(b"%d/" % number + bytes(size_bytes)))


def cluster_of_three() -> Cluster:
    cluster = Cluster(3)
    cluster.log_config = replace(cluster.log_config, segment_bytes=4096, tail_cache_bytes=0)
    return cluster


def trim(replica: Replica, keep: int = 3) -> None:
    """Give up all but the last segments of a replica's log, as retention would."""
    log = replica.log
    log.roll()
    log.flush()
    log.advance_commit_floor(replica.core.commit_index)
    segments = log.segments()
    log.advance_start(segments[max(len(segments) - keep, 0)].base_offset)
    log.flush()
    log.remove_deleted()
    assert log.start_index > 1


def follower_of(cluster: Cluster, leader: Replica) -> NodeId:
    return next(node for node in cluster.nodes if cluster.replicas[node] is not leader)


async def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def left_behind(
    cluster: Cluster, count: int = 60, config: ReplicationConfig | None = None
) -> tuple[Replica, NodeId]:
    """A leader whose log begins behind what one follower, which is cut off, has."""
    await cluster.open(config)
    leader = await cluster.leader()
    await produce(leader, 5)
    lost = follower_of(cluster, leader)
    cluster.wire.cut.add(lost)
    await produce(leader, count)
    trim(leader)
    return leader, lost


def is_level(cluster: Cluster, node: NodeId, leader: Replica) -> bool:
    replica = cluster.hosts[node].replicas.get(GroupId(1))
    return (
        replica is not None
        and replica.applied_index == leader.log.last_index
        and replica.high_watermark.value == leader.high_watermark.value
        and values_of(replica) == values_of(leader)
    )


def replica_on(cluster: Cluster, node: NodeId) -> Replica:
    return cluster.hosts[node].replicas[GroupId(1)]


@simulated
async def test_a_follower_behind_the_leaders_start_gets_the_state_and_then_batches() -> None:
    cluster = cluster_of_three()
    leader, lost = await left_behind(cluster)
    machine = machine_of(cluster.replicas[lost])
    applied_before = list(machine.applied)
    cluster.wire.cut.clear()
    await until(lambda: is_level(cluster, lost, leader))
    replica = replica_on(cluster, lost)
    assert replica is not cluster.replicas[lost]
    assert replica.log.start_index == leader.log.start_index > 6
    assert machine_of(replica) is machine
    state_index = leader.log.last_index
    await produce(leader, 3)
    await until(lambda: is_level(cluster, lost, leader))
    applied_since = machine.applied[len(applied_before) :]
    assert applied_since == [state_index + 1, state_index + 2, state_index + 3]
    await cluster.close()


@simulated
async def test_a_new_member_of_an_old_group_gets_the_state() -> None:
    cluster = cluster_of_three()
    leader, lost = await left_behind(cluster)
    await cluster.hosts[lost].close()
    cluster.disks[lost] = type(cluster.disks[lost])(random.Random(9))
    cluster.wire.cut.clear()
    await cluster.open_node(lost)
    await until(lambda: is_level(cluster, lost, leader))
    await cluster.close()


@simulated
async def test_until_its_log_has_passed_the_state_a_replica_has_nothing_to_read() -> None:
    cluster = cluster_of_three()
    leader, lost = await left_behind(cluster)
    cluster.wire.cut.clear()
    seen = []

    def watch() -> bool:
        replica = replica_on(cluster, lost)
        if replica.awaited is not None:
            seen.append(replica)
            assert replica.applied_index == replica.log.start_index - 1
            assert replica.high_watermark.value == replica.log.start_offset
            assert not replica.serving
        return is_level(cluster, lost, leader)

    async with asyncio.timeout(30):
        while not watch():
            await asyncio.sleep(0.0005)
    assert seen
    assert replica_on(cluster, lost).awaited is None
    await cluster.close()


@simulated
async def test_a_power_cut_at_any_moment_of_it_is_fine() -> None:
    clusters = []  # what has died in them is kept from the destructors
    emptied = 0
    for delay_ms in range(0, 400, 10):
        cluster = cluster_of_three()
        clusters.append(cluster)
        leader, lost = await left_behind(cluster, 30)
        cluster.wire.cut.clear()
        await asyncio.sleep(delay_ms / 1000)
        cluster.power_cut(lost)
        await cluster.open_node(lost)
        emptied += replica_on(cluster, lost).log.start_index > 1
        await until(lambda c=cluster, n=lost, r=leader: is_level(c, n, r))  # type: ignore[misc]
        await cluster.close()
    assert 0 < emptied < len(clusters)


@simulated
async def test_a_restart_before_the_log_has_passed_the_state_waits_on() -> None:
    cluster = cluster_of_three()
    leader, lost = await left_behind(cluster)
    cluster.wire.cut.clear()
    async with asyncio.timeout(30):
        while replica_on(cluster, lost).awaited is None:
            await asyncio.sleep(0.0002)
    cluster.wire.cut.add(lost)
    await cluster.hosts[lost].close()
    found = load_newest(cluster.disks[lost], DIRECTORY, END).snapshot
    assert found is not None
    assert found.origin is not None
    await cluster.open_node(lost)
    await asyncio.sleep(0.1)
    replica = replica_on(cluster, lost)
    assert replica.awaited == found
    assert machine_of(replica).values == []
    cluster.wire.cut.clear()
    await until(lambda: is_level(cluster, lost, leader))
    await produce(leader, 1)
    await until(lambda: is_level(cluster, lost, leader))
    assert machine_of(replica_on(cluster, lost)).applied == [found.index + 1]
    await cluster.close()


@simulated
async def test_a_transfer_that_breaks_goes_on_where_the_receiver_is() -> None:
    cluster = cluster_of_three()
    # A state of several chunks.
    await cluster.open(ReplicationConfig(catch_up_bytes_s=2 << 20))
    leader = await cluster.leader()
    await produce(leader, 5)
    lost = follower_of(cluster, leader)
    cluster.wire.cut.add(lost)
    await produce(leader, 12, 200_000)
    trim(leader)
    positions = tap_chunks(cluster, lost)
    cluster.wire.cut.clear()
    await until(lambda: len(positions) >= 3)
    cluster.wire.cut.add(lost)
    await asyncio.sleep(0.2)
    cluster.wire.cut.clear()
    await until(lambda: is_level(cluster, lost, leader), 60)
    assert max(positions) >= 4 * messages.MAX_CHUNK_BYTES
    assert positions.count(0) == 1, "the transfer began anew"
    await cluster.close()


@simulated
async def test_a_leader_that_needs_the_follower_to_begin_with_gives_it_its_state() -> None:
    """Two of three are up: nothing is committed before the one that is behind has it all."""
    cluster = cluster_of_three()
    leader, lost = await left_behind(cluster)
    values = list(values_of(leader))
    node = cluster.node_of(leader)
    third = next(n for n in cluster.nodes if n not in (lost, node))
    await cluster.hosts[third].close()
    del cluster.hosts[third], cluster.replicas[third]
    await cluster.hosts[node].close()
    await cluster.open_node(node)
    cluster.wire.cut.clear()
    again = cluster.replicas[node]
    await until(lambda: again.serving)
    await produce(again, 1)
    await until(lambda: is_level(cluster, lost, again))
    assert values_of(again)[:-1] == values
    await cluster.close()


@simulated
async def test_so_does_one_that_has_no_saved_state_left() -> None:
    """Its state machine begins with nothing where its log does, and so does the follower's."""
    cluster = cluster_of_three()
    leader, lost = await left_behind(cluster)
    node = cluster.node_of(leader)
    third = next(n for n in cluster.nodes if n not in (lost, node))
    await cluster.hosts[third].close()
    del cluster.hosts[third], cluster.replicas[third]
    cluster.power_cut(node)
    await cluster.open_node(node)
    again = cluster.replicas[node]
    assert again.applied_index == again.log.start_index - 1 > 0
    cluster.wire.cut.clear()
    await until(lambda: again.serving)
    await produce(again, 1)
    await until(lambda: is_level(cluster, lost, again))
    restored = load_newest(cluster.disks[lost], DIRECTORY, END).snapshot
    assert restored is not None
    assert Members.decode(restored.configuration).voting == tuple(cluster.nodes)
    await cluster.close()


def tap_chunks(cluster: Cluster, node: NodeId) -> list[int]:
    """The positions of the chunks that ``node`` is given from now on."""
    positions: list[int] = []
    deliver = cluster.wire.handlers[node]

    def tap(sender: NodeId, group: GroupId, payload: memoryview) -> None:
        if payload[0] == 64:
            message = decode(payload)
            assert isinstance(message, StateChunk)
            assert len(message.data) <= messages.MAX_CHUNK_BYTES
            positions.append(message.position)
        deliver(sender, group, payload)

    cluster.wire.handlers[node] = tap
    return positions


@simulated
async def test_another_leader_begins_with_a_state_of_its_own() -> None:
    cluster = cluster_of_three()
    leader, lost = await left_behind(cluster)
    third = next(n for n in cluster.nodes if n not in (lost, cluster.node_of(leader)))
    await until(lambda: cluster.replicas[third].applied_index == leader.log.last_index)
    trim(cluster.replicas[third])
    cluster.wire.cut.clear()
    async with asyncio.timeout(30):
        while DRAFT_NAME not in cluster.disks[lost].list_directory(DIRECTORY):
            await asyncio.sleep(0.0002)
    leader.transfer_leadership(third)
    await until(lambda: cluster.replicas[third].serving)
    await until(lambda: is_level(cluster, lost, cluster.replicas[third]))
    await cluster.close()


@simulated
async def test_a_late_copy_of_a_state_empties_no_log() -> None:
    cluster = cluster_of_three()
    leader, lost = await left_behind(cluster)
    chunks: list[bytes] = []
    deliver = cluster.wire.handlers[lost]

    def keep(sender: NodeId, group: GroupId, payload: memoryview) -> None:
        if payload[0] == 64:
            chunks.append(bytes(payload))
        deliver(sender, group, payload)

    cluster.wire.handlers[lost] = keep
    cluster.wire.cut.clear()
    await until(lambda: is_level(cluster, lost, leader))
    replica = replica_on(cluster, lost)
    last_index = replica.log.last_index
    with capture_logs() as logs:
        for chunk in tuple(chunks):
            cluster.wire.handlers[lost](cluster.node_of(leader), GroupId(1), memoryview(chunk))
            await asyncio.sleep(0.2)
    assert replica_on(cluster, lost) is replica
    assert replica.log.last_index == last_index
    assert "state_came_late" in [line["event"] for line in logs]
    await cluster.close()


@simulated
async def test_a_full_disk_keeps_the_old_log_and_it_is_tried_again() -> None:
    cluster = cluster_of_three()
    leader, lost = await left_behind(cluster)
    cluster.disks[lost].capacity_bytes = 0
    cluster.wire.cut.clear()
    with capture_logs() as logs:
        await asyncio.sleep(3)
    assert "state_not_received" in [line["event"] for line in logs]
    cluster.disks[lost].capacity_bytes = None
    await until(lambda: is_level(cluster, lost, leader))
    await cluster.close()


@simulated
async def test_a_state_that_changed_nothing_is_sent_again_after_a_while() -> None:
    cluster = cluster_of_three()
    leader, lost = await left_behind(cluster)
    cluster.replicas[lost]._catch_up._receiver._complete = lambda state: None
    positions = tap_chunks(cluster, lost)
    cluster.wire.cut.clear()
    await asyncio.sleep(5 * state_sender.RETRY_S)
    assert 3 <= positions.count(0) <= 6
    assert leader.serving
    await cluster.close()


def test_who_was_not_helped_by_a_state_gets_a_newer_one_while_others_get_the_old() -> None:
    """With several behind there may always be one whose transfer goes on."""
    states = [state_of(Index(index), 3 * messages.MAX_CHUNK_BYTES) for index in (55, 60)]
    sent: list[tuple[NodeId, StateChunk]] = []

    def send(peer: NodeId, chunk: StateChunk) -> float:
        sent.append((peer, chunk))
        return 0.0

    taken = iter(states)
    sender = state_sender.StateSender(GROUP, lambda: next(taken), send)
    one, other = NodeId("one"), NodeId("other")
    sender.look((one, other), Term(1), 0.0)
    first = sent[0][1].state
    assert [(peer, chunk.state) for peer, chunk in sent] == [(one, first), (other, first)]
    sender.answered(one, ChunkAnswer(Term(1), first, first.size_bytes), Term(1), 0.1)
    del sent[:]
    now_s = 0.2
    while not any(peer == one for peer, _ in sent):
        now_s += state_sender.RETRY_S
        sender.look((one, other), Term(1), now_s)
    (newer,) = {chunk.state for peer, chunk in sent if peer == one}
    assert newer.index == 60
    assert {chunk.state for peer, chunk in sent if peer == other} == {first}
    sender.answered(other, ChunkAnswer(Term(1), first, messages.MAX_CHUNK_BYTES), Term(1), now_s)
    peer, chunk = sent[-1]
    assert (peer, chunk.state, chunk.position) == (other, first, messages.MAX_CHUNK_BYTES)


def state_of(index: Index, size_bytes: int) -> StateSnapshot:
    origin = LogOrigin(Index(index - 1), Offset(0), Term(1), 0, Offset(0))
    return StateSnapshot(index, Term(1), Offset(0), 0, b"", bytes(size_bytes), origin)


CHUNK = StateChunk(Term(3), StateId(Index(9), 100, 7), 10, b"data")


@pytest.mark.parametrize(
    "message",
    [
        CHUNK,
        ChunkAnswer(Term(3), StateId(Index(9), 100, 7), 100),
        EndQuestion(Term(3), 1 << 63),
        EndAnswer(Term(3), 5, Index(77)),
    ],
)
def test_messages_come_out_as_they_went_in(
    message: StateChunk | ChunkAnswer | EndQuestion | EndAnswer,
) -> None:
    encoded = encode(message)
    decoded = decode(memoryview(encoded))
    if isinstance(decoded, StateChunk):
        decoded = replace(decoded, data=bytes(decoded.data))
    assert decoded == message
    for size_bytes in range(len(encoded)):
        cut: Buffer = memoryview(encoded)[:size_bytes]
        if isinstance(message, StateChunk) and size_bytes > 29:
            assert isinstance(decode(cut), StateChunk)
            continue
        with pytest.raises(ProtocolError):
            decode(cut)


@pytest.mark.parametrize(
    "message",
    [
        replace(CHUNK, position=97),
        replace(CHUNK, data=b""),
        replace(CHUNK, state=StateId(Index(9), 0, 7), position=0),
        replace(CHUNK, state=StateId(Index(9), (1 << 32) - 1, 7)),
        replace(
            CHUNK,
            state=StateId(Index(9), 1 << 22, 7),
            data=bytes(messages.MAX_CHUNK_BYTES + 1),
        ),
        ChunkAnswer(Term(3), StateId(Index(9), 100, 7), 101),
    ],
)
def test_messages_that_no_correct_peer_sends_are_refused(message: StateChunk | ChunkAnswer) -> None:
    with pytest.raises(ProtocolError):
        decode(encode(message))
