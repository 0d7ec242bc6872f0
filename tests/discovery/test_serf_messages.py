"""Serf's messages: round trips, Go's forms, and what garbage gets."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumlog.discovery.wire.messages import Alive
from quorumlog.discovery.wire.serf_codec import (
    decode_filter,
    decode_key_request,
    decode_serf,
    decode_state,
    encode_key_answer,
    encode_member,
    encode_serf,
    encode_state,
)
from quorumlog.discovery.wire.serf_messages import (
    MAX_EVENT_BYTES,
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
from quorumlog.errors import ProtocolError

TIMES = st.integers(0, MAX_LAMPORT)
U32 = st.integers(0, 2**32 - 1)
NAMES = st.text(min_size=1, max_size=32).filter(lambda name: len(name.encode()) <= 128)
ADDRESSES = st.tuples(st.ip_addresses(v=4).map(str), st.integers(1, 65_535))
FLAGS = st.sampled_from([QueryFlag(value) for value in range(4)])
EVENTS = st.builds(UserEvent, TIMES, NAMES, st.binary(max_size=50), st.booleans())
MESSAGES = st.one_of(
    st.builds(Intent, NAMES, TIMES, st.booleans(), st.booleans()),
    EVENTS,
    st.builds(
        Query,
        TIMES,
        U32,
        ADDRESSES,
        NAMES,
        NAMES,
        st.binary(max_size=50),
        st.lists(st.binary(max_size=20), max_size=3).map(tuple),
        FLAGS,
        st.integers(0, 255),
        st.integers(0, 2**63 - 1),
    ),
    st.builds(QueryResponse, TIMES, U32, NAMES, FLAGS, st.binary(max_size=50)),
    st.builds(Relay, ADDRESSES, NAMES, st.binary(max_size=50)),
)


def go(kind: int, fields: object) -> bytes:
    """A message as go-msgpack writes it."""
    packed: bytes = msgpack.packb(fields, use_bin_type=False)
    return bytes([kind]) + packed


@given(MESSAGES)
def test_a_message_comes_back_as_it_was(message: SerfMessage) -> None:
    assert decode_serf(encode_serf(message).payload) == message


@given(
    st.dictionaries(NAMES, TIMES, max_size=5),
    st.lists(NAMES, max_size=3),
    st.lists(EVENTS, max_size=5),
    TIMES,
)
def test_a_state_comes_back_its_events_by_time(
    times: dict[str, int], left: list[str], events: list[UserEvent], time: int
) -> None:
    plain = [UserEvent(event.time, event.name, event.payload) for event in events]
    by_time = tuple(sorted(plain, key=lambda event: event.time))
    state = SerfState(time, times, tuple(left), time, by_time, time)
    assert decode_state(encode_state(state)) == state


def test_go_forms_are_read() -> None:
    nothing = {"LTime": 3, "StatusLTimes": None, "LeftMembers": None, "Events": [None]}
    assert decode_state(go(2, nothing)) == SerfState(3)
    fields: dict[str, object] = {"LTime": 1, "ID": 2, "Addr": bytes([10, 0, 0, 1]), "Port": 7946}
    query = decode_serf(go(4, fields | {"Name": "q", "Filters": None, "Payload": None, "Flags": 1}))
    assert query == Query(1, 2, ("10.0.0.1", 7946), "", "q", flags=QueryFlag.ACK)
    target = {"DestAddr": {"IP": bytes(10) + b"\xff\xff\x0a\x00\x00\x01", "Port": 1, "Zone": ""}}
    assert decode_serf(go(9, target) + b"rest") == Relay(("10.0.0.1", 1), "", b"rest")


def test_key_and_conflict_answers_have_gos_fields() -> None:
    answer = encode_key_answer(KeyAnswer(True, "m", ("k",), "k"))
    assert answer[0] == 8
    assert msgpack.unpackb(answer[1:]) == {
        "Result": True,
        "Message": "m",
        "Keys": ["k"],
        "PrimaryKey": "k",
    }
    said = encode_member(Alive("n", 1, ("10.0.0.1", 7946), b""), {"a": "b"}, 1)
    assert said[0] == 6
    fields = msgpack.unpackb(said[1:], raw=True)
    assert fields[b"Addr"] == bytes([10, 0, 0, 1])
    assert (fields[b"Port"], fields[b"Tags"], fields[b"Status"]) == (7946, {b"a": b"b"}, 1)
    assert [fields[b"ProtocolMax"], fields[b"DelegateCur"]] == [5, 4]
    assert decode_key_request(go(7, {"Key": b"\xff" * 32})) == b"\xff" * 32


QUERY: dict[str, object] = {"LTime": 1, "ID": 2, "Addr": bytes(4), "Port": 1, "Name": "q"}
BAD = {
    "an intent without a name": go(0, {"LTime": 1}),
    "an intent that is no map": go(1, [1]),
    "a time that is negative": go(1, {"LTime": -1, "Node": "n"}),
    "a time beyond the bound": go(3, {"LTime": MAX_LAMPORT + 1, "Name": "e"}),
    "a long event": go(3, {"LTime": 1, "Name": "e", "Payload": b"p" * (MAX_EVENT_BYTES + 1)}),
    "a number for coalescing": go(3, {"LTime": 1, "Name": "e", "CC": 7}),
    "a query without an address": go(4, {"LTime": 1, "ID": 2, "Name": "q"}),
    "a query with a filter that is none": go(4, QUERY | {"Filters": [1]}),
    "a query with many filters": go(4, QUERY | {"Filters": [b""] * 65}),
    "filters that are no list": go(4, QUERY | {"Filters": {"a": 1}}),
    "an answer without a name": go(5, {"LTime": 1, "ID": 1}),
    "a relay to nowhere": go(9, {"DestAddr": None}),
    "a relay that is cut short": go(9, {"DestAddr": {"IP": bytes(4), "Port": 1}})[:-1],
    "nothing behind the type": b"\x00",
}


@pytest.mark.parametrize("payload", BAD.values(), ids=BAD.keys())
def test_a_bad_message_is_a_typed_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_serf(payload)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {"LTime": -1},
        {"LTime": 1, "StatusLTimes": [1]},
        {"LTime": 1, "StatusLTimes": {1: 1}},
        {"LTime": 1, "StatusLTimes": {"n": -1}},
        {"LTime": 1, "LeftMembers": [7]},
        {"LTime": 1, "LeftMembers": {"n": 1}},
        {"LTime": 1, "Events": [7]},
        {"LTime": 1, "Events": [{"LTime": 1, "Events": [7]}]},
    ],
)
def test_a_bad_state_is_a_typed_error(fields: object) -> None:
    with pytest.raises(ProtocolError):
        decode_state(go(2, fields))


@pytest.mark.parametrize("payload", [b"", b"\x63\x01", b"\x06\x80", b"\x07", b"\xff"])
def test_what_no_member_acts_on_is_none(payload: bytes) -> None:
    assert decode_serf(payload) is None
    assert decode_state(payload) is None


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 9))
def test_garbage_is_a_result_or_a_typed_error(data: bytes, kind: int) -> None:
    payload = bytes([kind]) + data
    for decode in (decode_serf, decode_state, decode_filter, decode_key_request):
        try:
            decode(payload)
        except ProtocolError:
            continue
