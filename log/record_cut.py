"""Cutting encoded records out of a body by hand, for the shapes that nearly all of them have.

Whatever else protobuf allows (fields in another order, unknown ones, long varints) is
:class:`Unusual`, and then protobuf's to read.
"""

from typing import Final

RECORD_TAG: Final = 0x0A
KEY_TAG: Final = 0x0A
VALUE_TAG: Final = 0x12

_MAX_VARINT_BYTES: Final = 4
"""Enough for the length of anything in a body of 4 MiB."""


class Unusual(Exception):
    """Of another shape than what is cut by hand; perhaps damaged, perhaps not."""


def cut_record(data: bytes, at: int, length: int) -> tuple[int, bytes | None, bytes | None]:
    """Where the record at ``at`` ends, its key and its value; for lengths below 16 KiB.

    The varints are written out: a call for each would cost as much as all the rest.

    Raises:
        Unusual, IndexError: protobuf has to read it.
    """
    if data[at] != RECORD_TAG:
        raise Unusual
    size = data[at + 1]
    at += 2
    if size > 0x7F:
        high = data[at]
        if high > 0x7F:
            raise Unusual
        size += (high << 7) - 0x80
        at += 1
    end = at + size
    if end > length:
        raise Unusual
    key = value = None
    tag = data[at] if at < end else 0
    if tag == KEY_TAG:
        size = data[at + 1]
        at += 2
        if size > 0x7F:
            high = data[at]
            if high > 0x7F:
                raise Unusual
            size += (high << 7) - 0x80
            at += 1
        key = data[at : at + size]
        at += size
        tag = data[at] if at < end else 0
    if tag == VALUE_TAG:
        size = data[at + 1]
        at += 2
        if size > 0x7F:
            high = data[at]
            if high > 0x7F:
                raise Unusual
            size += (high << 7) - 0x80
            at += 1
        value = data[at : at + size]
        at += size
    if at != end:
        raise Unusual
    return end, key, value


def cut_field(data: bytes, at: int, length: int, tag: int = RECORD_TAG) -> tuple[int, int]:
    """Where the content of the field at ``at`` begins and ends.

    Raises:
        Unusual, IndexError: it is no field with the tag ``tag``, or does not end within ``length``.
    """
    if data[at] != tag:
        raise Unusual
    size = 0
    for number in range(_MAX_VARINT_BYTES):
        at += 1
        size |= (data[at] & 0x7F) << 7 * number
        if data[at] <= 0x7F:
            break
    else:
        raise Unusual
    begin = at + 1
    if begin + size > length:
        raise Unusual
    return begin, begin + size
