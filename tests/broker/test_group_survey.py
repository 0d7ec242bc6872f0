"""Asking all nodes for the groups that they lead."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from quorumlog.broker.group_survey import MAX_ASKED, PATIENCE_S, GroupSurvey
from quorumlog.broker.led_groups import LedGroup
from quorumlog.broker.peer_calls import PeerCalls
from quorumlog.errors import Unavailable
from quorumlog.replication.core.members import Members
from quorumlog.replication.host import GroupHost
from quorumlog.types import GroupId, NodeId
from sim.loop import SimLoop

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
ONE, TWO, THREE = GroupId(1), GroupId(2), GroupId(3)


def simulated(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        loop = SimLoop(end_s=60)
        try:
            loop.run_until_complete(scenario())
        finally:
            loop.dispose()

    run.__name__ = getattr(scenario, "__name__", "scenario")
    return run


class Others:
    """What the other nodes say; who is not in it does not answer."""

    def __init__(self, **led: dict[GroupId, LedGroup]) -> None:
        self.led = led
        self.asked: list[tuple[NodeId, int]] = []

    async def led_groups(
        self, peer: NodeId, groups: Sequence[GroupId]
    ) -> Mapping[GroupId, LedGroup]:
        self.asked.append((peer, len(groups)))
        await asyncio.sleep(0.01)
        if peer not in self.led:
            raise Unavailable(f"{peer} is not there")
        return {group: self.led[peer][group] for group in groups if group in self.led[peer]}


def survey_of(others: Others, replicas: Mapping[GroupId, object] | None = None) -> GroupSurvey:
    host = cast(GroupHost, SimpleNamespace(replicas=dict(replicas or {})))
    return GroupSurvey(node_id=A, host=host, calls=cast(PeerCalls, others))


def leading(members: Members, silent: set[NodeId], serving: bool = True) -> object:
    core = SimpleNamespace(term=4, members=members)
    return SimpleNamespace(
        core=core, serving=serving, answers=lambda node: node not in silent | {A}
    )


@simulated
async def test_each_group_is_as_its_own_leader_sees_it() -> None:
    seen = LedGroup(3, (B,), silent=frozenset({C}))
    members = Members((A, B), (C,), (A,))
    replicas = {ONE: leading(members, {C}), THREE: leading(members, set(), serving=False)}
    survey = survey_of(Others(b={TWO: seen}, c={}), replicas)
    here = LedGroup(4, (A, B), (A,), frozenset({C}))
    assert survey.here([ONE, TWO, THREE]) == {ONE: here}
    assert await survey.ask([ONE, TWO], [A, B, C]) == {ONE: here, TWO: seen}


@simulated
async def test_of_two_that_lead_the_newer_one_counts() -> None:
    old, new = LedGroup(3, (A, B)), LedGroup(4, (B, C))
    for others in (Others(b={ONE: old}, c={ONE: new}), Others(b={ONE: new}, c={ONE: old})):
        assert await survey_of(others).ask([ONE], [A, B, C]) == {ONE: new}


@simulated
async def test_who_does_not_answer_may_lead_what_nobody_else_does() -> None:
    seen = LedGroup(3, (B,))
    others = Others(b={ONE: seen})
    began = asyncio.get_running_loop().time()
    assert await survey_of(others).ask([ONE, TWO], [A, B, C]) == {ONE: seen}
    assert asyncio.get_running_loop().time() - began < 0.1


@simulated
async def test_a_group_without_leader_is_asked_for_until_one_may_be_elected() -> None:
    seen = LedGroup(3, (B,))
    others = Others(b={}, c={ONE: seen})
    loop = asyncio.get_running_loop()
    loop.call_later(1.0, others.led["b"].update, {TWO: seen})
    assert await survey_of(others).ask([ONE, TWO, THREE], [A, B, C]) == {
        ONE: seen,
        TWO: seen,
        THREE: None,
    }
    assert PATIENCE_S - 0.5 < loop.time() < PATIENCE_S + 0.5
    # What is known is not asked for again.
    assert {count for _, count in others.asked} == {3, 2, 1}


@simulated
async def test_more_groups_than_one_question_holds_are_asked_in_several() -> None:
    led = {GroupId(number): LedGroup(1, (B,)) for number in range(MAX_ASKED + 7)}
    others = Others(b=led)
    assert await survey_of(others).ask(list(led), [B]) == led
    assert others.asked == [(B, MAX_ASKED), (B, 7)]
    assert await survey_of(others).ask([], [A, B]) == {}
