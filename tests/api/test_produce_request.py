"""Packs of hostile clients are counted before they are parsed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.requests import produce
from quorumlog.api import produce_request
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api.produce_request import UNCOUNTED_BYTES, parse_request
from quorumlog.errors import InvalidArgument
from quorumlog.types import MAX_PACKED_REQUESTS

EMPTY = b"\x2a\x00"
"""One more request, with nothing in it."""

PADDING = pb.ProduceRequest(batch=pb.Batch(body=bytes(UNCOUNTED_BYTES))).SerializeToString()
"""A request large enough to be counted."""


def field(content: bytes) -> bytes:
    return pb.ProduceRequest(more=[pb.ProduceRequest.FromString(content)]).SerializeToString()


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(PADDING, id="one large batch"),
        pytest.param(PADDING + EMPTY * (MAX_PACKED_REQUESTS - 1), id="as many as there may be"),
        pytest.param(PADDING + field(PADDING) * 3, id="large ones"),
        pytest.param(
            PADDING + produce(b"a", request_id=1 << 63, topic="x" * 200).SerializeToString(),
            id="all fields twice",
        ),
        pytest.param(PADDING + b"\xfa\x01\x01a" + b"\xf9\x01" + bytes(8), id="a later release's"),
    ],
)
def test_what_a_client_may_send_is_what_is_parsed(encoded: bytes) -> None:
    assert parse_request(encoded) == pb.ProduceRequest.FromString(encoded)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(PADDING + EMPTY * MAX_PACKED_REQUESTS, id="one too many"),
        pytest.param(EMPTY * UNCOUNTED_BYTES, id="nothing but empty ones"),
        pytest.param(b"\xaa\x80\x00\x00" * UNCOUNTED_BYTES, id="with a tag that is longer"),
        pytest.param(PADDING + field(EMPTY), id="a pack in a pack"),
        pytest.param(PADDING + b"\x20\x00" * UNCOUNTED_BYTES, id="one field again and again"),
        pytest.param(PADDING + b"\x2a\x7f", id="an end within a field"),
        pytest.param(PADDING + b"\x21\x00", id="an end within a number"),
        pytest.param(PADDING + b"\x80" * 11, id="a number that does not end"),
        pytest.param(PADDING + b"\x2b\x2c" * 8, id="groups"),
    ],
)
def test_what_would_take_much_more_memory_than_it_has_bytes_is_refused_unparsed(
    encoded: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unparsed:
        ProduceRequest = None

    monkeypatch.setattr(produce_request, "pb", Unparsed)
    with pytest.raises(InvalidArgument):
        parse_request(encoded)


@given(st.lists(st.binary(max_size=6), max_size=20))
def test_any_bytes_are_a_request_or_refused(parts: list[bytes]) -> None:
    for encoded in (b"".join(parts), PADDING + b"".join(parts)):
        try:
            parsed = parse_request(encoded)
        except InvalidArgument:
            continue
        assert len(parsed.more) <= sum(part.count(0x2A) for part in parts)
