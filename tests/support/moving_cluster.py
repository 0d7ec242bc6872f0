"""A cluster of the real node code in virtual time, checked after every turn, for tests that say
step by step what fails: nodes of the simulator, with gossip that knows who is dead."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

from quorumlog.api._pb import peer_pb2
from quorumlog.api.limits import Limits
from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.balance import BalanceConfig
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.metadata_command import raise_for
from quorumlog.broker.retention import RetentionConfig
from quorumlog.broker.topics import PartitionInfo
from quorumlog.errors import QuorumlogError
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.config import LogConfig
from quorumlog.log.records import encode_body
from quorumlog.ports import Member, MemberState
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.replica import Replica
from quorumlog.types import METADATA_GROUP, GroupId, NodeId, RecordData
from sim.checkers import Checker
from sim.loop import SimLoop
from sim.machines import Machines, address_of
from sim.membership import Roster, member
from sim.network import LinkQuality, SimNetwork
from sim.node import NodeSettings, SimNode, World
from sim.process import Process
from sim.rpc import RpcFabric
from sim.trace import Trace
from sim.worker import WorkerSpeed

TOPIC: Final = "t"
RECORDS: Final = 20
LIMIT_S: Final = 90.0
_PROPOSE: Final = "/quorumlog.peer.v1.Peer/Propose"

SETTINGS: Final = NodeSettings(
    replication=ReplicationConfig(raft=RaftConfig(election_timeout_s=0.3, heartbeat_s=0.1)),
    log=LogConfig(segment_bytes=1 << 16),
    limits=Limits(),
    retention=RetentionConfig(interval_s=1.0, max_lag_s=2.0),
    balance=BalanceConfig(interval_s=0.5, rest_s=0.5, settle_s=2.0),
    worker=WorkerSpeed(),
    scrubs=False,
    max_drift=0.0,
    max_skew_ms=0,
)


class KnowingRoster(Roster):
    """Gossip whose view of each node is what the test says; otherwise alive."""

    def __init__(self, loop: SimLoop, members: Sequence[Member]) -> None:
        super().__init__(loop, random.Random(0), members)
        self.states: dict[NodeId, MemberState] = {}

    @property
    def members(self) -> list[Member]:
        return [
            replace(each, state=self.states.get(NodeId(each.tags["id"]), each.state))
            for each in super().members
        ]


class MovingCluster:
    """Nodes ``n1``, ``n2`` …; the first three form the cluster, the others joined it."""

    def __init__(self, size: int, settings: NodeSettings = SETTINGS) -> None:
        self.loop = loop = SimLoop(end_s=LIMIT_S)
        self.trace = Trace(loop.time)
        self.network = SimNetwork(loop, random.Random("network"), self.trace, LinkQuality())
        self.names = [NodeId(f"n{number}") for number in range(1, size + 1)]
        first = [member(name, address_of(name)) for name in self.names[:3]]
        self.roster = KnowingRoster(loop, first)
        self.fabric = RpcFabric(self.network)
        world = World(
            loop=loop,
            trace=self.trace,
            network=self.network,
            fabric=self.fabric,
            settings=settings,
            roster=self.roster,
            voters=Members(tuple(self.names[:3])),
        )
        self.machines = Machines(world, seed=0)
        self.nodes = self.machines.nodes
        self.checker = Checker(self.nodes)
        self.network.tap(self.checker.sent)
        self.after_turn: Callable[[], None] = lambda: None
        loop.after_turn = self._after_turn
        for node in self.nodes.values():
            node.on_left = self.checker.left
        self.machines.on_join = self._joined
        self._operator = Process("operator")

    def run(self, scenario: Callable[["MovingCluster"], Coroutine[Any, Any, None]]) -> None:
        """In virtual time; once. Raises what the scenario or a checker raises."""
        try:
            self.loop.run_until_complete(scenario(self))
        finally:
            self.loop.dispose()

    def _after_turn(self, ran: dict[Process, None]) -> None:
        self.checker.after_turn(ran)
        self.after_turn()

    def _joined(self, node: SimNode) -> None:
        node.on_left = self.checker.left

    # -- what happens to nodes -----------------------------------------------------------------

    async def start(self, *replicas: str, partitions: int = 1) -> None:
        """All nodes know each other, and partition 0 of the topic is on ``replicas``, led by the
        first, with some records."""
        for node in self.nodes.values():
            node.start()
        for _ in self.names[3:]:
            self.machines.join()
        await self.until(
            lambda: all(
                node.ready and len(node.metadata.nodes()) == len(self.names)
                for node in self.nodes.values()
            )
        )
        create = pb.CreateTopic(
            name=TOPIC, partitions=partitions, replicas=len(replicas), candidates=replicas
        )
        await self.order(pb.Command(create_topic=create))
        await self.until(lambda: self.leader(self.group) is not None)
        for number in range(RECORDS):
            body = encode_body([RecordData(b"%d" % number)])
            leader = await self.led()
            context = leader.process.context()
            replica = self.replica(leader, self.group)
            await context.run(replica.propose, Draft.of(body, 1, Kind.RECORDS))

    def crash(self, node: SimNode) -> None:
        """The power of its machine fails; gossip knows at once."""
        self.loop.call_outside(0.0, self._crash, node)

    def _crash(self, node: SimNode) -> None:
        if node.up:
            node.crash(power=True)
            self.roster.states[node.node_id] = MemberState.FAILED

    def restart(self, node: SimNode, delay_s: float = 0.0) -> None:
        self.loop.call_outside(delay_s, self._restart, node)

    def _restart(self, node: SimNode) -> None:
        if not node.up:
            self.roster.states.pop(node.node_id, None)
            node.start()

    def isolate(self, node: SimNode, for_s: float) -> None:
        """Nobody hears it, and it nobody, for a while: who it leads chooses another."""
        self.loop.call_outside(0.0, self._cut, node)
        self.loop.call_outside(for_s, self.network.heal)

    def _cut(self, node: SimNode) -> None:
        for other in self.nodes:
            if other != node.node_id:
                self.network.cut(node.node_id, other)
                self.network.cut(other, node.node_id)

    # -- what is known -------------------------------------------------------------------------

    @property
    def metadata(self) -> MetadataState:
        """The newest that any node knows."""
        return self.machines.metadata

    @property
    def partition(self) -> PartitionInfo:
        return self.metadata.partition(TOPIC, 0)

    @property
    def group(self) -> GroupId:
        return self.partition.group

    def replica(self, node: SimNode, group: GroupId) -> Replica:
        assert node.host is not None
        return node.host.replicas[group]

    def leader(self, group: GroupId = METADATA_GROUP) -> SimNode | None:
        """The node that serves ``group`` in the newest term."""
        serving = [
            (node.host.replicas[group].core.term, node)
            for node in self.nodes.values()
            if node.up
            and node.host is not None
            and group in node.host.replicas
            and node.host.replicas[group].serving
        ]
        return max(serving, key=lambda each: each[0])[1] if serving else None

    async def led(self) -> SimNode:
        """Who leads partition 0, once somebody does."""
        await self.until(lambda: self.leader(self.group) is not None)
        leader = self.leader(self.group)
        assert leader is not None
        return leader

    # -- orders --------------------------------------------------------------------------------

    async def order(self, command: pb.Command) -> pb.Result:
        """Have the metadata's leader apply ``command``, again where the outcome is not known.

        Raises what the metadata say against it."""
        connector = self.fabric.client(self._operator)
        request = peer_pb2.ProposeRequest(command=command.SerializeToString())
        while True:
            for address in self.machines.addresses.values():
                try:
                    connection = connector.connect(address)
                    reply = await connection.unary(_PROPOSE, request, peer_pb2.ProposeReply, 5.0)
                except QuorumlogError:
                    continue
                return raise_for(pb.Result.FromString(bytes(reply.result)))
            await asyncio.sleep(0.1)

    async def move(self, *wanted: str) -> pb.Result:
        message = pb.AssignReplicas(group=self.group, wanted=wanted)
        return await self.order(pb.Command(assign_replicas=message))

    def begin(self, order: Callable[["MovingCluster"], Coroutine[Any, Any, Any]]) -> None:
        """Have it given by somebody else."""
        self.loop.spawn(self._operator, order(self), "order")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it; the loop's limit of virtual time fails the test."""
        while not condition():
            await asyncio.sleep(0.05)

    async def until_whole(self) -> None:
        """All nodes are up, every group is where it is wanted, and nobody else has anything."""
        await self.until(
            lambda: (
                all(node.ready for node in self.nodes.values())
                and self.checker.converged()
                and self.checker.moved()
            )
        )
        self.checker.check_metadata()
        self.checker.check_starts()
        assert len(self.checker.history(self.group).records) == RECORDS
