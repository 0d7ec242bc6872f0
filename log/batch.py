"""The batch: unit of append, checksum, replication, deduplication and fetch.

A batch is a header of 80 bytes and a body. Little-endian throughout:

======  ====  ==============  ==================================================================
offset  size  field           meaning
======  ====  ==============  ==================================================================
0       4     magic           ``QLB`` and the format version, 1
4       4     body_crc        CRC-32C of the body, computed by the producer
8       4     body_length     bytes of the body as stored
12      4     record_count    offsets the batch takes; 0 unless kind is RECORDS or GAP
16      8     index           the batch's number in the Raft log, from 1
24      8     term            the leader's term
32      8     base_offset     offset of the first record; of the next record when there is none
40      8     timestamp_ms    when the leader appended it, never decreasing along the log
48      8     producer_id     0: no deduplication
56      8     sequence        the producer's number of the first record
64      4     producer_epoch
68      1     kind            see :class:`Kind`
69      1     codec           0: the body is stored as it is
70      1     flags           bit 0, SPARSE: compaction took records out, ``offset_deltas`` in the
                              body say which stayed; bit 1, ENCRYPTED: see docs/format.md
71      1     reserved        zero
72      4     index_count     indexes the batch takes: 1, of a GAP any number
76      4     header_crc      CRC-32C of bytes 0 to 75
======  ====  ==============  ==================================================================

The body of a RECORDS batch is the protobuf message ``quorumlog.log.v1.RecordBatch``; without
SPARSE it has ``record_count`` records.
"""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import ProtocolError
from quorumlog.log.fast_dataclass import fast_dataclass
from quorumlog.types import MAX_BATCH_BYTES, Buffer, Index, Offset, Term

MAGIC: Final = int.from_bytes(b"QLB\x01", "little")
HEADER_SIZE: Final = 80
MAX_BODY_BYTES: Final = MAX_BATCH_BYTES
MAX_RECORDS_PER_BATCH: Final = 1_000_000

CODEC_NONE: Final = 0
CODEC_ZSTD: Final = 1

SPARSE: Final = 1
ENCRYPTED: Final = 2
ENCRYPTION_OVERHEAD_BYTES: Final = 32
"""How much longer the body of an ENCRYPTED batch is than what was encrypted."""

MAX_GAP: Final = 2**32 - 1
"""The most indexes, and the most offsets, one GAP stands for."""

_FIELDS = struct.Struct("<IIIIQQQQQQIBBHI")
_CRC = struct.Struct("<I")
_CRC_AT = HEADER_SIZE - _CRC.size


class Kind(IntEnum):
    RECORDS = 0
    NOOP = 1
    """A new leader's first batch (Raft §8)."""
    CONFIG = 2
    """The voters and learners of this group (Raft §6)."""
    COMMAND = 3
    """A command to the group's state machine."""
    GAP = 4
    """Stands for batches of one term whose records are all gone; has no body."""


@fast_dataclass(frozen=True, slots=True)
class BatchHeader:
    body_crc: int
    body_length: int
    record_count: int
    index: Index
    term: Term
    base_offset: Offset
    timestamp_ms: int
    producer_id: int = 0
    sequence: int = 0
    producer_epoch: int = 0
    kind: Kind = Kind.RECORDS
    codec: int = CODEC_NONE
    flags: int = 0
    index_count: int = 1

    @property
    def next_index(self) -> Index:
        return Index(self.index + self.index_count)

    @property
    def next_offset(self) -> Offset:
        return Offset(self.base_offset + self.record_count)

    @property
    def size_bytes(self) -> int:
        """Header and body, as stored."""
        return HEADER_SIZE + self.body_length

    def encode(self) -> bytes:
        fields = _FIELDS.pack(
            MAGIC,
            self.body_crc,
            self.body_length,
            self.record_count,
            self.index,
            self.term,
            self.base_offset,
            self.timestamp_ms,
            self.producer_id,
            self.sequence,
            self.producer_epoch,
            self.kind,
            self.codec,
            self.flags,
            self.index_count,
        )
        return fields + _CRC.pack(crc32c(fields))


@fast_dataclass(frozen=True, slots=True)
class Draft:
    """A batch before the leader gave it its place: what the producer made."""

    body: Buffer
    body_crc: int
    record_count: int
    kind: Kind = Kind.RECORDS
    codec: int = CODEC_NONE
    producer_id: int = 0
    producer_epoch: int = 0
    sequence: int = 0

    @staticmethod
    def of(body: Buffer, record_count: int = 0, kind: Kind = Kind.RECORDS) -> "Draft":
        """A draft without a producer, its checksum computed here."""
        return Draft(body, crc32c(body), record_count, kind)

    def stamp(self, index: int, term: int, base_offset: int, timestamp_ms: int) -> "Batch":
        header = BatchHeader(
            self.body_crc,
            len(self.body),
            self.record_count,
            Index(index),
            Term(term),
            Offset(base_offset),
            timestamp_ms,
            self.producer_id,
            self.sequence,
            self.producer_epoch,
            self.kind,
            self.codec,
        )
        return Batch(header, header.encode(), self.body)


@fast_dataclass(frozen=True, slots=True)
class Batch:
    """A batch in its place. ``head`` is the encoded header; the buffers are never changed."""

    header: BatchHeader
    head: Buffer
    body: Buffer

    @property
    def size_bytes(self) -> int:
        return HEADER_SIZE + len(self.body)


Fields = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]
"""A header's fields in the order of the format, the magic first; see :func:`decode_fields`."""


def decode_header(buffer: Buffer, at: int = 0) -> BatchHeader:
    """The header at byte ``at`` of ``buffer``.

    Raises:
        ProtocolError: too short, wrong magic or checksum, or a field out of its bounds. The body is
            not looked at.
    """
    return header_of(decode_fields(buffer, at))


def header_of(fields: Fields) -> BatchHeader:
    """The header whose fields :func:`decode_fields` returned."""
    _, body_crc, body_length, record_count, index, term, base_offset, timestamp_ms, *rest = fields
    producer_id, sequence, producer_epoch, kind, codec, flags, index_count = rest
    return BatchHeader(
        body_crc,
        body_length,
        record_count,
        Index(index),
        Term(term),
        Offset(base_offset),
        timestamp_ms,
        producer_id,
        sequence,
        producer_epoch,
        Kind(kind),
        codec,
        flags,
        index_count,
    )


def decode_fields(buffer: Buffer, at: int) -> Fields:
    """The fields of the header at byte ``at``, checked as :func:`decode_header` does.

    For loops over many batches that need little of each: a third of the cost of a BatchHeader.
    """
    if len(buffer) - at < HEADER_SIZE:
        raise ProtocolError(f"a batch header has {HEADER_SIZE} bytes, here are {len(buffer) - at}")
    fields: Fields = _FIELDS.unpack_from(buffer, at)
    magic, _, body_length, record_count = fields[:4]
    kind = fields[11]
    if magic != MAGIC:
        raise ProtocolError(f"batch magic is {magic:#010x}, expected {MAGIC:#010x}")
    (header_crc,) = _CRC.unpack_from(buffer, at + _CRC_AT)
    computed = crc32c(memoryview(buffer)[at : at + _CRC_AT])
    if computed != header_crc:
        raise ProtocolError(f"header checksum is {header_crc:#010x}, computed {computed:#010x}")
    if body_length > MAX_BODY_BYTES or kind != Kind.RECORDS or fields[13] or fields[14] != 1:
        _check_unusual(fields)
    elif not 0 < record_count <= MAX_RECORDS_PER_BATCH:
        raise ProtocolError(f"a RECORDS batch cannot have {record_count} records")
    return fields


def _check_unusual(fields: Fields) -> None:
    """The bounds of a header that is not a plain RECORDS batch's."""
    body_length, record_count = fields[2:4]
    kind, _, flags, index_count = fields[11:]
    if kind > Kind.GAP:
        raise ProtocolError(f"unknown batch kind {kind}")
    if flags & ~(SPARSE | ENCRYPTED) or (flags & SPARSE and kind != Kind.RECORDS):
        raise ProtocolError(f"a {Kind(kind).name} batch cannot have the flags {flags:#x}")
    limit = MAX_BODY_BYTES + (ENCRYPTION_OVERHEAD_BYTES if flags & ENCRYPTED else 0)
    if body_length > limit:
        raise ProtocolError(f"body length {body_length} is over the limit {limit}")
    if kind == Kind.GAP:
        if body_length or flags or not record_count or not index_count:
            raise ProtocolError("a GAP has no body and no flags, and takes indexes and offsets")
        return
    if index_count != 1:
        raise ProtocolError(f"a {Kind(kind).name} batch cannot take {index_count} indexes")
    if record_count > MAX_RECORDS_PER_BATCH or (record_count == 0) == (kind == Kind.RECORDS):
        raise ProtocolError(f"a {Kind(kind).name} batch cannot have {record_count} records")


def check_body(header: BatchHeader, body: Buffer) -> None:
    """Raise ProtocolError unless ``body`` has the length and checksum its header says."""
    if len(body) != header.body_length:
        raise ProtocolError(f"body has {len(body)} bytes, its header says {header.body_length}")
    computed = crc32c(body)
    if computed != header.body_crc:
        raise ProtocolError(f"body checksum is {header.body_crc:#010x}, computed {computed:#010x}")


def iterate_batches(buffer: Buffer) -> Iterator[Batch]:
    """The batches that stand one after the other in ``buffer``, as views of it, fully checked.

    Raises:
        ProtocolError: at the first batch that is damaged or incomplete.
    """
    view = memoryview(buffer)
    at = 0
    while at < len(view):
        header = decode_header(view, at)
        body_at = at + HEADER_SIZE
        end = body_at + header.body_length
        body = view[body_at:end]
        check_body(header, body)
        yield Batch(header, view[at:body_at], body)
        at = end


def join_batches(batches: Sequence[Batch]) -> bytes:
    """The batches as they stand on disk and on the wire."""
    parts: list[Buffer] = []
    for batch in batches:
        parts.append(batch.head)
        parts.append(batch.body)
    return b"".join(parts)
