"""Checksums made right again, so that mutations get past them to what they guard."""

import struct
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.log.batch import HEADER_SIZE
from quorumlog.log.segment_header import HEADER_BYTES
from quorumlog.log.slots import SLOT_STRIDE

_CRC: Final = struct.Struct("<I")
_BODY_CRC_AT: Final = 4
_BODY_LENGTH_AT: Final = 8
_BATCH_MAGIC: Final = b"QLB\x01"
_SEGMENT_MAGIC: Final = b"QLS\x01"
_REST_AT: Final = 8


def repair_batch_header(data: bytes) -> bytes:
    return _repair_block(data, 0, HEADER_SIZE, _BATCH_MAGIC)


def repair_batches(data: bytes) -> bytes:
    """Magic and both checksums of every batch, as far as the lengths lead from one to the next."""
    fixed = bytearray(data)
    at = 0
    while at + HEADER_SIZE <= len(fixed):
        (body_length,) = _CRC.unpack_from(fixed, at + _BODY_LENGTH_AT)
        end = at + HEADER_SIZE + body_length
        fixed[at : at + 4] = _BATCH_MAGIC
        _CRC.pack_into(fixed, at + _BODY_CRC_AT, crc32c(bytes(fixed[at + HEADER_SIZE : end])))
        crc_at = at + HEADER_SIZE - _CRC.size
        _CRC.pack_into(fixed, crc_at, crc32c(bytes(fixed[at:crc_at])))
        at = end
    return bytes(fixed)


def repair_request(data: bytes) -> bytes:
    """The batches of an AppendRequest, see replication/wire.py."""
    fields_bytes = 41
    if data[:1] != b"\x03":
        return data
    return data[:fields_bytes] + repair_batches(data[fields_bytes:])


def repair_segment_header(data: bytes) -> bytes:
    return _repair_block(data, 0, HEADER_BYTES, _SEGMENT_MAGIC)


def repair_index(data: bytes) -> bytes:
    return _repair_rest(data, b"QLI\x01")


def repair_state(data: bytes) -> bytes:
    return _repair_rest(data, b"QLP\x01")


def repair_slots(data: bytes, magic: bytes, position: int, slot_bytes: int) -> bytes:
    """Both slots of a pair at ``position``, where ``data`` has them."""
    for at in (position, position + SLOT_STRIDE):
        data = _repair_block(data, at, slot_bytes, magic)
    return data


def _repair_block(data: bytes, at: int, size_bytes: int, magic: bytes) -> bytes:
    """A block that begins with ``magic`` and ends with the checksum of the rest of it."""
    if len(data) < at + size_bytes:
        return data
    block = magic + data[at + len(magic) : at + size_bytes - _CRC.size]
    return data[:at] + block + _CRC.pack(crc32c(block)) + data[at + size_bytes :]


def _repair_rest(data: bytes, magic: bytes) -> bytes:
    """A file that begins with ``magic`` and the checksum of all that follows."""
    if len(data) < _REST_AT:
        return data
    return magic + _CRC.pack(crc32c(data[_REST_AT:])) + data[_REST_AT:]
