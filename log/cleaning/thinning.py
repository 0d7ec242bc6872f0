"""What compaction leaves of a batch, and the gaps that stand for what it leaves nothing of.

Pure: batches in, batches out. Index, offset, term and timestamp of what stays never change.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.log.batch import (
    CODEC_NONE,
    MAX_BODY_BYTES,
    MAX_GAP,
    SPARSE,
    Batch,
    BatchHeader,
    Kind,
)
from quorumlog.log.cleaning.key_map import KeyMap, NewestBatches
from quorumlog.log.compression import shrink
from quorumlog.log.records import encode_sparse_body, iterate_keyed
from quorumlog.types import Buffer, Offset


@dataclass(frozen=True, slots=True)
class Rules:
    """What may go.

    Attributes:
        keys: a record goes when its key has a newer one in here.
        producers: an emptied batch goes when its producer has a newer one in here.
        cleaned_to: ``keys`` knows all records from the clean point up to this offset.
        start_offset: records before it are deleted: they go.
        tombstones_before: a newest record without a value goes when it stands before this offset.
    """

    keys: KeyMap
    producers: NewestBatches
    cleaned_to: Offset
    start_offset: Offset
    tombstones_before: Offset


@dataclass(frozen=True, slots=True)
class Thinned:
    """What is left of a batch.

    Attributes:
        batch: the batch given if all of it stays, a SPARSE one, or None when a gap can stand for
            it.
        tombstones: how many it keeps before ``cleaned_to``.
        dropped: how many records went.
        is_clean: False: records that should have gone did not, for the batch cannot be stored
            without them.
    """

    batch: Batch | None
    tombstones: int = 0
    dropped: int = 0
    is_clean: bool = True


def thin(batch: Batch, rules: Rules, limit_bytes: int = MAX_BODY_BYTES) -> Thinned:
    """What ``rules`` leave of ``batch``, which is plain: not encrypted, its body checked.

    A record without a key is never superseded.

    Raises:
        InvalidBatch: the body does not hold what the header says.
        CodecUnavailable: the library for the batch's codec is not installed.
    """
    header = batch.header
    if header.kind == Kind.GAP:
        return Thinned(None)
    if header.kind != Kind.RECORDS:
        return Thinned(batch)
    kept, tombstones, dropped = _sift(header, batch.body, rules)
    if not kept:
        producer_id = header.producer_id
        if not producer_id or rules.producers.has_newer(producer_id, header.index):
            return Thinned(None, dropped=dropped)
    if not dropped:
        return Thinned(batch, tombstones)
    body = encode_sparse_body(kept) if kept else b""
    if len(body) > limit_bytes:
        # Records of few bytes each: the list of what stays takes more than what goes gives.
        return Thinned(batch, tombstones, is_clean=False)
    return Thinned(_sparse(header, body), tombstones, dropped)


def _sift(
    header: BatchHeader, body: Buffer, rules: Rules
) -> tuple[list[tuple[int, bytes]], int, int]:
    """The records that stay, as deltas and encoded fields; how many are tombstones; how many go."""
    kept: list[tuple[int, bytes]] = []
    tombstones = dropped = 0
    base_offset = header.base_offset
    for delta, key, is_tombstone, field in iterate_keyed(header, body):
        offset = base_offset + delta
        if offset < rules.start_offset or (key is not None and rules.keys.newest(key) > offset):
            dropped += 1
            continue
        if is_tombstone and key is not None and offset < rules.cleaned_to:
            if offset < rules.tombstones_before:
                dropped += 1
                continue
            tombstones += 1
        kept.append((delta, field))
    return kept, tombstones, dropped


def _sparse(header: BatchHeader, body: bytes) -> Batch:
    """The batch with ``body`` instead of its own, compressed as it was if that helps."""
    is_compressed = header.codec != CODEC_NONE and body
    stored, codec = shrink(body) if is_compressed else (body, CODEC_NONE)
    thinned = replace(
        header,
        body_crc=crc32c(stored),
        body_length=len(stored),
        codec=codec,
        flags=header.flags | SPARSE,
    )
    return Batch(thinned, thinned.encode(), stored)


def with_gaps(thinned: Iterable[tuple[BatchHeader, Batch | None]]) -> Iterator[Batch]:
    """Batches that follow one another, as few gaps as can be for those of which nothing is left.

    Args:
        thinned: the header of every batch, perhaps of a gap, and what is left of it.
    """
    first: BatchHeader | None = None
    index_count = record_count = timestamp_ms = 0
    for header, batch in thinned:
        if first is not None and (
            batch is not None
            or header.term != first.term
            or index_count + header.index_count > MAX_GAP
            or record_count + header.record_count > MAX_GAP
        ):
            yield _gap(first, index_count, record_count, timestamp_ms)
            first = None
        if batch is not None:
            yield batch
            continue
        if first is None:
            first = header
            index_count = record_count = 0
        index_count += header.index_count
        record_count += header.record_count
        # The last timestamp: it may be the one that what follows has to continue.
        timestamp_ms = header.timestamp_ms
    if first is not None:
        yield _gap(first, index_count, record_count, timestamp_ms)


def _gap(first: BatchHeader, index_count: int, record_count: int, timestamp_ms: int) -> Batch:
    header = BatchHeader(
        crc32c(b""),
        0,
        record_count,
        first.index,
        first.term,
        first.base_offset,
        timestamp_ms,
        kind=Kind.GAP,
        index_count=index_count,
    )
    return Batch(header, header.encode(), b"")
