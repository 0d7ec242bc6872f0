"""A UDP packet: one message or several, checksummed, perhaps compressed.

::

    12 | CRC-32 (IEEE, big-endian) of the rest | message
    7  | n (1 byte) | n x length (2 bytes, big-endian) | n messages          compound
    9  | msgpack {Algo: 0, Buf: LZW}                                         compress

Compressed may hold compound and the other way round; at most four layers are unwrapped.
"""

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from quorumlog.discovery.wire.codec import decode_message
from quorumlog.discovery.wire.fields import MAX_PACKET_BYTES, Fields, read_bytes, read_int, unpack
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

_MAX_LAYERS: Final = 4
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
    """Every message of a packet, in order; all of them are well formed or ``ProtocolError``."""
    body = data
    if len(data) >= CRC_OVERHEAD_BYTES and data[0] == MessageType.CRC:
        _, expected = _CRC_HEADER.unpack_from(data)
        body = data[CRC_OVERHEAD_BYTES:]
        if zlib.crc32(body) != expected:
            raise ProtocolError("the checksum of a gossip packet is wrong")
    messages: list[PacketMessage] = []
    _unwrap(body, _MAX_LAYERS, messages)
    return messages


def decompress_fields(fields: Fields, limit_bytes: int) -> bytes:
    """What a compress message holds, at most ``limit_bytes``."""
    if read_int(fields, b"Algo", 255) != 0:
        raise ProtocolError("a gossip message is compressed with an unknown algorithm")
    return decompress(read_bytes(fields, b"Buf", limit_bytes), limit_bytes)


def _compound(parts: Sequence[bytes]) -> bytes:
    lengths = struct.pack(f">{len(parts)}H", *map(len, parts))
    return b"".join((bytes([MessageType.COMPOUND, len(parts)]), lengths, *parts))


def _unwrap(data: bytes, layers: int, messages: list[PacketMessage]) -> None:
    kind = data[0] if data else None
    if kind in _NEWS and len(data) <= CACHED_NEWS_BYTES:
        messages.append(_decode_news(data))
        return
    if kind not in (MessageType.COMPOUND, MessageType.COMPRESS):
        messages.append(decode_message(data))
        return
    if layers == 0:
        raise ProtocolError("a gossip packet is wrapped too often")
    if kind == MessageType.COMPRESS:
        inner = decompress_fields(unpack(data[1:]), MAX_PACKET_BYTES)
        _unwrap(inner, layers - 1, messages)
        return
    for part in _split(data):
        _unwrap(part, layers - 1, messages)


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
