"""Decoders of what Serf says above gossip, of its filters, and of what gossip compresses."""

from typing import Final

import msgpack

from fuzz.target import Target, expect
from quorumlog.discovery.core.filters import passes
from quorumlog.discovery.wire.lzw import decompress
from quorumlog.discovery.wire.messages import User
from quorumlog.discovery.wire.serf_codec import (
    decode_key_request,
    decode_serf,
    decode_state,
    encode_serf,
    encode_state,
)
from quorumlog.discovery.wire.serf_messages import (
    Intent,
    Query,
    QueryFlag,
    QueryResponse,
    Relay,
    SerfMessage,
    SerfState,
    SerfType,
    UserEvent,
)
from quorumlog.errors import ProtocolError

_HERE: Final = ("127.0.0.1", 7946)
_LIMIT_BYTES: Final = 65_535
_CLEAR, _END, _LITERAL_BITS = 256, 257, 9
_NAME, _TAGS = "n", {"id": "n", "role": "db.1"}


# -- messages ------------------------------------------------------------------------------------


def _messages() -> list[bytes]:
    event = UserEvent(3, "deploy", b"v1", True)
    by_tag = b"\x01" + msgpack.packb({"Tag": "id", "Expr": "^n$"})
    messages: list[SerfMessage] = [
        Intent("n", 4, True, True),
        Intent("n", 5, False),
        event,
        Query(6, 7, _HERE, "m", "who", b"x", (by_tag,), QueryFlag.ACK, 2, 10**9),
        QueryResponse(6, 7, "m", QueryFlag.ACK, b"answer"),
        Relay(_HERE, "m", encode_serf(event).payload),
    ]
    return [encode_serf(each).payload for each in messages]


def _check_serf(data: bytes) -> None:
    message = decode_serf(data)
    expect(decode_serf(data) == message, "the same bytes mean the same again")
    if message is not None:
        again = encode_serf(message)
        expect(isinstance(again, User), "it is what a member sends")
        expect(decode_serf(again.payload) == message, "a message comes back")


def _states() -> list[bytes]:
    events = (UserEvent(3, "deploy", b"v1"), UserEvent(3, "deploy", b"v2"), UserEvent(4, "x", b""))
    return [
        encode_state(SerfState(9, {"n": 4, "m": 0}, ("m",), 5, events, 6)),
        encode_state(SerfState(0, {}, (), 0, (), 0)),
    ]


def _check_state(data: bytes) -> None:
    state = decode_state(data)
    if state is None:
        expect(data[:1] != bytes([SerfType.STATE]), "what begins as a state is one")
        return
    again = decode_state(encode_state(state))
    expect(again is not None, "a state comes back")
    if again is not None:
        expect(again.status_times == state.status_times, "its times come back")
        expect(set(again.events) == set(state.events), "its events come back")


def _key_requests() -> list[bytes]:
    return [bytes([SerfType.KEY_REQUEST]) + msgpack.packb({"Key": b"k" * 32})]


def _check_key_request(data: bytes) -> None:
    expect(len(decode_key_request(data)) <= 64, "a key is short")


# -- filters -------------------------------------------------------------------------------------


def _filters() -> list[bytes]:
    expressions = ("^n$", "n", "^d", r"b\.1$", "", "(a+)+$")
    by_tag = [{"Tag": "role", "Expr": each} for each in expressions]
    return [b"\x00" + msgpack.packb(["n", "m"]), b"\x00" + msgpack.packb([])] + [
        b"\x01" + msgpack.packb(each) for each in by_tag
    ]


def _check_filter(data: bytes) -> None:
    alone = passes([data], _NAME, _TAGS)
    expect(passes([data, data], _NAME, _TAGS) == alone, "twice the same lets the same pass")
    expect(not passes([data, b""], _NAME, _TAGS), "one that cannot be read lets nobody pass")


# -- compression ---------------------------------------------------------------------------------


def _compressed() -> list[bytes]:
    """Literals alone, and codes that stand for earlier ones; packed least significant bit first."""
    return [
        _pack([_CLEAR, *b"gossip", _END]),
        _pack([_CLEAR, ord("a"), 258, 259, 260, _CLEAR, ord("b"), _END]),
        _pack([_END]),
    ]


def _pack(codes: list[int]) -> bytes:
    """Few enough that all have nine bits."""
    bits = sum(code << _LITERAL_BITS * at for at, code in enumerate(codes))
    return bits.to_bytes((_LITERAL_BITS * len(codes) + 7) // 8, "little")


def _check_compressed(data: bytes) -> None:
    plain = decompress(data, _LIMIT_BYTES)
    expect(len(plain) <= _LIMIT_BYTES, "the limit holds")
    expect(decompress(data + b"behind", _LIMIT_BYTES) == plain, "what is behind the end is nothing")


SERF_TARGETS: Final = (
    Target("serf-messages", _check_serf, (ProtocolError,), _messages),
    Target("serf-state", _check_state, (ProtocolError,), _states),
    Target("serf-key-request", _check_key_request, (ProtocolError,), _key_requests),
    Target("serf-filter", _check_filter, (), _filters),
    Target("gossip-lzw", _check_compressed, (ProtocolError,), _compressed),
)
