"""A UDP packet: one message or several, checksummed, perhaps compressed.

::

    12 | CRC-32 (IEEE, big-endian) of the rest | message
    7  | n (1 byte) | n x length (2 bytes, big-endian) | n messages          compound
    9  | msgpack {Algo: 0, Buf: LZW}                                         compress

Compressed may hold compound, and compound messages: what memberlist sends. Anything deeper is
refused, as is a packet that asks twice for an answer: one packet sent from a false address must not
become many at somebody else's.
"""

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from quorumlog.discovery.wire.codec import decode_message
from quorumlog.discovery.wire.fields import Fields, read_bytes, read_int, unpack
from quorumlog.discovery.wire.lzw import decompress
from quorumlog.discovery.wire.messages import MessageType, PacketMessage
from quorumlog.errors import ProtocolError

MAX_PARTS: Final = 255
CRC_OVERHEAD_BYTES: Final = 5
COMPOUND_OVERHEAD_BYTES: Final = 2
PART_OVERHEAD_BYTES: Final = 2

CACHED_NEWS: Final = 2048
"""Different pieces of news whose decoded form is kept: each comes many times, from everybody."""

CACHED_NEWS_BYTES: Final = 1024
"""Longer ones are decoded anew, so what is kept stays below 2 MiB and its decoded form."""

MAX_ASKED: Final = 1
"""Pings, of either kind, in one packet: each is answered where its sender says."""

MAX_DECOMPRESSED_BYTES: Final = 16 * 1024
"""Of a packet, and of what is compressed in it: some milliseconds of work. memberlist fills 1,400
bytes before it compresses, unless it is told to send more."""

_ASKS: Final = frozenset(map(int, (MessageType.PING, MessageType.INDIRECT_PING)))
_COMPOUND: Final = bytes([MessageType.COMPOUND])
_COMPRESS: Final = bytes([MessageType.COMPRESS])
_WRAPPED: Final = frozenset(map(int, (MessageType.COMPOUND, MessageType.COMPRESS)))
_NEWS: Final = frozenset(
    map(int, (MessageType.ALIVE, MessageType.SUSPECT, MessageType.DEAD, MessageType.USER))
)
_CRC_HEADER = struct.Struct(">BI")


def encode_packet(parts: Sequence[bytes], *, checksum: bool = True) -> bytes:
    """One packet of 1 to 255 encoded messages; without a checksum for versions below 5."""
    body = parts[0] if len(parts) == 1 else _compound(parts)
    if not checksum:
        return body
    return _CRC_HEADER.pack(MessageType.CRC, zlib.crc32(body)) + body


def decode_packet(data: bytes) -> list[PacketMessage]:
    """Every message of a packet, in order; all of them are well formed or ``ProtocolError``.

    At most 255 messages out of 65,535 bytes, or out of ``MAX_DECOMPRESSED_BYTES``.
    """
    body = data
    if len(data) >= CRC_OVERHEAD_BYTES and data[0] == MessageType.CRC:
        _, expected = _CRC_HEADER.unpack_from(data)
        body = data[CRC_OVERHEAD_BYTES:]
        if zlib.crc32(body) != expected:
            raise ProtocolError("the checksum of a gossip packet is wrong")
    if body[:1] == _COMPRESS:
        compressed = read_compressed(unpack(body[1:]), MAX_DECOMPRESSED_BYTES)
        body = decompress(compressed, MAX_DECOMPRESSED_BYTES)
    parts = _split(body) if body[:1] == _COMPOUND else [body]
    if sum(part[0] in _ASKS for part in parts if part) > MAX_ASKED:
        raise ProtocolError(f"a gossip packet asks for more than {MAX_ASKED} answer")
    return [_decode(part) for part in parts]


def read_compressed(fields: Fields, limit_bytes: int) -> bytes:
    """The LZW in a compress message, at most ``limit_bytes``."""
    if read_int(fields, b"Algo", 255) != 0:
        raise ProtocolError("a gossip message is compressed with an unknown algorithm")
    return read_bytes(fields, b"Buf", limit_bytes)


def _compound(parts: Sequence[bytes]) -> bytes:
    lengths = struct.pack(f">{len(parts)}H", *map(len, parts))
    return b"".join((bytes([MessageType.COMPOUND, len(parts)]), lengths, *parts))


def _decode(part: bytes) -> PacketMessage:
    kind = part[0] if part else None
    if kind in _NEWS and len(part) <= CACHED_NEWS_BYTES:
        return _decode_news(part)
    if kind in _WRAPPED:
        raise ProtocolError("a gossip packet is wrapped too often")
    return decode_message(part)


@lru_cache(maxsize=CACHED_NEWS)
def _decode_news(data: bytes) -> PacketMessage:
    return decode_message(data)


def _split(data: bytes) -> list[bytes]:
    count = data[1] if len(data) > 1 else 0
    start = COMPOUND_OVERHEAD_BYTES + count * PART_OVERHEAD_BYTES
    if count == 0 or len(data) < start:
        raise ProtocolError("a compound gossip packet is cut short")
    parts = []
    for length in struct.unpack_from(f">{count}H", data, COMPOUND_OVERHEAD_BYTES):
        end = start + length
        parts.append(data[start:end])
        start = end
    if len(data) < start:
        raise ProtocolError("a part of a compound gossip packet is cut short")
    return parts
