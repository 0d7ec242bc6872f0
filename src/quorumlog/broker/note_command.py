"""The commands that change a partition's notes: bodies of COMMAND batches.

======  ====  =================  ===============================================================
offset  size  field              meaning (little-endian)
======  ====  =================  ===============================================================
0       4     magic              ``QLC``, 1
4       1     what               1: a fencing token; 2: a checkpoint goes on, never back;
                                 3: a checkpoint is set, back as well; 4: it is forgotten
5       8     number             the token, or the checkpoint's offset; 0 with 4
13      n     name               of the checkpoint, UTF-8; nothing with 1
======  ====  =================  ===============================================================
"""

import struct
from dataclasses import dataclass
from typing import Final

from quorumlog.broker.notes import Notes
from quorumlog.errors import ProtocolError
from quorumlog.log.batch import Draft, Kind
from quorumlog.types import Buffer, Offset

_MAGIC: Final = b"QLC\x01"
_HEAD: Final = struct.Struct("<4sBQ")
_FENCE, _ADVANCE, _SET, _FORGET = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class RaiseFence:
    """Appends that name an older token than ``token`` are refused from here on."""

    token: int

    def applied_to(self, notes: Notes) -> Notes:
        return notes.fenced(self.token)

    def encode(self) -> bytes:
        return _HEAD.pack(_MAGIC, _FENCE, self.token)


@dataclass(frozen=True, slots=True)
class SetCheckpoint:
    """``offset`` is the next record to read; without ``rewind`` an older one changes nothing: a
    request that was on its way for long undoes nothing."""

    name: str
    offset: Offset
    rewind: bool = False

    def applied_to(self, notes: Notes) -> Notes:
        known = notes.checkpoints.get(self.name, -1)
        if self.offset <= known and not self.rewind:
            return notes
        return notes.with_checkpoint(self.name, self.offset)

    def encode(self) -> bytes:
        what = _SET if self.rewind else _ADVANCE
        return _HEAD.pack(_MAGIC, what, self.offset) + self.name.encode()


@dataclass(frozen=True, slots=True)
class ForgetCheckpoint:
    name: str

    def applied_to(self, notes: Notes) -> Notes:
        return notes.without_checkpoint(self.name)

    def encode(self) -> bytes:
        return _HEAD.pack(_MAGIC, _FORGET, 0) + self.name.encode()


NoteCommand = RaiseFence | SetCheckpoint | ForgetCheckpoint


def note_draft(command: NoteCommand) -> Draft:
    return Draft.of(command.encode(), kind=Kind.COMMAND)


def is_note_command(body: Buffer) -> bool:
    """Whether the body is one, of any version; another COMMAND may be."""
    return bytes(body[:3]) == _MAGIC[:3]


def decode_note(body: Buffer) -> NoteCommand:
    """Raises ProtocolError: no ``encode`` of this release made it."""
    command: NoteCommand | None = None
    if len(body) >= _HEAD.size and bytes(body[:4]) == _MAGIC:
        _, what, number = _HEAD.unpack_from(body)
        try:
            name = str(bytes(body[_HEAD.size :]), "utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError(f"a checkpoint's name is not UTF-8: {error}") from error
        if what == _FENCE and not name:
            command = RaiseFence(number)
        elif what in (_ADVANCE, _SET) and name:
            command = SetCheckpoint(name, Offset(number), rewind=what == _SET)
        elif what == _FORGET and name and not number:
            command = ForgetCheckpoint(name)
    if command is None:
        raise ProtocolError(
            f"not a note that this release knows: {bytes(body[:5])!r}, {len(body)} bytes"
        )
    return command
