"""The command that moves the start of a partition's log: the body of a COMMAND batch.

======  ====  =================  ===============================================================
offset  size  field              meaning (little-endian)
======  ====  =================  ===============================================================
0       4     magic              ``QLS``, 1
4       8     start_offset       records before it are deleted
12      8     free_index         batches through this one may be removed from disk, once they hold
                                 no other than deleted records
20      8     forgotten_through  the largest id of a producer that is forgotten with those records,
                                 or was before; 0 when there is none
28      n     notes              version 2 only: :mod:`quorumlog.broker.notes`, as they are there
======  ====  =================  ===============================================================

A leader that makes one has applied everything through ``free_index``: so ``start_offset`` and
``forgotten_through`` are at least those of every command that stands there, and a log never loses
its newest start with its first segments. For the same reason it carries the notes as they are at
its own place in the log; version 1 says that there are none.
"""

import struct
from dataclasses import dataclass
from typing import Final

from quorumlog.broker.notes import BLANK, Notes
from quorumlog.errors import ProtocolError
from quorumlog.types import Buffer, Index, Offset

_MAGIC: Final = b"QLS\x01"
_WITH_NOTES: Final = b"QLS\x02"
_BODY: Final = struct.Struct("<4sQQQ")


@dataclass(frozen=True, slots=True)
class StartCommand:
    """See the module's table."""

    start_offset: Offset
    free_index: Index
    forgotten_through: int
    notes: Notes = BLANK

    def encode(self) -> bytes:
        magic = _MAGIC if self.notes.is_blank else _WITH_NOTES
        body = _BODY.pack(magic, self.start_offset, self.free_index, self.forgotten_through)
        return body if self.notes.is_blank else body + self.notes.encode()

    @staticmethod
    def decode(body: Buffer) -> "StartCommand":
        """Raises ProtocolError: ``encode`` of this release did not make it."""
        magic = bytes(body[: len(_MAGIC)])
        is_whole = len(body) == _BODY.size if magic == _MAGIC else len(body) > _BODY.size
        if magic not in (_MAGIC, _WITH_NOTES) or not is_whole:
            raise ProtocolError(
                f"not a command to a partition that this release knows: {bytes(body[:8])!r}, "
                f"{len(body)} bytes"
            )
        _, start_offset, free_index, forgotten_through = _BODY.unpack_from(body)
        notes = Notes.decode(body[_BODY.size :]) if magic == _WITH_NOTES else BLANK
        return StartCommand(Offset(start_offset), Index(free_index), forgotten_through, notes)
