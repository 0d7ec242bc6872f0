"""``Gossip.events``: what a reader is told, also one that is slow."""

import asyncio
import gc
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.gossip import Gossip
from quorumlog.discovery.member_events import MemberEvent, MemberEventKind, MemberEvents
from quorumlog.errors import Closed
from quorumlog.ports import Member, MemberState

JOINED, CHANGED, SUSPECTED, FAILED, LEFT = MemberEventKind
ONE = Member("one", "127.0.0.1", 7946, MemberState.ALIVE, {"id": "1"})


async def waiting(events: MemberEvents) -> list[MemberEvent]:
    """What can be read without waiting for anything new."""
    read = []
    while events.waiting:
        try:
            async with asyncio.timeout(0):
                read.append(await anext(events))
        except TimeoutError:
            break
    return read


async def kinds_of(*states: Member) -> list[MemberEventKind]:
    """For a reader that reads after each."""
    events = MemberEvents(list, 10)
    kinds = []
    for state in states:
        events.note(state)
        kinds += [event.kind for event in await waiting(events)]
    return kinds


def with_state(state: MemberState) -> Member:
    return replace(ONE, state=state)


async def start(name: str, *seeds: Gossip) -> Gossip:
    return await Gossip.start(
        name=name,
        bind=("127.0.0.1", 0),
        seeds=["{}:{}".format(*seed.address) for seed in seeds],
        tags={"id": name},
        config=GossipConfig.local(),
        rng=random.Random(name),
    )


async def test_each_change_has_its_kind() -> None:
    suspect, failed = with_state(MemberState.SUSPECT), with_state(MemberState.FAILED)
    moved = replace(ONE, address="127.0.0.2")
    assert await kinds_of(ONE, suspect, ONE, moved, suspect, failed) == [
        *(JOINED, SUSPECTED, CHANGED, CHANGED, SUSPECTED, FAILED)
    ]
    assert await kinds_of(ONE, with_state(MemberState.LEFT), ONE) == [JOINED, LEFT, JOINED]
    assert await kinds_of(failed, suspect, replace(suspect, tags={})) == [FAILED, JOINED, CHANGED]


async def test_a_reader_that_is_behind_gets_the_newest_of_each_member() -> None:
    events = MemberEvents(list, 10)
    two = replace(ONE, name="two")
    for member in (ONE, two, with_state(MemberState.SUSPECT), replace(ONE, tags={"id": "new"})):
        events.note(member)
    assert events.waiting == 2
    assert await waiting(events) == [
        MemberEvent(JOINED, replace(ONE, tags={"id": "new"})),
        MemberEvent(JOINED, two),
    ]


async def test_what_cancelled_out_while_nobody_read_is_no_event() -> None:
    events = MemberEvents(lambda: [ONE], 10)
    assert [event.kind for event in await waiting(events)] == [JOINED]
    events.note(with_state(MemberState.SUSPECT))
    events.note(ONE)
    assert await waiting(events) == []


async def test_no_more_wait_than_there_may_be_members() -> None:
    known: list[Member] = []
    events = MemberEvents(lambda: known, 3)
    for number in range(20):
        known = [*known[-2:], replace(ONE, name=f"m{number:02}")]
        events.note(known[-1])
        assert events.waiting <= 3
    assert [event.member.name for event in await waiting(events)] == ["m17", "m18", "m19"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(MemberState), st.booleans())))
def test_whoever_reads_when_ends_with_what_holds(
    changes: list[tuple[str, MemberState, bool]],
) -> None:
    async def run() -> None:
        events = MemberEvents(list, 3)
        now: dict[str, Member] = {}
        told: dict[str, Member] = {}
        running: set[str] = set()
        for name, state, reads in [*changes, ("a", MemberState.ALIVE, True)]:
            now[name] = replace(ONE, name=name, state=state)
            events.note(now[name])
            for event in await waiting(events) if reads else ():
                told[event.member.name] = event.member
                is_new = event.kind is JOINED
                assert (event.member.name in running) is not is_new or event.kind in (FAILED, LEFT)
                (running.discard if event.kind in (FAILED, LEFT) else running.add)(
                    event.member.name
                )
        assert told == now

    asyncio.run(run())


async def test_events_tell_of_those_known_and_of_those_that_come_and_go() -> None:
    one = await start("one")
    events = one.events()
    assert await anext(events) == MemberEvent(JOINED, one.members()[0])
    two = await start("two", one)
    async with asyncio.timeout(5):
        joined = await anext(events)
        two.set_tags({"id": "two", "rack": "r"})
        changed = await anext(events)
        await two.leave()
        left = await anext(events)
    assert [e.kind for e in (joined, changed, left)] == [JOINED, CHANGED, LEFT]
    assert (changed.member.name, changed.member.tags["rack"]) == ("two", "r")
    late = one.events()
    assert [(await anext(late)).kind, (await anext(late)).kind] == [JOINED, LEFT]
    await two.close()
    await one.close()


async def test_close_ends_every_reader_after_what_waited() -> None:
    one = await start("one")
    reading, unread = one.events(), one.events()
    await anext(reading)
    waits = asyncio.ensure_future(anext(reading, None))
    await asyncio.sleep(0)
    assert not waits.done()
    await one.close()
    async with asyncio.timeout(5):
        assert await waits is None
        assert [event.member.name async for event in unread] == ["one"]
    with pytest.raises(Closed):
        one.events()


async def test_a_reader_that_was_dropped_costs_nothing() -> None:
    one = await start("one")
    async for _ in one.events():
        break
    gc.collect()
    assert not one._audience.readers
    await one.close()
