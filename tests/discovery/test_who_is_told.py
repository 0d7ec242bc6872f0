"""Whom a member sends news to and calls, how often, and what it lets a peer's state tell it."""

from itertools import pairwise

import pytest

from fakes.lone_member import UDP_ALONE, LoneMember, address_of
from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.wire.messages import (
    Ack,
    Alive,
    Dead,
    IndirectPing,
    MemberRecord,
    Nack,
    Ping,
    PushPull,
    Status,
    Suspect,
    User,
)
from quorumlog.discovery.wire.serf_codec import decode_serf, encode_serf
from quorumlog.discovery.wire.serf_messages import Query, QueryFlag, Relay
from quorumlog.ports import MemberState

QUIET = GossipConfig(probe_interval_s=100_000.0)
"""Nobody is probed, and so nobody fails, within a day."""

TIMEOUT_S = QUIET.probe_timeout_s


@pytest.mark.parametrize(
    ("gone", "after_s", "told"),
    [
        (Dead("b", 1, "a"), 0.9 * QUIET.gossip_to_the_dead_s, True),
        (Dead("b", 1, "a"), 1.1 * QUIET.gossip_to_the_dead_s, False),
        (Dead("b", 1, "b"), 1.0, False),
    ],
    ids=["failed just now", "failed long ago", "left"],
)
def test_news_goes_to_who_failed_just_now_and_to_nobody_else_that_is_gone(
    gone: Dead, after_s: float, told: bool
) -> None:
    me = LoneMember("a", "b", config=QUIET)
    me.hear(gone)
    me.run_to(after_s)
    me.sent.clear()
    me.hear(Alive("c", 1, address_of("c"), b""))
    me.run_to(after_s + 1.0)
    addresses = {address for _, address, _ in me.sent}
    assert {address_of("a"), address_of("c")} <= addresses
    assert (address_of("b") in addresses) == told


@pytest.mark.parametrize(
    ("members", "intervals"), [(32, 1), (33, 2), (64, 2), (65, 3), (128, 3), (129, 4)]
)
def test_states_are_exchanged_more_rarely_among_many(members: int, intervals: int) -> None:
    me = LoneMember(*(f"{number:02x}" for number in range(1, members)), config=QUIET)
    me.run_to(10 * intervals * QUIET.push_pull_interval_s)
    times = [at for at, _ in me.called]
    assert len(times) >= 9
    for one, other in pairwise(times):
        assert other - one == pytest.approx(intervals * QUIET.push_pull_interval_s)


@pytest.mark.parametrize(
    ("status", "believed"),
    [
        (Status.ALIVE, MemberState.ALIVE),
        (Status.SUSPECT, MemberState.SUSPECT),
        (Status.DEAD, MemberState.SUSPECT),
        (Status.LEFT, MemberState.LEFT),
    ],
)
def test_a_member_that_a_peer_holds_for_failed_may_refute_here(
    status: Status, believed: MemberState
) -> None:
    me = LoneMember("a", "b")
    record = MemberRecord(Alive("b", 1, address_of("b"), b""), status)
    me.core.receive_push_pull(PushPull((record,), False), me.now)
    assert me.state_of("b") is believed


def test_a_state_says_of_everybody_what_is_believed_of_it() -> None:
    me = LoneMember(*"abcd")
    me.hear(Suspect("b", 1, "a"), Dead("c", 1, "a"), Dead("d", 1, "d"))
    told = {record.alive.name: record.status for record in me.core.local_state(join=True).records}
    assert told == {
        "me": Status.ALIVE,
        "a": Status.ALIVE,
        "b": Status.SUSPECT,
        "c": Status.DEAD,
        "d": Status.LEFT,
    }


def test_an_answer_takes_so_many_other_ways_and_no_more() -> None:
    """Else whoever asks has an answer of this member's sent to it by all the others."""
    me = LoneMember(*"abcdefghijklmnopqrst")
    query = Query(1, 1, address_of("a"), "a", "q", flags=QueryFlag.ACK, relay_factor=255)
    me.hear(encode_serf(query))
    said = [decode_serf(message.payload) for message in me.said(User)]
    assert sum(isinstance(message, Relay) for message in said) == 5


def test_what_is_relayed_wakes_a_member_that_has_nothing_else_to_do() -> None:
    me = LoneMember(config=QUIET)
    me.hear(IndirectPing(9, "far", address_of("far"), True))
    me.run_to(1.0)
    assert [type(message) for _, _, message in me.sent] == [Ping, Ping, Nack]
    times = [at for at, _, _ in me.sent]
    assert times == pytest.approx([0.0, 0.4 * TIMEOUT_S, 0.8 * TIMEOUT_S])


def test_one_member_is_probed_an_interval_however_soon_it_answers() -> None:
    me = LoneMember("a", "b")
    times = []
    for _ in range(4):
        at, ping = me.next_probe()
        me.hear(Ack(ping.sequence))
        times.append(at)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == pytest.approx([UDP_ALONE.probe_interval_s] * 3)


def test_a_ping_accuses_nobody_who_is_not_suspected() -> None:
    me = LoneMember(*"abc")
    me.next_probe()
    assert me.said(Suspect) == []
