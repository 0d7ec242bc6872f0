"""A partition's producer table as bytes: little-endian, producers in the order of their last batch.

======  ===================================================================================
size    field
======  ===================================================================================
4       magic: ``QLT``, 1
4       count of the producers that follow, each:
8       producer_id
8       next_sequence
4       epoch
4       count of its last batches, oldest first, each:
8       sequence
4       record_count
8       base_offset
8       timestamp_ms
======  ===================================================================================

Whoever stores the bytes adds a checksum.
"""

import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

from quorumlog.errors import ProtocolError

REMEMBERED_BATCHES: Final = 5
"""Batches per producer whose offsets are known; a client has no more in flight per partition."""

_MAGIC = b"QLT\x01"
_HEAD = struct.Struct("<4sI")
_PRODUCER = struct.Struct("<QQII")
_BATCH = struct.Struct("<QIQQ")
_ENTRIES = tuple(struct.Struct("<QQII" + "QIQQ" * count) for count in range(REMEMBERED_BATCHES + 1))


class AppliedBatch(NamedTuple):
    """A batch that the partition has."""

    sequence: int
    record_count: int
    base_offset: int
    timestamp_ms: int


@dataclass(slots=True)
class Producer:
    """What the committed log says of one producer."""

    epoch: int
    next_sequence: int
    batches: deque[AppliedBatch] = field(default_factory=lambda: deque(maxlen=REMEMBERED_BATCHES))


def encode(producers: Iterable[tuple[int, Producer]]) -> bytes:
    """``producers`` with their ids."""
    entries = [
        _ENTRIES[len(each.batches)].pack(
            producer_id,
            each.next_sequence,
            each.epoch,
            len(each.batches),
            *chain.from_iterable(each.batches),
        )
        for producer_id, each in producers
    ]
    return _HEAD.pack(_MAGIC, len(entries)) + b"".join(entries)


def decode(encoded: bytes) -> list[tuple[int, Producer]]:
    """Raises ProtocolError for anything ``encode`` of this version did not make."""
    try:
        magic, count = _HEAD.unpack_from(encoded)
        if magic != _MAGIC:
            raise ProtocolError(f"not a producer table that this release can read: {magic!r}")
        producers = []
        at = _HEAD.size
        for _ in range(count):
            producer_id, next_sequence, epoch, batch_count = _PRODUCER.unpack_from(encoded, at)
            at += _PRODUCER.size
            end = at + batch_count * _BATCH.size
            if batch_count > REMEMBERED_BATCHES or end > len(encoded):
                raise ProtocolError(f"a producer table with {batch_count} batches of one producer")
            batches = map(AppliedBatch._make, _BATCH.iter_unpack(encoded[at:end]))
            producer = Producer(epoch, next_sequence, deque(batches, REMEMBERED_BATCHES))
            producers.append((producer_id, producer))
            at = end
    except struct.error as error:
        raise ProtocolError(f"a producer table of {len(encoded)} bytes is cut: {error}") from error
    if at != len(encoded):
        raise ProtocolError(f"{len(encoded) - at} bytes follow the producer table")
    return producers
