"""Proposals and reads through elections, power cuts and lost answers, in virtual time."""

import asyncio

import pytest

from quorumlog.errors import (
    LogFenced,
    NotLeader,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from quorumlog.replicated.machine import Command
from support.replica_cluster import simulated
from support.replicated_group import VirtualGroup
from support.replicated_storm import storm


@simulated
async def test_any_node_takes_a_command_and_shows_it() -> None:
    group = VirtualGroup()
    await group.open()
    for number, node in enumerate(group.nodes, start=1):
        assert await group.propose(node, b"x") == str(number).encode()
    for node in group.nodes:
        assert await group.read(node) == ["x"] * 3


@simulated
async def test_a_refusal_reaches_who_proposed_it_and_changes_nothing() -> None:
    group = VirtualGroup()
    await group.open()
    for node in (await group.leader(), await group.follower()):
        for _ in range(2):
            with pytest.raises(Refused, match="no, always"):
                await group.propose(node, b"no", request_id="the same")
    assert await group.propose(group.nodes[0], b"x") == b"1"


@simulated
async def test_a_request_that_comes_again_gets_the_first_result() -> None:
    group = VirtualGroup()
    await group.open()
    for node in group.nodes:
        assert await group.propose(node, b"x", request_id="r") == b"1"
    assert await group.propose(group.nodes[0], b"x", request_id="other") == b"2"


@simulated
async def test_who_does_not_want_to_be_forwarded_is_told_the_leader() -> None:
    group = VirtualGroup()
    await group.open()
    follower, leader = await group.follower(), await group.leader()
    with pytest.raises(NotLeader) as refusal:
        await group.propose(follower, b"x", forward=False)
    assert refusal.value.leader == f"address of {leader}"
    assert await group.propose(leader, b"x", forward=False) == b"1"


@simulated
async def test_a_group_that_slept_wakes_for_a_command_with_its_leader_or_without() -> None:
    group = VirtualGroup()
    await group.open()
    follower = await group.follower()
    await group.propose(follower, b"x")
    await asyncio.sleep(5)
    assert group.cluster.replicas[follower].core.asleep
    assert await group.propose(follower, b"y", timeout_s=0.1) == b"2"
    assert await group.read(follower, timeout_s=0.1) == ["x", "y"]
    await asyncio.sleep(5)
    group.power_cut(await group.leader())
    assert await group.propose(follower, b"z", timeout_s=3) == b"3"


@simulated
async def test_without_a_majority_a_follower_says_that_nothing_was_done() -> None:
    group = VirtualGroup()
    await group.open()
    last = await group.follower()
    for node in group.nodes:
        if node != last:
            group.power_cut(node)
    await asyncio.sleep(2)
    with pytest.raises(Unavailable):
        await group.propose(last, b"x", timeout_s=1)
    with pytest.raises(Unavailable):
        await group.read(last, timeout_s=1)


@simulated
async def test_a_leader_that_is_cut_off_cannot_say_what_became_of_a_command_nor_read() -> None:
    group = VirtualGroup()
    await group.open()
    leader = await group.leader()
    group.cluster.wire.cut = {leader}
    with pytest.raises(OutcomeUnknown):
        await group.propose(leader, b"x", timeout_s=0.1)
    # Its lease is over, and it still takes itself for the leader.
    await asyncio.sleep(0.16)
    assert group.cluster.replicas[leader].serving
    with pytest.raises(Unavailable):
        await group.read(leader, timeout_s=0.02)


@simulated
async def test_an_exception_in_apply_stops_every_replica_before_the_command_counts() -> None:
    group = VirtualGroup()
    await group.open()
    await group.propose(group.nodes[0], b"x")
    for node in group.nodes:
        group.ledger(node).apply = _broken  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        await group.propose(await group.leader(), b"poison", timeout_s=1)
    await asyncio.sleep(1)
    fenced = [node for node in group.nodes if group.cluster.replicas[node].failure is not None]
    assert fenced
    with pytest.raises(LogFenced, match="the state machine failed in apply"):
        await group.propose(fenced[0], b"y", timeout_s=1)
    for node in group.nodes:
        group.power_cut(node)
    await group.open()
    # Mended code goes on with that very command, which is committed.
    assert await group.read(await group.leader()) == ["x", "poison"]


def _broken(command: Command) -> bytes:
    raise KeyError("a bug")


@pytest.mark.parametrize("seed", range(12))
def test_acknowledged_commands_are_applied_once_whatever_dies(seed: int) -> None:
    simulated(lambda: storm(seed))()
