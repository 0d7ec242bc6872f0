"""A real ``serf agent`` on loopback, and members of ours beside it."""

import asyncio
import json
import random
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from examples.local_cluster import free_address
from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.gossip import Gossip
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.ports import MemberState

LIMIT_S = 40.0
"""Agents give a suspect up to 18 s where nobody else suspects it, longer while they are slow."""

SERF = shutil.which("serf")
needs_serf = pytest.mark.skipif(
    SERF is None, reason="no `serf` on this machine (Debian package serf)"
)


@dataclass
class Agent:
    process: asyncio.subprocess.Process
    gossip: str
    rpc: str

    async def run(self, command: str, *arguments: str) -> str:
        return await run_serf(command, f"-rpc-addr={self.rpc}", *arguments)

    async def members(self) -> dict[str, dict[str, Any]]:
        """Empty while the agent does not answer yet."""
        said = await self.run("members", "-format=json")
        if said.startswith("Error connecting"):
            return {}
        listed = json.loads(said)
        return {member["name"]: member for member in listed["members"]}

    async def until(self, name: str, status: str, **fields: object) -> None:
        """Ask the agent until it lists ``name`` so; each question is a process of its own."""
        wanted = {"status": status, **fields}
        seen: object = None
        try:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    seen = (await self.members()).get(name, {})
                    if all(seen.get(key) == value for key, value in wanted.items()):
                        return
        except TimeoutError:
            pytest.fail(f"wanted {name} {wanted}, the agent has {seen}")


async def run_serf(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(SERF),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    return output.decode()


async def start_agent(stack: AsyncExitStack, *options: str, name: str = "agent") -> Agent:
    gossip, rpc = free_address(), free_address()
    process = await asyncio.create_subprocess_exec(
        str(SERF),
        "agent",
        f"-node={name}",
        f"-bind={gossip}",
        f"-rpc-addr={rpc}",
        "-profile=local",
        "-tag=kind=foreign",
        *options,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def stop() -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()

    stack.push_async_callback(stop)
    return Agent(process, gossip, rpc)


async def start_ours(
    stack: AsyncExitStack,
    name: str,
    *seeds: str,
    version: str = "1",
    keys: GossipKeys | None = None,
) -> Gossip:
    gossip = await Gossip.start(
        name=name,
        bind=("127.0.0.1", 0),
        seeds=seeds,
        tags={"id": name, "ver": version},
        config=GossipConfig.local(),
        keys=keys,
        rng=random.Random(name),
    )
    stack.push_async_callback(gossip.close)
    return gossip


async def eventually(done: Callable[[], bool], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not done():
            await asyncio.sleep(0.02)


async def until(gossip: Gossip, name: str, state: MemberState) -> None:
    changed = asyncio.Event()
    gossip.on_change(lambda _: changed.set())
    async with asyncio.timeout(LIMIT_S):
        while (name, state) not in [(m.name, m.state) for m in gossip.members()]:
            changed.clear()
            await changed.wait()


async def until_tags(gossip: Gossip, name: str, tags: dict[str, str]) -> None:
    changed = asyncio.Event()
    gossip.on_change(lambda _: changed.set())
    async with asyncio.timeout(LIMIT_S):
        while (name, tags) not in [(m.name, m.tags) for m in gossip.members()]:
            changed.clear()
            await changed.wait()


def address_of(gossip: Gossip) -> str:
    return "{}:{}".format(*gossip.address)
