"""Real processes mistreated at random while records flow: each record exactly once and in order,
and what clients saw is linearizable.

``make chaos SECONDS=120`` goes on for longer than the tests do.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from examples.local_cluster import LocalCluster, NodeProcess, Place, free_address
from faults.namespaces import Namespaces
from faults.proxy import FaultProxy
from faults.traffic import Traffic

SECONDS = float(os.environ.get("CHAOS_SECONDS", "5"))
NODES = 3


class Nemesis:
    """Does one of ``actions`` after the other until its time is over, then ``heal``."""

    def __init__(self, rng: random.Random, heal: Callable[[], object]) -> None:
        self.rng = rng
        self.done: list[str] = []
        self._heal = heal

    async def run(self, *actions: Callable[[], Awaitable[object]]) -> None:
        stop_at = time.monotonic() + SECONDS
        # Each at least once, whatever the length: a short run has met all there is.
        order = self.rng.sample(actions, len(actions))
        while time.monotonic() < stop_at or order:
            await asyncio.sleep(self.rng.uniform(0.3, 1.0))
            action = order.pop() if order else self.rng.choice(actions)
            await action()
            self.done.append(action.__name__)
        self._heal()


async def kill_and_start(node: NodeProcess, rng: random.Random) -> None:
    await asyncio.to_thread(node.kill)
    await asyncio.sleep(rng.uniform(0.0, 1.0))
    await asyncio.to_thread(node.start)
    await asyncio.to_thread(node.wait_serving)


async def test_nodes_are_killed_and_paused(tmp_path: Path) -> None:
    rng = random.Random(1)
    with LocalCluster(tmp_path, nodes=NODES) as cluster:

        async def kill() -> None:
            await kill_and_start(rng.choice(cluster.nodes), rng)

        async def pause() -> None:
            node = rng.choice(cluster.nodes)
            node.pause()
            await asyncio.sleep(rng.uniform(0.2, 1.5))
            node.resume()

        nemesis = Nemesis(rng, heal=lambda: None)
        await Traffic(cluster.servers, rng).run(lambda: nemesis.run(kill, pause))
        assert {"kill", "pause"} <= set(nemesis.done)


async def test_connections_between_nodes_are_delayed_throttled_stalled_and_broken(
    tmp_path: Path,
) -> None:
    """Peers and clients know only the proxies' addresses."""
    rng = random.Random(2)
    fronts = [free_address() for _ in range(NODES)]
    places = [
        Place(free_address(), free_address(), environment={"QUORUMLOG_ADVERTISE": front})
        for front in fronts
    ]
    async with AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(FaultProxy(front, place.listen))
            for front, place in zip(fronts, places, strict=True)
        ]

        def heal() -> None:
            for proxy in proxies:
                proxy.heal()

        async def delay() -> None:
            for proxy in proxies:
                proxy.inbound.delay_s = rng.uniform(0, 0.03)
                proxy.outbound.delay_s = rng.uniform(0, 0.03)

        async def throttle() -> None:
            rng.choice(proxies).inbound.bytes_s = 2e5

        async def stall() -> None:
            is_inbound = rng.random() < 0.5
            rng.choice(proxies).stall(inbound=is_inbound, outbound=not is_inbound)
            await asyncio.sleep(rng.uniform(0.2, 1.0))
            heal()

        async def break_connections() -> None:
            for proxy in rng.sample(proxies, rng.randint(1, NODES)):
                proxy.break_connections()

        async def refuse() -> None:
            proxy = rng.choice(proxies)
            proxy.refusing = True
            proxy.break_connections()
            await asyncio.sleep(rng.uniform(0.2, 1.0))
            proxy.refusing = False

        cluster = LocalCluster(tmp_path, places=places)
        stack.callback(cluster.stop)
        await asyncio.to_thread(cluster.start)
        nemesis = Nemesis(rng, heal)
        await Traffic(fronts, rng).run(
            lambda: nemesis.run(delay, throttle, stall, break_connections, refuse)
        )
        assert len(set(nemesis.done)) == 5


async def test_nodes_are_cut_off_from_each_other(tmp_path: Path, namespaces: Namespaces) -> None:
    """From everybody, from some of the peers in one direction, or from all peers but no client."""
    rng = random.Random(3)

    async def cut_off() -> None:
        namespaces.cut_off(rng.randrange(NODES))
        await asyncio.sleep(rng.uniform(0.5, 1.5))
        namespaces.heal()

    async def cut_one_way() -> None:
        namespaces.cut_one_way(*rng.sample(range(NODES), 2))
        await asyncio.sleep(rng.uniform(0.5, 1.5))
        namespaces.heal()

    async def cut_from_peers() -> None:
        namespaces.cut_from_peers(rng.randrange(NODES))
        await asyncio.sleep(rng.uniform(0.5, 1.5))
        namespaces.heal()

    with LocalCluster(tmp_path, places=namespaces.places()) as cluster:
        nemesis = Nemesis(rng, namespaces.heal)
        await Traffic(cluster.servers, rng).run(
            lambda: nemesis.run(cut_off, cut_one_way, cut_from_peers)
        )
        assert len(set(nemesis.done)) == 3
