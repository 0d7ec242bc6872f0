"""Rot in one sealed segment is mended with the batches of another replica; the replica votes on."""

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

import pytest
from structlog.testing import capture_logs

from quorumlog.errors import Corrupt, ProtocolError, StorageError
from quorumlog.log.batch import Batch, iterate_batches, join_batches
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.segment import DATA_START
from quorumlog.log.segment_mending import MAX_KEPT
from quorumlog.replication.catch_up.feeder import MAX_READ_BYTES
from quorumlog.replication.catch_up.messages import (
    BatchAnswer,
    BatchQuestion,
    decode_mending,
    encode_mending,
    is_mending,
)
from quorumlog.replication.catch_up.starting_over import set_aside_of
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.replica import Replica
from quorumlog.types import GroupId, Index, NodeId
from support.replica_cluster import GROUP, Cluster, draft, simulated, values_of

DIRECTORY = f"groups/{GROUP}"


async def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def cluster_with(
    count: int = 60, keys: KeyRing | None = None
) -> tuple[Cluster, Replica, NodeId]:
    """Three replicas with several segments each, their leader, and a follower."""
    cluster = Cluster(3)
    cluster.log_config = replace(
        cluster.log_config, segment_bytes=4096, tail_cache_bytes=0, keys=keys
    )
    await cluster.open()
    leader = await cluster.leader()
    for number in range(count):
        await leader.propose(draft(b"%d/" % number + bytes(300)))
    await until(
        lambda: all(r.applied_index == leader.log.last_index for r in cluster.replicas.values())
    )
    node = next(n for n in cluster.nodes if cluster.replicas[n] is not leader)
    return cluster, leader, node


def segments_on(cluster: Cluster, node: NodeId) -> list[str]:
    names = cluster.disks[node].list_directory(DIRECTORY)
    return [f"{DIRECTORY}/{name}" for name in names if name.endswith(".log")]


def kept_on(cluster: Cluster, node: NodeId) -> list[str]:
    return [n for n in cluster.disks[node].list_directory(DIRECTORY) if ".log.damaged-" in n]


def replica_on(cluster: Cluster, node: NodeId) -> Replica:
    return cluster.hosts[node].replicas[GROUP]


def content_of(cluster: Cluster, node: NodeId) -> list[tuple[int, int, bytes]]:
    log = replica_on(cluster, node).log
    batches, index = [], log.start_index
    while index <= log.last_index:
        some = log.slice(index, 1 << 20)
        batches += [(b.header.index, b.header.term, bytes(b.body)) for b in some]
        index = some[-1].header.next_index
    return batches


def rot(cluster: Cluster, node: NodeId, number: int, position: int = DATA_START + 90) -> str:
    """Flip a bit in a segment; its path."""
    path = segments_on(cluster, node)[number]
    cluster.disks[node].flip_bit(path, position, 3)
    return path


def report(cluster: Cluster, node: NodeId, path: str) -> None:
    """As the scrubber in the process of ``node`` would."""
    host, process = cluster.hosts[node], cluster.wire.processes[node]
    process.context().run(host.report_damage, GROUP, Corrupt(path, DATA_START, "this", "that"))


def is_level(cluster: Cluster, node: NodeId, leader: Replica, old: Replica) -> bool:
    replica = cluster.hosts[node].replicas.get(GROUP)
    return (
        replica is not None
        and replica is not old
        and replica.failure is None
        and not replica.core.recovering
        and replica.applied_index == leader.log.last_index
        and values_of(replica) == values_of(leader)
    )


@simulated
async def test_a_damaged_segment_is_written_anew_and_the_old_one_kept() -> None:
    for number in (0, 1, -2):
        cluster, leader, node = await cluster_with()
        old, last_index = replica_on(cluster, node), leader.log.last_index
        path = rot(cluster, node, number)
        with capture_logs() as logs:
            report(cluster, node, path)
            await leader.propose(draft(b"the others go on"))
            await until(lambda c=cluster, n=node, r=leader, o=old: is_level(c, n, r, o))  # type: ignore[misc]
        (said,) = [line for line in logs if line["event"] == "damaged_segment_mended"]
        assert said["kept"] == f"{path}.damaged-1"
        assert content_of(cluster, node) == content_of(cluster, cluster.node_of(leader))
        assert replica_on(cluster, node).log.last_index == last_index + 1
        assert set_aside_of(cluster.disks[node], DIRECTORY) == []
        assert kept_on(cluster, node) == [said["kept"].rsplit("/", 1)[-1]]
        await cluster.close()


@simulated
async def test_a_log_that_is_encrypted_is_mended_with_its_own_key() -> None:
    cluster, leader, node = await cluster_with(
        keys=KeyRing.generate("own-key", Random(1).randbytes)
    )
    old, path = replica_on(cluster, node), rot(cluster, node, 1)
    report(cluster, node, path)
    await until(lambda: is_level(cluster, node, leader, old))
    assert content_of(cluster, node) == content_of(cluster, cluster.node_of(leader))
    assert b"own-key" in cluster.disks[node].content(path)[:DATA_START]
    assert len(kept_on(cluster, node)) == 1
    await cluster.close()


@simulated
async def test_a_mended_replica_votes_at_once() -> None:
    """With the leader gone for good the two others go on, with all that was acknowledged."""
    cluster, leader, node = await cluster_with()
    old, values = replica_on(cluster, node), list(values_of(leader))
    report(cluster, node, rot(cluster, node, 1))
    await until(lambda: is_level(cluster, node, leader, old))
    cluster.power_cut(cluster.node_of(leader))
    others = [host.replicas for host in cluster.hosts.values()]
    await until(lambda: any(replicas[GROUP].serving for replicas in others))
    for replicas in others:
        assert values_of(replicas[GROUP]) == values
    await cluster.close()


@simulated
async def test_rot_that_a_read_finds_is_mended_too() -> None:
    cluster, leader, node = await cluster_with()
    lost = next(n for n in cluster.nodes if n not in (node, cluster.node_of(leader)))
    # The leader reads it for a follower that has nothing any more.
    await cluster.hosts[lost].close()
    cluster.disks[lost].remove_directory(DIRECTORY)
    damaged = cluster.node_of(leader)
    rot(cluster, damaged, 1)
    await cluster.open_node(lost)
    await until(lambda: leader.failure is not None)
    await until(lambda: any(r.serving for r in (replica_on(cluster, n) for n in cluster.nodes)))
    await until(lambda: len({len(values_of(replica_on(cluster, n))) for n in cluster.nodes}) == 1)
    await until(lambda: not replica_on(cluster, lost).core.recovering)
    assert len(kept_on(cluster, damaged)) == 1
    assert set_aside_of(cluster.disks[damaged], DIRECTORY) == []
    assert content_of(cluster, damaged) == content_of(cluster, node)
    await cluster.close()


@simulated
async def test_a_power_cut_at_any_moment_leaves_the_damaged_segment_or_the_new_one() -> None:
    clusters = []  # what has died in them is kept from the destructors
    mended = 0
    for change in range(1, 13):
        cluster, leader, node = await cluster_with(40)
        clusters.append(cluster)
        old, path = replica_on(cluster, node), rot(cluster, node, 1)
        report(cluster, node, path)
        await asyncio.sleep(0.003 * change)
        cluster.power_cut(node)
        await cluster.open_node(node)
        again = replica_on(cluster, node)
        assert not again.core.recovering
        if not kept_on(cluster, node):
            report(cluster, node, path)
            old = again
        else:
            mended += 1
        await until(lambda c=cluster, n=node, r=leader, o=old: is_level(c, n, r, o))  # type: ignore[misc]
        assert content_of(cluster, node) == content_of(cluster, cluster.node_of(leader))
        assert set_aside_of(cluster.disks[node], DIRECTORY) == []
        await cluster.close()
    assert 0 < mended < len(clusters)


async def started_over(cluster: Cluster, node: NodeId, leader: Replica, path: str) -> None:
    old = replica_on(cluster, node)
    with capture_logs() as logs:
        report(cluster, node, path)
        await until(lambda: is_level(cluster, node, leader, old))
    events = [line["event"] for line in logs]
    assert "damaged_log_set_aside" in events
    assert "damaged_segment_mended" not in events


@simulated
async def test_where_the_header_or_the_last_segment_is_damaged_it_starts_over() -> None:
    for number, position in ((1, 20), (-1, DATA_START + 90)):
        cluster, leader, node = await cluster_with()
        await started_over(cluster, node, leader, rot(cluster, node, number, position))
        await cluster.close()


@simulated
async def test_where_nobody_answers_it_starts_over() -> None:
    cluster, leader, node = await cluster_with()
    deliver = cluster.wire.handlers[node]

    def without_answers(sender: NodeId, group: GroupId, payload: memoryview) -> None:
        if not is_mending(payload):
            deliver(sender, group, payload)

    cluster.wire.handlers[node] = without_answers
    await started_over(cluster, node, leader, rot(cluster, node, 1))
    await cluster.close()


@simulated
async def test_batches_of_another_history_are_refused() -> None:
    """Whole ones, in order, that are not those which the batch behind the damage continues."""
    cluster, leader, node = await cluster_with()
    deliver = cluster.wire.handlers[node]
    path, behind = (segments_on(cluster, node)[number] for number in (1, 2))
    next_index = int(behind[-24:-4])
    forged = []

    def forge(sender: NodeId, group: GroupId, payload: memoryview) -> None:
        if is_mending(payload):
            message = decode_mending(payload)
            assert isinstance(message, BatchAnswer)
            batches = list(iterate_batches(message.batches))
            last = batches[-1]
            if last.header.index == next_index:
                place = (last.header.base_offset, last.header.timestamp_ms)
                later = draft(b"another").stamp(next_index, last.header.term + 1, *place)
                answer = BatchAnswer(message.nonce, join_batches([*batches[:-1], later]))
                payload = memoryview(encode_mending(answer))
                forged.append(sender)
        deliver(sender, group, payload)

    cluster.wire.handlers[node] = forge
    rot(cluster, node, 1)
    await started_over(cluster, node, leader, path)
    assert len(set(forged)) == 2, "not both of the others were asked"
    await cluster.close()


@simulated
async def test_so_many_are_kept_then_it_starts_over() -> None:
    cluster, leader, node = await cluster_with()
    for number in range(MAX_KEPT):
        old = replica_on(cluster, node)
        report(cluster, node, rot(cluster, node, number))
        await until(lambda o=old: is_level(cluster, node, leader, o))  # type: ignore[misc]
    assert len(kept_on(cluster, node)) == MAX_KEPT
    await started_over(cluster, node, leader, rot(cluster, node, 0))
    await cluster.close()


@simulated
async def test_a_disk_that_refuses_any_write_of_it_loses_nothing() -> None:
    clusters = []
    for change in range(1, 13, 2):
        cluster, leader, node = await cluster_with(40)
        clusters.append(cluster)
        old, path = replica_on(cluster, node), rot(cluster, node, 1)
        report(cluster, node, path)
        cluster.disks[node].fail_at(change, errno.EIO)
        await until(
            lambda c=cluster, n=node, r=leader, o=old: (
                is_level(c, n, r, o)  # type: ignore[misc]
                or c.hosts[n].replicas[GROUP].failure is not None
            )
        )
        if replica_on(cluster, node).failure is not None:
            cluster.power_cut(node)
            await cluster.open_node(node)
        await until(lambda c=cluster, n=node, r=leader: is_level(c, n, r, r))  # type: ignore[misc]
        await cluster.close()


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_segment_that_is_complete_counts_though_the_damaged_one_cannot_be_kept(
    is_renamed: bool,
) -> None:
    simulated(partial(mend_and_keep_nothing, is_renamed))()


async def mend_and_keep_nothing(is_renamed: bool) -> None:
    cluster, leader, node = await cluster_with()
    old, path, disk = replica_on(cluster, node), rot(cluster, node, 1), cluster.disks[node]
    rename, sync = disk.rename, disk.sync_directory
    refused = []

    def refuse_once(target: str) -> None:
        refused.append(target)
        disk.rename, disk.sync_directory = rename, sync  # type: ignore[method-assign]
        raise OSError(errno.EIO, "refused")

    def refuse(source: str, target: str) -> None:
        if ".damaged-" in target:
            if is_renamed:
                rename(source, target)
                disk.sync_directory = refuse_once  # type: ignore[method-assign]
            else:
                refuse_once(target)
        else:
            rename(source, target)

    disk.rename = refuse  # type: ignore[method-assign]
    report(cluster, node, path)
    await until(lambda: is_level(cluster, node, leader, old))
    assert len(refused) == 1
    assert set_aside_of(disk, DIRECTORY) == []
    assert content_of(cluster, node) == content_of(cluster, cluster.node_of(leader))
    await cluster.close()


@simulated
async def test_large_batches_for_a_mending_count_with_all_of_their_bytes() -> None:
    size_bytes = 4 * MAX_READ_BYTES
    cluster = Cluster(3)
    cluster.log_config = replace(
        cluster.log_config, segment_bytes=8 * size_bytes, tail_cache_bytes=0
    )
    rate_bytes_s = 512 * 1024
    await cluster.open(ReplicationConfig(catch_up_bytes_s=rate_bytes_s))
    leader = await cluster.leader()
    for number in range(10):
        await leader.propose(draft(b"%d/" % number + bytes(size_bytes)))
    await until(
        lambda: all(r.applied_index == leader.log.last_index for r in cluster.replicas.values())
    )
    node = next(n for n in cluster.nodes if cluster.replicas[n] is not leader)
    old, path = replica_on(cluster, node), rot(cluster, node, 0)
    began_s = asyncio.get_running_loop().time()
    report(cluster, node, path)
    await until(lambda: is_level(cluster, node, leader, old))
    took_s = asyncio.get_running_loop().time() - began_s
    assert kept_on(cluster, node)
    assert took_s > 6 * size_bytes / rate_bytes_s
    await cluster.close()


@simulated
async def test_at_the_lowest_rate_a_segment_is_mended_all_the_same() -> None:
    cluster = Cluster(3)
    cluster.log_config = replace(cluster.log_config, segment_bytes=1 << 20, tail_cache_bytes=0)
    await cluster.open(ReplicationConfig(catch_up_bytes_s=64 * 1024))
    leader = await cluster.leader()
    for number in range(6):
        await leader.propose(draft(b"%d/" % number + bytes(6 * MAX_READ_BYTES)))
    await until(
        lambda: all(r.applied_index == leader.log.last_index for r in cluster.replicas.values())
    )
    node = next(n for n in cluster.nodes if cluster.replicas[n] is not leader)
    old, path = replica_on(cluster, node), rot(cluster, node, 0)
    report(cluster, node, path)
    # Each of its batches takes six seconds, and eight times as many while producers go on.
    await until(lambda: is_level(cluster, node, leader, old))
    assert kept_on(cluster, node)
    assert set_aside_of(cluster.disks[node], DIRECTORY) == []
    await cluster.close()


@simulated
async def test_a_read_for_a_mending_that_the_disk_refuses_is_one_of_the_replica() -> None:
    cluster, leader, node = await cluster_with()
    path = rot(cluster, node, 1)
    asked = next(n for n in leader.core.members.everybody if n != node)
    refusing = replica_on(cluster, asked)

    def refuse(index: int, max_bytes: int) -> list[Batch]:
        raise StorageError("the disk does not answer")

    refusing.log.slice = refuse  # type: ignore[method-assign, assignment]
    report(cluster, node, path)
    await until(lambda: refusing.failure is not None)
    await until(lambda: bool(kept_on(cluster, node)))
    await cluster.close()


@simulated
async def test_a_node_that_closes_in_the_middle_starts_nothing_over() -> None:
    cluster, leader, node = await cluster_with()
    path = rot(cluster, node, 1)
    report(cluster, node, path)
    await cluster.hosts[node].close()
    assert set_aside_of(cluster.disks[node], DIRECTORY) == []
    await cluster.open_node(node)
    await until(lambda: is_level(cluster, node, leader, leader))
    await cluster.close()


@pytest.mark.parametrize(
    "message", [BatchQuestion(1 << 63, Index(4), Index(9)), BatchAnswer(7, b"batches")]
)
def test_messages_come_out_as_they_went_in(message: BatchQuestion | BatchAnswer) -> None:
    encoded = encode_mending(message)
    assert is_mending(encoded)
    decoded = decode_mending(encoded)
    if isinstance(decoded, BatchAnswer):
        decoded = replace(decoded, batches=bytes(decoded.batches))
    assert decoded == message
    for size_bytes in range(1, 9):
        with pytest.raises(ProtocolError):
            decode_mending(encoded[:size_bytes])


def test_questions_that_no_correct_peer_asks_are_refused() -> None:
    for first, through in ((0, 4), (5, 4)):
        with pytest.raises(ProtocolError):
            decode_mending(encode_mending(BatchQuestion(1, Index(first), Index(through))))
