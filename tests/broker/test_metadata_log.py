"""The metadata's log stays bounded, and a node that needs what is gone is given the state."""

import asyncio
from functools import partial

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_machine import MetadataMachine, trim_draft
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.config import LogConfig
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.log_trimming import LogTrimming
from quorumlog.replication.replica import Replica
from quorumlog.types import NodeId
from sim.clock import SimClock
from support.replica_cluster import GROUP, Cluster, simulated

SEGMENT_BYTES = 4096
NO_STATES = ReplicationConfig(state_interval_bytes=1 << 40)
"""None is saved but for trimming."""


class Metadata(Cluster):
    """Three replicas of a metadata group, with small files."""

    def __init__(self) -> None:
        super().__init__(
            3, machine=lambda: MetadataMachine(MetadataState(), f"groups/{GROUP}", lambda: None)
        )
        self.log_config = LogConfig(segment_bytes=SEGMENT_BYTES)

    def replica(self, node: NodeId) -> Replica:
        return self.hosts[node].replicas[GROUP]

    def trimming(self, node: NodeId, saves_states: bool = True) -> LogTrimming:
        return LogTrimming(
            replica=lambda: self.replica(node),
            clock=SimClock(asyncio.get_running_loop()),
            interval_s=1.0,
            max_lag_s=5.0,
            trim_draft=trim_draft,
            on_damage=partial(self.hosts[node].report_damage, GROUP),
            saves_states=saves_states,
        )

    async def write(self, count: int) -> None:
        """As many commands, each of some 200 bytes in the log."""
        leader = await self.leader()
        for number in range(count):
            node = pb.Node(id=f"n{number % 7}", name="n" * 100, address=f"host:{number}")
            command = pb.Command(register_node=pb.RegisterNode(node=node))
            await leader.propose(Draft.of(command.SerializeToString(), kind=Kind.COMMAND))

    async def open(self, config: ReplicationConfig | None = None) -> None:
        """With a command, where there is none yet, that no later one makes good."""
        await super().open(config)
        leader = await self.leader()
        if leader.log.last_index < 5:
            command = pb.Command(set_cluster=pb.SetCluster(replace_failed_after_s=77))
            await leader.propose(Draft.of(command.SerializeToString(), kind=Kind.COMMAND))

    async def write_and_trim(self, rounds: int) -> None:
        for _ in range(rounds):
            await self.write(30)
            for node in sorted(self.hosts):
                await self.trimming(node).run_once()
            await asyncio.sleep(0.2)

    def state_of(self, node: NodeId) -> bytes:
        return self.replica(node).state_machine.snapshot()

    async def until_all_equal(self) -> None:
        async with asyncio.timeout(20):
            while len({self.state_of(node) for node in self.nodes}) > 1:
                await asyncio.sleep(0.05)


@simulated
async def test_every_replica_keeps_a_few_files_however_much_the_metadata_change() -> None:
    cluster = Metadata()
    await cluster.open(NO_STATES)
    await cluster.write_and_trim(20)
    await cluster.until_all_equal()
    # 600 commands are some 40 files; what comes between two turns is two.
    counts = {node: len(cluster.replica(node).log.segments()) for node in cluster.nodes}
    assert max(counts.values()) <= 8
    assert min(cluster.replica(node).log.start_index for node in cluster.nodes) > 400
    await cluster.close()


@simulated
async def test_a_node_that_was_away_for_long_is_given_the_state() -> None:
    cluster = Metadata()
    await cluster.open(NO_STATES)
    leader = cluster.node_of(await cluster.leader())
    away = next(node for node in cluster.nodes if node != leader)
    await cluster.write_and_trim(1)
    has_index = cluster.replica(away).log.last_index
    cluster.power_cut(away)
    await cluster.write_and_trim(5)
    assert cluster.replica(leader).log.start_index <= has_index + 1
    await asyncio.sleep(6)
    await cluster.write_and_trim(5)
    assert cluster.replica(leader).log.start_index > 100
    await cluster.open_node(away, NO_STATES)
    await cluster.until_all_equal()
    assert cluster.replica(away).log.start_index == cluster.replica(leader).log.start_index
    await cluster.close()


@simulated
async def test_a_start_goes_on_from_the_saved_state() -> None:
    cluster = Metadata()
    await cluster.open(NO_STATES)
    await cluster.write_and_trim(10)
    await cluster.until_all_equal()
    before = cluster.state_of(cluster.nodes[0])
    for node in cluster.nodes:
        assert cluster.replica(node).log.start_index > 1
        cluster.power_cut(node)
    await cluster.open(NO_STATES)
    await cluster.leader()
    await cluster.until_all_equal()
    assert cluster.state_of(cluster.nodes[0]) == before
    await cluster.close()


@simulated
async def test_a_replica_whose_saved_states_are_all_damaged_starts_over_from_its_peers() -> None:
    cluster = Metadata()
    await cluster.open(NO_STATES)
    await cluster.write_and_trim(10)
    leader = cluster.node_of(await cluster.leader())
    node = next(node for node in cluster.nodes if node != leader)
    cluster.power_cut(node)
    directory, disk = f"groups/{GROUP}", cluster.disks[node]
    for name in disk.list_directory(directory):
        if name.endswith(".state"):
            disk.flip_bit(f"{directory}/{name}", 400, 0)
    await cluster.open_node(node, NO_STATES)
    await cluster.until_all_equal()
    await cluster.close()


@simulated
async def test_a_replica_without_a_whole_state_takes_no_empty_one_for_its_own() -> None:
    """Its leader has the whole log still, so that it is given no state."""
    cluster = Metadata()
    await cluster.open(NO_STATES)
    leader = cluster.node_of(await cluster.leader())
    node = next(node for node in cluster.nodes if node != leader)
    for _ in range(8):
        await cluster.write(30)
        await cluster.trimming(leader, saves_states=False).run_once()
        await asyncio.sleep(0.2)
        await cluster.trimming(node).run_once()
    assert cluster.replica(leader).log.start_index == 1
    assert cluster.replica(node).log.start_index > 30
    cluster.power_cut(node)
    directory, disk = f"groups/{GROUP}", cluster.disks[node]
    for name in disk.list_directory(directory):
        if name.endswith(".state"):
            disk.remove(f"{directory}/{name}")
    await cluster.open_node(node, NO_STATES)
    await cluster.until_all_equal()
    await cluster.close()


@simulated
async def test_a_replica_without_any_state_takes_no_old_voters_for_those_of_today() -> None:
    """Who votes stood in a state that is gone: it votes no more before it has it from its peers."""
    cluster = Metadata()
    await cluster.open(NO_STATES)
    await cluster.write_and_trim(10)
    leader = cluster.node_of(await cluster.leader())
    node = next(node for node in cluster.nodes if node != leader)
    assert cluster.replica(node).log.start_index > 30
    cluster.power_cut(node)
    directory, disk = f"groups/{GROUP}", cluster.disks[node]
    for name in disk.list_directory(directory):
        if name.endswith(".state"):
            disk.remove(f"{directory}/{name}")
    await cluster.open_node(node, NO_STATES)
    assert cluster.replica(node).core.recovering
    await cluster.until_all_equal()
    await cluster.close()
