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

Whoever stores the bytes adds a checksum. In memory too a table keeps every producer as these bytes,
its *entry*: so a snapshot of 10,000 producers holds up nobody, and none takes more than 300 bytes.
"""

import struct
from collections.abc import Collection
from typing import Final, NamedTuple

from quorumlog.errors import ProtocolError

REMEMBERED_BATCHES: Final = 5
"""Batches per producer whose offsets are known; a client has no more in flight per partition."""

_MAGIC = b"QLT\x01"
_HEAD = struct.Struct("<4sI")
_PRODUCER = struct.Struct("<QQII")
_BATCH = struct.Struct("<QIQQ")
_KEPT_BYTES = (REMEMBERED_BATCHES - 1) * _BATCH.size


class AppliedBatch(NamedTuple):
    """A batch that the partition has."""

    sequence: int
    record_count: int
    base_offset: int
    timestamp_ms: int


def with_batch(entry: bytes, producer_id: int, epoch: int, batch: AppliedBatch) -> bytes:
    """The entry of a producer whose newest batch is ``batch``.

    ``entry`` has those before it, of the same epoch; it is empty when there are none.
    """
    kept = entry[_PRODUCER.size :][-_KEPT_BYTES:]
    next_sequence = batch.sequence + batch.record_count
    count = len(kept) // _BATCH.size + 1
    head = _PRODUCER.pack(producer_id, next_sequence, epoch, count)
    return head + kept + _BATCH.pack(*batch)


def without_batches_before(entry: bytes, offset: int) -> bytes:
    """``entry`` with the batches that have a record at or behind ``offset``; empty without any."""
    count = (len(entry) - _PRODUCER.size) // _BATCH.size
    first = 0
    while first < count:
        _, record_count, base_offset, _ = _BATCH.unpack_from(
            entry, _PRODUCER.size + first * _BATCH.size
        )
        if base_offset + record_count > offset:
            break
        first += 1
    if first == 0:
        return entry
    if first == count:
        return b""
    producer_id, next_sequence, epoch, _ = _PRODUCER.unpack_from(entry)
    head = _PRODUCER.pack(producer_id, next_sequence, epoch, count - first)
    return head + entry[_PRODUCER.size + first * _BATCH.size :]


def next_offset_of(entry: bytes) -> int:
    """The offset behind the producer's last batch."""
    _, record_count, base_offset, _ = _BATCH.unpack_from(entry, len(entry) - _BATCH.size)
    end: int = base_offset + record_count
    return end


def epoch_and_next_sequence(entry: bytes) -> tuple[int, int]:
    _, next_sequence, epoch, _ = _PRODUCER.unpack_from(entry)
    return epoch, next_sequence


def batches_of(entry: bytes) -> list[AppliedBatch]:
    """The producer's last batches, oldest first: 1 to ``REMEMBERED_BATCHES``."""
    return [AppliedBatch(*each) for each in _BATCH.iter_unpack(entry[_PRODUCER.size :])]


def join_entries(entries: Collection[bytes]) -> bytes:
    """The table of ``entries``."""
    return _HEAD.pack(_MAGIC, len(entries)) + b"".join(entries)


def split_entries(encoded: bytes) -> dict[int, bytes]:
    """The entries of a table by producer, in their order.

    Raises:
        ProtocolError: :func:`join_entries` of this version did not make it.
    """
    try:
        magic, count = _HEAD.unpack_from(encoded)
        if magic != _MAGIC:
            raise ProtocolError(f"not a producer table that this release can read: {magic!r}")
        entries: dict[int, bytes] = {}
        at = _HEAD.size
        for _ in range(count):
            producer_id, _, _, batch_count = _PRODUCER.unpack_from(encoded, at)
            end = at + _PRODUCER.size + batch_count * _BATCH.size
            if not 0 < batch_count <= REMEMBERED_BATCHES or end > len(encoded):
                raise ProtocolError(f"a producer table with {batch_count} batches of one producer")
            entries[producer_id] = encoded[at:end]
            at = end
    except struct.error as error:
        raise ProtocolError(f"a producer table of {len(encoded)} bytes is cut: {error}") from error
    if at != len(encoded) or len(entries) != count:
        raise ProtocolError(
            f"a producer table of {len(encoded)} bytes with {count} producers has {at} bytes and "
            f"{len(entries)} producers"
        )
    return entries
