"""Messages, packets and streams: round trips, Go's forms, and what garbage gets."""

import struct
import zlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumlog.discovery.wire.codec import decode_message, encode_message, encode_push_pull
from quorumlog.discovery.wire.messages import (
    MAX_INCARNATION,
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    MemberRecord,
    Nack,
    PacketMessage,
    Ping,
    PushPull,
    RemoteError,
    Status,
    Suspect,
    User,
)
from quorumlog.discovery.wire.packet import MAX_ASKED, decode_packet, encode_packet
from quorumlog.discovery.wire.stream import MAX_STREAM_BYTES, StreamDecoder
from quorumlog.discovery.wire.tags import decode_tags, encode_tags
from quorumlog.errors import InvalidArgument, ProtocolError

NAMES = st.text(min_size=1, max_size=32).filter(lambda name: len(name.encode()) <= 128)
NUMBERS = st.integers(0, 2**32 - 1)
ADDRESSES = st.tuples(
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str), st.integers(1, 65_535)
).filter(lambda address: not address[0].startswith("::ffff:"))
PINGS = st.one_of(
    st.builds(Ping, NUMBERS, NAMES), st.builds(Ping, NUMBERS, NAMES, NAMES, ADDRESSES)
)
ALIVES = st.builds(Alive, NAMES, NUMBERS, ADDRESSES, st.binary(max_size=512))
MESSAGES = st.one_of(
    PINGS,
    st.builds(IndirectPing, NUMBERS, NAMES, ADDRESSES, st.booleans(), NAMES, ADDRESSES),
    st.builds(Ack, NUMBERS),
    st.builds(Nack, NUMBERS),
    st.builds(Suspect, NAMES, NUMBERS, NAMES),
    st.builds(Dead, NAMES, NUMBERS, NAMES),
    ALIVES,
    st.builds(User, st.binary(max_size=100)),
)
STATES = st.builds(
    PushPull,
    st.lists(st.builds(MemberRecord, ALIVES, st.sampled_from(Status)), max_size=5).map(tuple),
    st.booleans(),
    st.binary(max_size=300),
)
HERE: Address = ("127.0.0.1", 7946)


def go(kind: int, fields: dict[str, object]) -> bytes:
    """A message as go-msgpack writes it."""
    packed: bytes = msgpack.packb(fields, use_bin_type=False)
    return bytes([kind]) + packed


@given(MESSAGES)
def test_a_message_comes_back_as_it_was(message: PacketMessage) -> None:
    assert decode_message(encode_message(message)) == message


@given(st.lists(MESSAGES, min_size=1, max_size=20))
def test_a_packet_gives_its_messages_in_order(messages: list[PacketMessage]) -> None:
    packet = encode_packet([encode_message(m) for m in messages])
    if sum(isinstance(message, Ping | IndirectPing) for message in messages) > MAX_ASKED:
        with pytest.raises(ProtocolError, match="asks for more than 1 answer"):
            decode_packet(packet)
    else:
        assert decode_packet(packet) == messages


@given(STATES, st.integers(1, 50))
def test_a_state_comes_back_however_the_stream_is_cut(state: PushPull, step: int) -> None:
    data = encode_push_pull(state)
    decoder = StreamDecoder()
    found = None
    for start in range(0, len(data), step):
        assert found is None
        found = decoder.feed(data[start : start + step])
    assert found == state


def test_go_forms_of_optional_fields_are_read() -> None:
    assert decode_message(go(0, {"SeqNo": 7, "Node": b"n"})) == Ping(7, "n")
    assert decode_message(go(2, {"SeqNo": 7, "Payload": None})) == Ack(7)
    mapped = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])
    fields: dict[str, object] = {"Incarnation": 3, "Node": "n", "Addr": mapped, "Port": 7946}
    alive = decode_message(go(4, fields | {"Meta": None, "Vsn": [1, 5, 2, 2, 5, 4], "New": 1}))
    assert alive == Alive("n", 3, ("10.0.0.1", 7946), b"")


def test_no_message_uses_a_type_that_old_msgpack_lacks() -> None:
    long_meta = Alive("n" * 100, MAX_INCARNATION, HERE, b"\xff" * 300)
    packed = encode_message(long_meta)
    assert b"\xda\x01\x2c" in packed
    assert b"\xc5\x01\x2c" not in packed
    assert b"\xd9\x64" not in packed


BAD_MESSAGES = {
    "empty": b"",
    "unknown type": go(99, {}),
    "encrypted": bytes([10]) + b"secret",
    "not msgpack": b"\x00\xc1",
    "not a map": b"\x00\x93\x01\x02\x03",
    "cut short": go(0, {"SeqNo": 1, "Node": "n"})[:-1],
    "too long": go(0, {"SeqNo": 1, "Node": "n"}) + b"\x00",
    "no sequence": go(0, {"Node": "n"}),
    "negative sequence": go(0, {"SeqNo": -1, "Node": "n"}),
    "a boolean for a number": go(0, {"SeqNo": True, "Node": "n"}),
    "a huge incarnation": go(3, {"Incarnation": 2**32, "Node": "n", "From": "m"}),
    "no name": go(3, {"Incarnation": 1, "From": "m"}),
    "an empty name": go(3, {"Incarnation": 1, "Node": "", "From": "m"}),
    "a long name": go(3, {"Incarnation": 1, "Node": "n" * 129, "From": "m"}),
    "a name that is no UTF-8": go(3, {"Incarnation": 1, "Node": b"\xff\xfe", "From": "m"}),
    "a number for a name": go(3, {"Incarnation": 1, "Node": 5, "From": "m"}),
    "an address of 5 bytes": go(
        4, {"Incarnation": 1, "Node": "n", "Addr": b"\x01\x02\x03\x04\x05", "Port": 1}
    ),
    "port 0": go(4, {"Incarnation": 1, "Node": "n", "Addr": b"\x01\x02\x03\x04", "Port": 0}),
    "long tags": go(
        4,
        {"Incarnation": 1, "Node": "n", "Addr": b"\x01\x02\x03\x04", "Port": 1, "Meta": b"m" * 513},
    ),
    "impossible versions": go(
        4,
        {"Incarnation": 1, "Node": "n", "Addr": b"\x01\x02\x03\x04", "Port": 1, "Vsn": b"\x05\x01"},
    ),
    "an unhashable key": b"\x00\x81\x90\x01",
    "nested too deep": b"\x00" + b"\x91" * 2000,
    "nested as deep as may be": b"\x00\x81\xa5SeqNo" + b"\x91" * 1000 + b"\x00",
    "a map of four billion": b"\x00\xdf\xff\xff\xff\xff",
}


@pytest.mark.parametrize("data", BAD_MESSAGES.values(), ids=BAD_MESSAGES.keys())
def test_a_bad_message_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_message(data)
    with pytest.raises(ProtocolError):
        decode_packet(encode_packet([encode_message(Ack(1)), data]))


def crc(body: bytes) -> bytes:
    return struct.pack(">BI", 12, zlib.crc32(body)) + body


BAD_PACKETS = {
    "wrong checksum": crc(encode_message(Ack(1)))[:-1] + b"\x00",
    "compound of nothing": crc(b"\x07\x00"),
    "compound without lengths": b"\x07\x02\x00",
    "compound with a part cut short": b"\x07\x01\x00\x09" + encode_message(Ack(1))[:3],
    "compound in itself for ever": b"".join(
        bytes([7, 1]) + struct.pack(">H", 60 - 4 * depth) for depth in range(15)
    ),
    "compressed by an unknown algorithm": go(9, {"Algo": 1, "Buf": b""}),
    "compressed garbage": go(9, {"Algo": 0, "Buf": b"\x00\x01\x02"}),
}


@pytest.mark.parametrize("data", BAD_PACKETS.values(), ids=BAD_PACKETS.keys())
def test_a_bad_packet_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_packet(data)


@settings(max_examples=300)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x07", b"\x09", b"\x04\x85", b"\x06\x83"]))
def test_garbage_is_a_result_or_a_typed_error(data: bytes, prefix: bytes) -> None:
    for decode in (decode_packet, StreamDecoder().feed):
        try:
            decode(prefix + data)
        except ProtocolError:
            continue


@given(STATES, st.data())
def test_a_damaged_state_is_a_result_or_a_typed_error(state: PushPull, data: st.DataObject) -> None:
    damaged = bytearray(encode_push_pull(state))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    decoder = StreamDecoder()
    try:
        for start in range(0, len(damaged), 37):
            if decoder.feed(bytes(damaged[start : start + 37])) is not None:
                break
    except ProtocolError:
        return


@pytest.mark.parametrize(
    "header",
    [
        {"Nodes": 1_000_000, "UserStateLen": 0, "Join": False},
        {"Nodes": -1, "UserStateLen": 0, "Join": False},
        {"Nodes": 0, "UserStateLen": 2**31, "Join": False},
        {"Nodes": 0, "UserStateLen": 0, "Join": 3},
    ],
)
def test_a_state_with_an_impossible_header_is_refused(header: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        StreamDecoder().feed(go(6, header))


def test_a_stream_that_never_ends_is_cut_at_its_bound() -> None:
    decoder = StreamDecoder()
    header = go(6, {"Nodes": 0, "UserStateLen": MAX_STREAM_BYTES, "Join": False})
    assert decoder.feed(header) is None
    chunk = bytes(64 * 1024)
    for _ in range(MAX_STREAM_BYTES // len(chunk) - 1):
        assert decoder.feed(chunk) is None
    with pytest.raises(ProtocolError, match="longer than"):
        decoder.feed(chunk)


def test_streams_carry_pings_acks_errors_and_user_messages() -> None:
    assert StreamDecoder().feed(encode_message(Ping(1, "n"))) == Ping(1, "n")
    assert StreamDecoder().feed(encode_message(Ack(1))) == Ack(1)
    assert StreamDecoder().feed(encode_message(RemoteError("no"))) == RemoteError("no")
    assert StreamDecoder().feed(go(8, {"UserMsgLen": 3}) + b"abc") == User(b"abc")


def test_a_compressed_stream_is_not_unwrapped_twice() -> None:
    # 0x100 clear, then one literal a byte of an inner compress message, then the end code.
    inner = go(9, {"Algo": 0, "Buf": b""})
    bits = 0
    for position, code in enumerate([256, *inner, 257]):
        bits |= code << (9 * position)
    packed = bits.to_bytes((9 * (len(inner) + 2) + 7) // 8, "little")
    with pytest.raises(ProtocolError, match="message of type 9"):
        StreamDecoder().feed(go(9, {"Algo": 0, "Buf": packed}))


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=8))
def test_tags_come_back(tags: dict[str, str]) -> None:
    assert decode_tags(encode_tags(tags)) == tags


def test_tags_over_the_limit_are_refused_with_both_sizes() -> None:
    assert len(encode_tags({"k": "v" * 500})) <= 512
    with pytest.raises(InvalidArgument, match=r"515 bytes .* 512"):
        encode_tags({"k": "v" * 508})


@pytest.mark.parametrize("meta", [b"", b"\xff", b"\xff\xc1", b"\xff\x01", b"\xff\x81\x01\x02"])
def test_what_is_no_tags_is_none_and_no_error(meta: bytes) -> None:
    assert decode_tags(meta) == {}


@given(st.binary(max_size=100))
def test_foreign_meta_never_fails(meta: bytes) -> None:
    tags = decode_tags(meta)
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in tags.items())


def test_a_role_of_old_is_a_tag() -> None:
    assert decode_tags(b"web") == {"role": "web"}
