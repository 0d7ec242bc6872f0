"""A member that doubts itself: what costs it health, what gives it back, and what it does then.

Lifeguard §IV: local health multiplies a member's own timeouts, and missing nacks, an accusation to
refute and a pause of its own make it worse.
"""

import pytest

from fakes.lone_member import UDP_ALONE, LoneMember, address_of
from quorumlog.discovery.wire.messages import Ack, Alive, IndirectPing, Nack, Suspect
from quorumlog.ports import MemberState

ALIVE, SUSPECT, FAILED = MemberState.ALIVE, MemberState.SUSPECT, MemberState.FAILED
TIMEOUT_S = UDP_ALONE.probe_timeout_s
INTERVAL_S = UDP_ALONE.probe_interval_s


def with_score(score: int, *others: str) -> LoneMember:
    """One that had to refute so many accusations."""
    me = LoneMember(*others)
    for incarnation in range(1, score + 1):
        me.hear(Suspect("me", incarnation, others[0]))
    assert me.core.health_score == score
    return me


@pytest.mark.parametrize("nacks", range(4))
def test_each_relay_that_owes_a_nack_at_the_end_of_a_probe_costs_health(nacks: int) -> None:
    me = LoneMember(*"abcde")
    started_at, ping = me.next_probe()
    me.run_to(started_at + TIMEOUT_S)
    assert [request.wants_nack for request in me.said(IndirectPing)] == [True] * 3
    me.hear(Nack(ping.sequence - 1), *[Nack(ping.sequence)] * nacks)
    me.run_to(started_at + INTERVAL_S)
    assert me.state_of(ping.target) is SUSPECT
    assert me.core.health_score == 3 - nacks


def test_relays_that_know_no_nacks_owe_none() -> None:
    me = LoneMember()
    for name in "abcde":
        me.hear(Alive(name, 1, address_of(name), b"", bytes([1, 3, 2, 2, 5, 4])))
    started_at, _ = me.next_probe()
    me.run_to(started_at + INTERVAL_S)
    assert [request.wants_nack for request in me.said(IndirectPing)] == [False] * 3
    assert me.core.health_score == 1


def test_a_failed_probe_that_nobody_could_help_with_costs_health_once() -> None:
    me = LoneMember("a")
    started_at, _ = me.next_probe()
    me.run_to(started_at + INTERVAL_S)
    assert me.core.health_score == 1


def test_an_answer_to_a_probe_gives_one_step_of_health_back() -> None:
    me = with_score(3, "a")
    for expected in (2, 1, 0, 0):
        _, ping = me.next_probe()
        me.hear(Ack(ping.sequence), Ack(ping.sequence))
        assert me.core.health_score == expected


@pytest.mark.parametrize("score", [0, 1, 2, 7])
def test_both_times_of_a_probe_are_as_many_times_as_long_as_the_score_says(score: int) -> None:
    me = with_score(score, "a", "b")
    started_at, ping = me.next_probe()
    me.run_to(started_at + 0.99 * (score + 1) * TIMEOUT_S)
    assert me.said(IndirectPing) == []
    me.run_to(started_at + (score + 1) * TIMEOUT_S)
    assert len(me.said(IndirectPing)) == 1
    me.run_to(started_at + 0.99 * (score + 1) * INTERVAL_S)
    assert me.state_of(ping.target) is ALIVE
    me.run_to(started_at + (score + 1) * INTERVAL_S)
    assert me.state_of(ping.target) is SUSPECT


@pytest.mark.parametrize(("late_s", "score"), [(0.9 * INTERVAL_S, 0), (1.1 * INTERVAL_S, 1)])
def test_a_member_that_did_not_run_doubts_itself(late_s: float, score: int) -> None:
    me = LoneMember("a")
    _, ping = me.next_probe()
    me.hear(Ack(ping.sequence))
    me.core.tick(me.core.deadline + late_s)
    assert me.core.health_score == score


@pytest.mark.parametrize("off_by", [-1, 1])
def test_the_answer_to_another_ping_answers_no_probe(off_by: int) -> None:
    me = LoneMember("a")
    started_at, ping = me.next_probe()
    me.hear(Ack(ping.sequence + off_by))
    me.run_to(started_at + INTERVAL_S)
    assert me.state_of("a") is SUSPECT


@pytest.mark.parametrize(("incarnation", "state"), [(4, SUSPECT), (5, FAILED)])
def test_only_accusations_of_the_present_incarnation_confirm_a_suspicion(
    incarnation: int, state: MemberState
) -> None:
    me = LoneMember(*"abcdef")
    me.hear(Alive("a", 5, address_of("a"), b""), Suspect("a", 5, "b"))
    me.hear(Suspect("a", incarnation, "c"), Suspect("a", incarnation, "d"))
    # The shortest suspicion is 4 s; with what this member sees itself it is 11.4 s.
    me.run_to(5.0)
    assert me.state_of("a") is state


def test_a_suspicion_ends_when_its_time_is_up_not_when_something_else_is_due() -> None:
    me = LoneMember("a")
    me.hear(Suspect("a", 1, "b"))
    me.run_to(6.0)
    [failed_at] = [at for at, _, state in me.changes if state is FAILED]
    assert failed_at == pytest.approx(4.0)
