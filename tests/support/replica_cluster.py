"""Replicas of one group on simulated disks, wired to each other; a state machine for them."""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from quorumlog.errors import ProtocolError
from quorumlog.log.batch import Batch, BatchHeader, Draft, Kind
from quorumlog.log.config import LogConfig
from quorumlog.log.records import encode_body
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.replication.state_machine import WHOLE_LOG, LogStart, StateMachine
from quorumlog.types import Buffer, GroupId, NodeId, RecordData
from sim.clock import SimClock
from sim.disk import SimDisk
from sim.loop import SimLoop
from sim.process import PROCESS, Process
from sim.worker import SimWorker, WorkerSpeed

GROUP = GroupId(1)


class Machine:
    """Keeps the bodies it applied; ``applied`` are the indexes that it was called with."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.applied: list[int] = []
        self.pending = 0

    def apply(self, batch: Batch) -> int:
        self.applied.append(batch.header.index)
        if batch.header.kind is Kind.RECORDS:
            self.values.append(bytes(batch.body))
        return batch.header.base_offset

    @property
    def needs_saved_state(self) -> bool:
        return False

    @property
    def log_start(self) -> LogStart:
        return WHOLE_LOG

    def snapshot(self) -> bytes:
        return json.dumps([value.hex() for value in self.values]).encode()

    def restore(self, snapshot: bytes) -> None:
        try:
            self.values = [bytes.fromhex(value) for value in json.loads(snapshot)]
        except ValueError as error:
            raise ProtocolError(f"not a state of this machine: {error}") from error

    def appended(self, header: BatchHeader) -> None:
        self.pending += 1

    def leadership_lost(self) -> None:
        self.pending = 0


class Wire:
    """Delivers to every other node in a later turn; nodes can be cut off."""

    def __init__(self) -> None:
        self.handlers: dict[NodeId, Callable[[NodeId, GroupId, memoryview], None]] = {}
        self.cut: set[NodeId] = set()
        self.delay_s = 0.0005
        self.processes: dict[NodeId, Process] = {}

    def port(self, node: NodeId) -> "Port":
        return Port(self, node)


class Port:
    def __init__(self, wire: Wire, node: NodeId) -> None:
        self.wire = wire
        self.node = node

    def send(self, peer: NodeId, group: GroupId, payload: Buffer) -> None:
        asyncio.get_running_loop().call_later(
            self.wire.delay_s, self._deliver, peer, group, bytes(payload)
        )

    def _deliver(self, peer: NodeId, group: GroupId, payload: bytes) -> None:
        if not {self.node, peer} & self.wire.cut and peer in self.wire.handlers:
            context = self.wire.processes[peer].context()
            context.run(self.wire.handlers[peer], self.node, group, memoryview(payload))

    def on_message(self, handler: Callable[[NodeId, GroupId, memoryview], None]) -> None:
        self.wire.handlers[self.node] = handler


class Cluster:
    def __init__(
        self, size: int, fsync: str = "always", machine: Callable[[], StateMachine] = Machine
    ) -> None:
        self.new_machine = machine
        self.log_config = LogConfig(segment_bytes=8 << 20, fsync=fsync)
        self.nodes = [NodeId(f"n{number}") for number in range(size)]
        self.wire = Wire()
        self.disks = {node: SimDisk(random.Random(node)) for node in self.nodes}
        self.hosts: dict[NodeId, GroupHost] = {}
        self.replicas: dict[NodeId, Replica] = {}
        self.workers: dict[NodeId, SimWorker] = {}
        self._dead: list[tuple[Process, GroupHost]] = []
        """Kept from the destructors, which would run on behalf of nobody."""

    async def open(self, config: ReplicationConfig | None = None) -> None:
        for node in self.nodes:
            await self.open_node(node, config)

    async def open_node(
        self,
        node: NodeId,
        config: ReplicationConfig | None = None,
        members: Members | None = None,
    ) -> None:
        """``members``: who they are as far as the node knows; by default all nodes."""
        self.wire.processes[node] = process = Process(node)
        worker = SimWorker(process, random.Random(node), WorkerSpeed())
        self.workers[node] = worker
        host = GroupHost(
            node_id=node,
            directory="groups",
            disk=self.disks[node],
            clock=SimClock(asyncio.get_running_loop()),
            worker=worker,
            transport=self.wire.port(node),
            # No process draws what the one before it drew.
            rng=random.Random(f"{node} {len(self._dead)}" if self._dead else node),
            # What the disk takes is the worker's time here; in the event loop it would take none.
            config=replace(config or ReplicationConfig(), loop_flush_s=0.0),
        )
        self.hosts[node] = host
        # What is started in here belongs to the process, and dies with it.
        token = PROCESS.set(process)
        try:
            self.replicas[node] = await host.open_group(
                GROUP,
                members or Members(tuple(self.nodes)),
                self.new_machine(),
                self.log_config,
            )
        finally:
            PROCESS.reset(token)

    def power_cut(self, node: NodeId) -> None:
        """The node is gone from this moment on, with all that its disk had not synced."""
        self.wire.processes[node].kill()
        del self.wire.handlers[node]
        self._dead.append((self.wire.processes[node], self.hosts.pop(node)))
        self.disks[node].crash()

    def slow_down(self, node: NodeId, work_s: float) -> None:
        """From now on each piece of work on the disk of ``node`` takes ``work_s``."""
        self.workers[node].speed = WorkerSpeed(work_s, work_s)

    async def leader(self) -> Replica:
        async with asyncio.timeout(10):
            while True:
                for replica in self.replicas.values():
                    if replica.serving and replica.core.leader_id not in self.wire.cut:
                        return replica
                await asyncio.sleep(0.01)

    def node_of(self, replica: Replica) -> NodeId:
        return next(node for node, each in self.replicas.items() if each is replica)

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.close()


def machine_of(replica: Replica) -> Machine:
    machine = replica.state_machine
    assert isinstance(machine, Machine)
    return machine


def values_of(replica: Replica) -> list[bytes]:
    return machine_of(replica).values


def draft(value: bytes) -> Draft:
    return Draft.of(encode_body([RecordData(value)]), 1)


def simulated(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run ``scenario`` in virtual time."""

    def run() -> None:
        loop = SimLoop(end_s=120)
        try:
            loop.run_until_complete(scenario())
        finally:
            loop.dispose()

    run.__name__ = getattr(scenario, "__name__", "run")
    run.__doc__ = scenario.__doc__
    return run
