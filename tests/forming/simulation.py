"""One run from one seed: machines start, things break, a cluster forms; in the end all are in it.

Faults stop after a while. Then everybody who can be has to be in the one cluster within
``LIVENESS_S`` virtual seconds. Who is promised to a node that is lost for good waits for ever, the
price of a single decider; an operator empties its directory, where that leaves enough.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from forming.air import Air
from forming.machine import GOSSIP_PORT, Machine, World
from forming.nemesis import Nemesis
from forming.scenario import Scenario
from forming.views import Rumours, Views
from forming.witness import Witness, describe
from quorumlog.discovery.config import GossipConfig
from sim.campaign import SeedFailed
from sim.disk import SimulatedCrash
from sim.history import Violation
from sim.loop import SimLoop, SimulationError
from sim.network import LinkQuality, SimNetwork
from sim.process import Process
from sim.quiet import no_collector, quiet_logs
from sim.rpc import RpcFabric
from sim.swarm import rng_for
from sim.trace import Trace

QUIET_LINK: Final = LinkQuality()

LIVENESS_S: Final = 120.0
"""Limit after everything is healed. Gossip heals a cut within a minute, where it waits longest."""

PATIENCE_S: Final = 15.0
"""So long an operator looks at a node that waits for a lost coordinator."""

_LATE_S: Final = 2.0
"""In the end nothing happens for so long."""

_POWER_LOSS_CHANCE: Final = 0.3
"""That a late node loses power, and starts again."""

_SLOW_S: Final = 1.0
"""What a slow message takes meanwhile: there and back less than a seed is waited for."""

_POWER_LOSS_S: Final = 3.0
"""So late at most."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run that found nothing was like."""

    seed: int
    digest: str
    virtual_s: float
    healed_s: float
    """How long it took once everything was healed."""
    messages: int
    faults: int
    formed: int
    joined: int
    late: int
    """Nodes that expected some when there was a cluster, and joined it."""
    aborted: int
    lost: int
    blocked: int
    """1 where no cluster could be demanded: too few were left who are not promised to a lost node,
    or all who knew of the cluster are lost."""

    def counts(self) -> dict[str, int]:
        return {
            "calls": self.messages,
            "faults": self.faults,
            "clusters formed": self.formed,
            "nodes joined": self.joined,
            "late nodes": self.late,
            "proposals given up": self.aborted,
            "nodes lost": self.lost,
            "blocked": self.blocked,
        }


class FormingFailed(SeedFailed):
    def __init__(self, scenario: Scenario, error: BaseException, trace: Trace, state: str) -> None:
        self.seed = scenario.seed
        self.error = error
        super().__init__(
            f"{type(error).__name__}: {error}\n{scenario}\n{state}\n{trace.tail()}\n"
            f"Reproduce it: make bootstrap SEEDS=1 START={scenario.seed}"
        )


def run(seed: int, echo: Callable[[str], None] | None = None) -> Result:
    """Run one seed; ``echo`` gets every line of the trace.

    Raises:
        FormingFailed: a promise was broken, somebody is not in the cluster, an error was not
            handled.
    """
    return Forming(Scenario.drawn(seed), echo).run()


class Forming:
    def __init__(self, scenario: Scenario, echo: Callable[[str], None] | None = None) -> None:
        self.scenario = scenario
        seed = scenario.seed
        self.loop = SimLoop()
        self.trace = Trace(self.loop.time, echo)
        self._verbose = echo is not None
        self.witness = Witness(self.trace)
        network = SimNetwork(self.loop, rng_for(seed, "network"), self.trace, scenario.link)
        self.network = network
        self.world = World(
            loop=self.loop,
            trace=self.trace,
            network=network,
            fabric=RpcFabric(network),
            scenario=scenario,
            views=self._views(),
            witness=self.witness,
            machines={},
            rng=rng_for(seed, "ids"),
        )
        machines = scenario.founders + scenario.joiners
        hosts = [f"10.0.0.{number}" for number in range(1, machines + 1)]
        gossips = [f"{host}:{GOSSIP_PORT}" for host in hosts]
        for number, host in enumerate(hosts, 1):
            is_founder = number <= scenario.founders
            seeds = gossips[:1] if scenario.one_seed else gossips
            if is_founder and scenario.expect == 1:
                seeds = [gossips[number - 1]]
            expect = scenario.expect if is_founder else 0
            if machines - number < scenario.eager:
                expect = 1
            self._add_machine(f"m{number}", host, expect, seeds, founder=is_founder)
        self.stranger = self._make_stranger(gossips[:1])
        self.nemesis = Nemesis(self.world, self.stranger, rng_for(seed, "nemesis"))
        self.loop.after_turn = self._after_turn
        self._healed_s = 0.0
        self._late = 0
        self._blocked = False

    def _add_machine(
        self, name: str, host: str, expect: int, seeds: list[str], *, founder: bool
    ) -> Machine:
        rng = rng_for(self.scenario.seed, f"machine {name.removeprefix('m')}")
        machine = Machine(self.world, name, host, expect, seeds, rng, founder=founder)
        self.world.machines[name] = machine
        return machine

    def _views(self) -> Views:
        if self.scenario.rumours:
            return Rumours(self.loop, rng_for(self.scenario.seed, "rumours"))
        config = GossipConfig.local() if self.scenario.quick_gossip else GossipConfig.lan()
        return Air(self.network, config)

    def _make_stranger(self, seeds: list[str]) -> Machine | None:
        """A node that is a cluster of its own; where the seed says so it comes into the gossip."""
        if not (self.scenario.stranger or "address_taken" in self.scenario.faults):
            return None
        elsewhere = Rumours(self.loop, rng_for(self.scenario.seed, "elsewhere"))
        world = replace(
            self.world,
            views=self.world.views if self.scenario.stranger else elsewhere,
            witness=Witness(self.trace),
            machines={},
        )
        own = f"10.0.1.1:{GOSSIP_PORT}"
        stranger = Machine(
            world, "x1", "10.0.1.1", 1, [own], rng_for(self.scenario.seed, "stranger")
        )
        world.machines["x1"] = stranger
        return stranger

    def run(self) -> Result:
        """See :func:`run`. Once only."""
        with quiet_logs(self.trace if self._verbose else None), no_collector():
            try:
                self.loop.run_until_complete(self._phases())
            except (SimulationError, SimulatedCrash, Exception) as error:
                found = self.witness.violation or error
                raise FormingFailed(self.scenario, found, self.trace, self._state()) from error
            finally:
                self.loop.dispose()
        return Result(
            seed=self.scenario.seed,
            digest=self.trace.digest,
            virtual_s=self.loop.time(),
            healed_s=self._healed_s,
            messages=self.world.fabric.opened,
            faults=self.nemesis.injected,
            formed=int(self.witness.cluster_id != ""),
            joined=self.witness.joined,
            late=self._late,
            aborted=len(self.witness.aborted),
            lost=len(self.nemesis.lost),
            blocked=int(self._blocked),
        )

    def _after_turn(self, ran: dict[Process, None]) -> None:
        if self.witness.violation is not None:
            raise self.witness.violation

    async def _phases(self) -> None:
        loop, scenario = self.loop, self.scenario
        if self.stranger is not None:
            self.stranger.start()
            await self._serves(self.stranger)
            elsewhere = self.stranger.world.witness
            self.witness.stranger(elsewhere.cluster_id, elsewhere.voters)
            if scenario.stranger:
                # With a cluster of its own, and somebody else's addresses to join.
                self.stranger.crash(power=False)
                self.stranger.seeds = [next(iter(self.world.machines.values())).gossip]
                self.stranger.start()
                await self._serves(self.stranger)
        rng = rng_for(scenario.seed, "starts")
        for machine in self.world.machines.values():
            loop.call_outside(rng.uniform(0, scenario.start_spread_s), machine.start)
        await self.nemesis.run()
        self.network.quality = QUIET_LINK
        self.world.views.calm()
        self.nemesis.heal()
        healed_at = loop.time()
        await self._settle()
        self._healed_s = loop.time() - healed_at
        if self._is_known(self.witness.cluster_id) and not scenario.stranger:
            await self._add_late_nodes(rng)
        await asyncio.sleep(_LATE_S)
        if self._blocked:
            # Somebody was writing down the decision when all who had it were lost.
            await self._settle()
        if not self._is_settled():
            raise Violation("somebody left the cluster again")

    async def _serves(self, machine: Machine) -> None:
        while not machine.serves:
            await asyncio.sleep(0.05)

    async def _settle(self) -> None:
        began_s = self.loop.time()
        self.loop.end_s = began_s + LIVENESS_S
        while not self._is_settled():
            await asyncio.sleep(0.1)
            if self.loop.time() > began_s + PATIENCE_S:
                self._empty_who_waits_in_vain()

    async def _add_late_nodes(self, rng: random.Random) -> None:
        """Nodes that expect some, each with the address of one that serves: they join it.

        Packets are lost and late still, but nothing keeps one node from another.
        """
        scenario, loop = self.scenario, self.loop
        serving = [machine.gossip for machine in self._live]
        numbers = range(1, scenario.late + 1)
        hosts = [f"10.0.2.{number}" for number in numbers]
        self.network.quality = replace(
            scenario.link, slow_chance=scenario.late_slow, slow_s=_SLOW_S
        )
        for number, host in zip(numbers, hosts, strict=True):
            seeds = [rng.choice(serving), *(f"{each}:{GOSSIP_PORT}" for each in hosts)]
            if scenario.late_chain:
                seeds = [seeds[0] if number == 1 else seeds[number - 1]]
            expect = scenario.late_expect
            machine = self._add_machine(f"late{number}", host, expect, seeds, founder=False)
            loop.call_outside(rng.uniform(0, scenario.start_spread_s), machine.start)
            if rng.random() < _POWER_LOSS_CHANCE:
                loop.call_outside(rng.uniform(0, _POWER_LOSS_S), machine.lose_power)
        await asyncio.sleep(max(scenario.start_spread_s, _POWER_LOSS_S) + _LATE_S)
        await self._settle()
        self.network.quality = QUIET_LINK
        self._late += scenario.late

    # -- what is demanded in the end -----------------------------------------------------------

    @property
    def _live(self) -> list[Machine]:
        return [machine for machine in self.world.machines.values() if not machine.buried]

    def _is_settled(self) -> bool:
        if self.scenario.stranger:
            return all(self._knows_better(machine) for machine in self._live)
        cluster_id = self.witness.cluster_id
        if self._is_known(cluster_id):
            self._blocked = False
            return all(machine.serves == cluster_id for machine in self._live)
        founders = [machine for machine in self._live if machine.founder]
        free = [machine for machine in founders if not self._waits_in_vain(machine)]
        self._blocked = (
            bool(cluster_id)
            or len(founders) < self.scenario.expect
            or (len(free) < self.scenario.expect and self.nemesis.wipes_left < 1)
        )
        return self._blocked

    def _is_known(self, cluster_id: str) -> bool:
        """Whether anybody who is not lost is in that cluster."""
        held = [self.witness.held(machine.node_id) for machine in self._live]
        return any(each is not None and each.cluster_id == cluster_id != "" for each in held)

    def _knows_better(self, machine: Machine) -> bool:
        """With two clusters in one gossip a node is in one of them, or waits and says so."""
        if machine.serves or self._waits_in_vain(machine):
            return True
        members = machine.membership.members() if machine.membership else []
        return len({member.tags["cluster"] for member in members} - {""}) > 1

    def _waits_in_vain(self, machine: Machine) -> bool:
        """It is promised to a node that is lost, and nobody else knows of a decision."""
        held = self.witness.held(machine.node_id)
        if held is None or held.accepted is None:
            return False
        proposal = held.accepted
        return proposal.coordinator in self.nemesis.lost and not self._is_known(proposal.cluster_id)

    def _empty_who_waits_in_vain(self) -> None:
        """What the manual says: as a new node it only joins, unless it is needed to form."""
        for machine in self._live:
            if not self._waits_in_vain(machine) or not self.nemesis.may_lose(machine):
                continue
            if self.witness.cluster_id or self.nemesis.wipes_left < 1:
                machine.expect, machine.founder = 0, False
            self.nemesis.wipe(machine)
            machine.start()

    def _state(self) -> str:
        """Where everybody is, one line each."""
        lines = [f"cluster {self.witness.cluster_id[:6] or None}, lost {list(self.nemesis.lost)}"]
        for machine in self.world.machines.values():
            held = self.witness.held(machine.node_id)
            lines.append(
                f"{machine.name} expects {machine.expect} {machine.process.state.value} "
                f"serves {machine.serves[:6] or None} disk {held and describe(held)}"
            )
        return "\n".join(lines)
