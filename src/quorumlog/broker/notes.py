"""What clients note at a partition beside its records: a fencing token and checkpoints.

The *fencing token* is the newest that anybody came with: an append that names an older one is
refused. So whoever lost a lock, and does not know it yet, cannot write behind its successor.
A *checkpoint* says under a name how far somebody has read.

======  ====  =================  ===============================================================
offset  size  field              meaning (little-endian)
======  ====  =================  ===============================================================
0       8     fencing_token      0 while nobody came with one
8       4     count              of the checkpoints that follow, by their names' bytes, each:
12      2     name_length        1 to 200
14      n     name               UTF-8
14+n    8     offset             the next record to read
======  ====  =================  ===============================================================
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from quorumlog.errors import InvalidArgument, ProtocolError
from quorumlog.types import Buffer, Offset

MAX_FENCING_TOKEN: Final = (1 << 63) - 1

MAX_CHECKPOINTS: Final = 1000
"""Of one partition. Each command that deletes records carries them all: at most 210 KB."""

MAX_CHECKPOINT_NAME_BYTES: Final = 200

_HEAD: Final = struct.Struct("<QI")
_NAME_LENGTH: Final = struct.Struct("<H")
_OFFSET: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Notes:
    """See the module. A value: every change makes another one."""

    fencing_token: int = 0
    checkpoints: Mapping[str, Offset] = field(default_factory=lambda: MappingProxyType({}))

    def fenced(self, token: int) -> "Notes":
        """With ``token``, unless a newer one is known."""
        return Notes(max(self.fencing_token, token), self.checkpoints)

    def with_checkpoint(self, name: str, offset: Offset) -> "Notes":
        return Notes(self.fencing_token, MappingProxyType({**self.checkpoints, name: offset}))

    def without_checkpoint(self, name: str) -> "Notes":
        left = {known: offset for known, offset in self.checkpoints.items() if known != name}
        return Notes(self.fencing_token, MappingProxyType(left))

    @property
    def is_blank(self) -> bool:
        return not (self.fencing_token or self.checkpoints)

    def encode(self) -> bytes:
        """The same bytes for equal notes, whatever order they were made in."""
        parts = [_HEAD.pack(self.fencing_token, len(self.checkpoints))]
        named = sorted((name.encode(), offset) for name, offset in self.checkpoints.items())
        for name, offset in named:
            parts += (_NAME_LENGTH.pack(len(name)), name, _OFFSET.pack(offset))
        return b"".join(parts)

    @staticmethod
    def decode(encoded: Buffer) -> "Notes":
        """Raises ProtocolError: ``encode`` of this release did not make it."""
        try:
            token, count = _HEAD.unpack_from(encoded)
            position = _HEAD.size
            checkpoints: dict[str, Offset] = {}
            for _ in range(count):
                (length,) = _NAME_LENGTH.unpack_from(encoded, position)
                position += _NAME_LENGTH.size
                name = str(bytes(encoded[position : position + length]), "utf-8")
                position += length
                checkpoints[name] = Offset(_OFFSET.unpack_from(encoded, position)[0])
                position += _OFFSET.size
        except (struct.error, UnicodeDecodeError) as error:
            raise ProtocolError(f"these are no notes of a partition: {error}") from error
        notes = Notes(token, MappingProxyType(checkpoints))
        if notes.encode() != bytes(encoded):
            raise ProtocolError(f"these are no notes of a partition: {len(encoded)} bytes")
        return notes


BLANK: Final = Notes()


def check_fencing_token(token: int) -> None:
    """Raises InvalidArgument."""
    if not 1 <= token <= MAX_FENCING_TOKEN:
        raise InvalidArgument(f"a fencing token is from 1 to 2^63 - 1, not {token}")


def check_checkpoint_name(name: str) -> None:
    """Raises InvalidArgument."""
    size = len(name.encode(errors="surrogatepass"))
    if not 1 <= size <= MAX_CHECKPOINT_NAME_BYTES or not name.isprintable():
        raise InvalidArgument(
            f"a checkpoint's name has 1 to {MAX_CHECKPOINT_NAME_BYTES} bytes, all printable; "
            f"{name[:40]!r} has {size}"
        )
