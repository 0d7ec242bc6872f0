"""What stands in the log of a replicated state machine: the bodies of its COMMAND batches.

Little-endian. The first byte is the version of the format, 1, the second says which it is:

======  ====  ===========  =====================================================================
offset  size  field        meaning
======  ====  ===========  =====================================================================
0       1     version      1
1       1     type         1: a command of the user
2       8     since_index  what its proposer had applied when it first tried
10      1     id_length
11      i     request_id   UTF-8
11+i    n     command      the user's bytes
======  ====  ===========  =====================================================================

======  ====  ===========  =====================================================================
0       1     version      1
1       1     type         2: TRIM
2       8     free_index   batches through this one may be removed from disk
======  ====  ===========  =====================================================================
"""

import struct
from dataclasses import dataclass
from typing import Final

from quorumlog.errors import InvalidArgument, ProtocolError
from quorumlog.log.batch import Draft, Kind
from quorumlog.replicated.machine import MAX_COMMAND_BYTES
from quorumlog.types import Buffer, Index

MAX_ID_BYTES: Final = 64

_VERSION: Final = 1
_USER: Final = 1
_TRIM: Final = 2
_KIND = struct.Struct("<BB")
_USER_HEAD = struct.Struct("<BBQB")
_TRIM_BODY = struct.Struct("<BBQ")


@dataclass(frozen=True, slots=True)
class UserCommand:
    request_id: bytes
    since_index: Index
    body: bytes

    def encode(self) -> bytes:
        """Raises InvalidArgument: over a limit."""
        if not 0 < len(self.request_id) <= MAX_ID_BYTES:
            raise InvalidArgument(
                f"a request id has 1 to {MAX_ID_BYTES} bytes of UTF-8, not {len(self.request_id)}"
            )
        if len(self.body) > MAX_COMMAND_BYTES:
            raise InvalidArgument(
                f"the command has {len(self.body)} bytes and the limit is {MAX_COMMAND_BYTES}"
            )
        head = _USER_HEAD.pack(_VERSION, _USER, self.since_index, len(self.request_id))
        return b"".join((head, self.request_id, self.body))


@dataclass(frozen=True, slots=True)
class TrimCommand:
    free_index: Index

    def encode(self) -> bytes:
        return _TRIM_BODY.pack(_VERSION, _TRIM, self.free_index)


def trim_draft(free_index: Index) -> Draft:
    """The command that gives the batches through ``free_index`` free."""
    return Draft.of(TrimCommand(free_index).encode(), kind=Kind.COMMAND)


def decode_command(body: Buffer) -> UserCommand | TrimCommand:
    """Raises ProtocolError for what this release cannot read."""
    raw = bytes(body)
    try:
        version, kind = _KIND.unpack_from(raw)
        if version == _VERSION and kind == _USER:
            return _decode_user(raw)
        if version == _VERSION and kind == _TRIM:
            return TrimCommand(Index(_TRIM_BODY.unpack(raw)[2]))
    except struct.error as error:
        raise ProtocolError(f"not a command: {error}") from error
    raise ProtocolError(f"a command of version {version} and type {kind}: run the same release")


def _decode_user(raw: bytes) -> UserCommand:
    _, _, since_index, id_length = _USER_HEAD.unpack_from(raw)
    body_at = _USER_HEAD.size + id_length
    if not 0 < id_length <= MAX_ID_BYTES or body_at > len(raw):
        raise ProtocolError(f"a command of {len(raw)} bytes with a request id of {id_length}")
    if len(raw) - body_at > MAX_COMMAND_BYTES:
        raise ProtocolError(f"a command of {len(raw) - body_at} bytes")
    return UserCommand(raw[_USER_HEAD.size : body_at], Index(since_index), raw[body_at:])
