"""What strangers can do: not much, and not often."""

import struct

import pytest
from structlog.testing import capture_logs

from quorumlog.discovery.rejections import Rejections
from quorumlog.discovery.wire.codec import encode_message
from quorumlog.discovery.wire.messages import Ack
from quorumlog.discovery.wire.packet import decode_packet
from quorumlog.errors import ForeignPeer, ProtocolError

LAYERS = 4
"""As many as wire/packet.py says are unwrapped."""


def wrapped(data: bytes, layers: int) -> bytes:
    """``data`` in so many compounds of one part."""
    for _ in range(layers):
        data = struct.pack(">BBH", 7, 1, len(data)) + data
    return data


def test_what_is_wrapped_in_one_layer_too_many_is_refused() -> None:
    message = encode_message(Ack(1))
    assert decode_packet(wrapped(message, LAYERS)) == [Ack(1)]
    with pytest.raises(ProtocolError):
        decode_packet(wrapped(message, LAYERS + 1))


def test_a_thousand_rejections_a_second_are_all_counted_and_few_are_logged() -> None:
    rejections = Rejections()
    with capture_logs() as lines:
        for number in range(25_000):
            rejections.count("10.0.0.9", ForeignPeer("another label"), number / 1000)
    assert rejections.counts == {"FOREIGN_PEER": 25_000}
    assert [line["event"] for line in lines] == ["gossip_rejected"] * 3
    assert [line["not_logged"] for line in lines] == [0, 9_999, 9_999]
