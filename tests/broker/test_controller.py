"""What becomes of a controller that meets a bug."""

import asyncio
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.controller import Controller
from quorumlog.broker.led_groups import LedGroup
from quorumlog.broker.peer_calls import Introduction
from quorumlog.broker.replacement import Replacement
from quorumlog.errors import InvariantViolation
from quorumlog.log.config import LogConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import METADATA_GROUP, GroupId, NodeId
from sim.clock import SimClock
from sim.disk import SimDisk
from sim.loop import SimLoop
from sim.membership import StaticMembership, member
from sim.process import Process
from sim.worker import SimWorker, WorkerSpeed


class NoPeers:
    def send(self, *message: object) -> None: ...

    def on_message(self, handler: object) -> None: ...

    async def propose(self, peer: NodeId, command: bytes) -> bytes:
        raise AssertionError("a single node asks nobody")

    async def replacements(self, peer: NodeId) -> list[Replacement]:
        raise AssertionError("a single node asks nobody")

    async def led_groups(self, peer: NodeId, groups: Sequence[GroupId]) -> dict[GroupId, LedGroup]:
        raise AssertionError("a single node asks nobody")

    async def identify(self, address: str) -> Introduction:
        raise AssertionError("a single node asks nobody")


def test_a_bug_in_a_controllers_task_is_reported_and_not_retried() -> None:
    loop = SimLoop(end_s=60)
    failures: list[BaseException] = []
    rounds = 0

    async def broken() -> None:
        nonlocal rounds
        rounds += 1
        raise InvariantViolation("broken on purpose")

    async def scenario() -> None:
        node, peers = NodeId("n1"), NoPeers()
        host = GroupHost(
            node_id=node,
            directory="groups",
            disk=SimDisk(random.Random(1)),
            clock=SimClock(loop),
            worker=SimWorker(Process("n1"), random.Random(1), WorkerSpeed()),
            transport=peers,
            rng=random.Random(1),
        )
        controller = Controller(
            node_id=node,
            host=host,
            membership=StaticMembership([member(node, "n1:7400")]),
            calls=peers,
            log_config=lambda topic: LogConfig(segment_bytes=1 << 20, fsync=topic.fsync),
            clock=SimClock(asyncio.get_running_loop()),
            on_failure=failures.append,
        )
        controller._keeper.reconcile = broken  # type: ignore[method-assign]
        await controller.start("cluster", Members((node,)))
        controller._changed.set()
        await asyncio.sleep(5)
        await controller.close()
        await host.close()

    try:
        loop.run_until_complete(scenario())
    finally:
        loop.dispose()
    assert rounds == 1
    assert [str(failure) for failure in failures] == ["broken on purpose"]


def make() -> Controller:
    """That of a node that has not started."""
    loop = asyncio.get_running_loop()
    peers = NoPeers()
    host = GroupHost(
        node_id=NodeId("n1"),
        directory="groups",
        disk=SimDisk(random.Random(1)),
        clock=SimClock(loop),
        worker=SimWorker(Process("n1"), random.Random(1), WorkerSpeed()),
        transport=peers,
        rng=random.Random(1),
    )
    return Controller(
        node_id=NodeId("n1"),
        host=host,
        membership=StaticMembership([member(NodeId("n1"), "n1:7400")]),
        calls=peers,
        log_config=lambda topic: LogConfig(fsync=topic.fsync),
        clock=SimClock(loop),
    )


async def test_who_starts_over_knows_the_metadata_only_when_all_is_there_again() -> None:
    """Its log has begun with a part of the leader's, and all of that is committed and applied."""
    controller = make()
    core = SimpleNamespace(leader_id=NodeId("n2"), commit_index=3, recovering=True)
    log = SimpleNamespace(last_index=3)
    replica = SimpleNamespace(core=core, log=log, awaited=None, applied_index=3)
    controller._host.replicas[METADATA_GROUP] = cast(Replica, replica)
    waiting = asyncio.create_task(controller.wait_applied(lambda: controller.caught_up))
    await asyncio.sleep(0)
    assert not controller.caught_up
    core.recovering, core.commit_index, replica.applied_index = False, 9, 9
    controller.replica_event(cast(Replica, SimpleNamespace(group=METADATA_GROUP)))
    async with asyncio.timeout(5):
        assert await waiting


async def test_a_cancellation_that_comes_with_the_result_is_not_lost() -> None:
    loop = asyncio.get_running_loop()
    controller = make()
    outcome: asyncio.Future[metadata_pb2.Result] = loop.create_future()
    controller._host.replicas[METADATA_GROUP] = cast(
        Replica, SimpleNamespace(propose=lambda draft: outcome)
    )
    command = metadata_pb2.Command(allocate_producer=metadata_pb2.AllocateProducer())
    proposing = asyncio.create_task(controller.propose_here(command.SerializeToString()))
    await asyncio.sleep(0)
    outcome.set_result(metadata_pb2.Result(index=1))
    proposing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await proposing
