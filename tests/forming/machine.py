"""A machine on which a node is started: the real bootstrap, announcement, data directory and Peer
service, up to where a node would begin to serve. Its disk stays, its processes come and go."""

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import grpc

from fakes.context import Aborted
from forming.calls import SimCalls
from forming.scenario import Scenario
from forming.views import Views
from forming.witness import Witness
from quorumlog.api._pb import peer_pb2
from quorumlog.api.peer_service import PeerService
from quorumlog.api.peers import GrpcPeers
from quorumlog.broker.replacement import Replacement
from quorumlog.errors import IdentityError, LogLocked, QuorumlogError, Unavailable, WrongCluster
from quorumlog.node.announcement import announce
from quorumlog.node.bootstrap import Bootstrap
from quorumlog.node.identity import Identity, Seat
from quorumlog.node.storage import DataDirectory
from quorumlog.ports import Member, Membership, MemberState
from quorumlog.types import NodeId
from sim.disk import SimDisk, SimulatedCrash
from sim.loop import SimLoop, SimulationError
from sim.network import SimNetwork
from sim.process import Process, State
from sim.rpc import RpcFabric, RpcServer
from sim.trace import Trace
from sim.worker import SimWorker

RPC_PORT: Final = 7400
GOSSIP_PORT: Final = 7946

_DATA_DIRECTORY: Final = "data"
_COMMIT_S: Final = (0.001, 0.05)
_SECOND_DEATH_S: Final = 2.0
_AMBUSH_CHANCE: Final = 0.3
_LAST_CHANGES: Final = (1, 2, 3, 4, 5, 6, 6, 6, 7)
"""Before which change to the disk a thread is stopped; the sixth makes a new identity's name
durable."""


@dataclass(slots=True)
class World:
    """What all machines of a simulation share."""

    loop: SimLoop
    trace: Trace
    network: SimNetwork
    fabric: RpcFabric
    scenario: Scenario
    views: Views
    witness: Witness
    machines: "dict[str, Machine]"
    rng: random.Random
    """Of what the nodes themselves draw: ids."""

    def new_id(self) -> str:
        return f"{self.rng.getrandbits(128):032x}"

    def has_majority(self, machine: "Machine") -> bool:
        """Whether ``machine`` reaches a majority of the voters of its cluster that serve."""
        identity = machine.identity
        if identity is None:
            return False
        reached = [
            voter
            for voter in identity.voters
            if any(
                other.node_id == voter.node_id
                and other.serves == identity.cluster_id
                and other.process.state is State.RUNNING
                and not self.network.is_cut(machine.name, other.name)
                and not self.network.is_cut(other.name, machine.name)
                for other in self.machines.values()
            )
        ]
        return 2 * len(reached) > len(identity.voters)


class Machine:
    def __init__(
        self,
        world: World,
        name: str,
        host: str,
        expect: int,
        seeds: Sequence[str],
        rng: random.Random,
        *,
        founder: bool = True,
    ) -> None:
        self.world = world
        self.name = name
        self.expect = expect
        self.host = host
        self.founder = founder
        """It may be one of those that form the cluster."""
        others = [seed for seed in seeds if seed != f"{host}:{GOSSIP_PORT}"]
        self.seeds = others or list(seeds)
        self.rng = rng
        self.disk = SimDisk(random.Random(rng.random()))
        self.address = f"{host}:{RPC_PORT}"
        self.gossip = f"{host}:{GOSSIP_PORT}"
        self.buried = False
        """Dead for good."""
        self.ambushed = False
        """It may die whenever it writes or promises."""
        self.disk_fails = False
        """Its process may end because of that."""
        self.process = Process(name)
        self.process.kill()
        self.identity: Identity | None = None
        """As its newest process has it; None before the first has read it, and after a wipe."""
        self.serves = ""
        """The cluster its present process takes part in."""
        self.server: RpcServer | None = None
        self.membership: Membership | None = None
        self._worker: SimWorker | None = None

    @property
    def node_id(self) -> NodeId:
        return NodeId("") if self.identity is None else self.identity.node_id

    @property
    def up(self) -> bool:
        return self.process.alive

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process on what the disk holds, unless one runs."""
        if self.up or self.buried:
            return
        self.world.trace.add(f"{self.name} starts")
        self.process = Process(self.name)
        self.world.loop.spawn(self.process, self._run(self.process), "node")

    def start_twice(self) -> None:
        """Start another process while one runs: it has to find the directory taken."""
        if self.up and self.disk.is_locked(f"{_DATA_DIRECTORY}/node.lock"):
            second = Process(self.name)
            self.world.loop.spawn(second, self._run_second(), "second")

    async def _run_second(self) -> None:
        try:
            DataDirectory.open(self.disk, _DATA_DIRECTORY, new_id=self.world.new_id)
        except LogLocked:
            self.world.trace.add(f"{self.name} is started twice: the second ends")
        else:
            raise SimulationError(f"two processes run in the directory of {self.name}")

    def crash(self, *, power: bool) -> None:
        """The process is gone; with ``power`` so is what its disk had not synced."""
        if not self.up:
            if power:
                self.disk.crash()
            return
        self.world.trace.add(f"{self.name} {'loses power' if power else 'is killed'}")
        self.process.kill()
        self.serves = ""
        self.membership = None
        if self._worker is not None:
            self._worker.cut_short(self._run_partly)
        if power:
            self.disk.crash()
        else:
            self.disk.kill()

    def _run_partly(self, function: Callable[[], object]) -> None:
        """Let a thread get as far as the seed says before it is stopped."""
        self.disk.crash_before(self.rng.choice(_LAST_CHANGES))
        with suppress(SimulatedCrash, QuorumlogError, OSError):
            function()

    def wipe(self) -> None:
        """Empty the disk: what comes back is another node."""
        self.crash(power=False)
        self.world.trace.add(f"{self.name} is wiped")
        self.disk = SimDisk(random.Random(self.rng.random()))
        self.identity = None

    def fail_disk(self, code: int) -> None:
        """Let one of the next changes to the disk fail."""
        self.world.trace.add(f"{self.name} is about to meet {errno.errorcode[code]}")
        self.disk_fails = True
        self.disk.fail_at(self.rng.randint(1, 12), code)

    def lose_power(self) -> None:
        """If it runs; it comes back in a moment."""
        if self.up:
            self.crash(power=True)
            self._restart_later()

    def bury(self) -> None:
        self.buried = True
        self.crash(power=False)

    def _restart_later(self) -> None:
        self.world.loop.call_outside(self.rng.uniform(0.05, 3.0), self.start)

    # -- a process -----------------------------------------------------------------------------

    async def _run(self, process: Process) -> None:
        world = self.world
        worker = self._worker = SimWorker(
            process, self.rng, world.scenario.worker, lambda function: self._ambush()
        )
        try:
            await self._live(process, worker)
        except (OSError, QuorumlogError) as error:
            if not (self.disk_fails or isinstance(error, IdentityError)):
                raise
            world.trace.add(f"{self.name} ends: {error}")
            world.loop.call_outside(0.0, self._end, process)

    async def _live(self, process: Process, worker: SimWorker) -> None:
        """As a node does; raises what ends it."""
        world = self.world
        data = await worker.run(
            lambda: DataDirectory.open(self.disk, _DATA_DIRECTORY, new_id=world.new_id)
        )
        identity = self.identity = data.identity
        world.witness.read(self.name, identity)
        peers = GrpcPeers(
            node_id=identity.node_id,
            process_id=world.new_id(),
            address=self.address,
            resolve=lambda node: None,
            rng=self.rng,
        )
        name = self.name if world.scenario.named else f"node-{identity.node_id[:8]}"
        membership = self.membership = world.views.membership(
            process,
            Member(name, self.host, GOSSIP_PORT, MemberState.ALIVE, self._tags(identity)),
            self.seeds,
            random.Random(self.rng.random()),
        )
        calls = SimCalls(world.fabric, process, world.scenario)

        def write(changed: Identity) -> None:
            data.save(changed)
            world.witness.wrote(self.name, changed)

        bootstrap = Bootstrap(
            identity=identity,
            seat=Seat(identity.node_id, name, self.address),
            expect=self.expect,
            save=lambda changed: worker.run(lambda: write(changed)),
            membership=membership,
            calls=calls,
            seeds=membership.seeds,
            new_id=world.new_id,
        )
        self._serve(process, Port(self, peers, bootstrap))
        identity = await bootstrap.run()
        hello = peers.hello()
        hello.cluster_id = identity.cluster_id
        await announce(
            hello,
            identity.voters,
            membership=membership,
            calls=calls,
            has_seeds=bool(self.seeds),
        )
        world.witness.serves(self.name, identity)
        self.identity, self.serves = identity, identity.cluster_id
        peers.cluster_id = identity.cluster_id
        membership.set_tags(self._tags(identity))

    def _end(self, process: Process) -> None:
        """A supervisor finds ``process`` ended and starts another."""
        if self.process is process:
            self.crash(power=False)
            self._restart_later()

    def _serve(self, process: Process, port: Any) -> None:
        self.server = RpcServer(process)
        self.server.add(peer_pb2.DESCRIPTOR.services_by_name["Peer"], PeerService(port))
        self.world.fabric.listen(self.address, self.server)

    def _tags(self, identity: Identity) -> dict[str, str]:
        return {
            "id": identity.node_id,
            "cluster": identity.cluster_id,
            "rpc": self.address,
            "expect": str(self.expect),
            "ver": "0",
        }

    def promised(self, proposal: peer_pb2.BootstrapProposal) -> None:
        """It is about to answer that it has accepted ``proposal``."""
        self.world.witness.promised(self.name, self.node_id, proposal.cluster_id)
        self._ambush()

    def _ambush(self) -> None:
        """Where it is, let it die within a moment: before, in or after what it does now."""
        if self.ambushed and self.rng.random() < _AMBUSH_CHANCE:
            within_s = self.world.scenario.worker.longest_s
            delay_s = self.rng.uniform(0, 2 * within_s)
            self.world.loop.call_outside(delay_s, self._die, self.process, self.rng.random() < 0.5)

    def _die(self, process: Process, power: bool) -> None:
        if self.process is not process or not (self.up and self.ambushed):
            return
        self.crash(power=power)
        if power or self.rng.random() < 0.5:
            self._restart_later()
        else:
            # What the next process reads is not all on stable storage yet.
            self.start()
            delay_s = self.rng.uniform(0, _SECOND_DEATH_S)
            self.world.loop.call_outside(delay_s, self._die, self.process, True)


class Port:
    """A ``PeerPort``: the real answers, but for what needs the group of the metadata."""

    replacements: Sequence[Replacement] = ()

    def __init__(self, machine: Machine, peers: GrpcPeers, bootstrap: Bootstrap) -> None:
        self._machine = machine
        self._bootstrap = bootstrap
        self.announce = peers.answer
        self.bootstrap_status = bootstrap.status

    async def bootstrap_prepare(
        self, proposal: peer_pb2.BootstrapProposal
    ) -> peer_pb2.BootstrapReply:
        reply = await self._answer(self._bootstrap.prepare(proposal))
        if reply.state == peer_pb2.BOOTSTRAP_STATE_ACCEPTED:
            self._machine.promised(proposal)
        return reply

    async def bootstrap_decide(
        self, proposal: peer_pb2.BootstrapProposal
    ) -> peer_pb2.BootstrapReply:
        return await self._answer(self._bootstrap.decide(proposal))

    async def bootstrap_abort(
        self, proposal: peer_pb2.BootstrapProposal
    ) -> peer_pb2.BootstrapReply:
        return await self._answer(self._bootstrap.abort(proposal))

    async def _answer(
        self, answering: Awaitable[peer_pb2.BootstrapReply]
    ) -> peer_pb2.BootstrapReply:
        """An error of the disk ends the call, as in gRPC, and nothing else."""
        try:
            return await answering
        except OSError as error:
            if not self._machine.disk_fails:
                raise
            raise Aborted(grpc.StatusCode.UNKNOWN, str(error), ()) from error

    async def join(self, request: peer_pb2.JoinRequest) -> peer_pb2.JoinReply:
        """As a node does it; a majority of the voters that serves stands for the metadata's
        group."""
        world, machine = self._machine.world, self._machine
        identity = self._bootstrap.identity
        if not identity.cluster_id:
            raise Unavailable("this node is not in a cluster yet")
        if request.cluster_id != identity.cluster_id:
            raise WrongCluster(f"this node is of cluster {identity.cluster_id}")
        await asyncio.sleep(machine.rng.uniform(*_COMMIT_S))
        if not world.has_majority(machine):
            raise Unavailable("there is no leader")
        world.witness.registered(NodeId(request.node.node_id))
        members = [
            peer_pb2.BootstrapMember(node_id=seat.node_id, name=seat.name, address=seat.address)
            for seat in identity.voters
        ]
        return peer_pb2.JoinReply(cluster_id=identity.cluster_id, members=members)

    async def propose(self, command: bytes) -> bytes:
        raise Unavailable("nobody here has metadata")
