"""What a member does with Serf's messages, in the core, without sockets."""

import random
from collections.abc import Iterable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.filters import passes
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.lamport import MAX_BYTES, WINDOW, LamportClock, RecentMessages
from quorumlog.discovery.core.output import EventReceived, KeyChange, KeysAsked, Output, SendPacket
from quorumlog.discovery.core.serf_layer import MAX_QUERIES
from quorumlog.discovery.wire.codec import encode_message
from quorumlog.discovery.wire.messages import (
    Address,
    Alive,
    Dead,
    MemberRecord,
    PacketMessage,
    PushPull,
    Status,
    User,
)
from quorumlog.discovery.wire.packet import decode_packet, encode_packet
from quorumlog.discovery.wire.serf_codec import decode_serf, decode_state, encode_serf, encode_state
from quorumlog.discovery.wire.serf_messages import (
    MAX_LAMPORT,
    Intent,
    KeyAnswer,
    Query,
    QueryFlag,
    QueryResponse,
    Relay,
    SerfMessage,
    SerfState,
    UserEvent,
)
from quorumlog.errors import InvalidArgument, ProtocolError
from quorumlog.ports import MemberState

OTHERS = {name: (f"10.0.0.{number}", 7946) for number, name in enumerate("abcd", 2)}
STRANGER = ("192.0.2.1", 53)
ASKER = OTHERS["a"]


class Member:
    """A core named ``me`` that knows ``a`` to ``d``, and what it put out."""

    def __init__(self) -> None:
        self.now = 0.0
        self.core = GossipCore(
            name="me",
            address=("10.0.0.1", 7946),
            tags={"id": "me", "dc": "east-1"},
            config=GossipConfig(probe_interval_s=1000, push_pull_interval_s=9000),
            rng=random.Random(1),
            now=0.0,
        )
        records = [
            MemberRecord(Alive(name, 1, address, b""), Status.ALIVE)
            for name, address in OTHERS.items()
        ]
        state = encode_state(SerfState(5, event_time=10, query_time=20))
        self.core.receive_push_pull(PushPull(tuple(records), True, state), 0.0)
        self.settle()

    def tell(self, *messages: SerfMessage | PacketMessage) -> list[Output]:
        """What comes out at once, before anything is passed on."""
        parts = [
            encode_message(
                m if isinstance(m, Alive | Dead | User) else encode_serf(m)  # type: ignore[arg-type]
            )
            for m in messages
        ]
        self.core.receive_packet(ASKER, encode_packet(parts), self.now)
        return self.core.take_output()

    def settle(self) -> set[SerfMessage]:
        """All of Serf's messages that are passed on until there is no more news."""
        seen = set()
        for _ in range(200):
            self.now += 1.0
            self.core.tick(self.now)
            seen |= {message for _, message in said(self.core.take_output())}
        return seen

    def state_of(self, name: str) -> MemberState | None:
        return next((m.state for m in self.core.members() if m.name == name), None)


def said(outputs: Iterable[Output]) -> set[tuple[Address, SerfMessage]]:
    found = set()
    for output in outputs:
        if isinstance(output, SendPacket):
            for message in decode_packet(output.data):
                serf = decode_serf(message.payload) if isinstance(message, User) else None
                if serf is not None:
                    found.add((output.address, serf))
    return found


@pytest.fixture
def me() -> Member:
    return Member()


def ask(number: int = 1, name: str = "q", **fields: object) -> Query:
    values = {"time": 20, "reply_to": ASKER, "source": "a", "flags": QueryFlag.ACK} | fields
    return Query(id=number, name=name, **values)  # type: ignore[arg-type]


def answers(outputs: Iterable[Output]) -> set[tuple[Address, SerfMessage]]:
    return {
        (to, message) for to, message in said(outputs) if isinstance(message, QueryResponse | Relay)
    }


def test_a_member_that_fails_after_it_said_that_it_leaves_has_left(me: Member) -> None:
    me.tell(Intent("a", 9, leaves=True), Dead("a", 1, "b"), Dead("b", 1, "c"))
    assert (me.state_of("a"), me.state_of("b")) == (MemberState.LEFT, MemberState.FAILED)


def test_the_order_of_intent_and_failure_does_not_matter(me: Member) -> None:
    me.tell(Dead("a", 1, "b"))
    assert me.state_of("a") is MemberState.FAILED
    me.tell(Intent("a", 9, leaves=True))
    assert me.state_of("a") is MemberState.LEFT


def test_a_newer_join_takes_an_intent_to_leave_back(me: Member) -> None:
    me.tell(Intent("a", 9, leaves=True), Intent("a", 10, leaves=False), Dead("a", 1, "b"))
    assert me.state_of("a") is MemberState.FAILED


def test_an_older_intent_changes_nothing_and_goes_no_further(me: Member) -> None:
    me.tell(Intent("a", 10, leaves=False))
    me.settle()
    me.tell(Intent("a", 10, leaves=True), Intent("a", 9, leaves=True))
    assert me.settle() == set()
    me.tell(Dead("a", 1, "b"))
    assert me.state_of("a") is MemberState.FAILED


def test_an_intent_of_one_that_came_back_is_done_with(me: Member) -> None:
    me.tell(Intent("a", 9, leaves=True), Dead("a", 1, "a"), Alive("a", 2, ASKER, b""))
    me.tell(Dead("a", 2, "b"))
    assert me.state_of("a") is MemberState.FAILED


def test_an_intent_waits_for_its_member_to_be_known(me: Member) -> None:
    me.tell(Intent("late", 9, leaves=True))
    me.tell(Alive("late", 1, ("10.0.0.9", 1), b""), Dead("late", 1, "a"))
    assert me.state_of("late") is MemberState.LEFT


def test_new_intents_are_passed_on(me: Member) -> None:
    intents = {Intent("a", 9, leaves=False), Intent("unknown", 9, leaves=True)}
    me.tell(*intents)
    assert me.settle() == intents


def test_that_this_node_leaves_is_denied_while_it_stays(me: Member) -> None:
    me.tell(Intent("me", 40, leaves=True))
    [denial] = me.settle()
    assert isinstance(denial, Intent)
    assert (denial.name, denial.leaves) == ("me", False)
    assert denial.time > 41
    me.tell(Intent("me", 41, leaves=True))
    assert me.settle() == set()


@pytest.mark.parametrize("by_state", [True, False])
def test_it_is_denied_also_when_a_time_is_heard_before_what_it_is_about(
    me: Member, by_state: bool
) -> None:
    """Who has heard the intent says in a push/pull at what time it last heard of this node, and not
    that it is about to leave; whoever merges that passes it on as a join of that time."""
    if by_state:
        state = encode_state(SerfState(41, status_times={"me": 40}))
        me.core.receive_push_pull(PushPull((), False, state), me.now)
    else:
        me.tell(Intent("me", 40, leaves=False))
    assert me.settle() == set()
    me.tell(Intent("me", 40, leaves=True))
    [denial] = me.settle()
    assert isinstance(denial, Intent)
    assert (denial.name, denial.leaves) == ("me", False)
    assert denial.time > 40


def test_a_node_that_leaves_says_so_and_denies_nothing(me: Member) -> None:
    me.core.leave(me.now)
    [intent] = me.settle()
    assert isinstance(intent, Intent)
    assert intent.leaves
    me.tell(Intent("me", 90, leaves=True))
    assert me.settle() == set()


def test_prune_forgets_who_has_left_and_nobody_else(me: Member) -> None:
    me.tell(Dead("a", 1, "b"), Intent("a", 9, leaves=True, prune=True))
    me.tell(Intent("b", 9, leaves=True, prune=True))
    assert me.state_of("a") is None
    assert me.state_of("b") is MemberState.ALIVE


def test_an_event_is_heard_and_passed_on_once(me: Member) -> None:
    event = UserEvent(10, "deploy", b"v1", coalesce=True)
    out = me.tell(event, event)
    assert [o for o in out if isinstance(o, EventReceived)] == [EventReceived("deploy", b"v1", 10)]
    assert me.settle() == {event}
    assert me.tell(event) == []
    assert me.settle() == set()


def test_of_events_of_one_time_all_are_heard(me: Member) -> None:
    out = me.tell(*(UserEvent(10, name, payload) for name in "xy" for payload in (b"1", b"2")))
    assert len([o for o in out if isinstance(o, EventReceived)]) == 4
    assert len(me.settle()) == 4


def test_what_was_before_this_node_came_is_none_of_its_business(me: Member) -> None:
    assert me.tell(UserEvent(9, "old", b""), ask(time=19)) == []
    assert me.settle() == set()


def test_an_own_event_is_newer_than_all_heard_and_goes_to_everybody(me: Member) -> None:
    me.tell(UserEvent(30, "deploy", b""))
    me.settle()
    me.core.send_event("mine", b"!", me.now)
    assert me.core.take_output() == [EventReceived("mine", b"!", 31)]
    assert me.settle() == {UserEvent(31, "mine", b"!")}
    with pytest.raises(InvalidArgument, match="512"):
        me.core.send_event("mine", bytes(509), me.now)


def test_an_event_too_long_for_a_packet_waits_for_a_push_pull(me: Member) -> None:
    state = SerfState(1, event_time=12, events=(UserEvent(11, "long", bytes(2000)),))
    me.core.receive_push_pull(PushPull((), False, encode_state(state)), me.now)
    assert EventReceived("long", bytes(2000), 11) in me.core.take_output()
    assert me.settle() == set()
    mine = decode_state(me.core.local_state(join=False).user_state)
    assert mine is not None
    assert mine.events == state.events
    assert mine.event_time == 12


def test_a_state_tells_who_left_and_when(me: Member) -> None:
    me.tell(Intent("a", 9, leaves=True), Dead("a", 1, "a"), Intent("b", 12, leaves=False))
    mine = decode_state(me.core.local_state(join=False).user_state)
    assert mine is not None
    assert mine.left == ("a",)
    assert (mine.status_times["a"], mine.status_times["b"], mine.status_times["c"]) == (9, 12, 0)
    assert mine.time == 13


def test_who_left_by_a_peers_state_has_left_here(me: Member) -> None:
    me.tell(Dead("a", 1, "b"), Dead("b", 1, "c"))
    state = SerfState(30, {"a": 7, "b": 7}, left=("a",))
    me.core.receive_push_pull(PushPull((), False, encode_state(state)), me.now)
    assert (me.state_of("a"), me.state_of("b")) == (MemberState.LEFT, MemberState.FAILED)


def test_two_states_that_agree_do_not_drive_each_other_on(me: Member) -> None:
    me.tell(Intent("a", 9, leaves=True), Dead("a", 1, "a"))
    before = me.core.local_state(join=False).user_state
    for _ in range(3):
        me.core.receive_push_pull(
            PushPull((), False, me.core.local_state(join=False).user_state), me.now
        )
    assert me.core.local_state(join=False).user_state == before


def test_a_query_is_acknowledged_and_passed_on_once(me: Member) -> None:
    out = me.tell(ask(), ask())
    assert answers(out) == {(ASKER, QueryResponse(20, 1, "me", QueryFlag.ACK))}
    assert me.settle() == {ask()}
    assert me.tell(ask()) == []


def test_a_query_without_acks_or_not_to_be_passed_on(me: Member) -> None:
    assert me.tell(ask(flags=QueryFlag(0))) == []
    assert me.settle() == {ask(flags=QueryFlag(0))}
    quiet = ask(2, flags=QueryFlag.ACK | QueryFlag.NO_BROADCAST)
    assert len(answers(me.tell(quiet))) == 1
    assert me.settle() == set()


def test_a_query_for_others_is_passed_on_and_not_answered(me: Member) -> None:
    query = ask(filters=(by_name("a"),))
    assert me.tell(query) == []
    assert me.settle() == {query}


def test_nobody_has_answers_sent_to_a_stranger(me: Member) -> None:
    stray = encode_serf(QueryResponse(1, 1, "b")).payload
    assert answers(me.tell(ask(reply_to=STRANGER), Relay(STRANGER, "x", stray))) == set()
    assert answers(me.tell(Relay(ASKER, "a", stray))) == {(ASKER, QueryResponse(1, 1, "b"))}


def test_a_packet_that_would_make_very_many_is_refused(me: Member) -> None:
    relay = Relay(ASKER, "a", encode_serf(QueryResponse(1, 1, "b")).payload)
    for too_many in ([relay] * 2, [ask(number) for number in range(MAX_QUERIES + 1)]):
        with pytest.raises(ProtocolError, match="queries and"):
            me.tell(*too_many)
    assert me.core.take_output() == []
    assert len(answers(me.tell(*(ask(number) for number in range(MAX_QUERIES)), relay))) == 17


def test_answers_take_so_many_other_ways_too(me: Member) -> None:
    sent = answers(me.tell(ask(relay_factor=2)))
    ack = QueryResponse(20, 1, "me", QueryFlag.ACK)
    relayed = {to for to, message in sent if message == Relay(ASKER, "a", encode_serf(ack).payload)}
    assert (ASKER, ack) in sent
    assert len(relayed) == 2
    assert relayed < set(OTHERS.values()) - {ASKER}
    assert len(answers(me.tell(ask(2, relay_factor=5)))) == 1


def test_who_asks_where_a_member_is_is_told(me: Member) -> None:
    [(to, message)] = answers(me.tell(ask(1, "_serf_conflict", payload=b"b", flags=QueryFlag(0))))
    assert to == ASKER
    assert isinstance(message, QueryResponse)
    fields = msgpack.unpackb(message.payload[1:], raw=True)
    assert (fields[b"Name"], fields[b"Port"]) == (b"b", 7946)
    for number, name in enumerate((b"me", b"nobody", b"\xff"), 2):
        out = me.tell(ask(number, "_serf_conflict", payload=name, flags=QueryFlag(0)))
        assert answers(out) == set()


@pytest.mark.parametrize("change", KeyChange)
def test_a_key_query_is_asked_of_the_owner_and_its_answer_sent(
    me: Member, change: KeyChange
) -> None:
    name = f"_serf_{change.value}-key{'s' if change is KeyChange.LIST else ''}"
    packed = msgpack.packb({"Key": b"k" * 16}, use_bin_type=False)
    query = ask(1, name, payload=b"\x07" + packed, flags=QueryFlag(0))
    [asked] = [o for o in me.tell(query) if isinstance(o, KeysAsked)]
    assert (asked.query, asked.change) == (query, change)
    assert asked.key == (b"" if change is KeyChange.LIST else b"k" * 16)
    me.core.answer_keys(query, KeyAnswer(False, "no"), me.now)
    [(to, response)] = answers(me.core.take_output())
    assert to == ASKER
    assert isinstance(response, QueryResponse)
    assert msgpack.unpackb(response.payload[1:])["Message"] == "no"


def test_a_key_query_that_is_malformed_is_answered_and_asks_for_nothing(me: Member) -> None:
    out = me.tell(ask(1, "_serf_use-key", payload=b"\x07\xc1", flags=QueryFlag(0)))
    assert not [o for o in out if isinstance(o, KeysAsked)]
    [(_, response)] = answers(out)
    assert isinstance(response, QueryResponse)
    assert msgpack.unpackb(response.payload[1:])["Result"] is False


def test_a_packet_with_one_bad_message_changes_nothing(me: Member) -> None:
    before = me.core.local_state(join=False)
    with pytest.raises(ProtocolError):
        me.tell(Intent("a", 99, leaves=True), User(b"\x03\xc1"))
    with pytest.raises(ProtocolError):
        me.core.receive_push_pull(
            PushPull(
                (MemberRecord(Alive("x", 1, STRANGER, b""), Status.ALIVE),), False, b"\x02\xc1"
            ),
            me.now,
        )
    assert me.core.local_state(join=False) == before


def test_what_is_not_serfs_is_nobodys_business(me: Member) -> None:
    before = me.core.local_state(join=False)
    assert me.tell(User(b"\x63consul"), User(b"")) == []
    me.core.receive_push_pull(PushPull((), False, b"\x63consul"), me.now)
    assert me.core.local_state(join=False) == before


def by_name(*names: str) -> bytes:
    packed: bytes = msgpack.packb(list(names), use_bin_type=False)
    return b"\x00" + packed


def by_tag(tag: str, expression: str) -> bytes:
    packed: bytes = msgpack.packb({"Tag": tag, "Expr": expression}, use_bin_type=False)
    return b"\x01" + packed


@pytest.mark.parametrize(
    ("filters", "passed"),
    [
        ([], True),
        ([by_name("x", "me")], True),
        ([by_name("x")], False),
        ([by_name("me"), by_name("x")], False),
        ([by_tag("dc", "east-1")], True),
        ([by_tag("dc", "east")], True),
        ([by_tag("dc", "^east$")], False),
        ([by_tag("dc", "^east-1$")], True),
        ([by_tag("dc", r"^east\-1$")], True),
        ([by_tag("dc", "^ast")], False),
        ([by_tag("dc", "ast-1$")], True),
        ([by_tag("dc", "")], True),
        ([by_tag("none", "x")], False),
        ([by_tag("dc", "e.*")], False),
        ([by_tag("dc", r"\w")], False),
        ([by_tag("dc", "(e+)+$")], False),
        ([b""], False),
        ([b"\x05\xc0"], False),
        ([b"\x00\xc1"], False),
        ([b"\x01\x81\xa3Tag\x01"], False),
    ],
)
def test_filters_let_pass_whom_they_name(filters: list[bytes], passed: bool) -> None:
    assert passes(filters, "me", {"dc": "east-1"}) is passed


@given(st.lists(st.integers(0, MAX_LAMPORT), max_size=20))
def test_a_clock_is_ahead_of_all_it_witnessed(times: list[int]) -> None:
    clock = LamportClock()
    for time in times:
        clock.witness(time)
    assert clock.time == min(max([0, *times]) + 1, MAX_LAMPORT)
    assert clock.advance() < clock.time or clock.time == MAX_LAMPORT


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 3))))
def test_each_recent_message_is_taken_once_and_old_ones_never(
    messages: list[tuple[int, int]],
) -> None:
    recent: RecentMessages[int] = RecentMessages()
    clock = LamportClock()
    seen = set()
    for time, token in messages:
        clock.witness(time)
        expected = (time, token) not in seen and time >= clock.time - WINDOW
        assert recent.take(time, token, 1, clock.time) is expected
        seen.add((time, token))
    assert len(list(recent)) <= 4 * (WINDOW + 1)


def test_what_is_remembered_has_a_bound_in_bytes_and_nothing_is_taken_twice() -> None:
    recent: RecentMessages[int] = RecentMessages()
    for time in range(1, 101):
        assert recent.take(time, time, MAX_BYTES // 10, 100)
    assert list(recent) == list(range(91, 101))
    assert not any(recent.take(time, time, 1, 100) for time in range(1, 101))
