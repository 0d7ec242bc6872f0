"""The sparse index of a segment: where some of its batches stand.

An entry stands for the first batch, for the first batch of every term, and for a batch every
``interval_bytes``: so the entry at or before an index also tells its term exactly. Offsets and
timestamps never decrease along a log, hence one index serves lookups by index, offset and time.

The file beside a sealed segment, little-endian; it can always be made again from the segment:

======  ====  ===========  =====================================================================
offset  size  field        meaning
======  ====  ===========  =====================================================================
0       4     magic        ``QLI`` and the format version, 1
4       4     crc          CRC-32C of everything from byte 8 on
8       8     first_index  of the segment
16      8     created_ms   of the segment
24      8     generation   of the segment
32      8     last_index   of the segment
40      8     end          bytes of the segment file
48      8     count        entries
56      40n   entries      five columns of ``count`` numbers of 8 bytes, one column after the
                           other: index, position, base_offset, timestamp_ms, term
======  ====  ===========  =====================================================================
"""

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.log.batch import BatchHeader
from quorumlog.log.fast_dataclass import fast_dataclass
from quorumlog.ports import File
from quorumlog.types import Buffer

_MAGIC = b"QLI\x01"
_HEAD = struct.Struct("<4sI")
_SEAL = struct.Struct("<QQQQQQ")
_COLUMNS = 5
_WIDTH = 8


@dataclass(frozen=True, slots=True)
class Seal:
    """Which segment, in which state, an index file belongs to."""

    first_index: int
    created_ms: int
    generation: int
    last_index: int
    end: int


@fast_dataclass(frozen=True, slots=True)
class Entry:
    """A batch's number, where it stands, and what its header says of offset, time and term."""

    index: int
    position: int
    base_offset: int
    timestamp_ms: int
    term: int


class SparseIndex:
    """The entries of one segment, in order. One thread changes it at a time."""

    __slots__ = ("_columns", "_due", "_interval_bytes")

    def __init__(self, interval_bytes: int) -> None:
        self._interval_bytes = interval_bytes
        self._columns = tuple(array("Q") for _ in range(_COLUMNS))
        self._due = 0

    def __len__(self) -> int:
        return len(self._columns[0])

    def entries(self) -> Iterator[Entry]:
        """All entries, in order."""
        return map(Entry, *self._columns)

    def add(self, header: BatchHeader, position: int) -> None:
        """Take note of the segment's next batch, which stands at ``position``."""
        terms = self._columns[4]
        if position < self._due and terms[-1] == header.term:
            return
        entry = (header.index, position, header.base_offset, header.timestamp_ms, header.term)
        for column, number in zip(self._columns, entry, strict=True):
            column.append(number)
        self._due = position + self._interval_bytes

    def until(self, index: int) -> "SparseIndex":
        """A copy without the entries from ``index`` on."""
        copy = SparseIndex(self._interval_bytes)
        length = bisect_left(self._columns[0], index)
        copy._columns = tuple(column[:length] for column in self._columns)
        if length:
            copy._due = copy._columns[1][-1] + self._interval_bytes
        return copy

    def at_index(self, index: int) -> Entry:
        """The last entry at or before ``index``; the first when there is none before."""
        return self._entry(bisect_right(self._columns[0], index) - 1)

    def at_offset(self, offset: int) -> Entry:
        """The last entry whose base offset is at or before ``offset``, or the first."""
        return self._entry(bisect_right(self._columns[2], offset) - 1)

    def before_time(self, timestamp_ms: int) -> Entry:
        """The last entry whose timestamp is before ``timestamp_ms``, or the first."""
        return self._entry(bisect_left(self._columns[3], timestamp_ms) - 1)

    def before_position(self, position: int) -> Entry:
        """The last entry that stands at or before ``position``, or the first."""
        return self._entry(bisect_right(self._columns[1], position) - 1)

    def encode(self, seal: Seal) -> bytes:
        parts: list[Buffer] = [
            _SEAL.pack(
                seal.first_index,
                seal.created_ms,
                seal.generation,
                seal.last_index,
                seal.end,
                len(self),
            )
        ]
        parts.extend(_little_endian(column).tobytes() for column in self._columns)
        body = b"".join(parts)
        return _HEAD.pack(_MAGIC, crc32c(body)) + body

    def _entry(self, at: int) -> Entry:
        return Entry(*[column[max(at, 0)] for column in self._columns])


def read_index(file: File) -> bytes:
    """All bytes of an index file; none where its length is not what its head says.

    So no more memory is taken than an index of that many entries needs.
    """
    size_bytes = file.size_bytes()
    head = file.read_at(0, _HEAD.size + _SEAL.size)
    if len(head) < _HEAD.size + _SEAL.size:
        return b""
    *_, count = _SEAL.unpack_from(head, _HEAD.size)
    if size_bytes != len(head) + count * _COLUMNS * _WIDTH:
        return b""
    return file.read_at(0, size_bytes)


def decode_seal(raw: bytes) -> Seal | None:
    """Of which segment, in which state, the index in ``raw`` is; None when it is damaged."""
    if len(raw) < _HEAD.size + _SEAL.size:
        return None
    magic, crc = _HEAD.unpack_from(raw)
    body = memoryview(raw)[_HEAD.size :]
    if magic != _MAGIC or crc != crc32c(body):
        return None
    *state, count = _SEAL.unpack_from(body)
    is_whole = count and len(body) - _SEAL.size == count * _COLUMNS * _WIDTH
    return Seal(*state) if is_whole else None


def decode_index(raw: bytes, seal: Seal, interval_bytes: int) -> SparseIndex | None:
    """The index in ``raw``, or None when it is damaged or of another segment or state."""
    if decode_seal(raw) != seal:
        return None
    entries = memoryview(raw)[_HEAD.size + _SEAL.size :]
    count = len(entries) // (_COLUMNS * _WIDTH)
    index = SparseIndex(interval_bytes)
    for number, column in enumerate(index._columns):
        begin = number * count * _WIDTH
        column.frombytes(entries[begin : begin + count * _WIDTH])
        _little_endian(column, in_place=True)
    return index


def _little_endian(column: "array[int]", *, in_place: bool = False) -> "array[int]":
    """``column`` with its bytes in the file's order: itself on most machines."""
    if sys.byteorder == "little":
        return column
    swapped = column if in_place else column[:]
    swapped.byteswap()
    return swapped
