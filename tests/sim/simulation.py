"""One run of the whole cluster from one seed: build, break, heal, and demand that it goes on.

Phases: the nodes start and the topic is made in good weather; producers and consumers work while
the nemesis does what the seed says; everything is healed, and within ``LIVENESS_S`` virtual seconds
every record has to be acknowledged, read by every consumer and on every node. With
``fsync=interval`` all power is cut then, once no sync is due any more: that may take nothing.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from quorumlog.api.limits import Limits
from quorumlog.broker.balance import BalanceConfig
from quorumlog.broker.retention import RetentionConfig
from quorumlog.log.config import LogConfig
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.members import Members
from quorumlog.types import GroupId, NodeId
from sim.campaign import SeedFailed
from sim.checkers import Checker
from sim.churn import Churn
from sim.disk import SimulatedCrash
from sim.faults import QUIET_LINK, Nemesis
from sim.history import Violation
from sim.holders import HELD_TOPIC, Holders
from sim.loop import SimLoop, SimulationError
from sim.machines import Machines, address_of
from sim.membership import Roster, member
from sim.moves import Operator
from sim.network import SimNetwork
from sim.node import NodeSettings, SimNode, World
from sim.quiet import no_collector, quiet_logs
from sim.rpc import RpcFabric
from sim.survey import Survey
from sim.swarm import NEVER_S, REPLACED_AFTER_S, Swarm, rng_for
from sim.trace import Trace
from sim.workload import TOPIC, Workload

START_S: Final = 60.0
"""Limit of the first phase: a cluster in good weather has a leader and a topic long before."""

LIVENESS_S: Final = 60.0
"""Limit after everything is healed. Generous: clients wait for timeouts of up to 15 s."""

SYNC_S: Final = 5.0
"""Within it, in peace, an interval sync comes due and is made."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run that found nothing was like."""

    seed: int
    digest: str
    virtual_s: float
    turns: int
    messages: int
    faults: int
    records: int
    elections: int

    def counts(self) -> dict[str, int]:
        return {
            "messages": self.messages,
            "faults": self.faults,
            "elections": self.elections,
            "records read": self.records,
        }


class SimulationFailed(SeedFailed):
    """A seed found something; the text has all that is needed to look into it."""

    def __init__(self, swarm: Swarm, error: BaseException, trace: Trace, state: str) -> None:
        self.seed = swarm.seed
        self.error = error
        super().__init__(
            f"{type(error).__name__}: {error}\n{swarm}\n{state}\n{trace.tail()}\n"
            f"Reproduce it: make sim SEEDS=1 START={swarm.seed}"
        )


def run(seed: int, echo: Callable[[str], None] | None = None) -> Result:
    """Run one seed; ``echo`` gets every line of the trace.

    Raises:
        SimulationFailed: a promise was broken, something was stuck, an error was not handled.
    """
    # The simulation is garbage when the collector is back, and is not looked through alive.
    with no_collector():
        return Simulation(Swarm.drawn(seed), echo).run()


class Simulation:
    def __init__(self, swarm: Swarm, echo: Callable[[str], None] | None = None) -> None:
        self.swarm = swarm
        self.loop = SimLoop()
        self.trace = Trace(self.loop.time, echo)
        self._verbose = echo is not None
        network = SimNetwork(self.loop, rng_for(swarm.seed, "network"), self.trace, QUIET_LINK)
        self._network = network
        names = [NodeId(f"n{number}") for number in range(1, swarm.nodes + 1)]
        members = [member(name, address_of(name)) for name in names]
        self._world = World(
            loop=self.loop,
            trace=self.trace,
            network=network,
            fabric=RpcFabric(network),
            settings=_settings(swarm),
            roster=Roster(
                self.loop, rng_for(swarm.seed, "gossip"), members, finds_dead=swarm.replaces
            ),
            voters=Members(tuple(names)),
        )
        self._groups: dict[tuple[str, int], int] = {}
        self.machines = Machines(self._world, swarm.seed)
        self.machines.on_join = self._joined
        self.nodes = self.machines.nodes
        self.checker = Checker(self.nodes)
        for node in self.nodes.values():
            node.on_left = self.checker.left
        network.tap(self.checker.sent)
        self.loop.after_turn = self.checker.after_turn
        self.workload = Workload(
            swarm,
            self.loop,
            self._world.fabric,
            self.machines.servers,
            self.checker,
            self._group_of,
            self.trace,
        )
        self.survey = Survey(
            swarm, self.loop, self._world.fabric, self.machines.servers, self.trace
        )
        self.holders = Holders(
            swarm,
            self.loop,
            self._world.fabric,
            self.machines.servers,
            lambda: self.checker.history(self._group_of(0, HELD_TOPIC)),
            self.trace,
        )
        # One replica at a time may be lost for good: two others have to have what it had.
        may_lose = "rot" in swarm.faults or swarm.churns
        self.operator = Operator(
            self.loop,
            self._world.fabric,
            self.machines.addresses,
            lambda: self.machines.metadata,
            sizes=(3,) if may_lose else (3, 3, 3, 2, 1, swarm.nodes),
            pace_s=swarm.fault_duration_s / 3,
            rng=rng_for(swarm.seed, "operator"),
            trace=self.trace,
        )
        self.churn = Churn(
            self.loop,
            self._world.fabric,
            self.machines,
            may_bury=swarm.may_bury,
            pace_s=swarm.fault_duration_s / 3,
            rng=rng_for(swarm.seed, "churn orders"),
            trace=self.trace,
        )
        self.nemesis = Nemesis(
            swarm,
            list(self.nodes.values()),
            [*self.workload.names, *self.survey.names, *self.holders.names, "operator", "churn"],
            rng_for(swarm.seed, "faults"),
            self.trace,
        )

    def _joined(self, node: SimNode) -> None:
        node.on_left = self.checker.left
        self.nemesis.add(node)

    def run(self) -> Result:
        """See :func:`run`. Once only."""
        with quiet_logs(self.trace if self._verbose else None), no_collector():
            try:
                self.loop.run_until_complete(self._phases())
            except (SimulationError, SimulatedCrash, Exception) as error:
                raise SimulationFailed(self.swarm, error, self.trace, self._state()) from error
            finally:
                self.loop.dispose()
        return Result(
            seed=self.swarm.seed,
            digest=self.trace.digest,
            virtual_s=self.loop.time(),
            turns=self.loop.turns,
            messages=self._network.sent,
            faults=self.nemesis.injected,
            records=self.workload.consumed,
            elections=sum(len(each.leaders) for each in self.checker.histories.values()),
        )

    async def _phases(self) -> None:
        loop = self.loop
        loop.end_s = START_S
        for node in self.nodes.values():
            node.start()
        while not all(self._knows_all(node) for node in self.nodes.values()):
            await asyncio.sleep(0.05)
        for topic in (TOPIC, *self.survey.topics, *self.holders.topics):
            await self.workload.create_topic(topic)
            while not all(node.metadata.has_topic(topic) for node in self.nodes.values()):
                await asyncio.sleep(0.05)
        if self.swarm.replaces:
            await self.workload.set_cluster(REPLACED_AFTER_S)
        loop.end_s = loop.time() + 100 * self.swarm.fault_duration_s
        self._network.quality = self.swarm.link
        self.workload.start()
        self.survey.start()
        self.holders.start()
        if self.swarm.moves:
            self.operator.start()
        if self.swarm.churns:
            self.churn.start()
        await self.nemesis.run()
        loop.end_s = loop.time() + LIVENESS_S
        self.nemesis.heal()
        await self.operator.calm_down()
        await self.churn.finish()
        await self.operator.finish()
        await self.workload.finished()
        await self.survey.finish()
        await self.holders.finish()
        while not (
            self.checker.converged() and self.checker.moved() and self.nemesis.is_all_mended
        ):
            await asyncio.sleep(0.05)
        self.checker.check_metadata()
        self.checker.check_starts()
        self._check_all_read()
        await self._lose_a_leader_at_rest()
        if not self.swarm.may_cut_power:
            await self._lose_all_power()
        self.checker.check_states()

    async def _lose_a_leader_at_rest(self) -> None:
        """Nobody sleeps on under a leader that is dead, nor beside one that is back, and that one
        leads again what it is preferred for."""
        may_sleep = self.swarm.sleep_after_s < NEVER_S
        self.loop.end_s = self.loop.time() + LIVENESS_S
        while not self.checker.led() or may_sleep > self.checker.all_asleep():
            await asyncio.sleep(0.05)
        victim = next(node for node in self.machines.members if node.leads())
        victim.crash(power=False)
        while not self.checker.led():
            await asyncio.sleep(0.05)
        victim.start()
        while not (
            victim.ready
            and self.checker.converged()
            and self.checker.led()
            and self.checker.preferred_lead()
        ):
            await asyncio.sleep(0.05)

    async def _lose_all_power(self) -> None:
        """The syncs that ``interval`` promises come; what a disk held before is there after."""
        nodes = self.machines.members
        self.loop.end_s = self.loop.time() + SYNC_S
        while not all(node.synced for node in nodes):
            await asyncio.sleep(0.01)
        self.loop.end_s = self.loop.time() + LIVENESS_S
        groups = {node.node_id: set(node.host.replicas) for node in nodes if node.host}
        for node in nodes:
            node.crash(power=True)
            node.start()
        while not all(self._holds(node, groups[node.node_id]) for node in nodes):
            await asyncio.sleep(0.05)
        while not self.checker.converged():
            await asyncio.sleep(0.05)

    def _holds(self, node: SimNode, groups: set[GroupId]) -> bool:
        return node.ready and node.host is not None and groups <= node.host.replicas.keys()

    def _knows_all(self, node: SimNode) -> bool:
        return node.ready and len(node.metadata.nodes()) == len(self.nodes)

    def _check_all_read(self) -> None:
        swarm = self.swarm
        expected = swarm.producers * swarm.records_per_producer
        histories = [
            self.checker.history(self._group_of(number)) for number in range(swarm.partitions)
        ]
        committed = sum(len(history.records) for history in histories)
        acknowledged, given_up = self.workload.acknowledged, self.workload.given_up
        if expected != acknowledged + given_up or not acknowledged <= committed <= expected:
            raise Violation(
                f"{expected} records were sent, {acknowledged} acknowledged, {given_up} given up, "
                f"{committed} are committed"
            )
        if self.workload.consumed + self.workload.skipped != committed * swarm.consumers:
            raise Violation(
                f"{self.workload.consumed} reads of {committed} records, {self.workload.skipped} "
                "deleted before"
            )

    def _group_of(self, partition: int, topic: str = TOPIC) -> int:
        group = self._groups.get((topic, partition))
        if group is None:
            group = self._groups[topic, partition] = self._find_group(topic, partition)
        return group

    def _find_group(self, topic: str, partition: int) -> int:
        for node in self.nodes.values():
            if node.metadata.has_topic(topic):
                return node.metadata.partition(topic, partition).group
        raise SimulationError(f"no node knows the topic {topic!r}")

    def _state(self) -> str:
        """Where everybody is, one line each."""
        lines = [self.workload.describe()]
        for node in self.nodes.values():
            lines.append(f"{node.node_id} {node.process.state.value}")
            for group, replica in node.host.replicas.items() if node.host else ():
                core, log = replica.core, replica.log
                lines.append(
                    f"  group {group} {core.role.value} term {core.term} leader {core.leader_id} "
                    f"commit {core.commit_index} applied {replica.applied_index} "
                    f"last {log.last_index} durable {log.durable_index}"
                )
        return "\n".join(lines)


def _settings(swarm: Swarm) -> NodeSettings:
    raft = RaftConfig(
        election_timeout_s=swarm.election_timeout_s,
        heartbeat_s=swarm.election_timeout_s / 3,
        max_append_bytes=swarm.max_append_bytes,
        coalesce_bytes=swarm.coalesce_bytes,
        max_inflight_bytes=max(swarm.max_inflight_bytes, swarm.max_append_bytes),
    )
    return NodeSettings(
        replication=ReplicationConfig(
            raft=raft,
            state_interval_bytes=swarm.state_interval_bytes,
            sleep_after_s=swarm.sleep_after_s,
            loop_flush_s=swarm.loop_flush_s,
        ),
        log=LogConfig(
            segment_bytes=swarm.segment_bytes,
            index_interval_bytes=256,
            tail_cache_bytes=swarm.tail_cache_bytes,
            fsync_interval_s=swarm.fsync_interval_s,
        ),
        limits=Limits(),
        scrubs="rot" in swarm.faults,
        retention=RetentionConfig(interval_s=0.25, max_lag_s=swarm.max_lag_s),
        balance=BalanceConfig(interval_s=0.2, rest_s=0.2, settle_s=0.4),
        worker=swarm.worker,
        max_drift=swarm.max_drift,
        max_skew_ms=swarm.max_skew_ms,
    )
