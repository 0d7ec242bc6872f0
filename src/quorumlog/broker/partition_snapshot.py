"""A partition's state as bytes: where its log begins, then the producer table. Little-endian.

======  ====  =================  ===============================================================
offset  size  field              meaning
======  ====  =================  ===============================================================
0       4     magic              ``QLN``, 1
4       8     start_offset       records before it are deleted
12      8     free_index         batches through this one may be removed from disk
20      8     forgotten_through  see :mod:`quorumlog.broker.start_command`
28      n     producers          :mod:`quorumlog.broker.producer_snapshot`
======  ====  =================  ===============================================================

Before partitions had a start, the state was the producer table alone; that is still read. Whoever
stores the bytes adds a checksum.
"""

import struct
from dataclasses import dataclass
from typing import Final

from quorumlog.errors import ProtocolError
from quorumlog.replication.state_machine import WHOLE_LOG, LogStart
from quorumlog.types import Index, Offset

_MAGIC: Final = b"QLN\x01"
_TABLE_ALONE: Final = b"QLT"
_HEAD: Final = struct.Struct("<4sQQQ")


@dataclass(frozen=True, slots=True)
class PartitionState:
    """``producers`` is a producer table as bytes."""

    start: LogStart
    forgotten_through: int
    producers: bytes

    def encode(self) -> bytes:
        head = _HEAD.pack(_MAGIC, self.start.offset, self.start.free_index, self.forgotten_through)
        return head + self.producers

    @staticmethod
    def decode(encoded: bytes) -> "PartitionState":
        """Raises ProtocolError for what is no state of a partition; the table is not looked at."""
        if encoded.startswith(_TABLE_ALONE):
            return PartitionState(WHOLE_LOG, 0, encoded)
        if len(encoded) < _HEAD.size or not encoded.startswith(_MAGIC):
            raise ProtocolError(
                f"not a partition's state that this release can read: {encoded[:4]!r}, "
                f"{len(encoded)} bytes"
            )
        _, start_offset, free_index, forgotten_through = _HEAD.unpack_from(encoded)
        start = LogStart(Offset(start_offset), Index(free_index))
        return PartitionState(start, forgotten_through, encoded[_HEAD.size :])
