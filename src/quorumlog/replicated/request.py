"""What nodes of a group ask the leader, within the ``Propose`` call between nodes.

One byte says what: 1, and the body of a command's batch behind it, answered with an encoded
:class:`~quorumlog.replicated.outcome.Outcome`; 2, a read, answered with the index to wait for
(eight bytes, little-endian).
"""

import struct
from typing import Final

from quorumlog.errors import ProtocolError
from quorumlog.types import Index

PROPOSE: Final = b"\x01"
READ: Final = b"\x02"

_INDEX = struct.Struct("<Q")


def encode_index(index: Index) -> bytes:
    return _INDEX.pack(index)


def decode_index(raw: bytes) -> Index:
    """Raises ProtocolError."""
    try:
        (index,) = _INDEX.unpack(raw)
    except struct.error as error:
        raise ProtocolError(f"not an index: {error}") from error
    return Index(index)
