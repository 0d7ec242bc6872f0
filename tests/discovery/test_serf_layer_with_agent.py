"""Serf's events, queries, intents and keys with a real ``serf agent`` on loopback."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fakes.serf_agent import (
    Agent,
    address_of,
    eventually,
    needs_serf,
    start_agent,
    start_ours,
    until,
)
from quorumlog.discovery.core.output import EventReceived
from quorumlog.discovery.gossip import Gossip
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.ports import MemberState

pytestmark = needs_serf

OLD, NEW = bytes(range(32)), bytes(range(32, 64))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as exits:
        yield exits


async def mixed(stack: AsyncExitStack) -> tuple[list[Gossip], list[Agent]]:
    """Two of ours and two agents who all know each other."""
    one = await start_ours(stack, "one")
    two = await start_ours(stack, "two", address_of(one))
    agents = [
        await start_agent(stack, f"-join={address_of(one)}", name=name) for name in ("a1", "a2")
    ]
    for gossip in (one, two):
        for name in ("a1", "a2"):
            await until(gossip, name, MemberState.ALIVE)
    for agent in agents:
        for name in ("one", "two", "a1", "a2"):
            await agent.until(name, "alive")
    return [one, two], agents


async def test_reachability_finds_every_member(stack: AsyncExitStack) -> None:
    _, agents = await mixed(stack)
    said = await agents[0].run("reachability")
    assert "live members: 4" in said
    assert "Successfully contacted all live nodes" in said


async def test_events_reach_everybody_once_whoever_sends_them(stack: AsyncExitStack) -> None:
    ours, agents = await mixed(stack)
    heard: dict[str, list[EventReceived]] = {"one": [], "two": []}
    for gossip, name in zip(ours, heard, strict=True):
        gossip.on_event(heard[name].append)
    assert "dispatched" in await agents[0].run("event", "deploy", "payload " * 20)
    await eventually(lambda: all(heard.values()))
    ours[0].send_event("answer", b"42")
    await eventually(lambda: all(len(events) == 2 for events in heard.values()))
    for events in heard.values():
        assert [event.name for event in events] == ["deploy", "answer"]
        assert events[0].payload == b"payload " * 20
        assert events[0].time < events[1].time
    assert all(gossip.rejected_packets == 0 for gossip in ours)


async def test_an_agent_hears_our_event(stack: AsyncExitStack, tmp_path: Path) -> None:
    one = await start_ours(stack, "one")
    out = tmp_path / "heard"
    script = tmp_path / "handler.sh"
    script.write_text(f'#!/bin/sh\necho "$SERF_USER_EVENT $(cat)" >> {out}\n')
    script.chmod(0o755)
    agent = await start_agent(
        stack, f"-join={address_of(one)}", f"-event-handler=user:deploy={script}"
    )
    await agent.until("one", "alive")
    one.send_event("deploy", b"v1.2")
    await eventually(lambda: out.exists() and out.read_text() == "deploy v1.2\n")


async def test_queries_are_heard_by_whom_they_are_meant_for(stack: AsyncExitStack) -> None:
    _, agents = await mixed(stack)
    for options, heard in (
        ((), {"one", "two", "a1", "a2"}),
        (("-node=one", "-node=a2"), {"one", "a2"}),
        (("-tag", "id=two"), {"two"}),
        (("-tag", "kind=for.*"), {"a1", "a2"}),
    ):
        answer = await agents[0].run(
            "query", "-format=json", "-timeout=700ms", "-relay-factor=2", *options, "who"
        )
        assert set(json.loads(answer)["Acks"]) == heard, options


async def test_who_is_forced_out_has_left_everywhere(stack: AsyncExitStack) -> None:
    ours, agents = await mixed(stack)
    three = await start_ours(stack, "three", address_of(ours[0]))
    await agents[0].until("three", "alive")
    await three.close()
    await agents[0].until("three", "failed")
    for gossip in ours:
        await until(gossip, "three", MemberState.FAILED)
    await agents[0].run("force-leave", "three")
    for gossip in ours:
        await until(gossip, "three", MemberState.LEFT)
    await agents[1].until("three", "left")


async def test_who_lives_is_not_forced_out(stack: AsyncExitStack) -> None:
    ours, agents = await mixed(stack)
    await agents[0].run("force-leave", "two")
    await agents[0].until("two", "alive")
    await agents[1].until("two", "alive")
    await ours[1].close()
    await agents[0].until("two", "failed")
    await until(ours[0], "two", MemberState.FAILED)


async def test_of_two_agents_with_one_name_the_second_gives_up(
    stack: AsyncExitStack,
) -> None:
    one = await start_ours(stack, "one")
    two = await start_ours(stack, "two", address_of(one))
    await until(one, "two", MemberState.ALIVE)
    first = await start_agent(stack, f"-join={address_of(one)}")
    await until(two, "agent", MemberState.ALIVE)
    await first.until("two", "alive")
    second = await start_agent(stack, f"-join={address_of(one)}")
    async with asyncio.timeout(20):
        await second.process.wait()
    assert first.process.returncode is None
    assert (await first.members())["agent"]["addr"] == first.gossip


def b64(key: bytes) -> str:
    return base64.b64encode(key).decode()


def key_file(path: Path, *keys: bytes) -> GossipKeys:
    path.write_text(json.dumps([b64(key) for key in keys]))
    path.chmod(0o600)
    return GossipKeys.load(str(path))


async def test_an_agent_changes_the_key_of_everybody_while_all_runs(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    rings = [key_file(tmp_path / f"{name}.json", OLD) for name in ("one", "two")]
    one = await start_ours(stack, "one", keys=rings[0])
    two = await start_ours(stack, "two", address_of(one), keys=rings[1])
    agent = await start_agent(stack, f"-join={address_of(one)}", f"-encrypt={b64(OLD)}")
    changes: list[MemberState] = []
    for gossip in (one, two):
        await until(gossip, "agent", MemberState.ALIVE)
        await agent.until("one", "alive")
        await agent.until("two", "alive", tags={"id": "two", "ver": "1"})
        gossip.on_change(lambda member: changes.append(member.state))
    for step, expected in (("install", (OLD, NEW)), ("use", (NEW, OLD)), ("remove", (NEW,))):
        key = OLD if step == "remove" else NEW
        said = await agent.run("keys", f"-{step}={b64(key)}")
        assert "uccessfully" in said, said
        assert [ring.keys for ring in rings] == [expected, expected]
        assert GossipKeys.load(rings[0].path).keys == expected
    listed = await agent.run("keys", "-list")
    assert f"{b64(NEW)}  [3/3]" in listed
    assert b64(OLD) not in listed
    two.set_tags({"id": "two", "after": "yes"})
    await agent.until("two", "alive", tags={"id": "two", "after": "yes"})
    assert set(changes) <= {MemberState.ALIVE, MemberState.SUSPECT}
    assert one.rejected_packets == two.rejected_packets == 0
    refused = await agent.run("keys", f"-remove={b64(NEW)}")
    assert "primary" in refused
    assert rings[0].keys == (NEW,)


async def test_a_member_without_keys_says_that_it_has_none(stack: AsyncExitStack) -> None:
    one = await start_ours(stack, "one")
    agent = await start_agent(stack, f"-join={address_of(one)}")
    await agent.until("one", "alive")
    assert "not encrypted" in await agent.run("keys", "-list")


async def test_an_agent_without_the_key_stays_outside(stack: AsyncExitStack) -> None:
    one = await start_ours(stack, "one", keys=GossipKeys([OLD]))
    agent = await start_agent(stack, f"-join={address_of(one)}")
    await eventually(lambda: one.rejected["FOREIGN_PEER"] > 0)
    assert [member.name for member in one.members()] == ["one"]
    assert agent.process.returncode in (None, 1)


async def test_five_of_ours_and_three_of_theirs_with_a_key(stack: AsyncExitStack) -> None:
    ours = [await start_ours(stack, "n0", keys=GossipKeys([OLD]))]
    seed = address_of(ours[0])
    for number in range(1, 5):
        ours.append(await start_ours(stack, f"n{number}", seed, keys=GossipKeys([OLD])))
    agents = [
        await start_agent(stack, f"-join={seed}", f"-encrypt={b64(OLD)}", name=f"a{number}")
        for number in range(3)
    ]
    for gossip in ours:
        for number in range(3):
            await until(gossip, f"a{number}", MemberState.ALIVE)
    for agent in agents:
        for number in range(5):
            await agent.until(f"n{number}", "alive", tags={"id": f"n{number}", "ver": "1"})
    said = await agents[2].run("reachability")
    assert "live members: 8" in said
    assert "Successfully contacted all live nodes" in said
    agents[0].process.kill()
    await ours[4].close()
    await ours[3].leave()
    await ours[3].close()
    for gossip in ours[:3]:
        await until(gossip, "a0", MemberState.FAILED)
        await until(gossip, "n4", MemberState.FAILED)
        await until(gossip, "n3", MemberState.LEFT)
    for agent in agents[1:]:
        await agent.until("a0", "failed")
        await agent.until("n4", "failed")
        await agent.until("n3", "left")
    assert all(gossip.rejected_packets == 0 for gossip in ours[:3])


async def test_an_agent_and_we_read_one_key_file(stack: AsyncExitStack, tmp_path: Path) -> None:
    keys = key_file(tmp_path / "keys.json", NEW, OLD)
    one = await start_ours(stack, "one", keys=keys)
    agent = await start_agent(
        stack, f"-join={address_of(one)}", f"-keyring-file={tmp_path / 'keys.json'}"
    )
    await until(one, "agent", MemberState.ALIVE)
    await agent.until("one", "alive")
    listed = await agent.run("keys", "-list")
    assert f"{b64(NEW)}  [2/2]" in listed
    assert f"{b64(OLD)}  [2/2]" in listed


async def test_five_of_ours_join_three_of_theirs_and_the_key_of_all_is_changed(
    stack: AsyncExitStack,
) -> None:
    agents = [await start_agent(stack, f"-encrypt={b64(OLD)}", name="a0")]
    seed = agents[0].gossip
    # An agent that finds nobody at the address it is to join ends.
    await agents[0].until("a0", "alive")
    for number in range(1, 3):
        agents.append(
            await start_agent(stack, f"-join={seed}", f"-encrypt={b64(OLD)}", name=f"a{number}")
        )
    rings = [GossipKeys([OLD]) for _ in range(5)]
    ours = [
        await start_ours(stack, f"n{number}", seed, keys=ring) for number, ring in enumerate(rings)
    ]
    names = [*(f"a{number}" for number in range(3)), *(f"n{number}" for number in range(5))]
    for gossip in ours:
        for name in names:
            await until(gossip, name, MemberState.ALIVE)
    for agent in agents:
        for name in names:
            await agent.until(name, "alive")
    for agent, step in zip(agents, ("install", "use", "remove"), strict=True):
        key = OLD if step == "remove" else NEW
        assert "uccessfully" in await agent.run("keys", f"-{step}={b64(key)}")
    assert [ring.keys for ring in rings] == [(NEW,)] * 5
    assert f"{b64(NEW)}  [8/8]" in await agents[0].run("keys", "-list")
    ours[4].set_tags({"id": "n4", "after": "yes"})
    for agent in agents:
        await agent.until("n4", "alive", tags={"id": "n4", "after": "yes"})
    await agents[1].run("leave")
    for gossip in ours:
        await until(gossip, "a1", MemberState.LEFT)
    assert all(gossip.rejected_packets == 0 for gossip in ours)
