"""Decoders of what is around gossip: labels, encryption, and the file of its keys."""

import os
from functools import cache
from random import Random
from typing import Final

from fuzz.target import Target, expect
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.discovery.wire.codec import encode_message
from quorumlog.discovery.wire.envelope import Envelope
from quorumlog.discovery.wire.messages import Ping
from quorumlog.discovery.wire.seal import Seal
from quorumlog.errors import ConfigError, ProtocolError

_KEYS: Final = (b"k" * 32, b"other" * 3 + b"!")
_STEP_BYTES: Final = 5


@cache
def _seal() -> Seal:
    """One for all inputs: the ciphers take a while to make."""
    return Seal(GossipKeys(_KEYS), Random(1).randbytes)


def _envelope(*, verify_incoming: bool = True) -> Envelope:
    """A new one: it remembers what it took."""
    return Envelope(label="orders", seal=_seal(), verify_incoming=verify_incoming)


def _packets() -> list[bytes]:
    plain = encode_message(Ping(7, "n"))
    return [_envelope().wrap_packet(plain), Envelope(label="orders").wrap_packet(plain)]


def _check_packet(data: bytes) -> None:
    plain = _envelope(verify_incoming=False).open_packet(data)
    prefix = _envelope().prefix
    expect(data.startswith(prefix), "what is taken has the label")
    try:
        expect(_envelope().open_packet(data) == plain, "what is sealed means the same to all")
    except ProtocolError:
        expect(data == prefix + plain, "what opens no key is taken as it is")


def _messages() -> list[bytes]:
    plain = encode_message(Ping(7, "n"))
    return [
        _envelope().wrap_message(plain, dialled=True),
        Envelope(label="orders").wrap_message(plain, dialled=True),
    ]


def _check_message(data: bytes) -> None:
    whole = _envelope(verify_incoming=False).message_decoder(dialled=False).feed(data)
    pieces = _envelope(verify_incoming=False).message_decoder(dialled=False)
    for at in range(0, len(data), _STEP_BYTES):
        found = pieces.feed(data[at : at + _STEP_BYTES])
        if found is not None:
            expect(found == whole, "a stream means the same in pieces")
            return
    expect(whole is None, "a stream means the same in pieces")


@cache
def _key_file() -> int:
    """A file in memory, that only this user may read."""
    descriptor = os.memfd_create("gossip-keys")
    os.fchmod(descriptor, 0o600)
    return descriptor


def _check_key_file(data: bytes) -> None:
    descriptor = _key_file()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
    ring = GossipKeys.load(f"/proc/self/fd/{descriptor}")
    expect(GossipKeys(ring.keys).keys == ring.keys, "the keys can be a ring")


GOSSIP_TARGETS: Final = (
    Target("gossip-envelope", _check_packet, (ProtocolError,), _packets),
    Target("gossip-envelope-stream", _check_message, (ProtocolError,), _messages),
    Target(
        "gossip-keys",
        _check_key_file,
        (ConfigError,),
        lambda: [
            b'["a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="]',
            b'["a2tra2tra2tra2tra2traw==", "b3RoZXJvdGhlcm90aGVyIQ=="]',
        ],
    ),
)
