"""Reading batches from segment files: sparse index, one pread, then from header to header."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from quorumlog.errors import Corrupt, ProtocolError
from quorumlog.log.batch import (
    ENCRYPTED,
    HEADER_SIZE,
    Batch,
    BatchHeader,
    Kind,
    check_body,
    decode_header,
    join_batches,
)
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.fast_dataclass import fast_dataclass
from quorumlog.log.scan import check_headers, header_at, walk_headers
from quorumlog.log.segment_files import OpenSegment
from quorumlog.log.sparse_index import Entry
from quorumlog.types import Buffer, Index, Offset

_WALK_BYTES: Final = 16 * 1024

_NO_MAX_RECORDS: Final = 2**64

_MAX_ENCRYPTED_BYTES: Final = 512 * 1024
"""What is read of an encrypted segment at a time, larger batches apart: it takes three times as
much memory until it is handed out, and beyond 2 MiB the C library gives that back, and asks the
kernel for it again, each time."""


class Fetched(NamedTuple):
    """Whole RECORDS batches as they stand on disk, one after the other, and what comes next.

    The first batch may begin before the offset that was asked for. Bodies are as they were read:
    ``iterate_batches`` checks them against the producer's checksum. A tuple, because every fetch
    makes one.
    """

    data: Buffer
    next_offset: Offset


@fast_dataclass(frozen=True, slots=True)
class Range:
    """Where to read: from the batch that takes ``first_index`` to the one of ``last_index``.

    Both are in one segment and written. ``entry`` is a batch of it at or before the first one;
    ``end`` is the position behind its last batch, 0 while it grows.
    """

    entry: Entry
    first_index: int
    last_index: int
    end: int


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
    if cipher is not None:
        max_bytes = min(max_bytes, _MAX_ENCRYPTED_BYTES)
    begin, index = _start_of(opened, where)
    data = _first_read(opened, where, begin, max_bytes)
    headers = _headers_in(data, opened.path, begin, index, where.last_index, max_bytes)
    last = headers[-1]
    end = sum(header.size_bytes for header in headers)
    data = _whole(opened, data, begin, end)
    opened.remember(Entry(last.next_index, begin + end, last.next_offset, 0, 0))
    if cipher is not None:
        return list(_unsealed(cipher, opened.path, begin, data, headers))
    view = memoryview(data)
    batches = []
    at = 0
    for header in headers:
        body_at = at + HEADER_SIZE
        next_at = body_at + header.body_length
        body = view[body_at:next_at]
        if header.flags & ENCRYPTED:
            raise Corrupt(opened.path, begin + at, "a plain batch", "an encrypted one")
        try:
            check_body(header, body)
        except ProtocolError as error:
            raise Corrupt(opened.path, begin + at, f"batch {header.index}", str(error)) from error
        batches.append(Batch(header, view[at:body_at], body))
        at = next_at
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
    if cipher is not None:
        max_bytes = min(max_bytes, _MAX_ENCRYPTED_BYTES)
    begin, index = _start_of(opened, where)
    data = _first_read(opened, where, begin, max_bytes)
    span = check_headers(
        data,
        opened.path,
        begin,
        index,
        where.last_index,
        min(max_bytes, len(data)),
        end_offset,
        _NO_MAX_RECORDS if max_records is None else max_records,
        is_encrypted=cipher is not None,
    )
    end = span.end
    data = _whole(opened, data, begin, end)
    opened.remember(Entry(span.next_index, begin + end, span.next_offset, 0, 0))
    next_offset = Offset(span.next_offset)
    if cipher is not None:
        batches = _unsealed(cipher, opened.path, begin, data, _headers_to(data, end))
        kept = [batch for batch in batches if batch.header.kind is Kind.RECORDS]
        return Fetched(join_batches(kept), next_offset)
    return Fetched(_without(data, end, span.others), next_offset)


def _headers_to(data: bytes, end: int) -> Iterator[BatchHeader]:
    """The headers of the batches in ``data`` up to ``end``, which were checked."""
    at = 0
    while at < end:
        header = decode_header(data, at)
        yield header
        at += header.size_bytes


def _unsealed(
    cipher: SegmentCipher, path: str, position: int, data: bytes, headers: Iterable[BatchHeader]
) -> Iterator[Batch]:
    """The batches in ``data``, which stand at ``position`` of an encrypted segment, as they were
    appended; raises Corrupt."""
    view = memoryview(data)
    at = 0
    for header in headers:
        body_at, next_at = at + HEADER_SIZE, at + header.size_bytes
        stored = Batch(header, view[at:body_at], view[body_at:next_at])
        yield cipher.unseal(stored, path, position + at)
        at = next_at


def _first_read(opened: OpenSegment, where: Range, begin: int, max_bytes: int) -> bytes:
    """At most ``max_bytes`` from ``begin`` on, at least a header."""
    size_bytes = max(max_bytes, HEADER_SIZE)
    if where.end:
        size_bytes = min(size_bytes, where.end - begin)
    return opened.file.read_at(begin, size_bytes)


def _whole(opened: OpenSegment, data: bytes, begin: int, size_bytes: int) -> bytes:
    """``data``, read again where it has less than ``size_bytes``: its first batch is larger."""
    if size_bytes <= len(data):
        return data
    data = opened.file.read_at(begin, size_bytes)
    if size_bytes > len(data):
        expected = f"a batch of {size_bytes} bytes"
        raise Corrupt(opened.path, begin, expected, f"{len(data)} to the end")
    return data


def _without(data: bytes, end: int, others: Sequence[tuple[int, int]]) -> Buffer:
    """``data`` up to ``end`` without the ranges in ``others``."""
    view = memoryview(data)
    if not others:
        return view[:end]
    runs = []
    at = 0
    for other_at, other_end in others:
        runs.append(view[at:other_at])
        at = other_end
    runs.append(view[at:end])
    return b"".join(runs)


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
    data: bytes, path: str, position: int, index: int, last_index: int, max_bytes: int
) -> list[BatchHeader]:
    """The headers in ``data``, read at ``position``, of batches that end before ``max_bytes``.

    The first batch is in it even if ``data`` ends before its body does, others only whole.
    """
    headers: list[BatchHeader] = []
    at = 0
    limit = min(max_bytes, len(data))
    while index <= last_index:
        if headers and at + HEADER_SIZE > limit:
            break
        header = header_at(data, at, path, position + at, index)
        at += header.size_bytes
        if headers and at > limit:
            break
        headers.append(header)
        index = header.next_index
    return headers
