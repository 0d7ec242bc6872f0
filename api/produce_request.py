"""Reading a produce request whose pack is counted before it takes memory.

An empty request in a pack is two bytes on the wire and about 75 in memory: of a message at gRPC's
limit half a gigabyte would be parsed before anybody could count what is in it.
"""

from typing import Final

from google.protobuf.message import DecodeError

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.errors import InvalidArgument
from quorumlog.types import MAX_PACKED_REQUESTS

UNCOUNTED_BYTES: Final = 256 * 1024
"""A message so small is parsed as it is: 10 MB at most. Clients of this release pack no more."""

_OWN_FIELDS: Final = 16
"""Fields of a request beside its pack: each may come twice, and a later release may have others."""

_MORE: Final = pb.ProduceRequest.MORE_FIELD_NUMBER
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT: Final = 10


def parse_request(encoded: bytes) -> pb.ProduceRequest:
    """The request in ``encoded``. Of a large one, counting costs some microseconds, of the worst
    some milliseconds.

    Raises:
        InvalidArgument: it has too many requests in it, or a pack within its pack, or is malformed.
    """
    if len(encoded) > UNCOUNTED_BYTES:
        most_fields = MAX_PACKED_REQUESTS + _OWN_FIELDS
        more = _more_in(encoded, 0, len(encoded), most_fields)
        if len(more) >= MAX_PACKED_REQUESTS:
            raise bad_pack()
        if any(_more_in(encoded, begin, end, _OWN_FIELDS) for begin, end in more):
            raise bad_pack()
    try:
        return pb.ProduceRequest.FromString(encoded)
    except DecodeError as error:
        raise InvalidArgument(f"this is no produce request: {error}") from error


def bad_pack() -> InvalidArgument:
    return InvalidArgument(
        f"a message has at most {MAX_PACKED_REQUESTS} requests, and no packs within it"
    )


def _more_in(encoded: bytes, at: int, end: int, most_fields: int) -> list[tuple[int, int]]:
    """Where the requests begin and end that the one in ``encoded[at:end]`` has behind it.

    Raises:
        InvalidArgument: it has over ``most_fields`` fields, or is malformed.
    """
    found: list[tuple[int, int]] = []
    for _ in range(most_fields):
        if at == end:
            return found
        tag, begin = _varint(encoded, at, end)
        at = _end_of_field(encoded, tag & 7, begin, end)
        if tag == _MORE << 3 | _LENGTH_DELIMITED:
            found.append((_varint(encoded, begin, end)[1], at))
    if at < end:
        raise bad_pack()
    return found


def _end_of_field(encoded: bytes, wire_type: int, begin: int, end: int) -> int:
    if wire_type == _LENGTH_DELIMITED:
        length, begin = _varint(encoded, begin, end)
        after = begin + length
    elif wire_type == _VARINT:
        _, after = _varint(encoded, begin, end)
    elif wire_type in (_FIXED64, _FIXED32):
        after = begin + (8 if wire_type == _FIXED64 else 4)
    else:
        raise InvalidArgument(f"a field of a produce request has the wire type {wire_type}")
    if after > end:
        raise InvalidArgument("a produce request ends within a field")
    return after


def _varint(encoded: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends."""
    value = 0
    for position in range(at, min(end, at + _LONGEST_VARINT)):
        byte = encoded[position]
        value |= (byte & 0x7F) << 7 * (position - at)
        if byte < 0x80:
            return value, position + 1
    raise InvalidArgument("a produce request has a number that does not end")
