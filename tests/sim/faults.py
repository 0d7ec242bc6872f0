"""The nemesis: breaks things as the seed says, then makes everything whole again.

The budget: disks lose what was not synced, and one at a time rots (:mod:`sim.rot`), so that a
majority of them always has what was acknowledged. Down, paused or cut off may be any number of
nodes at a time. Where what is acknowledged need not be synced (``fsync=interval``) no node loses
power: a failing disk stays, what a failed sync drops can be read until then.
"""

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from quorumlog.errors import QuorumlogError
from quorumlog.replication.sleep.beat import BEAT_GROUP
from quorumlog.types import GroupId, NodeId
from sim.network import LinkQuality
from sim.node import DATA_DIRECTORY, SimNode
from sim.rot import Rot
from sim.swarm import REPLACED_AFTER_S, Swarm, rng_for
from sim.trace import Trace

QUIET_LINK = LinkQuality()

_AMBUSH_CHANCE = {1: 0.1, 2: 0.5, 3: 0.02, 4: 0.05, 5: 0.5}
"""By the type of a message (``quorumlog.replication.wire``): mostly votes and orders."""

_SAVE_AMBUSH_CHANCE = 0.3
"""While a node saves a group's state."""


class Nemesis:
    def __init__(
        self,
        swarm: Swarm,
        nodes: list[SimNode],
        clients: Sequence[str],
        rng: random.Random,
        trace: Trace,
    ) -> None:
        self.injected = 0
        self._swarm = swarm
        self._nodes = nodes[:]
        self._clients = clients
        self._rng = rng
        self._trace = trace
        self._network = nodes[0].world.network
        self._actions: dict[str, Callable[[], Awaitable[None]]] = {
            "power": self._power,
            "kill": self._kill,
            "stop": self._stop,
            "pause": self._pause,
            "partition": self._partition,
            "isolate": self._isolate,
            "one_way": self._one_way,
            "slow_network": self._slow_network,
            "clock_jump": self._clock_jump,
            "transfer": self._transfer,
            "reset": self._reset,
            "ambush": self._ambush,
            "io_error": self._io_error,
            "disk_full": self._disk_full,
            "rot": self._flip_bits,
            "nap": self._nap,
            "outage": self._outage,
        }
        self._rot = Rot(
            self._nodes,
            DATA_DIRECTORY,
            rng_for(swarm.seed, "rot"),
            rng_for(swarm.seed, "loss"),
            trace,
        )
        self._lurking = 0
        self._away: SimNode | None = None
        self._network.tap(self._strike)
        for node in nodes:
            node.on_save = self._strike_save

    def add(self, node: SimNode) -> None:
        """``node`` is there, too, and is not spared."""
        self._nodes.append(node)
        node.on_save = self._strike_save

    async def run(self) -> None:
        """Do the seed's faults one after the other, with some repair between, until time is up."""
        swarm, rng = self._swarm, self._rng
        loop = asyncio.get_running_loop()
        until_s = loop.time() + swarm.fault_duration_s
        if "outage" in swarm.faults:
            await self._outage()
        while swarm.faults and loop.time() < until_s:
            await asyncio.sleep(rng.expovariate(1 / swarm.fault_interval_s))
            if rng.random() < 0.4:
                self._repair_one()
            else:
                self.injected += 1
                await self._actions[rng.choice(swarm.faults)]()

    def heal(self) -> None:
        """End every fault: all links as good as new, all nodes up that are not dead for good."""
        self._trace.add("nemesis heals everything")
        self._network.heal()
        self._network.quality = QUIET_LINK
        self._lurking = 0
        self._away = None
        for node in self._nodes:
            node.resume()
            if node.up and (node.failed or node.may_fail):
                node.crash(power=False)
            if not node.up:
                node.start()

    def _repair_one(self) -> None:
        """Something gets better: a node comes back, or the network does."""
        down = [
            node
            for node in self._nodes
            if not node.buried
            and node is not self._away
            and (not node.up or node.paused or node.failed)
        ]
        if down and self._rng.random() < 0.8:
            node = self._rng.choice(down)
            if node.failed:
                node.crash(power=False)
            if node.up:
                node.resume()
            else:
                node.start()
        else:
            self._trace.add("nemesis heals the network")
            self._network.heal()
            self._network.quality = self._swarm.link

    def _victim(self) -> SimNode | None:
        """Any node that is up; half of the time one that leads something."""
        up = [node for node in self._nodes if node.up]
        leading = [node for node in up if node.leads()]
        if leading and self._rng.random() < 0.5:
            return self._rng.choice(leading)
        return self._rng.choice(up) if up else None

    async def _power(self) -> None:
        if self._rng.random() < 0.1:
            for node in self._nodes:
                if node.up:
                    node.crash(power=True)
        elif (node_or_none := self._victim()) is not None:
            node_or_none.crash(power=True)

    async def _kill(self) -> None:
        node = self._victim()
        if node is not None:
            node.crash(power=False)
            if self._rng.random() < 0.5:
                node.start()

    async def _stop(self) -> None:
        node = self._victim()
        if node is not None and node.ready and not node.paused:
            await node.stop()

    async def _pause(self) -> None:
        node = self._victim()
        if node is not None:
            node.pause()

    async def _nap(self) -> None:
        """A leader is cut off from the other nodes, not from clients, and pauses before it has
        noticed; others have elected one of them when it goes on."""
        leading = [node for node in self._nodes if node.leads() and node.up and not node.paused]
        if not leading:
            return
        node = self._rng.choice(leading)
        process = node.process
        others = [each.node_id for each in self._nodes if each is not node]
        self._cut_both_ways([node.node_id], others)
        node.pause()
        await asyncio.sleep(self._swarm.election_timeout_s * self._rng.uniform(2, 6))
        if node.process is process:
            node.resume()
        # Time for clients to ask it, before the next fault.
        await asyncio.sleep(self._swarm.election_timeout_s)

    async def _outage(self) -> None:
        """A node is down for longer than the cluster waits for it; one at a time."""
        node = self._victim()
        if node is None or self._away is not None:
            return
        self._away = node
        node.crash(power=self._swarm.may_cut_power)
        away_s = self._rng.uniform(1.3, 2.5) * REPLACED_AFTER_S
        self._network.loop.call_outside(away_s, self._end_outage, node)

    def _end_outage(self, node: SimNode) -> None:
        if self._away is node:
            self._away = None
            if not node.up:
                node.start()

    async def _partition(self) -> None:
        """Two sides that cannot reach each other; clients stand on either."""
        names = [*(node.node_id for node in self._nodes), *self._clients]
        self._rng.shuffle(names)
        split = self._rng.randint(1, len(names) - 1)
        self._cut_both_ways(names[:split], names[split:])

    async def _isolate(self) -> None:
        node = self._victim()
        if node is not None:
            others = [each.node_id for each in self._nodes if each is not node]
            with_clients = self._rng.random() < 0.5
            self._cut_both_ways([node.node_id], [*others, *(self._clients if with_clients else ())])

    async def _one_way(self) -> None:
        source, target = self._rng.sample([node.node_id for node in self._nodes], 2)
        self._trace.add(f"nemesis cuts {source} > {target}")
        self._network.cut(source, target)

    def _cut_both_ways(self, some: Sequence[str], others: Sequence[str]) -> None:
        self._trace.add(f"nemesis cuts {some} from {others}")
        for one in some:
            for other in others:
                self._network.cut(one, other)
                self._network.cut(other, one)

    async def _slow_network(self) -> None:
        self._trace.add("nemesis slows the network down")
        quality = self._network.quality
        self._network.quality = replace(quality, longest_s=self._rng.uniform(0.05, 0.4))

    async def _clock_jump(self) -> None:
        node = self._rng.choice(list(self._nodes))
        node.clock.skew_ms += self._rng.randint(-5000, 5000)
        self._trace.add(f"nemesis sets the wall clock of {node.node_id}")

    async def _transfer(self) -> None:
        node = self._victim()
        if node is None or node.host is None or node.paused:
            return
        target = NodeId(self._rng.choice(list(self._nodes)).node_id)
        for replica in node.host.replicas.values():
            if replica.serving:
                self._trace.add(f"nemesis moves group {replica.group} to {target}")
                try:
                    # Whatever follows from it belongs to the node, and dies with it.
                    node.process.context().run(replica.transfer_leadership, target)
                except QuorumlogError as error:
                    self._trace.add(f"refused: {error}")

    async def _reset(self) -> None:
        self._trace.add("nemesis resets all connections")
        self._nodes[0].world.fabric.reset_all()

    async def _io_error(self) -> None:
        node = self._victim()
        if node is not None:
            node.fail_disk(errno.EIO)

    async def _disk_full(self) -> None:
        node = self._victim()
        if node is not None:
            node.fail_disk(errno.ENOSPC)

    @property
    def is_all_mended(self) -> bool:
        """Whether nothing is left of what disks have lost for good."""
        return self._rot.is_mended()

    async def _flip_bits(self) -> None:
        self._rot.strike()

    async def _ambush(self) -> None:
        """Some of the next promises, or saved states, are the last of who makes them, for a
        moment."""
        self._lurking += self._rng.randint(1, 4)

    def _strike(self, source: str, target: str, group: GroupId, payload: bytes) -> None:
        chance = 0.0 if group == BEAT_GROUP else _AMBUSH_CHANCE.get(payload[0], 0.0)
        if self._lurking and self._rng.random() < chance:
            self._lurking -= 1
            # Not here: this is the victim's own turn, and what it does in a turn it does whole.
            self._network.loop.call_outside(0.0, self._fell, NodeId(source))

    def _strike_save(self, node: SimNode) -> None:
        if self._lurking and self._rng.random() < _SAVE_AMBUSH_CHANCE:
            self._lurking -= 1
            self._network.loop.call_outside(0.0, self._fell, node.node_id)

    def _fell(self, name: NodeId) -> None:
        node = next(each for each in self._nodes if each.node_id == name)
        if node.up and not node.paused:
            node.crash(power=self._rng.random() < 0.5 and self._swarm.may_cut_power)
            delay_s = self._rng.uniform(0.0, 0.05)
            self._network.loop.call_outside(delay_s, self._raise_again, node, node.incarnation)

    def _raise_again(self, node: SimNode, incarnation: int) -> None:
        if not node.up and node.incarnation == incarnation:
            node.start()
