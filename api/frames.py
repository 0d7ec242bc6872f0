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

FORMAT = 2
"""Of frames and of the messages in them; exchanged in the hello."""

_HEAD = struct.Struct("<QI")
HEAD_SIZE = _HEAD.size


def frame_head(group: GroupId, payload: Buffer) -> bytes:
    return _HEAD.pack(group, len(payload))


def split_frame(frame: bytes) -> Iterator[tuple[GroupId, memoryview]]:
    """The messages of a frame: small ones as copies, others as views of it.

    What becomes of a message may stay in memory for long. A view keeps all of its frame there, so
    only a message that is the better part of the frame is one: at most twice its size stays.

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
        payload = view[at : at + length]
        if 2 * length < len(view):
            payload = memoryview(bytes(payload))
        yield GroupId(group), payload
        at += length
