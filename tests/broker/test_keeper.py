"""The keeper: replicas follow the metadata, and one partition's trouble is no other's."""

import asyncio
import errno
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.keeper import PartitionKeeper
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.topic_config import TopicConfig
from quorumlog.log.config import LogConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.host import GroupHost
from quorumlog.types import Buffer, GroupId, NodeId
from sim.clock import SimClock
from sim.disk import SimDisk, SimFile
from sim.loop import SimLoop
from sim.process import Process
from sim.worker import SimWorker, WorkerSpeed

NODE = NodeId("a")


def simulated(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        loop = SimLoop(end_s=120)
        try:
            loop.run_until_complete(scenario())
        finally:
            loop.dispose()

    run.__name__ = getattr(scenario, "__name__", "scenario")
    return run


class NoPeers:
    def send(self, peer: NodeId, group: GroupId, payload: Buffer) -> None: ...

    def on_message(self, handler: Callable[[NodeId, GroupId, memoryview], None]) -> None: ...


class BadDisk(SimDisk):
    """Below ``bad`` nothing can be opened or removed."""

    bad = ""

    def open(self, path: str, *, create: bool = False) -> SimFile:
        self._refuse(path)
        return super().open(path, create=create)

    def remove_directory(self, path: str) -> None:
        self._refuse(path)
        super().remove_directory(path)

    def _refuse(self, path: str) -> None:
        if self.bad and path.startswith(self.bad):
            raise OSError(errno.EIO, "Input/output error", path)


def log_config(topic: TopicConfig) -> LogConfig:
    return LogConfig(max(topic.segment_bytes, 1 << 20), fsync=topic.fsync)


class Kept:
    """A keeper with all it needs, on a disk that can go bad."""

    def __init__(self, disk: BadDisk | None = None) -> None:
        rng = random.Random(1)
        self.disk = BadDisk(rng) if disk is None else disk
        self.metadata = MetadataState()
        self.host = GroupHost(
            node_id=NODE,
            directory="groups",
            disk=self.disk,
            clock=SimClock(asyncio.get_running_loop()),
            worker=SimWorker(Process("a"), rng, WorkerSpeed()),
            transport=NoPeers(),
            rng=rng,
        )
        self.is_durable = True
        self.is_caught_up = True
        self.looks = 0
        self.keeper = PartitionKeeper(
            node_id=NODE,
            host=self.host,
            metadata=self.metadata,
            log_config=log_config,
            is_durable=lambda: self.is_durable,
            is_caught_up=lambda: self.is_caught_up,
            look_again=self._look_again,
        )
        self.metadata.on_change(self.keeper.note)

    def _look_again(self) -> None:
        self.looks += 1

    def apply(self, command: pb.Command) -> None:
        result = self.metadata.apply(command.SerializeToString(), self.metadata.applied_index + 1)
        assert not result.error, result.message

    def create(self, name: str, partitions: int) -> None:
        self.apply(
            pb.Command(
                create_topic=pb.CreateTopic(
                    name=name, partitions=partitions, replicas=1, candidates=[NODE]
                )
            )
        )


@simulated
async def test_a_partition_that_cannot_be_opened_keeps_no_other_closed() -> None:
    kept = Kept()
    kept.create("t", 3)
    kept.disk.bad = "groups/1"
    with pytest.raises(OSError, match="Input/output"):
        await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == [2, 3]
    kept.disk.bad = ""
    await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == [1, 2, 3]
    await kept.host.close()


@simulated
async def test_a_partition_that_cannot_be_removed_is_tried_again_and_keeps_no_other() -> None:
    kept = Kept()
    kept.create("gone", 2)
    await kept.keeper.reconcile()
    kept.apply(pb.Command(delete_topic=pb.DeleteTopic(name="gone")))
    kept.create("next", 1)
    kept.disk.bad = "groups/1"
    with pytest.raises(OSError, match="Input/output"):
        await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == [3]
    assert not kept.disk.exists("groups/2")
    kept.disk.bad = ""
    await kept.keeper.reconcile()
    assert not kept.disk.exists("groups/1")
    await kept.host.close()


@pytest.mark.parametrize(
    "config", [pb.TopicConfig(fsync="interval"), pb.TopicConfig(segment_bytes=2 << 20)]
)
def test_other_settings_of_the_log_open_the_replica_anew_with_its_records(
    config: pb.TopicConfig,
) -> None:
    simulated(partial(alter_while_open, config))()


async def alter_while_open(config: pb.TopicConfig) -> None:
    kept = Kept()
    kept.create("t", 1)
    await kept.keeper.reconcile()
    before = kept.host.replicas[GroupId(1)]
    await asyncio.sleep(2)
    assert before.serving
    kept.apply(pb.Command(alter_topic=pb.AlterTopic(name="t", config={"retention_ms": 5})))
    await kept.keeper.reconcile()
    assert kept.host.replicas[GroupId(1)] is before
    kept.apply(pb.Command(alter_topic=pb.AlterTopic(name="t", config=config)))
    await kept.keeper.reconcile()
    after = kept.host.replicas[GroupId(1)]
    assert after is not before
    assert after.log.last_index == before.log.last_index
    await kept.host.close()


@simulated
async def test_what_was_deleted_before_the_saved_state_is_removed_and_nothing_else() -> None:
    kept = Kept()
    kept.create("gone", 2)
    kept.create("stays", 1)
    await kept.keeper.reconcile()
    await kept.host.close()
    # The process ends after the deletion was applied and saved, and before it was carried out.
    kept.apply(pb.Command(delete_topic=pb.DeleteTopic(name="gone")))
    for name in ("0", "9", "lost+found"):
        kept.disk.make_directory(f"groups/{name}")
    state = kept.metadata.snapshot()
    after = Kept(kept.disk)
    after.metadata.restore(state)
    await after.keeper.reconcile()
    assert sorted(after.host.replicas) == [3]
    # Group 9 is of a command that is not applied here yet.
    assert after.disk.list_directory("groups") == ["0", "3", "9", "lost+found"]
    await after.host.close()


@simulated
async def test_before_the_metadata_are_known_nothing_is_removed() -> None:
    kept = Kept()
    kept.create("t", 2)
    await kept.keeper.reconcile()
    await kept.host.close()
    after = Kept(kept.disk)
    await after.keeper.reconcile()
    assert after.disk.list_directory("groups") == ["1", "2"]
    after.create("t", 2)
    await after.keeper.reconcile()
    assert sorted(after.host.replicas) == [1, 2]
    await after.host.close()


def registered(kept: Kept, *nodes: str) -> None:
    for node in nodes:
        message = pb.Node(id=node, name=node, address=f"{node}:7400")
        kept.apply(pb.Command(register_node=pb.RegisterNode(node=message)))


def ordered(kept: Kept, wanted: str) -> int:
    kept.apply(pb.Command(assign_replicas=pb.AssignReplicas(group=1, wanted=wanted)))
    return kept.metadata.applied_index


def reported(kept: Kept, move: int, replicas: str, settled_index: int) -> None:
    moved = pb.ReplicasMoved.Moved(
        group=1, move=move, replicas=replicas, settled_index=settled_index
    )
    kept.apply(pb.Command(replicas_moved=pb.ReplicasMoved(moved=[moved])))


@simulated
async def test_a_replica_stays_until_the_move_is_reported_and_only_its_votes_stay_then() -> None:
    kept = Kept()
    registered(kept, "a", "b")
    kept.create("t", 1)
    await kept.keeper.reconcile()
    await asyncio.sleep(2)
    move = ordered(kept, "b")
    await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == [1]
    reported(kept, move, "b", settled_index=9)
    await kept.keeper.reconcile()
    assert (sorted(kept.host.replicas), kept.keeper.machines) == ([], {})
    assert kept.disk.list_directory("groups/1") == ["hard-state", "recovering"]
    await kept.keeper.reconcile()
    ordered(kept, "a")
    await kept.keeper.reconcile()
    replica = kept.host.replicas[GroupId(1)]
    assert (replica.core.members.everybody, replica.core.recovering) == ((), True)
    assert replica.core.term == 1
    await kept.host.close()


@simulated
async def test_what_moved_away_while_the_node_was_down_goes_at_its_start() -> None:
    kept = Kept()
    registered(kept, "a", "b")
    kept.create("t", 1)
    await kept.keeper.reconcile()
    await asyncio.sleep(2)
    await kept.host.close()
    reported(kept, ordered(kept, "b"), "b", settled_index=9)
    after = Kept(kept.disk)
    after.metadata.restore(kept.metadata.snapshot())
    after.is_caught_up = False  # it may have been given the group again since
    held = after.disk.list_directory("groups/1")
    await after.keeper.reconcile()
    await asyncio.sleep(2)
    assert (after.disk.list_directory("groups/1"), after.looks) == (held, 1)
    after.is_caught_up = True
    await after.keeper.reconcile()
    assert after.disk.list_directory("groups/1") == ["hard-state", "recovering"]
    after.apply(pb.Command(delete_topic=pb.DeleteTopic(name="t")))
    await after.keeper.reconcile()
    assert after.disk.list_directory("groups") == []
    await after.host.close()


@simulated
async def test_a_replica_whose_log_says_that_it_was_added_again_stays() -> None:
    kept = Kept()
    registered(kept, "a", "b")
    kept.create("t", 1)
    await kept.keeper.reconcile()
    await asyncio.sleep(2)
    replica = kept.host.replicas[GroupId(1)]
    # A leader that had not heard of the report yet: its configuration is behind what was settled.
    await replica.propose_members(Members((NODE,), (NodeId("b"),)))
    added_at = replica.core.members_index
    move = ordered(kept, "b")
    reported(kept, move, "b", settled_index=added_at - 1)
    await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == [1]
    reported(kept, move, "b", settled_index=added_at)
    await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == []
    await kept.host.close()


@simulated
async def test_no_group_is_opened_before_the_command_that_gave_it_out_is_durable() -> None:
    kept = Kept()
    kept.create("t", 2)
    kept.is_durable = False
    await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == []
    assert not kept.disk.exists("groups")
    assert kept.looks == 0
    await asyncio.sleep(1)
    assert kept.looks > 0
    kept.is_durable = True
    await kept.keeper.reconcile()
    # What was opened is opened again as before: its command was durable then.
    kept.is_durable = False
    kept.apply(pb.Command(alter_topic=pb.AlterTopic(name="t", config={"fsync": "interval"})))
    await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == [1, 2]
    await kept.host.close()


async def without_list() -> Kept:
    """A node that had two groups, and starts again without the list of them."""
    disk = BadDisk(random.Random(1))
    before = Kept(disk)
    before.create("t", 2)
    await before.keeper.reconcile()
    await asyncio.sleep(5)
    await before.host.close()
    disk.remove("groups.list")
    kept = Kept(disk)
    kept.create("t", 2)
    return kept


async def at_once() -> None: ...


@simulated
async def test_groups_given_out_before_the_lost_list_is_settled_wait_and_are_opened() -> None:
    kept = await without_list()
    know, writing, may_write = kept.host.know_groups_from, asyncio.Event(), asyncio.Event()

    async def slowly(group: GroupId) -> None:
        writing.set()
        await may_write.wait()
        await know(group)

    kept.host.know_groups_from = slowly  # type: ignore[method-assign]
    settling = asyncio.ensure_future(kept.keeper.settle_list(at_once))
    await writing.wait()
    kept.create("u", 1)
    await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == [1, 2]
    may_write.set()
    await settling
    assert kept.looks == 1
    await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == [1, 2, 3]
    await kept.host.close()


@simulated
async def test_a_lost_list_that_cannot_be_settled_at_first_is_settled_later() -> None:
    kept = await without_list()
    await kept.keeper.reconcile()
    kept.disk.bad = "groups.list"
    settling = asyncio.ensure_future(kept.keeper.settle_list(at_once))
    await asyncio.sleep(3)
    kept.create("u", 1)
    await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == [1, 2]
    kept.disk.bad = ""
    await settling
    await kept.keeper.reconcile()
    assert sorted(kept.host.replicas) == [1, 2, 3]
    await kept.host.close()


@simulated
async def test_what_was_lost_with_the_list_is_damaged_and_does_not_begin_anew() -> None:
    kept = await without_list()
    kept.disk.remove_directory("groups/1")
    await kept.keeper.reconcile()
    await kept.keeper.settle_list(at_once)
    kept.create("u", 1)
    with capture_logs() as logs:
        await kept.keeper.reconcile()
        await kept.keeper.reconcile()
    damaged = [line["group"] for line in logs if line["event"] == "partition_damaged"]
    assert (sorted(kept.host.replicas), damaged) == ([2, 3], [1])
    await kept.host.close()
