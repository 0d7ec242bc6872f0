"""Serf's layer in as far as it is spoken: tags in Meta, and the intents behind join and leave.

Tags are ``0xFF`` and a msgpack map of strings, at most 512 bytes. An intent is a user message:
``0`` (leave) or ``1`` (join) and ``{LTime, Node}``; it carries a Lamport time so that Serf can
tell a node that left from one that failed. A push/pull's user state is ``2`` and a map whose
``LTime`` is its sender's clock.
"""

from collections.abc import Mapping
from typing import Final

import msgpack

from quorumlog.discovery.wire.fields import pack, read_int, unpack
from quorumlog.discovery.wire.messages import MAX_META_BYTES, User
from quorumlog.errors import InvalidArgument, ProtocolError

_TAGS: Final = b"\xff"
_LEAVE: Final = 0
_JOIN: Final = 1
_PUSH_PULL: Final = 2
_MAX_LAMPORT: Final = 2**63 - 1


def encode_tags(tags: Mapping[str, str]) -> bytes:
    """Meta for ``tags``. Raises ``InvalidArgument`` when it has more than 512 bytes."""
    for key, value in tags.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgument(f"the tag {key!r} = {value!r} is not a pair of strings")
    meta = _TAGS + pack(dict(sorted(tags.items())))
    if len(meta) > MAX_META_BYTES:
        raise InvalidArgument(
            f"the tags take {len(meta)} bytes and the limit is {MAX_META_BYTES}: "
            "use fewer or shorter ones"
        )
    return meta


def decode_tags(meta: bytes) -> dict[str, str]:
    """The tags in ``meta``; what is none of Serf's is no tag, and never an error.

    Before it had tags, Serf sent a bare role.
    """
    if not meta:
        return {}
    try:
        if meta[:1] != _TAGS:
            return {"role": meta.decode()}
        tags = msgpack.unpackb(meta[1:], raw=False)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
        return {}
    if not isinstance(tags, dict):
        return {}
    return {
        key: value for key, value in tags.items() if isinstance(key, str) and isinstance(value, str)
    }


def encode_intent(name: str, lamport_time: int, *, leave: bool) -> User:
    kind = _LEAVE if leave else _JOIN
    return User(bytes([kind]) + pack({"LTime": lamport_time, "Node": name}))


def witnessed_time(payload: bytes) -> int:
    """The Lamport time in an intent or a user state; 0 where there is none to be read."""
    if payload[:1] not in (bytes([_LEAVE]), bytes([_JOIN]), bytes([_PUSH_PULL])):
        return 0
    try:
        return read_int(unpack(payload[1:]), b"LTime", _MAX_LAMPORT)
    except ProtocolError:
        return 0
