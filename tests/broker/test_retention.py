"""Retention of partitions: the leader proposes, every replica follows and gives its files back."""

import asyncio
from collections.abc import Callable

import pytest

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.partition import PartitionMachine
from quorumlog.broker.retention import (
    SEGMENTS_PER_TURN,
    RetentionConfig,
    RetentionKeeper,
    free_index_of,
)
from quorumlog.errors import ConfigError
from quorumlog.log.config import LogConfig
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.replica import Replica
from quorumlog.types import NodeId
from sim.clock import SimClock
from support.replica_cluster import GROUP, Cluster, draft, simulated

RECORD = bytes(300)
LONG = RetentionConfig(interval_s=1.0, max_lag_s=1000.0)


class Kept:
    """A topic ``t`` of one partition, and on each node a keeper that makes turns when told to."""

    def __init__(self, size: int, config: RetentionConfig = LONG, **limits: int) -> None:
        self.cluster = Cluster(size, machine=PartitionMachine)
        self.cluster.log_config = LogConfig(segment_bytes=1200, index_interval_bytes=256)
        self.metadata = MetadataState()
        self.config = config
        self.replication = ReplicationConfig()
        self.apply(
            pb.Command(
                create_topic=pb.CreateTopic(
                    name="t", partitions=1, replicas=size, candidates=self.cluster.nodes
                )
            )
        )
        self.limit(**limits)
        self.keepers: dict[NodeId, RetentionKeeper] = {}

    def apply(self, command: pb.Command) -> None:
        result = self.metadata.apply(command.SerializeToString(), self.metadata.applied_index + 1)
        assert not result.error, result.message

    def limit(self, **limits: int) -> None:
        config = pb.TopicConfig(**limits)
        self.apply(pb.Command(alter_topic=pb.AlterTopic(name="t", config=config)))

    async def open(self) -> Replica:
        await self.cluster.open(self.replication)
        for node in self.cluster.nodes:
            self.keepers[node] = RetentionKeeper(
                node_id=node,
                host=self.cluster.hosts[node],
                metadata=self.metadata,
                clock=SimClock(asyncio.get_running_loop()),
                config=self.config,
            )
        return await self.cluster.leader()

    async def turns(self, count: int = 4) -> None:
        """So many turns everywhere, and time for what they began."""
        for _ in range(count):
            for keeper in self.keepers.values():
                await keeper.run_once()
            await asyncio.sleep(0.2)

    @property
    def starts(self) -> list[int]:
        return [replica.log.start_offset for replica in self.cluster.replicas.values()]

    def bytes_of(self, node: NodeId) -> int:
        disk, directory = self.cluster.disks[node], f"groups/{GROUP}"
        names = [name for name in disk.list_directory(directory) if name.endswith(".log")]
        return sum(disk.open_readonly(f"{directory}/{name}").size_bytes() for name in names)


async def produce(leader: Replica, count: int) -> None:
    for _ in range(count):
        await leader.propose(draft(RECORD))


async def trim(leader: Replica, offset: int) -> None:
    machine = leader.state_machine
    assert isinstance(machine, PartitionMachine)
    await leader.propose(machine.start_draft(offset, 0))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@simulated
async def test_records_over_a_limit_go_on_all_replicas_alike_and_their_files_with_them() -> None:
    kept = Kept(3, retention_records=6)
    leader = await kept.open()
    await produce(leader, 30)
    before = {node: kept.bytes_of(node) for node in kept.cluster.nodes}
    await kept.turns()
    assert len(set(kept.starts)) == 1
    # A quarter of the limit is the most that stays beyond it: the active segment is rolled then.
    assert 30 - 6 - 4 <= kept.starts[0] <= 30 - 6
    for node, replica in kept.cluster.replicas.items():
        assert kept.bytes_of(node) < before[node]
        assert replica.log.start_index > 15
    assert len({each.state_machine.snapshot() for each in kept.cluster.replicas.values()}) == 1
    await kept.cluster.close()


@pytest.mark.parametrize("limits", [{"retention_bytes": 1 << 16}, {"retention_ms": 5000}])
def test_bytes_and_age_are_limits_as_well(limits: dict[str, int]) -> None:
    @simulated
    async def scenario() -> None:
        kept = Kept(1, **limits)
        leader = await kept.open()
        await produce(leader, 60)
        await asyncio.sleep(6)
        await produce(leader, 4)
        await kept.turns()
        start = leader.log.start_offset
        # By bytes some of the first 60 are still among the newest, by age none, but for one file.
        assert 40 <= start <= 60
        await kept.turns(2)
        assert leader.log.start_offset == start
        await kept.cluster.close()

    scenario()


@simulated
async def test_an_idle_partition_gets_empty_and_then_nothing_more_is_written() -> None:
    kept = Kept(3, retention_ms=2000)
    leader = await kept.open()
    await produce(leader, 7)
    await asyncio.sleep(3)
    await kept.turns()
    await asyncio.sleep(3)
    await kept.turns()
    assert kept.starts == [7, 7, 7]
    assert all(each.log.start_index > 7 for each in kept.cluster.replicas.values())
    last_index = leader.log.last_index
    for _ in range(3):
        await asyncio.sleep(3)
        await kept.turns(2)
    assert leader.log.last_index == last_index
    await kept.cluster.close()


@simulated
async def test_without_a_limit_nothing_is_deleted_and_a_limit_can_be_set_and_taken_off() -> None:
    kept = Kept(1)
    leader = await kept.open()
    await produce(leader, 12)
    await kept.turns()
    assert kept.starts == [0]
    kept.limit(retention_records=6)
    await kept.turns()
    start = leader.log.start_offset
    assert 0 < start <= 6
    kept.limit(retention_records=-1)
    await produce(leader, 12)
    await kept.turns()
    assert leader.log.start_offset == start
    await kept.cluster.close()


@simulated
async def test_what_was_trimmed_goes_from_the_disks_up_to_the_last_record() -> None:
    kept = Kept(3)
    leader = await kept.open()
    await produce(leader, 10)
    await trim(leader, 10)
    await until(lambda: kept.starts == [10, 10, 10])
    await kept.turns()
    for replica in kept.cluster.replicas.values():
        assert replica.log.start_index > 10
        assert len(replica.log.segments()) == 1
    await produce(leader, 1)
    assert leader.high_watermark.value == 11
    await kept.cluster.close()


@simulated
async def test_files_stay_for_a_follower_that_lacks_them_and_readers_see_them_no_more() -> None:
    kept = Kept(3, retention_records=6)
    leader = await kept.open()
    behind = next(node for node in kept.cluster.nodes if node != kept.cluster.node_of(leader))
    await produce(leader, 3)
    kept.cluster.wire.cut.add(behind)
    await produce(leader, 27)
    await kept.turns()
    assert leader.log.start_offset >= 20
    assert leader.log.start_index <= 5, "the follower has the no-op and three records"
    kept.cluster.wire.cut.clear()
    await until(lambda: kept.cluster.replicas[behind].high_watermark.value == 30)
    await until(lambda: len(set(kept.starts)) == 1)
    await kept.turns()
    assert all(each.log.start_index > 15 for each in kept.cluster.replicas.values())
    await kept.cluster.close()


@simulated
async def test_a_follower_that_was_silent_for_too_long_is_not_waited_for() -> None:
    kept = Kept(3, RetentionConfig(interval_s=1.0, max_lag_s=5.0), retention_records=6)
    leader = await kept.open()
    await produce(leader, 3)
    behind = next(node for node in kept.cluster.nodes if node != kept.cluster.node_of(leader))
    kept.cluster.wire.cut.add(behind)
    await produce(leader, 27)
    now_s = SimClock(asyncio.get_running_loop()).monotonic_s
    assert free_index_of(leader, now_s(), 5.0) <= 5
    await kept.turns(2)
    assert leader.log.start_index <= 5
    await asyncio.sleep(6)
    assert free_index_of(leader, now_s(), 5.0) == leader.applied_index
    await kept.turns()
    assert leader.log.start_index > 15
    assert free_index_of(kept.cluster.replicas[behind], now_s(), 5.0) == 0
    await kept.cluster.close()


@simulated
async def test_a_turn_removes_so_many_files_and_says_that_there_are_more() -> None:
    kept = Kept(1)
    kept.cluster.log_config = LogConfig(segment_bytes=1024, index_interval_bytes=256)
    leader = await kept.open()
    for _ in range(SEGMENTS_PER_TURN + 10):
        await leader.propose(draft(bytes(900)))
    await trim(leader, leader.high_watermark.value)
    keeper = kept.keepers[NodeId("n0")]
    assert await keeper.run_once(), "the command that gives the files free"
    await asyncio.sleep(0.2)
    before = len(leader.log.segments())
    assert await keeper.run_once()
    assert before - len(leader.log.segments()) <= SEGMENTS_PER_TURN
    await kept.turns()
    assert len(leader.log.segments()) == 1
    assert not await keeper.run_once()
    await kept.cluster.close()


@simulated
async def test_the_task_takes_turns_by_itself_and_when_it_is_woken() -> None:
    kept = Kept(1, RetentionConfig(interval_s=50.0), retention_records=6)
    leader = await kept.open()
    await produce(leader, 12)
    keeper = kept.keepers[NodeId("n0")]
    task = asyncio.create_task(keeper.run())
    await until(lambda: leader.log.start_offset > 0)
    await asyncio.sleep(5)
    start = leader.log.start_offset
    await produce(leader, 12)
    await asyncio.sleep(5)
    assert leader.log.start_offset == start
    keeper.wake()
    await until(lambda: leader.log.start_offset > start)
    task.cancel()
    await kept.cluster.close()


@simulated
async def test_a_fenced_or_closed_replica_keeps_no_other_from_its_turn() -> None:
    kept = Kept(1, retention_records=6)
    leader = await kept.open()
    await produce(leader, 12)
    await leader.close()
    assert not await kept.keepers[NodeId("n0")].run_once()
    leader.failure = OSError("broken on purpose")
    assert not await kept.keepers[NodeId("n0")].run_once()


@pytest.mark.parametrize("wrong", [{"interval_s": 0.0}, {"max_lag_s": -1.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        RetentionConfig(**wrong)


STATES = ReplicationConfig(state_interval_bytes=1000)
"""So many are saved that a start reads little of the log."""


def damage_a_header(kept: Kept, node: NodeId, number: int) -> None:
    """That of a sealed segment, while the node is down."""
    disk, directory = kept.cluster.disks[node], f"groups/{GROUP}"
    names = sorted(name for name in disk.list_directory(directory) if name.endswith(".log"))
    disk.flip_bit(f"{directory}/{names[number]}", 16, 0)


@simulated
async def test_what_precedes_a_damaged_segment_goes_where_there_is_no_other_copy() -> None:
    kept = Kept(1, retention_records=6)
    kept.replication = STATES
    leader = await kept.open()
    await produce(leader, 30)
    segments = leader.log.segments()
    node = kept.cluster.nodes[0]
    kept.cluster.power_cut(node)
    damage_a_header(kept, node, 5)
    leader = await kept.open()
    await kept.turns()
    # Where the segment before the damaged one ends is not known, so that one stays.
    assert leader.log.start_offset == segments[4].base_offset > 0
    assert leader.log.start_index == segments[4].first_index
    assert leader.failure is None
    await kept.cluster.close()


@simulated
async def test_a_replica_in_which_retention_meets_damage_is_made_anew() -> None:
    kept = Kept(3, retention_records=6)
    kept.replication = STATES
    leader = await kept.open()
    await produce(leader, 30)
    node = next(each for each in kept.cluster.nodes if each != kept.cluster.node_of(leader))
    for each in kept.cluster.nodes:
        kept.cluster.power_cut(each)
    damage_a_header(kept, node, 5)
    await kept.open()
    assert kept.cluster.replicas[node].failure is None
    await kept.turns(10)
    replicas = {each: kept.cluster.hosts[each].replicas[GROUP] for each in kept.cluster.nodes}
    assert replicas[node] is not kept.cluster.replicas[node]
    await until(lambda: len({replica.applied_index for replica in replicas.values()}) == 1)
    assert len({replica.log.start_offset for replica in replicas.values()}) == 1
    await kept.cluster.close()
