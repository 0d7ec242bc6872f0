"""Serf's tags in a member's Meta: ``0xFF`` and a msgpack map of strings, at most 512 bytes."""

from collections.abc import Mapping
from typing import Final

import msgpack

from quorumlog.discovery.wire.fields import pack, utf8
from quorumlog.discovery.wire.messages import MAX_META_BYTES
from quorumlog.errors import InvalidArgument

_TAGS: Final = b"\xff"


def encode_tags(tags: Mapping[str, str]) -> bytes:
    """Meta for ``tags``. Raises ``InvalidArgument`` when it has more than 512 bytes."""
    for key, value in tags.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgument(f"the tag {key!r} = {value!r} is not a pair of strings")
        utf8(key + value, "tag")
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
