"""What becomes of a controller that meets a bug."""

import asyncio
import random

from quorumlog.broker.controller import Controller
from quorumlog.errors import InvariantViolation
from quorumlog.log.config import LogConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.host import GroupHost
from quorumlog.types import NodeId
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
