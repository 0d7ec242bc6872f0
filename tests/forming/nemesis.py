"""Breaks things while a cluster forms, as the seed says, then makes everything whole.

The budget: nodes that expect N, wiped ones counted again, are fewer than 2N; and of the nodes of
any proposal that may become the cluster, or has, a minority at most loses its data or its machine.
"""

import asyncio
import errno
import random
from collections.abc import Callable, Sequence

from forming.machine import Machine, World
from quorumlog.types import NodeId
from sim.process import State


class Nemesis:
    def __init__(self, world: World, stranger: Machine | None, rng: random.Random) -> None:
        self.injected = 0
        self.wipes_left = world.scenario.wipes
        self.lost: dict[NodeId, None] = {}
        """Nodes that never come back."""
        self._world = world
        self._stranger = stranger
        self._rng = rng
        self._machines = list(world.machines.values())
        self._actions: dict[str, Callable[[], None]] = {
            "kill": lambda: self._stop(power=False),
            "power": lambda: self._stop(power=True),
            "all_power": self._all_power,
            "pause": self._pause,
            "isolate": self._isolate,
            "partition": self._partition,
            "one_way": self._one_way,
            "reset": world.fabric.reset_all,
            "twice": lambda: self._any().start_twice(),
            "io_error": lambda: self._any().fail_disk(errno.EIO),
            "disk_full": lambda: self._any().fail_disk(errno.ENOSPC),
            "wipe": self._wipe,
            "bury": self._bury,
            "ambush": self._ambush,
            "address_taken": self._address_taken,
        }

    async def run(self) -> None:
        scenario = self._world.scenario
        loop = self._world.loop
        end_s = loop.time() + scenario.fault_duration_s + scenario.start_spread_s
        while loop.time() < end_s:
            await asyncio.sleep(self._rng.uniform(0, 2 * scenario.fault_interval_s))
            if scenario.faults:
                self.injected += 1
                self._actions[self._rng.choice(scenario.faults)]()

    def heal(self) -> None:
        """No more faults: everybody runs who can, and hears everybody."""
        world = self._world
        world.trace.add("nemesis heals everything")
        world.network.heal()
        for machine in self._machines:
            machine.ambushed = False
            machine.disk.clear_hooks()
            world.loop.resume(machine.process)
            machine.start()

    # -- processes -----------------------------------------------------------------------------

    def _any(self) -> Machine:
        return self._rng.choice(self._machines)

    def _stop(self, *, power: bool) -> None:
        machine = self._any()
        machine.crash(power=power)
        self._start_later(machine)

    def _start_later(self, machine: Machine) -> None:
        """After a moment or much later; soon enough for a second death before anything is synced
        again."""
        delay_s = self._rng.choice((0.01, 0.3, 3.0)) * self._rng.random()
        self._world.loop.call_outside(delay_s, machine.start)

    def _all_power(self) -> None:
        for machine in self._machines:
            if machine.up:
                machine.crash(power=True)
                self._start_later(machine)

    def _pause(self) -> None:
        machine = self._any()
        if machine.process.state is State.RUNNING:
            self._world.trace.add(f"{machine.name} pauses")
            process = machine.process
            process.pause()
            delay_s = self._rng.choice((0.5, 6.0)) * self._rng.random()
            self._world.loop.call_outside(delay_s, self._world.loop.resume, process)

    def _ambush(self) -> None:
        self._any().ambushed = True

    # -- data ----------------------------------------------------------------------------------

    def _wipe(self) -> None:
        machine = self._any()
        if machine.founder and self.wipes_left < 1:
            return
        if machine.buried or not self.may_lose(machine):
            return
        self.wipe(machine)
        self._start_later(machine)

    def wipe(self, machine: Machine) -> None:
        """Whatever that may mean."""
        if machine.founder:
            self.wipes_left -= 1
        self._lose(machine)
        machine.wipe()

    def _bury(self) -> None:
        """Not the one that others are told of, and not so many that no cluster can form."""
        machine = self._any()
        founders = [each for each in self._machines if each.founder and not each.buried]
        enough = len(founders) > self._world.scenario.expect or self._world.witness.cluster_id
        if machine is self._machines[0] or machine.buried or (machine.founder and not enough):
            return
        if self.may_lose(machine):
            self._world.trace.add(f"{machine.name} is buried")
            self._lose(machine)
            machine.bury()

    def _lose(self, machine: Machine) -> None:
        if machine.node_id:
            self.lost[machine.node_id] = None

    def may_lose(self, machine: Machine) -> bool:
        """Whether a majority is left of all that are, or may become, the cluster's voters; nothing
        becomes of what a lost node coordinated."""
        witness = self._world.witness
        sets: list[Sequence[NodeId]] = [[seat.node_id for seat in witness.voters]]
        for proposal in witness.proposals.values():
            is_over = proposal.cluster_id in witness.aborted or proposal.coordinator in self.lost
            if not is_over:
                sets.append([seat.node_id for seat in proposal.seats])
        gone = self.lost.keys() | {machine.node_id}
        return all(
            machine.node_id not in each or 2 * len(gone & set(each)) < len(each) for each in sets
        )

    # -- network -------------------------------------------------------------------------------

    def _cut(self, some: Sequence[Machine], others: Sequence[Machine], *, both: bool) -> None:
        """In place of the cut before, for a while."""
        network = self._world.network
        network.heal()
        for one in some:
            for other in others:
                network.cut(one.name, other.name)
                if both:
                    network.cut(other.name, one.name)
        names = [[machine.name for machine in side] for side in (some, others)]
        self._world.trace.add(f"nemesis cuts {'between' if both else 'the way of'} {names}")
        delay_s = self._rng.choice((0.5, 5.0)) * self._rng.random()
        self._world.loop.call_outside(delay_s, network.heal)

    def _isolate(self) -> None:
        one = self._any()
        self._cut([one], [each for each in self._machines if each is not one], both=True)

    def _partition(self) -> None:
        shuffled = self._rng.sample(self._machines, len(self._machines))
        at = self._rng.randint(1, max(1, len(shuffled) - 1))
        self._cut(shuffled[:at], shuffled[at:], both=True)

    def _one_way(self) -> None:
        one = self._any()
        others = [each for each in self._machines if each is not one]
        some = self._rng.sample(others, self._rng.randint(1, max(1, len(others) - 1)))
        if self._rng.random() < 0.5:
            self._cut([one], some, both=False)
        else:
            self._cut(some, [one], both=False)

    def _address_taken(self) -> None:
        """While a machine is down, a node of another cluster answers at its address."""
        machine = self._any()
        if self._stranger is not None and self._stranger.server is not None:
            machine.crash(power=False)
            self._world.trace.add(f"a stranger answers at {machine.address}")
            self._world.fabric.listen(machine.address, self._stranger.server)
            self._start_later(machine)
