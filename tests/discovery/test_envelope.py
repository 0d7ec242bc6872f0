"""Labels and encryption around packets and streams: what is taken, and what is foreign."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.discovery.wire.codec import encode_message, encode_push_pull
from quorumlog.discovery.wire.envelope import MAX_NONCES, Envelope, label_size
from quorumlog.discovery.wire.messages import Ack, Alive, MemberRecord, PushPull, Status
from quorumlog.discovery.wire.seal import SEAL_OVERHEAD_BYTES, Seal
from quorumlog.errors import (
    ConfigError,
    ForeignPeer,
    OversizedMessage,
    ProtocolError,
    ReplayedPacket,
)

aead = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead")

KEYS = tuple(bytes([value]) * size for value, size in ((1, 16), (2, 24), (3, 32)))
STATE = PushPull(
    tuple(
        MemberRecord(Alive(f"n{i}", i, ("10.0.0.1", 7946), b"meta"), Status.ALIVE) for i in range(9)
    ),
    join=True,
    user_state=b"\x02state",
)


def envelope(*keys: bytes, label: str = "", **settings: bool) -> Envelope:
    nonces = itertools.count()
    seal = Seal(GossipKeys(keys), lambda size: next(nonces).to_bytes(size, "big")) if keys else None
    return Envelope(label=label, seal=seal, **settings)


def read(reader: Envelope, data: bytes, *, dialled: bool, step: int = 1 << 20) -> object:
    decoder = reader.message_decoder(dialled=dialled)
    for start in range(0, len(data), step):
        message = decoder.feed(data[start : start + step])
        if message is not None:
            return message
    return None


@pytest.mark.parametrize("key", KEYS, ids=len)
@pytest.mark.parametrize("label", ["", "blue"])
@given(data=st.binary(min_size=1, max_size=100))
def test_a_packet_comes_back_whatever_key_of_the_ring_sealed_it(
    key: bytes, label: str, data: bytes
) -> None:
    sender = envelope(key, label=label)
    packet = sender.wrap_packet(data)
    assert len(packet) == len(data) + sender.overhead_bytes
    assert envelope(*KEYS, label=label).open_packet(packet) == data


def test_a_packet_is_what_memberlist_reads() -> None:
    """By hand from its security.go: version 1, nonce, AES-GCM; the label is authenticated."""
    packet = envelope(KEYS[0], label="blue").wrap_packet(b"ping")
    assert packet[:6] == b"\xf4\x04blue"
    assert packet[6] == 1
    assert aead.AESGCM(KEYS[0]).decrypt(packet[7:19], packet[19:], b"blue") == b"ping"


def test_the_padded_version_of_the_first_protocol_is_read() -> None:
    for text, padding in ((b"ping", 12), (b"sixteen bytes ok", 16)):
        padded = text + bytes([padding]) * padding
        sealed = aead.AESGCM(KEYS[0]).encrypt(bytes(12), padded, b"")
        assert envelope(KEYS[0]).open_packet(bytes(13) + sealed) == text


@pytest.mark.parametrize("padded", [b"x" * 15 + b"\x00", b"x" * 15 + b"\x11", b"x" * 15 + b"\x02"])
def test_a_wrong_padding_is_a_typed_error(padded: bytes) -> None:
    sealed = aead.AESGCM(KEYS[0]).encrypt(bytes(12), padded, b"")
    with pytest.raises(ProtocolError, match="padding"):
        envelope(KEYS[0]).open_packet(bytes(13) + sealed)


FOREIGN = {
    "plain where keys are wanted": (envelope(), envelope(KEYS[0])),
    "sealed with another key": (envelope(KEYS[1]), envelope(KEYS[0])),
    "another label": (envelope(label="blue"), envelope(label="green")),
    "no label": (envelope(), envelope(label="green")),
    "a label where none is": (envelope(label="blue"), envelope()),
    "the right key under another label": (
        envelope(KEYS[0], label="blue"),
        envelope(KEYS[0], label="green"),
    ),
}


@pytest.mark.parametrize(("sender", "reader"), FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_foreign_is_refused_on_packets_and_streams(
    sender: Envelope, reader: Envelope
) -> None:
    with pytest.raises(ForeignPeer):
        reader.open_packet(sender.wrap_packet(encode_message(Ack(1))))
    with pytest.raises(ForeignPeer):
        read(reader, sender.wrap_message(encode_message(Ack(1)), dialled=True), dialled=False)


def test_a_sealed_stream_is_foreign_without_keys() -> None:
    data = envelope(KEYS[0]).wrap_message(encode_message(Ack(1)), dialled=True)
    with pytest.raises(ForeignPeer, match="no keys"):
        read(envelope(), data, dialled=False)


def test_a_changed_label_is_found_by_the_tag() -> None:
    packet = envelope(KEYS[0], label="blue").wrap_packet(b"ping")
    with pytest.raises(ForeignPeer):
        envelope(KEYS[0], label="glue").open_packet(packet.replace(b"blue", b"glue"))


@given(st.data())
def test_no_byte_of_a_sealed_packet_can_be_changed(data: st.DataObject) -> None:
    packet = bytearray(envelope(KEYS[0], label="blue").wrap_packet(b"ping"))
    packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ForeignPeer):
        envelope(*KEYS, label="blue").open_packet(bytes(packet))


def test_a_packet_is_taken_once() -> None:
    reader = envelope(KEYS[0])
    packet = envelope(KEYS[0]).wrap_packet(b"ping")
    assert reader.open_packet(packet) == b"ping"
    with pytest.raises(ReplayedPacket):
        reader.open_packet(packet)


def test_a_stream_is_taken_once_and_a_packet_is_none_of_it() -> None:
    reader, sender = envelope(KEYS[0]), envelope(KEYS[0])
    data = sender.wrap_message(encode_push_pull(STATE), dialled=True)
    assert read(reader, data, dialled=False) == STATE
    for step in (1 << 20, 7):
        with pytest.raises(ReplayedPacket):
            read(reader, data, dialled=False, step=step)
    with pytest.raises(ReplayedPacket):
        read(reader, data, dialled=True)
    assert read(reader, sender.wrap_message(encode_message(Ack(1)), dialled=True), dialled=False)


def test_a_forged_packet_does_not_use_a_nonce_up() -> None:
    reader = envelope(KEYS[0])
    packet = envelope(KEYS[0]).wrap_packet(b"ping")
    with pytest.raises(ForeignPeer):
        reader.open_packet(packet[:-1] + bytes([packet[-1] ^ 1]))
    assert reader.open_packet(packet) == b"ping"


def test_the_nonces_remembered_are_bounded() -> None:
    sender, reader = envelope(KEYS[0]), envelope(KEYS[0])
    packets = [sender.wrap_packet(b"p") for _ in range(MAX_NONCES + 1)]
    for packet in packets:
        reader.open_packet(packet)
    with pytest.raises(ReplayedPacket):
        reader.open_packet(packets[1])
    assert reader.open_packet(packets[0]) == b"p"


@pytest.mark.parametrize("label", ["", "blue"])
@pytest.mark.parametrize("keys", [(), (KEYS[1],)])
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_stream_comes_back_however_it_is_cut(
    label: str, keys: tuple[bytes, ...], step: int
) -> None:
    dialler, taker = envelope(*keys, label=label), envelope(*keys, label=label)
    asked = dialler.wrap_message(encode_push_pull(STATE), dialled=True)
    assert read(taker, asked, dialled=False, step=step) == STATE
    answer = taker.wrap_message(encode_message(Ack(7)), dialled=False)
    assert label.encode() not in answer or not label
    assert read(dialler, answer, dialled=True, step=step) == Ack(7)


def test_a_stream_is_what_memberlist_reads() -> None:
    """Type 10, the length, then sealed; those five bytes and the label are authenticated."""
    plain = encode_message(Ack(1))
    data = envelope(KEYS[0], label="blue").wrap_message(plain, dialled=True)
    assert data[:6] == b"\xf4\x04blue"
    header, sealed = data[6:11], data[11:]
    assert struct.unpack(">BI", header) == (10, len(sealed)) == (10, len(plain) + 29)
    opened = aead.AESGCM(KEYS[0]).decrypt(sealed[1:13], sealed[13:], header + b"blue")
    assert opened == plain


def test_a_sealed_stream_that_announces_too_much_is_refused_before_it_comes() -> None:
    with pytest.raises(OversizedMessage):
        read(envelope(KEYS[0]), struct.pack(">BI", 10, 5 * 1024 * 1024), dialled=False)


def test_a_sealed_half_message_is_a_typed_error() -> None:
    data = envelope(KEYS[0]).wrap_message(encode_push_pull(STATE)[:-1], dialled=True)
    with pytest.raises(ProtocolError, match="cut short"):
        read(envelope(KEYS[0]), data, dialled=False)


def test_a_cluster_begins_to_encrypt_in_three_steps() -> None:
    """Every step understands the one before and the one after."""
    steps = [
        envelope(),
        envelope(KEYS[0], verify_incoming=False, verify_outgoing=False),
        envelope(KEYS[0], verify_incoming=False),
        envelope(KEYS[0]),
    ]
    plain = encode_message(Ack(1))
    for one, two in itertools.pairwise(steps):
        for sender, reader in ((one, two), (two, one)):
            assert reader.open_packet(sender.wrap_packet(plain)) == plain
            stream = sender.wrap_message(plain, dialled=True)
            assert read(reader, stream, dialled=False) == Ack(1)
    assert [step.overhead_bytes for step in steps] == [0, 0, *[SEAL_OVERHEAD_BYTES] * 2]


def test_a_key_that_is_used_or_removed_takes_effect_at_once() -> None:
    ring = GossipKeys([KEYS[0]])
    changing = Envelope(seal=Seal(ring, lambda size: bytes(size)))
    ring.install(KEYS[2])
    ring.use(KEYS[2])
    packet = changing.wrap_packet(b"ping")
    assert envelope(KEYS[2]).open_packet(packet) == b"ping"
    ring.remove(KEYS[0])
    with pytest.raises(ForeignPeer):
        changing.open_packet(envelope(KEYS[0]).wrap_packet(b"ping"))


def test_a_label_over_its_limit_is_refused() -> None:
    assert Envelope(label="l" * 255).overhead_bytes == 257
    with pytest.raises(ConfigError, match="256 bytes"):
        Envelope(label="l" * 256)


@given(st.binary(max_size=40))
def test_garbage_is_a_result_or_a_typed_error(data: bytes) -> None:
    size = label_size(data)
    assert size is None or 0 <= size <= len(data)
    for reader in (envelope(), envelope(KEYS[0]), envelope(KEYS[0], label="blue")):
        for prefix in (b"", b"\xf4", b"\xf4\x04blue", b"\x0a\x00\x00\x00\x1d"):
            try:
                reader.open_packet(prefix + data)
                read(reader, prefix + data, dialled=False)
            except ProtocolError:
                continue
