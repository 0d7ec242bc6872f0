"""Clients that repeat themselves, and nodes that die under them, in virtual time."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from quorumlog.errors import QuorumlogError
from support.replicated_group import VirtualGroup

Between = Callable[[VirtualGroup], Awaitable[None]]


async def _nothing(group: VirtualGroup) -> None:
    pass


async def storm(
    seed: int,
    make: Callable[[int, float], VirtualGroup] = VirtualGroup,
    between: Between = _nothing,
) -> None:
    """Four clients work while nodes lose their power, six times; then everything is compared.

    ``make`` gives a group of that seed and loss; ``between`` is called when all nodes run.
    """
    rng = random.Random(seed)
    group = make(seed, rng.choice([0.0, 0.2]))
    await group.open()
    acknowledged: dict[str, int] = {}
    clients = [
        asyncio.create_task(_client(group, random.Random(f"{seed} {number}"), number, acknowledged))
        for number in range(4)
    ]
    for _ in range(6):
        await asyncio.sleep(rng.uniform(0.2, 1.5))
        node = rng.choice([await group.leader(), *group.nodes])
        group.power_cut(node)
        await asyncio.sleep(rng.uniform(0.0, 1.5))
        await group.open_node(node)
        await between(group)
    await asyncio.gather(*clients)
    lines = [await group.read(node) for node in group.nodes]
    assert lines[0] == lines[1] == lines[2]
    assert len(lines[0]) == len(set(lines[0])), "a command was applied twice"
    for line, result in acknowledged.items():
        assert lines[0][result - 1] == line, "another result than was acknowledged"


async def _client(
    group: VirtualGroup, rng: random.Random, number: int, acknowledged: dict[str, int]
) -> None:
    """Repeats each command under its request id, at any node, until it is acknowledged."""
    for count in range(25):
        line = f"{number}.{count}"
        while line not in acknowledged:
            node = rng.choice(group.nodes)
            try:
                result = await group.propose(
                    node, line.encode(), request_id=line, timeout_s=rng.uniform(0.05, 2)
                )
            except QuorumlogError:
                await asyncio.sleep(rng.uniform(0, 0.1))
            else:
                acknowledged[line] = int(result)
                with suppress(QuorumlogError):
                    lines = await group.read(rng.choice(group.nodes), timeout_s=0.5)
                    assert line in lines, "a read did not see what was acknowledged"
        await asyncio.sleep(rng.uniform(0, 0.1))
