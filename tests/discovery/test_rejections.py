"""What strangers can do: not much, and not often."""

import random
import struct

import msgpack
import pytest
from structlog.testing import capture_logs

from fakes.lzw import compress
from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.claims import MAX_DISPLACED_TOLD
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.output import SendPacket
from quorumlog.discovery.rejections import Rejections
from quorumlog.discovery.wire.codec import encode_message
from quorumlog.discovery.wire.messages import Ack, Alive, IndirectPing, PacketMessage, Ping
from quorumlog.discovery.wire.packet import MAX_DECOMPRESSED_BYTES, decode_packet, encode_packet
from quorumlog.discovery.wire.tags import encode_tags
from quorumlog.errors import ForeignPeer, ProtocolError

MEMBER, VICTIM = ("10.0.0.2", 7946), ("203.0.113.9", 53)


def wrapped(data: bytes, layers: int) -> bytes:
    """``data`` in so many compounds of one part."""
    for _ in range(layers):
        data = struct.pack(">BBH", 7, 1, len(data)) + data
    return data


def compressed(data: bytes) -> bytes:
    packed: bytes = msgpack.packb({"Algo": 0, "Buf": compress(data)}, use_bin_type=False)
    return b"\x09" + packed


def node() -> GossipCore:
    """``me``, with news to tell, and a member that it knows."""
    core = GossipCore(
        name="me",
        address=("10.0.0.1", 7946),
        tags={"id": "x" * 300},
        config=GossipConfig(),
        rng=random.Random(1),
        now=0.0,
    )
    core.receive_packet(MEMBER, encode_message(Alive("a", 1, MEMBER, b"")), 0.0)
    core.take_output()
    return core


def sent(core: GossipCore) -> list[SendPacket]:
    return [output for output in core.take_output() if isinstance(output, SendPacket)]


def test_what_is_wrapped_in_one_layer_too_many_is_refused() -> None:
    message = encode_message(Ack(1))
    for layers in (0, 1):
        assert decode_packet(wrapped(message, layers)) == [Ack(1)]
        assert decode_packet(compressed(wrapped(message, layers))) == [Ack(1)]
    for deeper in (wrapped(message, 2), compressed(wrapped(message, 2))):
        with pytest.raises(ProtocolError, match="wrapped too often"):
            decode_packet(deeper)
    for deeper in (compressed(compressed(message)), wrapped(compressed(message), 1)):
        with pytest.raises(ProtocolError, match="wrapped too often"):
            decode_packet(deeper)


@pytest.mark.parametrize("ask", [Ping(7, "me", "x", VICTIM), IndirectPing(7, "q", VICTIM, True)])
def test_one_packet_asks_for_one_answer(ask: PacketMessage) -> None:
    core = node()
    data = encode_message(ask)
    for packet in (encode_packet([data] * 2), encode_packet([data] * 255)):
        with pytest.raises(ProtocolError, match="more than 1 answer"):
            core.receive_packet(VICTIM, packet, 0.0)
    assert sent(core) == []


@pytest.mark.parametrize("ask", [Ping(7, "me", "x", VICTIM), IndirectPing(7, "q", VICTIM, True)])
def test_an_answer_to_nobody_known_carries_no_news(ask: PacketMessage) -> None:
    core = node()
    question = encode_packet([encode_message(ask)])
    core.receive_packet(MEMBER, question, 0.0)
    [answer] = sent(core)
    assert answer.address == VICTIM
    assert len(decode_packet(answer.data)) == 1
    core.receive_packet(MEMBER, encode_packet([encode_message(Ping(8, "me", "a"))]), 0.0)
    [answer] = sent(core)
    assert answer.address == MEMBER
    assert len(decode_packet(answer.data)) > 1


def test_a_member_that_moves_to_and_fro_has_few_packets_sent_in_a_round() -> None:
    core = node()
    round_s = GossipConfig().gossip_interval_s
    meta = encode_tags({"id": "mover"})

    def sent_for_moves(first: int, now: float) -> int:
        """Packets that go out when it moves twenty times in one packet."""
        moves = [Alive("mover", first + i, (VICTIM, MEMBER)[i % 2], meta) for i in range(20)]
        core.receive_packet(MEMBER, encode_packet([encode_message(move) for move in moves]), now)
        return len(sent(core))

    assert sent_for_moves(1, 0.0) == MAX_DISPLACED_TOLD
    assert sent_for_moves(21, round_s / 2) == 0
    assert sent_for_moves(41, round_s) == MAX_DISPLACED_TOLD


def test_a_packet_is_decompressed_up_to_a_bound() -> None:
    def holding(size: int) -> bytes:
        return compressed(b"\x08" + b"\xfe" * (size - 1))

    assert len(decode_packet(holding(MAX_DECOMPRESSED_BYTES))) == 1
    with pytest.raises(ProtocolError, match=f"more than {MAX_DECOMPRESSED_BYTES} bytes"):
        decode_packet(holding(MAX_DECOMPRESSED_BYTES + 1))


def test_a_thousand_rejections_a_second_are_all_counted_and_few_are_logged() -> None:
    rejections = Rejections()
    with capture_logs() as lines:
        for number in range(25_000):
            rejections.count("10.0.0.9", ForeignPeer("another label"), number / 1000)
    assert rejections.counts == {"FOREIGN_PEER": 25_000}
    lines = [line for line in lines if line["event"] == "gossip_rejected"]
    assert [line["not_logged"] for line in lines] == [0, 9_999, 9_999]


def test_who_looks_at_warnings_is_told_once_a_minute_what_came_since() -> None:
    rejections = Rejections()
    with capture_logs() as lines:
        for now in range(0, 200, 10):
            rejections.count("10.0.0.9", ForeignPeer("another label"), float(now))
            rejections.count("10.0.0.9", ConnectionResetError(), float(now))
    told = [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"] for line in told] == ["gossip_not_taken"] * 4
    assert [line["FOREIGN_PEER"] for line in told] == [1, 6, 6, 6]
    assert [line.get("BROKEN_STREAM", 0) for line in told] == [0, 6, 6, 6]


def test_what_a_bug_of_ours_does_not_let_through_is_logged_with_its_traceback() -> None:
    rejections, bug = Rejections(), KeyError("x")
    with capture_logs() as lines:
        for now in range(9):
            rejections.count("10.0.0.9", bug, float(now))
    assert rejections.counts == {"INTERNAL": 9}
    assert [line["exc_info"] for line in lines if line["log_level"] == "error"] == [bug]
