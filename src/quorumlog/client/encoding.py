"""Records to bytes at the speed of ``bytes.join``: what a producer puts into a batch's body.

Many records at once are cut into *runs*: encoded records of one partition, small enough for one
batch. A record that is a bare value costs about 0.1 µs; one with a key or headers goes through
``quorumlog.log.records.encode_record``.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from quorumlog.errors import InvalidArgument, RecordTooLarge
from quorumlog.log.batch import MAX_RECORDS_PER_BATCH
from quorumlog.log.records import encode_record
from quorumlog.types import MAX_RECORD_BYTES, RecordData


class _ValuePrefixes(dict[int, bytes]):
    """Length of a value to the bytes that stand before it when it is all of a record.

    Values under 16 KiB are remembered: that bounds the table.
    """

    def __missing__(self, length: int) -> bytes:
        if length > MAX_RECORD_BYTES:
            raise RecordTooLarge(length, MAX_RECORD_BYTES)
        encoded = encode_record(RecordData(bytes(length)))
        prefix = encoded[: len(encoded) - length]
        if length < 1 << 14:
            self[length] = prefix
        return prefix


_PREFIXES: Final = _ValuePrefixes()

Item = bytes | RecordData
"""A record to send: a bare value, or all of it."""


def encode_item(item: Item) -> bytes:
    """One record, encoded.

    Raises:
        RecordTooLarge, InvalidArgument: as ``encode_record``.
    """
    if type(item) is bytes:
        return _PREFIXES[len(item)] + item
    if not isinstance(item, RecordData):
        raise InvalidArgument(f"a record is bytes or RecordData, not {type(item).__name__}")
    return encode_record(item)


class Run:
    """Some records of one call for one partition, encoded: ``positions`` are theirs in the call."""

    __slots__ = ("body", "positions")

    def __init__(self, body: bytes, positions: Sequence[int]) -> None:
        self.body = body
        self.positions = positions


def cut_runs(items: Sequence[Item], positions: Sequence[int], limit_bytes: int) -> Iterator[Run]:
    """``items`` in runs of at most ``limit_bytes`` (or one record), encoded lazily, in order.

    ``positions`` has the same length; a range stays a range, so that numbering costs nothing.
    """
    start = 0
    parts: list[bytes] = []
    size_bytes = 0
    for at, item in enumerate(items):
        encoded = _PREFIXES[len(item)] + item if type(item) is bytes else encode_item(item)
        size_bytes += len(encoded)
        if (size_bytes > limit_bytes or at - start >= MAX_RECORDS_PER_BATCH) and at > start:
            yield Run(b"".join(parts), positions[start:at])
            start = at
            parts = []
            size_bytes = len(encoded)
        parts.append(encoded)
    if parts:
        yield Run(b"".join(parts), positions[start:])
