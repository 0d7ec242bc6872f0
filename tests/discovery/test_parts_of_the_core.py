"""The pieces of the core by themselves: news, suspicion, health, settings, single packets."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.broadcasts import BroadcastQueue
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.output import SendPacket
from quorumlog.discovery.core.prober import MAX_RELAYS
from quorumlog.discovery.core.rng import choose
from quorumlog.discovery.core.suspicion import LocalHealth, Suspicion
from quorumlog.discovery.wire.codec import encode_message
from quorumlog.discovery.wire.messages import (
    MAX_INCARNATION,
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    Nack,
    PacketMessage,
    Ping,
    Suspect,
)
from quorumlog.discovery.wire.packet import decode_packet, encode_packet
from quorumlog.discovery.wire.tags import encode_tags
from quorumlog.errors import ConfigError, ProtocolError
from quorumlog.ports import MemberState

LAN = GossipConfig.lan()
HERE: Address = ("10.0.0.1", 7946)
THERE: Address = ("10.0.0.2", 7946)
FAR: Address = ("10.0.0.3", 7946)


def core(now: float = 0.0, config: GossipConfig = LAN) -> GossipCore:
    return GossipCore(
        name="me", address=HERE, tags={"id": "me"}, config=config, rng=random.Random(1), now=now
    )


def tell(node: GossipCore, *messages: PacketMessage, now: float = 0.0) -> None:
    node.receive_packet(THERE, encode_packet([encode_message(m) for m in messages]), now)


def sent(node: GossipCore) -> list[tuple[Address, PacketMessage]]:
    return [
        (output.address, message)
        for output in node.take_output()
        if isinstance(output, SendPacket)
        for message in decode_packet(output.data)
    ]


def test_news_is_sent_so_often_and_then_dropped() -> None:
    queue = BroadcastQueue(multiplier=4, max_subjects=10)
    queue.put("a", b"news")
    for _ in range(4 * math.ceil(math.log(10 + 1))):
        assert queue.take(100, 10, members=10) == [b"news"]
    assert queue.take(100, 10, members=10) == []
    assert not queue.waiting


def test_newer_news_of_a_subject_replaces_the_older() -> None:
    queue = BroadcastQueue(4, 10)
    queue.put("a", b"old")
    queue.put("b", b"other")
    queue.put("a", b"new")
    assert queue.take(100, 10, 5) == [b"new", b"other"]


def test_what_was_sent_least_goes_first() -> None:
    queue = BroadcastQueue(4, 10)
    queue.put("a", b"aaaa")
    assert queue.take(100, 1, 5) == [b"aaaa"]
    queue.put("b", b"bbbb")
    assert queue.take(6, 10, 5) == [b"bbbb"]
    queue.put("c", b"cccc")
    assert queue.take(100, 10, 5) == [b"cccc", b"bbbb", b"aaaa"]


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(0, 200), st.integers(0, 5))
def test_news_never_exceeds_its_space(news: list[bytes], limit_bytes: int, parts: int) -> None:
    queue = BroadcastQueue(4, 100)
    for number, data in enumerate(news):
        queue.put(str(number), data)
    taken = queue.take(limit_bytes, parts, 5)
    assert sum(len(data) + 2 for data in taken) <= limit_bytes
    assert len(taken) <= parts


def test_a_full_queue_drops_what_was_sent_most() -> None:
    queue = BroadcastQueue(4, 2)
    queue.put("a", b"a")
    queue.take(100, 1, 5)
    queue.put("b", b"b")
    queue.put("c", b"c")
    assert (queue.holds("a"), queue.holds("b"), queue.holds("c")) == (False, True, True)


def test_a_suspicion_shrinks_from_its_longest_to_its_shortest() -> None:
    suspicion = Suspicion("one", 100, LAN, 0.0)
    shortest = 4 * math.log10(100) * 1.0
    assert suspicion.deadline == pytest.approx(6 * shortest)
    assert not suspicion.confirm("one", 1.0)
    assert suspicion.confirm("two", 1.0)
    between = suspicion.deadline
    assert shortest < between < 6 * shortest
    assert suspicion.confirm("three", 2.0)
    assert suspicion.deadline == pytest.approx(shortest)
    assert not suspicion.confirm("four", 3.0)


def test_a_late_confirmation_is_due_at_once_and_not_in_the_past() -> None:
    suspicion = Suspicion("one", 100, LAN, 0.0)
    suspicion.confirm("two", 1.0)
    suspicion.confirm("three", 20.0)
    assert suspicion.deadline == 20.0


@pytest.mark.parametrize("members", [2, 3])
def test_where_nobody_can_confirm_the_suspicion_is_short(members: int) -> None:
    assert Suspicion("one", members, LAN, 0.0).deadline == 4.0


def test_where_others_are_too_few_to_confirm_a_suspicion_waits_for_who_doubts_itself() -> None:
    suspicion = Suspicion("one", 3, LAN, 0.0)
    assert suspicion.put_off(2, 4.0)
    assert suspicion.deadline == 12.0
    assert not suspicion.put_off(2, 12.0)
    assert suspicion.put_off(7, 12.0)
    assert suspicion.deadline == 24.0
    assert not suspicion.put_off(7, 24.0)


@pytest.mark.parametrize("members", [2, 4, 100])
def test_own_health_does_not_stand_in_for_others_that_are_there_or_for_nobody(members: int) -> None:
    suspicion = Suspicion("one", members, LAN, 0.0)
    assert not suspicion.put_off(7, suspicion.deadline)


def test_health_stays_within_its_bounds() -> None:
    health = LocalHealth(8)
    health.apply(-3)
    assert (health.score, health.scale(0.5)) == (0, 0.5)
    health.apply(100)
    assert (health.score, health.scale(0.5)) == (7, 4.0)


@given(st.integers(0, 100), st.integers(1, 5), st.integers())
def test_a_choice_is_of_different_wanted_items(size: int, count: int, seed: int) -> None:
    items = list(range(size))
    chosen = choose(items, count, lambda item: item % 3 == 0, random.Random(seed))
    assert len(chosen) == len(set(chosen)) <= count
    assert all(item % 3 == 0 for item in chosen)
    assert len(chosen) == min(count, (size + 2) // 3)


def test_a_ping_is_answered_where_it_asks_for_and_only_for_this_member() -> None:
    node = core()
    for ping in (Ping(1, "me"), Ping(2, "me", "you", FAR), Ping(3, "another"), Ping(4, "")):
        tell(node, ping)
    assert sent(node) == [(THERE, Ack(1)), (FAR, Ack(2)), (THERE, Ack(4))]


def test_an_indirect_ping_is_relayed_and_its_ack_goes_back() -> None:
    node = core()
    tell(node, IndirectPing(9, "far", FAR, True, "you", THERE))
    [(to, ping)] = sent(node)
    assert to == FAR
    assert isinstance(ping, Ping)
    assert (ping.target, ping.reply_to) == ("far", HERE)
    tell(node, Ack(ping.sequence), now=0.1)
    assert sent(node) == [(THERE, Ack(9))]
    tell(node, Ack(ping.sequence), now=0.2)
    assert sent(node) == []


def test_a_relay_pings_twice_and_says_in_time_that_nobody_answers() -> None:
    node = core()
    tell(node, IndirectPing(9, "far", FAR, True))
    tell(node, IndirectPing(10, "far", FAR, False))
    pings = sent(node)
    node.tick(0.19)
    assert sent(node) == []
    node.tick(0.21)
    assert sent(node) == pings
    node.tick(0.39)
    assert sent(node) == []
    node.tick(0.41)
    assert sent(node) == [(THERE, Nack(9))]
    node.tick(0.6)
    assert sent(node) == []


def test_the_answer_to_a_relays_second_ping_goes_back() -> None:
    node = core()
    tell(node, IndirectPing(9, "far", FAR, True, "you", THERE))
    node.tick(0.21)
    _, (_, again) = sent(node)
    assert isinstance(again, Ping)
    tell(node, Ack(again.sequence), now=0.3)
    assert sent(node) == [(THERE, Ack(9))]
    node.tick(0.41)
    assert sent(node) == []


def test_relays_are_bounded() -> None:
    node = core()
    for sequence in range(MAX_RELAYS + 5):
        tell(node, IndirectPing(sequence, "far", FAR, True))
    assert len(sent(node)) == MAX_RELAYS


def test_a_packet_with_one_bad_part_changes_nothing() -> None:
    node = core()
    good = encode_message(Alive("other", 1, THERE, b""))
    with pytest.raises(ProtocolError):
        node.receive_packet(THERE, encode_packet([good, b"\x04\x80"]), 0.0)
    assert [member.name for member in node.members()] == ["me"]


@pytest.mark.parametrize("claim", [Suspect("me", 7, "you"), Dead("me", 7, "you")])
def test_an_accusation_is_refuted_with_a_higher_incarnation(claim: PacketMessage) -> None:
    node = core()
    tell(node, Alive("you", 1, THERE, b""), claim)
    assert node.health_score == 1
    node.tick(node.deadline)
    words = [m for _, m in sent(node) if isinstance(m, Alive) and m.name == "me"]
    assert words[0].incarnation == 8
    assert node.members()[0].state is MemberState.ALIVE


def test_a_stale_accusation_makes_the_refutation_go_out_again() -> None:
    node = core()
    tell(node, Alive("you", 1, THERE, b""), Suspect("me", 1, "you"))
    for sequence in range(10):
        # News rides on every answer, until it was sent often enough.
        tell(node, Ping(sequence, "me"))
    node.take_output()
    tell(node, Ping(10, "me"))
    assert sent(node) == [(THERE, Ack(10))]
    tell(node, Suspect("me", 1, "you"), Ping(11, "me"))
    words = [m for _, m in sent(node) if isinstance(m, Alive)]
    assert [(word.name, word.incarnation) for word in words] == [("me", 2)]


def next_probe(node: GossipCore) -> tuple[float, Ping]:
    """Run ``node`` until it pings somebody; when that was, and the ping."""
    for _ in range(100):
        now = node.deadline
        node.tick(now)
        pings = [m for _, m in sent(node) if isinstance(m, Ping)]
        if pings:
            return now, pings[0]
    raise AssertionError("no probe was sent")


def test_a_ping_without_an_answer_is_sent_again_when_others_are_asked() -> None:
    node = core()
    tell(node, Alive("you", 1, THERE, b""), Alive("far", 1, FAR, b""))
    started_at, ping = next_probe(node)
    target, relay = (THERE, FAR) if ping.target == "you" else (FAR, THERE)
    while node.deadline < started_at + 0.5:
        node.tick(node.deadline)
    node.take_output()
    node.tick(started_at + 0.5)
    messages = sent(node)
    assert messages[0] == (target, ping)
    assert [(to, m.target) for to, m in messages[1:] if isinstance(m, IndirectPing)] == [
        (relay, ping.target)
    ]
    tell(node, Ack(ping.sequence), now=started_at + 0.9)
    node.tick(started_at + 1.0)
    assert {member.state for member in node.members()} == {MemberState.ALIVE}


def test_a_suspect_is_told_with_its_ping() -> None:
    node = core()
    tell(node, Alive("you", 1, THERE, b""), Suspect("you", 1, "another"))
    for _ in range(30):
        node.tick(node.deadline)
    told = [m for _, m in sent(node) if isinstance(m, Suspect)]
    assert Suspect("you", 1, "me") in told


@pytest.mark.parametrize("paused_s", [5.0, 600.0])
def test_after_a_pause_an_answer_that_waited_still_counts(paused_s: float) -> None:
    node = core()
    tell(node, Alive("you", 1, THERE, b""))
    started_at, ping = next_probe(node)
    node.tick(started_at + paused_s)
    tell(node, Ack(ping.sequence), now=started_at + paused_s)
    assert [member.state for member in node.members()] == [MemberState.ALIVE] * 2


def test_after_a_pause_a_suspect_has_the_time_it_had_before() -> None:
    node = core()
    tell(node, Alive("you", 1, THERE, b""), Alive("third", 1, FAR, b""))
    tell(node, Suspect("you", 1, "third"))
    node.tick(node.deadline)
    node.tick(100.0)
    assert node.members()[2].state is MemberState.SUSPECT
    tell(node, Alive("you", 2, THERE, b""), now=100.1)
    assert node.members()[2].state is MemberState.ALIVE


def test_the_highest_incarnation_neither_overflows_nor_is_given_up() -> None:
    node = core()
    for _ in range(3):
        tell(node, Dead("me", MAX_INCARNATION, "you"))
    state = node.local_state(join=False)
    assert state.records[0].alive.incarnation == MAX_INCARNATION


def test_an_own_word_that_comes_back_is_not_refuted() -> None:
    node = core()
    tell(node, node.local_state(join=False).records[0].alive)
    assert node.local_state(join=False).records[0].alive.incarnation == 1


def test_who_ran_at_the_address_of_before_is_told_that_its_name_is_elsewhere() -> None:
    node = core()
    meta = encode_tags({"id": "y"})
    tell(node, Alive("you", 1, THERE, meta))
    node.take_output()
    elsewhere = Alive("you", 2, FAR, meta)
    tell(node, elsewhere)
    told = [m for to, m in sent(node) if to == THERE]
    assert told[0] == elsewhere
    tell(node, Alive("you", 3, FAR, meta))
    assert sent(node) == []


def test_after_leaving_nothing_is_refuted() -> None:
    node = core()
    tell(node, Alive("you", 1, THERE, b""))
    node.leave(0.0)
    node.tick(node.deadline)
    node.tick(0.5)
    tell(node, Dead("me", 5, "you"), Alive("me", 9, FAR, b""), now=0.6)
    assert node.members()[0].state is MemberState.LEFT


def test_a_member_alone_sends_nothing() -> None:
    node = core()
    for _ in range(200):
        node.tick(node.deadline)
    assert node.take_output() == []


def test_news_leaves_at_once_and_then_at_its_interval() -> None:
    node = core()
    tell(node, Alive("you", 1, THERE, b""))
    node.set_tags({"id": "me", "v": "2"}, 0.0)
    assert node.deadline == 0.0
    times = []
    now = 0.0
    while now < 1.0:
        now = node.deadline
        node.tick(now)
        if any(isinstance(m, Alive) for _, m in sent(node)):
            times.append(now)
    assert times[0] == 0.0
    assert all(later - earlier >= 0.19 for earlier, later in zip(times, times[2:], strict=False))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probe_interval_s", 0.0),
        ("probe_interval_s", math.nan),
        ("probe_timeout_s", 1.0),
        ("gossip_interval_s", -1.0),
        ("forget_after_s", 1e9),
        ("suspicion_multiplier", 0),
        ("gossip_fanout", 0),
        ("packet_bytes", 100),
        ("packet_bytes", 100_000),
        ("max_streams", 0),
    ],
)
def test_an_impossible_setting_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        replace(LAN, **{name: value})
