"""Reading batches from segment files: sparse index, one pread, then from header to header."""

from collections.abc import Iterator
from dataclasses import dataclass

from quorumlog.errors import Corrupt, ProtocolError
from quorumlog.log.batch import (
    ENCRYPTED,
    HEADER_SIZE,
    Batch,
    BatchHeader,
    Fields,
    Kind,
    check_body,
    header_of,
    join_batches,
)
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.scan import fields_at, walk_headers
from quorumlog.log.segment_files import OpenSegment
from quorumlog.log.sparse_index import Entry
from quorumlog.types import Buffer, Index, Offset

_WALK_BYTES = 16 * 1024

# Places in Fields.
_BODY_LENGTH = 2
_RECORD_COUNT = 3
_INDEX = 4
_BASE_OFFSET = 6
_KIND = 11
_FLAGS = 13
_INDEX_COUNT = 14


@dataclass(frozen=True, slots=True)
class Fetched:
    """Whole RECORDS batches as they stand on disk, one after the other, and what comes next.

    The first batch may begin before the offset that was asked for. Bodies are as they were read:
    ``iterate_batches`` checks them against the producer's checksum.
    """

    data: Buffer
    next_offset: Offset


@dataclass(frozen=True, slots=True)
class Range:
    """Where to read: from the batch that takes ``first_index`` to the one of ``last_index``.

    Both are in one segment and written. ``entry`` is a batch of it at or before the first one;
    ``end`` is the position behind its last batch, 0 while it grows.
    """

    entry: Entry
    first_index: int
    last_index: int
    end: int


@dataclass(frozen=True, slots=True)
class _Read:
    """Whole batches as they stand at ``position``, and the fields of their headers."""

    data: bytes
    position: int
    headers: list[Fields]


def read_headers(opened: OpenSegment, where: Range) -> Iterator[tuple[int, BatchHeader]]:
    """Position and header of the batches in ``where``.

    Raises:
        Corrupt: one of them is damaged.
    """
    position, index = _start_of(opened, where)
    yield from walk_headers(
        opened.file, opened.path, position, index, where.last_index, _WALK_BYTES
    )


def read_batches(opened: OpenSegment, where: Range, max_bytes: int) -> list[Batch]:
    """Batches from the first on, at least one, at most ``max_bytes`` otherwise.

    Raises:
        Corrupt: a header or a body is damaged.
    """
    cipher = opened.cipher
    read = _read(opened, where, max_bytes, None, None)
    if cipher is not None:
        return list(_unsealed(cipher, opened.path, read))
    view = memoryview(read.data)
    batches = []
    at = 0
    for fields in read.headers:
        header = header_of(fields)
        body_at = at + HEADER_SIZE
        body = view[body_at : body_at + header.body_length]
        try:
            check_body(header, body)
        except ProtocolError as error:
            raise Corrupt(
                opened.path, read.position + at, f"batch {header.index}", str(error)
            ) from error
        batches.append(Batch(header, view[at:body_at], body))
        at = body_at + header.body_length
    return batches


def read_records(
    opened: OpenSegment,
    where: Range,
    max_bytes: int,
    end_offset: int,
    max_records: int | None,
) -> Fetched:
    """The RECORDS batches among those with a base offset before ``end_offset``.

    At least one batch is looked at; one that holds no records leaves ``data`` empty.

    Raises:
        Corrupt: a header is damaged.
    """
    cipher = opened.cipher
    read = _read(opened, where, max_bytes, end_offset, max_records)
    last = read.headers[-1]
    next_offset = Offset(last[_BASE_OFFSET] + last[_RECORD_COUNT])
    if cipher is not None:
        batches = _unsealed(cipher, opened.path, read)
        kept = [batch for batch in batches if batch.header.kind is Kind.RECORDS]
        return Fetched(join_batches(kept), next_offset)
    view = memoryview(read.data)
    runs: list[memoryview] = []
    run_at = at = 0
    for fields in read.headers:
        end = at + HEADER_SIZE + fields[_BODY_LENGTH]
        if fields[_KIND] != Kind.RECORDS:
            if at > run_at:
                runs.append(view[run_at:at])
            run_at = end
        at = end
    if at > run_at:
        runs.append(view[run_at:at])
    joined: Buffer = runs[0] if len(runs) == 1 else b"".join(runs)
    return Fetched(joined, next_offset)


def _unsealed(cipher: SegmentCipher, path: str, read: _Read) -> Iterator[Batch]:
    """The batches of an encrypted segment as they were appended; raises Corrupt."""
    view = memoryview(read.data)
    at = 0
    for fields in read.headers:
        body_at = at + HEADER_SIZE
        end = body_at + fields[_BODY_LENGTH]
        stored = Batch(header_of(fields), view[at:body_at], view[body_at:end])
        yield cipher.unseal(stored, path, read.position + at)
        at = end


def _read(
    opened: OpenSegment,
    where: Range,
    max_bytes: int,
    end_offset: int | None,
    max_records: int | None,
) -> _Read:
    """At least one batch; only such with a base offset before ``end_offset``."""
    begin, index = _start_of(opened, where)
    size_bytes = max(max_bytes, HEADER_SIZE)
    if where.end:
        size_bytes = min(size_bytes, where.end - begin)
    data = opened.file.read_at(begin, size_bytes)
    headers = _headers_in(
        opened, data, begin, index, where.last_index, max_bytes, end_offset, max_records
    )
    end = sum(fields[_BODY_LENGTH] for fields in headers) + len(headers) * HEADER_SIZE
    if end > len(data):
        data = opened.file.read_at(begin, end)
    if end > len(data):
        raise Corrupt(opened.path, begin, f"a batch of {end} bytes", f"{len(data)} to the end")
    last = headers[-1]
    next_index = last[_INDEX] + last[_INDEX_COUNT]
    next_offset = last[_BASE_OFFSET] + last[_RECORD_COUNT]
    opened.remember(Entry(next_index, begin + end, next_offset, 0, 0))
    return _Read(data, begin, headers)


def _start_of(opened: OpenSegment, where: Range) -> tuple[int, Index]:
    """Position and index of the batch that takes ``where.first_index``."""
    first_index = where.first_index
    entry = where.entry
    if first_index == entry.index:
        return entry.position, Index(first_index)
    hint = opened.by_index.get(first_index)
    if hint is not None:
        return hint.position, Index(first_index)
    for position, header in walk_headers(
        opened.file, opened.path, entry.position, entry.index, first_index, _WALK_BYTES
    ):
        last = position, header.index
    return last


def _headers_in(
    opened: OpenSegment,
    data: bytes,
    position: int,
    index: int,
    last_index: int,
    max_bytes: int,
    end_offset: int | None,
    max_records: int | None,
) -> list[Fields]:
    """The headers in ``data``, read at ``position``, up to the limits.

    The first batch is in it even if ``data`` ends before its body does, others only whole.
    """
    path = opened.path
    is_plain = opened.header.key is None
    headers: list[Fields] = []
    at = 0
    limit = min(max_bytes, len(data))
    record_count = 0
    while index <= last_index:
        if headers and at + HEADER_SIZE > limit:
            break
        fields = fields_at(data, at, path, position + at, index)
        end = at + HEADER_SIZE + fields[_BODY_LENGTH]
        record_count += fields[_RECORD_COUNT]
        if headers and (
            end > limit
            or (end_offset is not None and fields[_BASE_OFFSET] >= end_offset)
            or (max_records is not None and record_count > max_records)
        ):
            break
        if is_plain and fields[_FLAGS] & ENCRYPTED:
            raise Corrupt(path, position + at, "a plain batch", "an encrypted one")
        headers.append(fields)
        at = end
        index += fields[_INDEX_COUNT]
    return headers
