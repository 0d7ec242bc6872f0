"""A segment file: a header page, two pages of marks, then batches one after the other.

The header, little-endian, at byte 0:

======  ====  =================  ===============================================================
offset  size  field              meaning
======  ====  =================  ===============================================================
0       4     magic              ``QLS`` and the format version, 1
4       4     checksum           the checksum algorithm of everything in the file; 1: CRC-32C
8       8     first_index        index of the first batch; the file's name says the same
16      8     base_offset        offset of the first record
24      8     prev_term          term of the batch before the first; 0 when there never was one
32      8     prev_timestamp_ms  timestamp of that batch
40      8     prev_first_index   first_index of the segment before; 0 when there never was one
48      8     created_ms         when the file was made
56      4     crc                CRC-32C of bytes 0 to 55
======  ====  =================  ===============================================================

At bytes 4096 and 8192 the slots (:mod:`quorumlog.log.slots`, magic ``QLM``, version 1) of the mark:

======  ====  ===============  =================================================================
offset  size  field            meaning
======  ====  ===============  =================================================================
0       8     synced_index     every batch through this one was on stable storage
8       8     synced_position  the first byte behind it
16      8     commit_floor     the owner said that everything through this index is committed
======  ====  ===============  =================================================================

Byte 12288: the first batch. The file is preallocated with zeros; a sealed segment, one that has
another behind it, ends with its last batch.
"""

import struct
from dataclasses import dataclass
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import Corrupt
from quorumlog.log.slots import SlotPair
from quorumlog.log.sparse_index import SparseIndex
from quorumlog.ports import Disk, File
from quorumlog.types import Index, Offset, Term

_MAGIC = b"QLS\x01"
_MARK_MAGIC = b"QLM\x01"
_CHECKSUM_CRC32C = 1
_HEADER = struct.Struct("<4sIQQQQQQ")
_CRC = struct.Struct("<I")
_MARK = struct.Struct("<QQQ")
_MARKS_AT = 4096

HEADER_BYTES: Final = _HEADER.size + _CRC.size
DATA_START: Final = SlotPair(_MARK_MAGIC, _MARKS_AT, _MARK.size).end

PREALLOCATION_STEP_BYTES: Final = 64 * 1024
"""What a new segment file has room for; it grows in larger steps."""


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    first_index: Index
    base_offset: Offset
    prev_term: Term
    prev_timestamp_ms: int
    prev_first_index: Index
    created_ms: int

    def encode(self) -> bytes:
        fields = _HEADER.pack(
            _MAGIC,
            _CHECKSUM_CRC32C,
            self.first_index,
            self.base_offset,
            self.prev_term,
            self.prev_timestamp_ms,
            self.prev_first_index,
            self.created_ms,
        )
        return fields + _CRC.pack(crc32c(fields))


def decode_segment_header(raw: bytes, path: str) -> SegmentHeader:
    """The header in the first ``HEADER_BYTES`` of ``raw``.

    Raises:
        Corrupt: it is not one, or of a version or checksum algorithm not known here.
    """
    if len(raw) < HEADER_BYTES:
        raise Corrupt(path, 0, f"a segment header of {HEADER_BYTES} bytes", f"{len(raw)} bytes")
    magic, checksum, *fields = _HEADER.unpack_from(raw)
    if magic != _MAGIC:
        raise Corrupt(path, 0, f"segment magic {_MAGIC.hex()}", magic.hex())
    (crc,) = _CRC.unpack_from(raw, _HEADER.size)
    computed = crc32c(raw[: _HEADER.size])
    if crc != computed:
        raise Corrupt(path, 0, f"segment header checksum {crc:#010x}", f"{computed:#010x}")
    if checksum != _CHECKSUM_CRC32C:
        raise Corrupt(path, 4, f"checksum algorithm {_CHECKSUM_CRC32C}", str(checksum))
    return SegmentHeader(*fields)


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known to be durable in a segment.

    It is written after an fdatasync and becomes durable with the next one: exact after a crash
    of the process, at most one flush behind after a power cut, and never ahead of the truth.
    """

    synced_index: Index
    synced_position: int
    commit_floor: Index


class MarkPages:
    """The two slots that hold the mark of one segment."""

    def __init__(self) -> None:
        self._slots = SlotPair(_MARK_MAGIC, _MARKS_AT, _MARK.size)

    def load(self, file: File) -> Mark | None:
        payload = self._slots.load(file)
        return None if payload is None else Mark(*_MARK.unpack(payload))

    def store(self, file: File, mark: Mark) -> None:
        """Write ``mark``. The file has been synced since the store before."""
        payload = _MARK.pack(mark.synced_index, mark.synced_position, mark.commit_floor)
        self._slots.store(file, payload)


def reserve_segment(disk: Disk, path: str) -> File:
    """An empty segment file with room for its first batches; not durable, without a header."""
    file = disk.open(path, create=True)
    try:
        file.truncate(0)
        file.allocate(DATA_START + PREALLOCATION_STEP_BYTES)
    except BaseException:
        file.close()
        raise
    return file


def write_first_pages(file: File, header: SegmentHeader, commit_floor: Index) -> MarkPages:
    """Write the header and the first mark of a new segment; the caller syncs."""
    marks = MarkPages()
    marks.store(file, Mark(Index(header.first_index - 1), DATA_START, commit_floor))
    file.write_at(0, [header.encode()])
    return marks


class Segment:
    """What is kept in memory of a segment, whether its file exists yet or not.

    Attributes:
        path: of its file.
        end: position behind the last batch; 0: not known, the segment was sealed before open.
        first_term: of its first batch; None while it has none.
        first_timestamp_ms: of its first batch; None while it has none.
        index: its sparse index; None once that is in a file and can be loaded again. Never
            changed after the segment was sealed, but replaced.
    """

    __slots__ = ("end", "first_term", "first_timestamp_ms", "header", "index", "path")

    def __init__(self, path: str, header: SegmentHeader) -> None:
        self.path = path
        self.header = header
        self.end = DATA_START
        self.first_term: Term | None = None
        self.first_timestamp_ms: int | None = None
        self.index: SparseIndex | None = None

    @property
    def first_index(self) -> Index:
        return self.header.first_index

    @property
    def base_offset(self) -> Offset:
        return self.header.base_offset
