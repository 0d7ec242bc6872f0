"""One simulated node: the real replicas, controller, broker and services on simulated ports."""

import asyncio
import errno
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from quorumlog.api._pb import peer_pb2, quorumlog_pb2
from quorumlog.api.admin_service import AdminService
from quorumlog.api.led_groups import led_groups_of
from quorumlog.api.limits import Limits
from quorumlog.api.log_service import LogService
from quorumlog.api.peer_service import PeerService
from quorumlog.broker.balance import BalanceConfig
from quorumlog.broker.broker import Broker
from quorumlog.broker.controller import Controller
from quorumlog.broker.led_groups import LedGroup
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.peer_calls import Introduction
from quorumlog.broker.replacement import Replacement
from quorumlog.broker.retention import RetentionConfig
from quorumlog.errors import NotLeader, QuorumlogError, StorageError
from quorumlog.log.config import LogConfig
from quorumlog.replication import saved_state
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.ready import Event
from quorumlog.replication.host import GroupHost
from quorumlog.replication.replica import Replica
from quorumlog.types import GroupId, Index, NodeId
from sim.clock import SimClock
from sim.disk import SimDisk, SimulatedCrash
from sim.loop import SimLoop, SimulationError
from sim.membership import CLUSTER_ID, Roster
from sim.network import SimNetwork
from sim.process import Process, State
from sim.rot import scrub_forever
from sim.rpc import RpcFabric, RpcServer
from sim.trace import Trace
from sim.worker import SimWorker, WorkerSpeed

DATA_DIRECTORY = "data/groups"

_STOP_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class NodeSettings:
    replication: ReplicationConfig
    log: LogConfig
    limits: Limits
    retention: RetentionConfig
    balance: BalanceConfig
    worker: WorkerSpeed
    scrubs: bool
    """Look for rot all the time."""
    max_drift: float
    max_skew_ms: int


@dataclass(frozen=True, slots=True)
class World:
    """What all nodes of a simulation share."""

    loop: SimLoop
    trace: Trace
    network: SimNetwork
    fabric: RpcFabric
    settings: NodeSettings
    roster: Roster
    voters: Members
    """Those that the cluster was formed with."""


class _PeerPort:
    """The part of the Peer service that a cluster needs once it is formed."""

    def __init__(self, controller: Controller, introduction: Introduction) -> None:
        self._controller = controller
        self._introduction = introduction
        self.led_groups = controller.survey.here

    async def propose(self, command: bytes) -> bytes:
        return (await self._controller.propose_here(command)).SerializeToString()

    def introduce(self) -> Introduction:
        return self._introduction


class SimPeerCalls:
    """Requests between nodes over the simulated RPC."""

    def __init__(self, fabric: RpcFabric, process: Process, roster: Roster) -> None:
        self._connector = fabric.client(process)
        self._roster = roster

    async def propose(self, peer: NodeId, command: bytes) -> bytes:
        request = peer_pb2.ProposeRequest(command=command)
        reply = await self._connector.connect(self._address_of(peer)).unary(
            "/quorumlog.peer.v1.Peer/Propose", request, peer_pb2.ProposeReply, 12.0
        )
        return bytes(reply.result)

    async def replacements(self, peer: NodeId) -> Sequence[Replacement]:
        """Nobody here looks at the state of the cluster."""
        return ()

    async def led_groups(
        self, peer: NodeId, groups: Sequence[GroupId]
    ) -> Mapping[GroupId, LedGroup]:
        reply = await self._connector.connect(self._address_of(peer)).unary(
            "/quorumlog.peer.v1.Peer/LedGroups",
            peer_pb2.LedGroupsRequest(groups=groups),
            peer_pb2.LedGroupsReply,
            1.0,
        )
        return led_groups_of(reply)

    async def identify(self, address: str) -> Introduction:
        found = await self._connector.connect(address).unary(
            "/quorumlog.peer.v1.Peer/Identify",
            peer_pb2.IdentifyRequest(),
            peer_pb2.Introduction,
            1.0,
        )
        return Introduction(NodeId(found.node_id), found.cluster_id, found.address)

    def _address_of(self, peer: NodeId) -> str:
        known = (each.tags for each in self._roster.members)
        address = next((tags["rpc"] for tags in known if tags["id"] == peer), None)
        if address is None:
            raise NotLeader("the leader's address is not known yet")
        return address


class _WatchedHost(GroupHost):
    """Says when it has deleted a replica."""

    def __init__(self, *, on_left: Callable[[GroupId], None], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._on_left = on_left

    async def leave_group(
        self, group: GroupId, settled_without: Callable[[Replica], Index | None]
    ) -> bool:
        is_gone = await super().leave_group(group, settled_without)
        if is_gone:
            self._on_left(group)
        return is_gone


class SimNode:
    """A machine: its disk stays, its processes come and go."""

    def __init__(
        self,
        world: World,
        node_id: NodeId,
        address: str,
        rng: random.Random,
    ) -> None:
        self.world = world
        self.node_id = node_id
        self.address = address
        self.rng = rng
        self.disk = SimDisk(random.Random(rng.random()))
        self.clock = SimClock.drawn(
            world.loop, rng, world.settings.max_drift, world.settings.max_skew_ms
        )
        self.incarnation = 0
        self.may_fail = False
        """An error of the disk was injected: this process may fence replicas, or end."""
        self.was_rotten = False
        """Bits of its disk were flipped: a replica of it may have started over."""
        self.buried = False
        """Dead for good: it never starts again."""
        self.gone = False
        """It was removed from the cluster, by committed metadata; it may not know yet."""
        self.on_left: Callable[[NodeId, GroupId], None] = lambda node, group: None
        """Called when a replica that was moved away is deleted."""
        self.on_save: Callable[[SimNode], None] = lambda node: None
        """Called when a group's state is about to be saved."""
        self.process = Process(node_id)
        self.process.kill()
        self.host: GroupHost | None = None
        self._serving: Process | None = None
        self._leaving: Process | None = None
        self._worker: SimWorker | None = None
        self._controller: Controller | None = None

    @property
    def up(self) -> bool:
        return self.process.alive

    @property
    def is_lost(self) -> bool:
        """It takes part in nothing any more."""
        return self.gone or self.buried

    @property
    def paused(self) -> bool:
        return self.process.state is State.PAUSED

    @property
    def ready(self) -> bool:
        """Up, and the metadata group is open."""
        return self.up and self._serving is self.process

    @property
    def metadata(self) -> MetadataState:
        """What this node's newest process knows of the cluster."""
        return self._controller.metadata if self._controller is not None else MetadataState()

    @property
    def synced(self) -> bool:
        """All its logs are open, so what a process before wrote is synced, and nothing that they
        hold waits for the disk, not for an interval sync either."""
        if self.host is None:
            return False
        replicas = self.host.replicas
        return all(
            partition.group in replicas for _, partition in self.metadata.groups_of(self.node_id)
        ) and not any(
            replica.log.dirty or replica.log.sync_due_s is not None for replica in replicas.values()
        )

    def leads(self) -> bool:
        return self.host is not None and any(
            replica.serving for replica in self.host.replicas.values()
        )

    def start(self) -> None:
        """Start a process on what the disk holds; not when it is dead for good."""
        if self.buried:
            return
        self.incarnation += 1
        self.world.trace.add(f"{self.node_id} starts, incarnation {self.incarnation}")
        self.may_fail = False
        self.process = Process(self.node_id)
        self.world.roster.started(self.node_id)
        self.world.loop.spawn(self.process, self._run(self.process), "node")

    def fail_disk(self, code: int) -> None:
        """Let one of the next changes to the disk fail."""
        self.world.trace.add(f"{self.node_id} is about to meet {errno.errorcode[code]}")
        self.may_fail = True
        self.disk.fail_at(self.rng.randint(1, 12), code)

    @property
    def failed(self) -> bool:
        """Something in it is fenced: only a restart helps."""
        return self.up and (
            self.host is not None
            and any(each.failure is not None for each in self.host.replicas.values())
        )

    async def _run(self, process: Process) -> None:
        try:
            await self._start(process)
        except (StorageError, OSError) as error:
            if not self.may_fail:
                raise
            self.world.trace.add(f"{self.node_id} ends: {error}")
            self.world.loop.call_outside(0.0, self.crash_process, process)

    def crash_process(self, process: Process) -> None:
        """End ``process`` if it is still the one that runs."""
        if self.process is process and self.up:
            self.crash(power=False)

    async def _start(self, process: Process) -> None:
        world = self.world
        self._worker = SimWorker(process, self.rng, world.settings.worker, self._work_begins)
        transport = world.network.attach(self.node_id, process)
        host = _WatchedHost(
            on_left=lambda group: self.on_left(self.node_id, group),
            node_id=self.node_id,
            directory=DATA_DIRECTORY,
            disk=self.disk,
            clock=self.clock,
            worker=self._worker,
            transport=transport,
            rng=self.rng,
            config=world.settings.replication,
            events=self._replica_event,
        )
        membership = world.roster.seen_by(process)
        controller = Controller(
            node_id=self.node_id,
            host=host,
            membership=membership,
            calls=SimPeerCalls(world.fabric, process, world.roster),
            log_config=lambda topic: replace(world.settings.log, fsync=topic.fsync),
            clock=self.clock,
            retention=world.settings.retention,
            balance=world.settings.balance,
        )
        self.host, self._controller = host, controller
        metadata = controller.metadata
        metadata.on_change(lambda change: self._metadata_changed(process, metadata))
        transport.refuses = metadata.is_removed
        transport.on_refused = partial(self._was_removed, process)
        broker = Broker(
            node_id=self.node_id, host=host, controller=controller, membership=membership
        )
        await controller.start(CLUSTER_ID, world.voters)
        if world.settings.scrubs:
            scrubbing = scrub_forever(host, self.disk, self.clock, self._worker)
            world.loop.spawn(process, scrubbing, "scrub")
        self._serve(process, broker, controller)

    def _serve(self, process: Process, broker: Broker, controller: Controller) -> None:
        server = RpcServer(process)
        services = quorumlog_pb2.DESCRIPTOR.services_by_name
        server.add(services["Log"], LogService(broker, self.world.settings.limits))
        server.add(services["Admin"], AdminService(broker))
        port: Any = _PeerPort(controller, Introduction(self.node_id, CLUSTER_ID, self.address))
        server.add(peer_pb2.DESCRIPTOR.services_by_name["Peer"], PeerService(port))
        self.world.fabric.listen(self.address, server)
        self._serving = process

    def _replica_event(self, replica: Replica, event: Event) -> None:
        self.world.trace.add(f"{self.node_id} group {replica.group} {event}")
        if self._controller is not None:
            self._controller.replica_event(replica)

    def _metadata_changed(self, process: Process, metadata: MetadataState) -> None:
        if metadata.is_removed(self.node_id):
            self._was_removed(process)

    def _was_removed(self, process: Process) -> None:
        """Stop in good order, as a node does that hears so; once."""
        if process is self._leaving or not process.alive:
            return
        self._leaving = process
        self.world.loop.call_outside(0.0, self._stop_as_removed, process)

    def _stop_as_removed(self, process: Process) -> None:
        if self.process is process and self.up:
            supervisor = Process(f"supervisor of {self.node_id}")
            self.world.loop.spawn(supervisor, self.stop(), "removed")

    def bury(self) -> None:
        """Die, and never start again."""
        self.buried = True
        self.crash(power=False)

    def crash(self, *, power: bool) -> None:
        """The process is gone; with ``power`` what its disk had not synced may be gone as well."""
        self.world.trace.add(f"{self.node_id} {'loses power' if power else 'is killed'}")
        self.process.kill()
        self.world.roster.died(self.node_id)
        if self._worker is not None:
            self._worker.cut_short(self._run_partly)
        if power:
            self.disk.crash()
        else:
            self.disk.kill()

    def _work_begins(self, function: Callable[[], object]) -> None:
        if isinstance(function, partial) and function.func is saved_state.save_snapshot:
            self.on_save(self)

    def _run_partly(self, function: Callable[[], object]) -> None:
        """Let a thread get as far as the seed says before it is stopped."""
        if self.rng.random() < 0.5:
            return
        self.disk.crash_before(self.rng.randint(1, 8))
        with suppress(SimulatedCrash, QuorumlogError, OSError):
            function()

    async def stop(self) -> None:
        """Stop in good order, as by SIGTERM; the disk is left as a kill leaves it."""
        process = self.process
        self.world.trace.add(f"{self.node_id} stops")
        closing = self.world.loop.spawn(process, self._close(), "stop")
        await asyncio.wait([closing], timeout=_STOP_LIMIT_S)
        if not process.alive:
            return  # It met something worse on the way.
        if not closing.done():
            raise SimulationError(f"{self.node_id} did not stop within {_STOP_LIMIT_S} s")
        process.kill()
        self.world.roster.died(self.node_id)
        self.disk.kill()

    async def _close(self) -> None:
        if self._controller is None or self.host is None:
            return
        try:
            await self._controller.close()
            await self.host.close()
        except (StorageError, OSError) as error:
            if not self.may_fail:
                raise
            self.world.trace.add(f"{self.node_id} cannot close: {error}")

    def pause(self) -> None:
        self.world.trace.add(f"{self.node_id} pauses")
        self.process.pause()

    def resume(self) -> None:
        self.world.trace.add(f"{self.node_id} resumes")
        self.world.loop.resume(self.process)
