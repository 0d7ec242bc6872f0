"""The header of a segment file, little-endian, at byte 0:

======  ====  =================  ===============================================================
offset  size  field              meaning
======  ====  =================  ===============================================================
0       4     magic              ``QLS`` and the format version, 1
4       4     checksum           the checksum algorithm of everything in the file; 1: CRC-32C
8       8     first_index        index of the first batch; the file's name says the same
16      8     base_offset        offset of the first record
24      8     prev_term          term of the batch before the first; 0 when there never was one
32      8     prev_timestamp_ms  timestamp of that batch
40      8     created_ms         when the file was made
48      4     generation         0: as it was appended; each compaction adds one
52      4     cipher             0: none; 1: AES-256-GCM with the three fields that follow
56      32    key_id             name of the key in the key ring, UTF-8, filled with zeros
88      32    salt               makes the segment's own key from that one
120     16    tag                authenticates bytes 0 to 119
136     4     crc                CRC-32C of bytes 0 to 135
======  ====  =================  ===============================================================
"""

import struct
from dataclasses import dataclass
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import Corrupt
from quorumlog.types import Index, Offset, Term

_MAGIC = b"QLS\x01"
_CHECKSUM_CRC32C = 1
_CIPHER_NONE = 0
_CIPHER_AES_256_GCM = 1
_HEADER = struct.Struct("<4sIQQQQQII32s32s")
_TAG = struct.Struct("16s")
_CRC = struct.Struct("<I")
_CHECKSUM_AT = 4
_CIPHER_AT = 52
_KEY_ID_AT = 56

HEADER_BYTES: Final = _HEADER.size + _TAG.size + _CRC.size
MAX_KEY_ID_BYTES: Final = 32
SALT_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class KeyStamp:
    """Which key a segment is encrypted with, see :mod:`quorumlog.log.cipher`."""

    key_id: str
    salt: bytes
    tag: bytes


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    first_index: Index
    base_offset: Offset
    prev_term: Term
    prev_timestamp_ms: int
    created_ms: int
    generation: int = 0
    key: KeyStamp | None = None

    def authenticated(self) -> bytes:
        """The encoded fields before the tag: what it authenticates."""
        key = self.key
        return _HEADER.pack(
            _MAGIC,
            _CHECKSUM_CRC32C,
            self.first_index,
            self.base_offset,
            self.prev_term,
            self.prev_timestamp_ms,
            self.created_ms,
            self.generation,
            _CIPHER_NONE if key is None else _CIPHER_AES_256_GCM,
            b"" if key is None else key.key_id.encode(),
            b"" if key is None else key.salt,
        )

    def encode(self) -> bytes:
        fields = self.authenticated() + _TAG.pack(b"" if self.key is None else self.key.tag)
        return fields + _CRC.pack(crc32c(fields))


def decode_segment_header(raw: bytes, path: str) -> SegmentHeader:
    """The header in the first ``HEADER_BYTES`` of ``raw``; its tag is not checked.

    Raises:
        Corrupt: it is not one, or of a version, checksum algorithm or cipher not known here.
    """
    if len(raw) < HEADER_BYTES:
        raise Corrupt(path, 0, f"a segment header of {HEADER_BYTES} bytes", f"{len(raw)} bytes")
    magic, checksum, *numbers, cipher, key_id, salt = _HEADER.unpack_from(raw)
    if magic != _MAGIC:
        raise Corrupt(path, 0, f"segment magic {_MAGIC.hex()}", magic.hex())
    crc_at = HEADER_BYTES - _CRC.size
    (crc,) = _CRC.unpack_from(raw, crc_at)
    computed = crc32c(raw[:crc_at])
    if crc != computed:
        raise Corrupt(path, 0, f"segment header checksum {crc:#010x}", f"{computed:#010x}")
    if checksum != _CHECKSUM_CRC32C:
        raise Corrupt(path, _CHECKSUM_AT, f"checksum algorithm {_CHECKSUM_CRC32C}", str(checksum))
    if cipher == _CIPHER_NONE:
        return _header_of(numbers, None)
    if cipher != _CIPHER_AES_256_GCM:
        raise Corrupt(
            path, _CIPHER_AT, f"cipher {_CIPHER_NONE} or {_CIPHER_AES_256_GCM}", str(cipher)
        )
    (tag,) = _TAG.unpack_from(raw, _HEADER.size)
    try:
        name = key_id.rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise Corrupt(path, _KEY_ID_AT, "the name of a key in UTF-8", repr(key_id)) from error
    return _header_of(numbers, KeyStamp(name, salt, tag))


def _header_of(numbers: list[int], key: KeyStamp | None) -> SegmentHeader:
    first_index, base_offset, prev_term, prev_timestamp_ms, created_ms, generation = numbers
    return SegmentHeader(
        Index(first_index),
        Offset(base_offset),
        Term(prev_term),
        prev_timestamp_ms,
        created_ms,
        generation,
        key,
    )
