"""What is around packets and streams: a label in clear, and encryption.

::

    label     244 | length (1 byte) | label
    packet    [label] sealed or plain packet
    stream    [label, from the one who dialled] message
              message, sealed: 10 | length of the rest (4 bytes, big-endian) | sealed

What is sealed (``wire.seal``) authenticates the label too; on a stream, the five bytes before it
and then the label.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from quorumlog.discovery.wire.fields import utf8
from quorumlog.discovery.wire.messages import MessageType, StreamMessage
from quorumlog.discovery.wire.seal import BODY_AT, NONCE_AT, SEAL_OVERHEAD_BYTES, Seal
from quorumlog.discovery.wire.stream import MAX_STREAM_BYTES, StreamDecoder, last
from quorumlog.errors import (
    ConfigError,
    ForeignPeer,
    InvalidArgument,
    OversizedMessage,
    ProtocolError,
    ReplayedPacket,
)

MAX_LABEL_BYTES: Final = 255
MAX_NONCES: Final = 8192
"""Nonces of packets and streams taken, remembered so that none of them is taken again."""

_LABEL: Final = 244
_LABEL_HEADER_BYTES: Final = 2
_MAX_PADDING_BYTES: Final = 16
_STREAM_HEADER = struct.Struct(">BI")


class Envelope:
    """Wraps what one node sends and unwraps what it gets.

    Without a ``seal`` nothing is encrypted, and what is encrypted is foreign. With one,
    ``verify_outgoing`` False sends plain and ``verify_incoming`` False takes plain too: how a
    running cluster begins to encrypt. Raises ``ConfigError`` for a label that is too long.
    """

    def __init__(
        self,
        *,
        label: str = "",
        seal: Seal | None = None,
        verify_incoming: bool = True,
        verify_outgoing: bool = True,
    ) -> None:
        try:
            self.label = utf8(label, "gossip label")
        except InvalidArgument as error:
            raise ConfigError(str(error)) from error
        if len(self.label) > MAX_LABEL_BYTES:
            raise ConfigError(
                f"the gossip label has {len(self.label)} bytes and the limit is {MAX_LABEL_BYTES}"
            )
        self.prefix = bytes([_LABEL, len(self.label)]) + self.label if label else b""
        self.seal = seal
        self.must_be_sealed = seal is not None and verify_incoming
        self._sender = seal if verify_outgoing else None
        self._nonces: OrderedDict[bytes, None] = OrderedDict()

    @property
    def overhead_bytes(self) -> int:
        """What a packet grows by."""
        return len(self.prefix) + (0 if self._sender is None else SEAL_OVERHEAD_BYTES)

    @property
    def is_closed(self) -> bool:
        """Nothing is taken in clear, and nothing sent."""
        return self.must_be_sealed and self._sender is not None

    def wrap_packet(self, data: bytes) -> bytes:
        if self._sender is None:
            return self.prefix + data
        return self.prefix + self._sender.seal(data, self.label)

    def open_packet(self, data: bytes) -> bytes:
        """The packet inside. Raises ``ForeignPeer`` and ``ReplayedPacket``."""
        size = label_size(data)
        if size is None or data[:size] != self.prefix:
            raise ForeignPeer("a gossip packet has another label")
        inside = data[size:]
        if self.seal is None:
            return inside
        try:
            plain = self.seal.open(inside, self.label)
        except ForeignPeer:
            if self.must_be_sealed:
                raise
            return inside
        self.take_nonce(inside)
        return plain

    def wrap_message(self, data: bytes, *, dialled: bool) -> bytes:
        """One message of a stream; only who ``dialled`` names the label."""
        prefix = self.prefix if dialled else b""
        if self._sender is None:
            return prefix + data
        header = _STREAM_HEADER.pack(MessageType.ENCRYPT, SEAL_OVERHEAD_BYTES + len(data))
        return prefix + header + self._sender.seal(data, header + self.label)

    def message_decoder(self, *, dialled: bool) -> "EnvelopeDecoder":
        """For the one message that comes over a stream which this node ``dialled`` or took."""
        return EnvelopeDecoder(self, label_expected=not dialled)

    def take_nonce(self, sealed: bytes) -> None:
        """Note that ``sealed`` was opened. Raises ``ReplayedPacket`` if it was before."""
        nonce = sealed[NONCE_AT:BODY_AT]
        if nonce in self._nonces:
            raise ReplayedPacket("encrypted gossip came a second time")
        self._nonces[nonce] = None
        if len(self._nonces) > MAX_NONCES:
            self._nonces.popitem(last=False)


class EnvelopeDecoder:
    """Takes the bytes of one stream as they come: ``feed`` returns the message once it is whole,
    ``steps`` the same by steps (``StreamDecoder``).

    Raises ``ProtocolError`` (``ForeignPeer`` for another label or key, ``ReplayedPacket``); it is
    spent then, and after the message. Memory: at most twice ``MAX_STREAM_BYTES``.
    """

    def __init__(self, envelope: Envelope, *, label_expected: bool) -> None:
        self._envelope = envelope
        self._label_expected = label_expected
        self._waiting = bytearray()
        self._plain: StreamDecoder | None = None

    def feed(self, data: bytes) -> StreamMessage | None:
        return last(self.steps(data))

    def steps(self, data: bytes) -> Iterator[StreamMessage | None]:
        if self._plain is not None:
            yield from self._plain.steps(data)
            return
        self._waiting += data
        if self._label_expected and not self._take_label():
            return
        if not self._waiting:
            return
        if self._waiting[0] == MessageType.ENCRYPT:
            yield from self._open()
            return
        if self._envelope.must_be_sealed:
            raise ForeignPeer("a gossip stream is not encrypted")
        self._plain = StreamDecoder()
        yield from self._plain.steps(bytes(self._waiting))

    def _take_label(self) -> bool:
        size = label_size(self._waiting)
        if size is None:
            return False
        if self._waiting[:size] != self._envelope.prefix:
            raise ForeignPeer("a gossip stream has another label")
        del self._waiting[:size]
        self._label_expected = False
        return True

    def _open(self) -> Iterator[StreamMessage | None]:
        seal = self._envelope.seal
        if seal is None:
            raise ForeignPeer("a gossip stream is encrypted and this node has no keys")
        if len(self._waiting) < _STREAM_HEADER.size:
            return
        _, size_bytes = _STREAM_HEADER.unpack_from(self._waiting)
        if size_bytes > MAX_STREAM_BYTES + SEAL_OVERHEAD_BYTES + _MAX_PADDING_BYTES:
            raise OversizedMessage(f"an encrypted gossip stream of {size_bytes} bytes is announced")
        end = _STREAM_HEADER.size + size_bytes
        if len(self._waiting) < end:
            return
        header = bytes(self._waiting[: _STREAM_HEADER.size])
        sealed = bytes(self._waiting[_STREAM_HEADER.size : end])
        plain = seal.open(sealed, header + self._envelope.label)
        self._envelope.take_nonce(sealed)
        message = None
        for message in StreamDecoder().steps(plain):
            yield message
        if message is None:
            raise ProtocolError("an encrypted gossip stream is cut short")


def label_size(data: bytes | bytearray) -> int | None:
    """Bytes of the label in front of ``data``, 0 without one; None while it is not all there."""
    if not data:
        return None
    if data[0] != _LABEL:
        return 0
    if len(data) < _LABEL_HEADER_BYTES or len(data) < _LABEL_HEADER_BYTES + data[1]:
        return None
    return _LABEL_HEADER_BYTES + data[1]
