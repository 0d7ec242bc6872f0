"""Labels and encryption as memberlist 0.5.3 sent them: what it sends is read, and what is sent here
is the same to the byte.

Recorded of ``fakes/memberlist_member``, named *go*, of protocol version 2 (1 where it says
*padded*), with the label *quorum* and the key 0, 1, … 15: a packet with its answer to ping 7 and
its news, and what it writes when it joins.
"""

from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.discovery.wire.envelope import Envelope
from quorumlog.discovery.wire.messages import Ack, Alive, PushPull
from quorumlog.discovery.wire.packet import decode_packet
from quorumlog.discovery.wire.seal import Seal
from quorumlog.errors import ForeignPeer

KEY = bytes(range(16))
LABEL = b"quorum"


@dataclass(frozen=True)
class Sent:
    """``prefix`` bytes of label are in front of either."""

    label: str
    sealed: bool
    packet: bytes
    stream: bytes

    @property
    def prefix(self) -> int:
        return 2 + len(self.label) if self.label else 0


LABELLED = Sent(
    "quorum",
    False,
    packet=bytes.fromhex(
        "f40671756f72756d07020012003a0282a75061796c6f6164c0a55365714e6f070486a441646472a4"
        "7f000001ab496e6361726e6174696f6e01a44d657461a0a44e6f6465a2676fa4506f7274cdb1f7a3"
        "56736ea6010502020504"
    ),
    stream=bytes.fromhex(
        "f40671756f72756d0683a44a6f696ec3a54e6f64657301ac5573657253746174654c656e0087a441"
        "646472a47f000001ab496e6361726e6174696f6e01a44d657461a0a44e616d65a2676fa4506f7274"
        "cdb1f7a5537461746500a356736ea6010502020504"
    ),
)

SEALED = Sent(
    "",
    True,
    packet=bytes.fromhex(
        "01a460aaf1b8c16e5c0ac0394efc3fb005c74e30c1c9e71c395d5e0627209458f0c4bb5ee00a4c8b"
        "f6af09d44fa6a47efe377d17e9a363c0cfa14c4d2bf9c4087e1488295149b4c2ae4ed3673fdba02d"
        "667293ea1952b391e6b0bc4c8d26d895ebbe02f0849bc619c74cbbcf775eab"
    ),
    stream=bytes.fromhex(
        "0a0000007a01e34574b6ad2523f04648b61ac8e83431bfbf931f0ecccde720919c62d2af1689bc99"
        "486f1234c069fe5bd5a71a4ccd02a7dd0b192396e025879d1fa44dc92d7a37c2ea6dc5a836752563"
        "e24ed9f92b6f5ccb4f7e2b5ccf96af219a5b490eb0204a428c7caac2a125349987fcffa69ff38cca"
        "283af6fa5bf06d"
    ),
)

BOTH = Sent(
    "quorum",
    True,
    packet=bytes.fromhex(
        "f40671756f72756d01addcc2423a920d7d0ba5c7947fe6e6f019f25311f0fbe59d39e75f8a796518"
        "32d7cf54a19552251309a187952d67faf7ec677b7e66b0c4997eb054227663cd542fa9cfc5edd756"
        "b0b72139265908a917ee4aad1fef111ce036d77feebf7172fc956d9a6fd7d05eb1d31833955415"
    ),
    stream=bytes.fromhex(
        "f40671756f72756d0a0000007a0194bcb0dd6d94213a9bde3d1aa7ba7306d9e698acb19e164f1b7d"
        "53d55171d998987bd55bc4d164309a015b0f92e1f6e23eac1285406dbf53fca9bfa67dee6dd7b34e"
        "1048daf9194d8c711d502c8edddc3e030105c7db6ad33385054c0e2c6ef5059ee7424ae9980d88bb"
        "4fd8882146936b47fd4822c97206e6"
    ),
)

PADDED = Sent(
    "quorum",
    True,
    packet=bytes.fromhex(
        "f40671756f72756d00e66648a3fb5c7ba796e541d02c14b53fe701795c3cbd0f517790592192bad7"
        "cabe790253abd6c789b97cb012c9bf358d52da24d3a9dc691c931ab8463d4b7d76ca135eba868aea"
        "15e63a94f2c24eb8570e20db79dc9db147f99375bfc6c87eb17e99c30a54e1df6eab91d0dd3a0c8b"
        "63aeddbedd35d9e06c64f3554d"
    ),
    stream=bytes.fromhex(
        "f40671756f72756d0a0000007d001fec1ace969c1a26c083ce3f99ab9f79219787f8c8b6c7127d89"
        "9231d8d0feb565ef174ec9a83d21a71ea142c19915802d65519ecbb3b1ed15bbd17b0324974db6c5"
        "d9c51c45a62cfbb1fa751328375f4e840aebf4219f4bc3223cd4c80ba71a861a026ace3dee918da7"
        "8543c398cce32104d14a92df7f522ee12bdd"
    ),
)

COMPRESSED = Sent(
    "quorum",
    True,
    packet=bytes.fromhex(
        "f40671756f72756d0177a9fc2b411bd9f6934bd8b3864de1fbddf151308f37f02f274e2d474810a3"
        "8b04cf1855cc2cb43696da0e9766c97d358e55e8eefba0204f34566cb6feab18068ebd9a58145905"
        "5d3e3c456cde66904da05e75f78dcce4c20af02c82e04159759ed214a93e7d56e9ece7aadba614"
    ),
    stream=bytes.fromhex(
        "f40671756f72756d0a0000009301754e98115a52412ec6e1c78846dca3c12a1459b4a2c2a7c74fa4"
        "8faf9ff780f958adbd0d183f9e8930509ece103b67f18545634cbfa64287a605788a44eae6f88952"
        "ef3cb28197bd3ae2a65565e65ac992519576897cb70e562c20b564726a0fe26fff0c82e946f25f84"
        "465f0d5b281d1224bb4433304aa42a72331cb826501ce7b3998287b3ffa94346a9aab112e0ad6a93"
    ),
)

ALL = [
    pytest.param(LABELLED, id="label"),
    pytest.param(SEALED, id="encrypted"),
    pytest.param(BOTH, id="both"),
    pytest.param(PADDED, id="both, padded"),
    pytest.param(COMPRESSED, id="both, compressed"),
]


def envelope(sent: Sent, nonce: bytes = b"", label: str | None = None) -> Envelope:
    """What a node with the same label and key has; it encrypts with ``nonce``."""
    seal = Seal(GossipKeys([KEY]), lambda size: nonce[:size]) if sent.sealed else None
    return Envelope(label=sent.label if label is None else label, seal=seal)


@pytest.mark.parametrize("sent", ALL)
def test_what_memberlist_sends_is_read(sent: Sent) -> None:
    messages = decode_packet(envelope(sent).open_packet(sent.packet))
    assert messages[0] == Ack(7)
    assert isinstance(messages[1], Alive)
    assert messages[1].name == "go"
    state = envelope(sent).message_decoder(dialled=False).feed(sent.stream)
    assert isinstance(state, PushPull)
    assert state.join
    assert [record.alive.name for record in state.records] == ["go"]


@pytest.mark.parametrize("sent", [LABELLED, SEALED, BOTH, COMPRESSED])
def test_the_same_is_sent_to_the_byte(sent: Sent) -> None:
    """Packets: the label is authenticated. Streams: the five bytes of header, then the label."""
    packet, stream = sent.packet[sent.prefix :], sent.stream[sent.prefix :]
    nonce = b""
    if sent.sealed:
        label = sent.label.encode()
        packet = AESGCM(KEY).decrypt(packet[1:13], packet[13:], label)
        nonce = stream[6:18]
        header, stream = stream[:5], stream[18:]
        stream = AESGCM(KEY).decrypt(nonce, stream, header + label)
    in_packet = sent.packet[sent.prefix + 1 :]
    assert envelope(sent, in_packet).wrap_packet(packet) == sent.packet
    assert envelope(sent, nonce).wrap_message(stream, dialled=True) == sent.stream


@pytest.mark.parametrize("sent", ALL)
def test_who_answers_on_a_stream_does_not_repeat_the_label(sent: Sent) -> None:
    answer = sent.stream[sent.prefix :]
    assert isinstance(envelope(sent).message_decoder(dialled=True).feed(answer), PushPull)
    here = envelope(sent, bytes(12))
    asked = here.wrap_message(b"message", dialled=True)
    assert here.wrap_message(b"message", dialled=False) == asked[sent.prefix :]


def test_padding_is_taken_off() -> None:
    sealed = PADDED.packet[PADDED.prefix :]
    padded = AESGCM(KEY).decrypt(sealed[1:13], sealed[13:], LABEL)
    assert len(padded) % 16 == 0
    assert envelope(PADDED).open_packet(PADDED.packet) == padded[: -padded[-1]]


@pytest.mark.parametrize("sent", [LABELLED, BOTH, PADDED, COMPRESSED])
@pytest.mark.parametrize("label", ["Quorum", "", "quorumlog", "quoru"])
def test_another_label_is_not_heard(sent: Sent, label: str) -> None:
    with pytest.raises(ForeignPeer):
        envelope(sent, label=label).open_packet(sent.packet)
    with pytest.raises(ForeignPeer):
        envelope(sent, label=label).message_decoder(dialled=False).feed(sent.stream)


@pytest.mark.parametrize("sent", [BOTH, PADDED, COMPRESSED])
def test_a_label_cannot_be_exchanged_for_another(sent: Sent) -> None:
    for label in ("Quorum", ""):
        other = envelope(sent, label=label)
        with pytest.raises(ForeignPeer):
            other.open_packet(other.prefix + sent.packet[sent.prefix :])
        with pytest.raises(ForeignPeer):
            other.message_decoder(dialled=False).feed(other.prefix + sent.stream[sent.prefix :])


@pytest.mark.parametrize("start", [b"\xf4", b"\xf4\x00", b"\xf4\x06quoru"])
def test_a_label_that_is_cut_short_or_empty_is_foreign(start: bytes) -> None:
    for label in ("quorum", ""):
        with pytest.raises(ForeignPeer):
            envelope(LABELLED, label=label).open_packet(start)
