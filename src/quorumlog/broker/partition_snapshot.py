"""A partition's state as bytes: where its log begins, its notes, its producers. Little-endian.

======  ====  =================  ===============================================================
offset  size  field              meaning
======  ====  =================  ===============================================================
0       4     magic              ``QLN``, 1
4       8     start_offset       records before it are deleted
12      8     free_index         batches through this one may be removed from disk
20      8     forgotten_through  see :mod:`quorumlog.broker.start_command`
28      n     producers          :mod:`quorumlog.broker.producer_snapshot`
======  ====  =================  ===============================================================

Version 2 is written where there are notes: the length of them, 4 bytes, and they themselves
(:mod:`quorumlog.broker.notes`) stand before the producers. Before partitions had a start, the state
was the producer table alone; that is still read. Whoever stores the bytes adds a checksum.
"""

import struct
from dataclasses import dataclass
from typing import Final

from quorumlog.broker.notes import BLANK, Notes
from quorumlog.errors import ProtocolError
from quorumlog.replication.state_machine import WHOLE_LOG, LogStart
from quorumlog.types import Index, Offset

_MAGIC: Final = b"QLN\x01"
_WITH_NOTES: Final = b"QLN\x02"
_TABLE_ALONE: Final = b"QLT"
_HEAD: Final = struct.Struct("<4sQQQ")
_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class PartitionState:
    """``producers`` is a producer table as bytes."""

    start: LogStart
    forgotten_through: int
    producers: bytes
    notes: Notes = BLANK

    def encode(self) -> bytes:
        magic, notes = _MAGIC, b""
        if not self.notes.is_blank:
            encoded = self.notes.encode()
            magic, notes = _WITH_NOTES, _LENGTH.pack(len(encoded)) + encoded
        head = _HEAD.pack(magic, self.start.offset, self.start.free_index, self.forgotten_through)
        return head + notes + self.producers

    @staticmethod
    def decode(encoded: bytes) -> "PartitionState":
        """Raises ProtocolError for what is no state of a partition; the table is not looked at."""
        if encoded.startswith(_TABLE_ALONE):
            return PartitionState(WHOLE_LOG, 0, encoded)
        if len(encoded) < _HEAD.size or encoded[:4] not in (_MAGIC, _WITH_NOTES):
            raise ProtocolError(
                f"not a partition's state that this release can read: {encoded[:4]!r}, "
                f"{len(encoded)} bytes"
            )
        magic, start_offset, free_index, forgotten_through = _HEAD.unpack_from(encoded)
        start = LogStart(Offset(start_offset), Index(free_index))
        rest, notes = encoded[_HEAD.size :], BLANK
        if magic == _WITH_NOTES:
            if len(rest) < _LENGTH.size:
                raise ProtocolError(f"a partition's state ends early, after {len(encoded)} bytes")
            end = _LENGTH.size + _LENGTH.unpack_from(rest)[0]
            notes, rest = Notes.decode(rest[_LENGTH.size : end]), rest[end:]
        return PartitionState(start, forgotten_through, rest, notes)
