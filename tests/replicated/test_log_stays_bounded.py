"""Old files of the log go, in virtual time, and whoever needed them is given the state."""

import asyncio
from contextlib import suppress
from functools import partial

import pytest

from quorumlog.errors import QuorumlogError
from quorumlog.log.config import LogConfig
from quorumlog.replicated.command import trim_draft
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.log_trimming import LogTrimming
from quorumlog.types import NodeId
from sim.clock import SimClock
from support.replica_cluster import GROUP, simulated
from support.replicated_group import VirtualGroup, group_machine_of
from support.replicated_storm import storm

_SEGMENT_BYTES = 4096
_COMMAND = b"x" * 200


def _with_small_files(seed: int = 0, loss: float = 0.0) -> VirtualGroup:
    config = ReplicationConfig(state_interval_bytes=_SEGMENT_BYTES)
    group = VirtualGroup(seed, loss, config)
    group.cluster.log_config = LogConfig(segment_bytes=_SEGMENT_BYTES)
    return group


async def _opened() -> VirtualGroup:
    group = _with_small_files()
    await group.open()
    return group


async def _trim(group: VirtualGroup, node: NodeId, max_lag_s: float = 900.0) -> int:
    host = group.cluster.hosts[node]
    trimming = LogTrimming(
        replica=lambda: host.replicas[GROUP],
        clock=SimClock(asyncio.get_running_loop()),
        interval_s=1.0,
        max_lag_s=max_lag_s,
        trim_draft=trim_draft,
        on_damage=partial(host.report_damage, GROUP),
    )
    return await group.run_on(node, lambda requests: trimming.run_once())


async def _write(group: VirtualGroup, count: int) -> None:
    leader = await group.leader()
    for _ in range(count):
        await group.propose(leader, _COMMAND)


async def _trim_all(group: VirtualGroup) -> None:
    """The leader first: it says what may go."""
    leader = await group.leader()
    await _trim(group, leader)
    await asyncio.sleep(0.5)
    for node in sorted(group.requests):
        await _trim(group, node)


def _file_count(group: VirtualGroup, node: NodeId) -> int:
    return len(group.cluster.hosts[node].replicas[GROUP].log.upkeep.segments())


@simulated
async def test_every_replica_keeps_a_few_files_however_long_it_runs() -> None:
    group = await _opened()
    for _ in range(6):
        await _write(group, 60)
        await _trim_all(group)
    counts = [_file_count(group, node) for node in group.nodes]
    # 360 commands of 320 bytes would be 28 files.
    assert max(counts) <= 6
    lines = [await group.read(node) for node in group.nodes]
    assert lines == [[_COMMAND.decode()] * 360] * 3


@simulated
async def test_a_restart_goes_on_from_the_saved_state_and_remembers_requests() -> None:
    group = await _opened()
    leader = await group.leader()
    assert await group.propose(leader, b"first", request_id="r") == b"1"
    await _write(group, 100)
    await _trim_all(group)
    for node in group.nodes:
        assert group.cluster.hosts[node].replicas[GROUP].log.start_index > 1
        group.power_cut(node)
    await group.open()
    assert len(await group.read(group.nodes[0])) == 101
    assert await group.propose(await group.leader(), b"first", request_id="r") == b"1"


@simulated
async def test_files_wait_for_a_member_that_is_away_but_not_for_ever() -> None:
    group = await _opened()
    away = await group.follower()
    group.power_cut(away)
    await _write(group, 100)
    leader = await group.leader()
    await _trim_all(group)
    assert group.cluster.hosts[leader].replicas[GROUP].log.start_index == 1
    await asyncio.sleep(2)
    await _trim(group, leader, max_lag_s=1)
    assert group.cluster.hosts[leader].replicas[GROUP].log.start_index > 1
    # What it lacks is gone: it is given the state.
    await group.open_node(away)
    assert len(await group.read(away, timeout_s=20)) == 100


@simulated
async def test_a_replica_whose_saved_states_are_all_damaged_starts_over_from_its_peers() -> None:
    group = await _opened()
    await _write(group, 100)
    await _trim_all(group)
    node = await group.follower()
    group.power_cut(node)
    disk = group.cluster.disks[node]
    for name in disk.list_directory("groups/1"):
        if name.endswith(".state"):
            disk.flip_bit(f"groups/1/{name}", 400, 0)
    await group.open_node(node)
    assert len(await group.read(node, timeout_s=20)) == 100


@simulated
async def test_nothing_goes_that_only_the_newest_saved_state_has() -> None:
    group = await _opened()
    await _write(group, 100)
    await _trim_all(group)
    node = await group.follower()
    group.power_cut(node)
    disk = group.cluster.disks[node]
    newest = max(name for name in disk.list_directory("groups/1") if name.endswith(".state"))
    disk.flip_bit(f"groups/1/{newest}", 400, 0)
    group.cluster.wire.cut = set(group.nodes) - {node}
    await group.open_node(node)
    replica = group.cluster.hosts[node].replicas[GROUP]
    assert replica.failure is None
    assert replica.log.start_index > 1
    assert group_machine_of(replica).index >= replica.log.start_index - 1


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_or_doubled_while_files_go_and_nodes_die(seed: int) -> None:
    async def trim(group: VirtualGroup) -> None:
        for node in sorted(group.requests):
            with suppress(QuorumlogError):
                await _trim(group, node, max_lag_s=0.1)

    simulated(lambda: storm(seed, _with_small_files, trim))()
