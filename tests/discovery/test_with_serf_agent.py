"""Against an implementation nobody here wrote: HashiCorp's ``serf agent`` on loopback."""

import asyncio
import json
import random
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.gossip import Gossip
from quorumlog.ports import MemberState

SERF = shutil.which("serf")
pytestmark = pytest.mark.skipif(
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
        listed = json.loads(await self.run("members", "-format=json"))
        return {member["name"]: member for member in listed["members"]}

    async def until(self, name: str, status: str, limit_s: float = 15.0, **fields: object) -> None:
        """Ask the agent until it lists ``name`` so; each question is a process of its own."""
        wanted = {"status": status, **fields}
        seen: object = None
        try:
            async with asyncio.timeout(limit_s):
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as exits:
        yield exits


async def start_agent(stack: AsyncExitStack, *options: str) -> Agent:
    gossip, rpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    process = await asyncio.create_subprocess_exec(
        str(SERF),
        "agent",
        "-node=agent",
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


async def start_ours(stack: AsyncExitStack, name: str, *seeds: str, version: str = "1") -> Gossip:
    gossip = await Gossip.start(
        name=name,
        bind=("127.0.0.1", 0),
        seeds=seeds,
        tags={"id": name, "ver": version},
        config=GossipConfig.local(),
        rng=random.Random(name),
    )
    stack.push_async_callback(gossip.close)
    return gossip


async def until(gossip: Gossip, name: str, state: MemberState, limit_s: float = 15.0) -> None:
    changed = asyncio.Event()
    gossip.on_change(lambda _: changed.set())
    async with asyncio.timeout(limit_s):
        while (name, state) not in [(m.name, m.state) for m in gossip.members()]:
            changed.clear()
            await changed.wait()


def address_of(gossip: Gossip) -> str:
    return "{}:{}".format(*gossip.address)


async def test_an_agent_joins_us_and_both_see_each_others_tags(stack: AsyncExitStack) -> None:
    one = await start_ours(stack, "one")
    two = await start_ours(stack, "two", address_of(one))
    agent = await start_agent(stack, f"-join={address_of(one)}")
    await until(two, "agent", MemberState.ALIVE)
    [seen] = [member for member in two.members() if member.name == "agent"]
    assert seen.tags == {"kind": "foreign"}
    assert f"{seen.address}:{seen.port}" == agent.gossip
    for gossip in (one, two):
        name = "one" if gossip is one else "two"
        await agent.until(name, "alive", tags={"id": name, "ver": "1"}, addr=address_of(gossip))
    two.set_tags({"id": "two", "ver": "2"})
    await agent.until("two", "alive", tags={"id": "two", "ver": "2"})
    assert one.rejected_packets == two.rejected_packets == 0


async def test_we_join_an_agent_leave_return_elsewhere_and_fail(stack: AsyncExitStack) -> None:
    agent = await start_agent(stack)
    one = await start_ours(stack, "one", agent.gossip)
    two = await start_ours(stack, "two", agent.gossip)
    await until(one, "two", MemberState.ALIVE)
    await agent.until("two", "alive")
    await two.leave()
    await two.close()
    await agent.until("two", "left")
    await until(one, "two", MemberState.LEFT)
    again = await start_ours(stack, "two", agent.gossip, version="2")
    await agent.until("two", "alive", addr=address_of(again), tags={"id": "two", "ver": "2"})
    await again.close()
    await agent.until("two", "failed")
    await until(one, "two", MemberState.FAILED)
    assert (await agent.members())["one"]["status"] == "alive"


async def test_an_agent_that_leaves_has_left_and_one_that_is_killed_fails(
    stack: AsyncExitStack,
) -> None:
    one = await start_ours(stack, "one")
    two = await start_ours(stack, "two", address_of(one))
    agent = await start_agent(stack, f"-join={address_of(one)}")
    await until(two, "agent", MemberState.ALIVE)
    await agent.run("leave")
    await until(one, "agent", MemberState.LEFT)
    await until(two, "agent", MemberState.LEFT)
    again = await start_agent(stack, f"-join={address_of(two)}")
    await until(one, "agent", MemberState.ALIVE)
    again.process.kill()
    await until(one, "agent", MemberState.FAILED)
    await until(two, "agent", MemberState.FAILED)


async def test_an_agents_events_and_queries_disturb_nothing(stack: AsyncExitStack) -> None:
    one = await start_ours(stack, "one")
    agent = await start_agent(stack, f"-join={address_of(one)}")
    await until(one, "agent", MemberState.ALIVE)
    await agent.until("one", "alive")
    assert "dispatched" in await agent.run("event", "deploy", "payload " * 20)
    await agent.run("query", "-timeout=200ms", "anybody")
    assert (await agent.members())["one"]["status"] == "alive"
    assert one.rejected_packets == 0
