"""The mark of a segment: where its synced part ends, and what is known of the log there.

It stands in the slots (:mod:`quorumlog.log.slots`, magic ``QLM``, version 1) at bytes 4096 and 8192
of the segment file, little-endian:

======  ====  ===============  =================================================================
offset  size  field            meaning
======  ====  ===============  =================================================================
0       8     index            every batch through this one was on stable storage
8       8     position         the first byte behind it
16      8     next_offset      the offset behind its records
24      8     term             its term
32      8     timestamp_ms     its timestamp
40      8     commit_floor     the owner said that everything through this index is committed
48      8     start_offset     every record before this offset was deleted
56      8     cleaned_to       compacted by all keys before this offset; 0: not compacted
64      8     horizon_offset   tombstones before this offset have stood in cleaned log …
72      8     horizon_ms       … since this time
80      8     is_closed        1: the log was closed behind this batch
======  ====  ===============  =================================================================

Where the segment has no batch, index, next_offset, term and timestamp are those of what is before.
"""

import struct
from typing import Final

from quorumlog.log.fast_dataclass import fast_dataclass
from quorumlog.log.slots import SlotPair
from quorumlog.ports import File, Readable
from quorumlog.types import Index, Offset, Term

_MAGIC = b"QLM\x01"
_MARK = struct.Struct("<11Q")

MARKS_START: Final = 4096
"""Where the first slot stands."""

MARKS_END: Final = SlotPair(_MAGIC, MARKS_START, _MARK.size).end
"""The first byte behind the pages of the mark."""


@fast_dataclass(frozen=True, slots=True)
class Mark:
    """What is known to be durable in a segment.

    It is written after an fdatasync and becomes durable with the next one: exact after a crash
    of the process, at most one flush behind after a power cut, and never ahead of the truth.
    """

    index: Index
    position: int
    next_offset: Offset
    term: Term
    timestamp_ms: int
    commit_floor: Index
    start_offset: Offset
    cleaned_to: int = 0
    horizon_offset: int = 0
    horizon_ms: int = 0
    is_closed: bool = False


class MarkPages:
    """The two slots that hold the mark of one segment."""

    def __init__(self) -> None:
        self._slots = SlotPair(_MAGIC, MARKS_START, _MARK.size)

    def load(self, file: Readable) -> Mark | None:
        payload = self._slots.load(file)
        return None if payload is None else _mark_of(payload)

    @property
    def slot_bytes(self) -> int:
        """What a slot takes of its page."""
        return self._slots.slot_bytes

    def damaged(self, file: Readable) -> list[int]:
        """Where a slot stands that was written and is not valid."""
        return self._slots.damaged(file)

    def store(self, file: File, mark: Mark) -> None:
        """Write ``mark``. The file has been synced since the store before."""
        self._slots.store(file, _payload_of(mark))

    def store_again(self, file: File, mark: Mark) -> None:
        """Write the ``mark`` that was loaded once more, where it stands, for the next sync to take.

        After a failed sync it may be readable and yet not on the disk.
        """
        self._slots.store_again(file, _payload_of(mark))


def _payload_of(mark: Mark) -> bytes:
    return _MARK.pack(
        mark.index,
        mark.position,
        mark.next_offset,
        mark.term,
        mark.timestamp_ms,
        mark.commit_floor,
        mark.start_offset,
        mark.cleaned_to,
        mark.horizon_offset,
        mark.horizon_ms,
        mark.is_closed,
    )


def _mark_of(payload: bytes) -> Mark:
    index, position, next_offset, term, timestamp_ms, floor, start, *rest = _MARK.unpack(payload)
    cleaned_to, horizon_offset, horizon_ms, is_closed = rest
    return Mark(
        Index(index),
        position,
        Offset(next_offset),
        Term(term),
        timestamp_ms,
        Index(floor),
        Offset(start),
        cleaned_to,
        horizon_offset,
        horizon_ms,
        bool(is_closed),
    )
