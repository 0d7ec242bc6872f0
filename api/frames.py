"""Frames of the replication stream: many messages of many Raft groups in one gRPC message.

Little-endian, one after the other until the end of the frame:

======  ====  =======  ==========================================
offset  size  field    meaning
======  ====  =======  ==========================================
0       8     group    the Raft group
8       4     length   bytes of the payload that follows
12      n     payload  a message of replication/wire.py
======  ====  =======  ==========================================
"""

import struct
from collections.abc import Iterator

from quorumlog.errors import ProtocolError
from quorumlog.types import Buffer, GroupId

FORMAT = 1
"""Of frames and of the messages in them; exchanged in the hello."""

_HEAD = struct.Struct("<QI")
HEAD_SIZE = _HEAD.size


def frame_head(group: GroupId, payload: Buffer) -> bytes:
    return _HEAD.pack(group, len(payload))


def split_frame(frame: bytes) -> Iterator[tuple[GroupId, memoryview]]:
    """The messages of a frame, as views of it.

    Raises:
        ProtocolError: a length goes beyond the frame.
    """
    view = memoryview(frame)
    at = 0
    while at < len(view):
        if len(view) - at < HEAD_SIZE:
            raise ProtocolError(f"a frame ends within a message head, {len(view) - at} bytes left")
        group, length = _HEAD.unpack_from(view, at)
        at += HEAD_SIZE
        if length > len(view) - at:
            raise ProtocolError(
                f"a message of {length} bytes in a frame with {len(view) - at} left"
            )
        yield GroupId(group), view[at : at + length]
        at += length
