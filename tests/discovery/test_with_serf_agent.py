"""Against an implementation nobody here wrote: HashiCorp's ``serf agent`` on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fakes.serf_agent import (
    address_of,
    eventually,
    needs_serf,
    start_agent,
    start_ours,
    until,
    until_tags,
)
from quorumlog.discovery.wire.codec import encode_message
from quorumlog.discovery.wire.messages import Alive
from quorumlog.discovery.wire.packet import encode_packet
from quorumlog.ports import MemberState

pytestmark = needs_serf


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as exits:
        yield exits


@pytest.mark.both_loops
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


async def test_an_agent_finds_a_killed_node_where_it_is_now(stack: AsyncExitStack) -> None:
    agent = await start_agent(stack)
    one = await start_ours(stack, "one", agent.gossip)
    two = await start_ours(stack, "two", agent.gossip)
    await until(one, "two", MemberState.ALIVE)
    await agent.until("two", "alive")
    await two.close()
    again = await start_ours(stack, "two", address_of(one), version="2")
    # Long before it can have suspected the old address for the shortest time, 4 s.
    async with asyncio.timeout(3.0):
        await agent.until("two", "alive", addr=address_of(again), tags={"id": "two", "ver": "2"})
    # What it has given up it takes elsewhere once it has forgotten it, 15 s with these settings.
    await again.close()
    await agent.until("two", "failed")
    await until(one, "two", MemberState.FAILED)
    third = await start_ours(stack, "two", agent.gossip, version="3")
    await until(one, "two", MemberState.ALIVE)
    await agent.until("two", "alive", addr=address_of(third), tags={"id": "two", "ver": "3"})
    assert one.rejected_packets == 0


@pytest.mark.parametrize("versions", [[7, 9, 8, 2, 5, 4], [1, 5, 2, 9, 9, 9], [1, 1, 2, 2, 5, 4]])
async def test_a_foreign_packet_keeps_no_agent_out(
    stack: AsyncExitStack, versions: list[int]
) -> None:
    """memberlist refuses a whole state for one member in it whose versions do not fit."""
    one = await start_ours(stack, "one")
    ghost = Alive("ghost", 1, ("127.0.0.1", 9), b"", bytes(versions))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(encode_packet([encode_message(ghost)]), one.address)
    await eventually(lambda: one.rejected_packets == 1)
    agent = await start_agent(stack, f"-join={address_of(one)}")
    await agent.until("one", "alive")
    assert set(await agent.members()) == {"one", "agent"}


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


async def test_new_tags_of_an_agent_reach_us(stack: AsyncExitStack) -> None:
    one = await start_ours(stack, "one")
    two = await start_ours(stack, "two", address_of(one))
    agent = await start_agent(stack, f"-join={address_of(one)}")
    for gossip in (one, two):
        await until(gossip, "agent", MemberState.ALIVE)
    await agent.run("tags", "-set", "kind=changed", "-set", "more=yes")
    for gossip in (one, two):
        await until_tags(gossip, "agent", {"kind": "changed", "more": "yes"})
    await agent.run("tags", "-delete", "more")
    await until_tags(one, "agent", {"kind": "changed"})


async def test_an_agent_that_was_killed_is_found_where_it_is_now(stack: AsyncExitStack) -> None:
    one = await start_ours(stack, "one")
    two = await start_ours(stack, "two", address_of(one))
    agent = await start_agent(stack, f"-join={address_of(one)}")
    await until(two, "agent", MemberState.ALIVE)
    agent.process.kill()
    for gossip in (one, two):
        await until(gossip, "agent", MemberState.FAILED)
    again = await start_agent(stack, f"-join={address_of(two)}")
    for gossip in (one, two):
        await until(gossip, "agent", MemberState.ALIVE)
        [seen] = [member for member in gossip.members() if member.name == "agent"]
        assert f"{seen.address}:{seen.port}" == again.gossip
    for name in ("one", "two"):
        await again.until(name, "alive")


async def test_an_agent_rejoins_from_its_snapshot(stack: AsyncExitStack, tmp_path: Path) -> None:
    """It calls the addresses that it knew of us."""
    one = await start_ours(stack, "one")
    remembers = f"-snapshot={tmp_path / 'snapshot'}"
    agent = await start_agent(stack, f"-join={address_of(one)}", remembers)
    await until(one, "agent", MemberState.ALIVE)
    await agent.until("one", "alive")
    agent.process.terminate()
    await agent.process.wait()
    await until(one, "agent", MemberState.FAILED)
    again = await start_agent(stack, remembers, "-rejoin")
    await again.until("one", "alive")
    await until(one, "agent", MemberState.ALIVE)
