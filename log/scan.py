"""Walking over the batches of a segment file."""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import Corrupt, ProtocolError
from quorumlog.log.batch import (
    ENCRYPTED,
    HEADER_SIZE,
    MAGIC,
    MAX_BODY_BYTES,
    MAX_RECORDS_PER_BATCH,
    BatchHeader,
    Fields,
    check_body,
    decode_fields,
    decode_header,
    header_of,
)
from quorumlog.ports import File, Readable

_PLACE: Final = struct.Struct("<I4xIIQ8xQ28xBxHI4x")
"""Of a batch header: magic, body_length, record_count, index, base_offset, kind, flags,
index_count."""
_INTACT: Final = 0x48674BC7
"""The CRC-32C of whatever ends with the CRC-32C of what is before: a header's of all its bytes."""

_BIG_BATCH_BYTES: Final = 16 * 1024
_SCAN_BYTES: Final = 1024 * 1024
_ZERO_PAGE: Final = bytes(4096)


def walk_headers(
    file: File, path: str, position: int, index: int, last_index: int, chunk_bytes: int
) -> Iterator[tuple[int, BatchHeader]]:
    """Position and header of the batches ``index`` to ``last_index``, the first at ``position``.

    The last one may be a gap that goes beyond ``last_index``. Reads about ``chunk_bytes`` at a
    time, less where batches are large: bodies are skipped.

    Raises:
        Corrupt: a header is damaged, or is not the one that has to stand there.
    """
    chunk = b""
    chunk_position = position
    size_bytes = 0
    while index <= last_index:
        at = position - chunk_position
        if at + HEADER_SIZE > len(chunk):
            chunk = file.read_at(
                position, HEADER_SIZE if size_bytes > _BIG_BATCH_BYTES else chunk_bytes
            )
            chunk_position = position
            at = 0
        header = header_at(chunk, at, path, position, index)
        yield position, header
        size_bytes = header.size_bytes
        position += size_bytes
        index = header.next_index


class Span(NamedTuple):
    """Batches that stand one after the other in a buffer, every header checked.

    A tuple: every fetch makes one.
    """

    end: int
    """Of the last of them, in the buffer; of the only one it may be behind the buffer's end."""
    next_index: int
    next_offset: int
    others: Sequence[tuple[int, int]]
    """Begin and end of those among them that are not of kind RECORDS."""


def check_headers(
    data: bytes,
    path: str,
    position: int,
    index: int,
    last_index: int,
    limit: int,
    end_offset: int,
    max_records: int,
    *,
    is_encrypted: bool,
) -> Span:
    """The batches from ``index`` on in ``data``, which was read at ``position`` of the file.

    Up to ``last_index``, and only whole batches that end by ``limit`` of ``data``, that begin
    before ``end_offset`` and that have at most ``max_records`` together; but at least one. Costs
    0.3 microseconds a plain RECORDS batch: beside its read this is what a fetch costs.

    Raises:
        Corrupt: a header is damaged, another batch's, or says ENCRYPTED unless ``is_encrypted``.
    """
    if len(data) < HEADER_SIZE:
        fields_at(data, 0, path, position, index)
    unpack, checksum = _PLACE.unpack, crc32c
    others: list[tuple[int, int]] = []
    at = end = 0
    last_at = limit - HEADER_SIZE
    # What is before it is within the limits for sure; the first batch says where that is.
    sure_offset = full_offset = -1
    while True:
        body_at = at + HEADER_SIZE
        head = data[at:body_at]
        magic, length, record_count, found, base_offset, kind, flags, index_count = unpack(head)
        if (
            checksum(head) != _INTACT
            or magic != MAGIC
            or found != index
            or kind  # Another one than RECORDS.
            or flags
            or index_count != 1
            or length > MAX_BODY_BYTES
            or not record_count
            or record_count > MAX_RECORDS_PER_BATCH
        ):
            fields_at(data, at, path, position + at, index)
            if flags & ENCRYPTED and not is_encrypted:
                raise Corrupt(path, position + at, "a plain batch", "an encrypted one")
        next_at = body_at + length
        behind = base_offset + record_count
        if next_at > limit or behind > sure_offset:
            if not end:
                full_offset = base_offset + max_records
                sure_offset = min(end_offset, full_offset)
            elif next_at > limit or base_offset >= end_offset or behind > full_offset:
                break
        if kind:
            others.append((at, next_at))
        at = end = next_at
        next_offset = behind
        index += index_count
        # What is behind the end may be cut and written anew at this moment: it is not looked at.
        if index > last_index or at > last_at or behind >= end_offset:
            break
    return Span(end, index, next_offset, others)


def header_at(chunk: bytes, at: int, path: str, position: int, index: int) -> BatchHeader:
    """The header of batch ``index``, which stands at ``position`` of the file, ``at`` of ``chunk``.

    Raises:
        Corrupt: it is damaged, or another batch's.
    """
    return header_of(fields_at(chunk, at, path, position, index))


def fields_at(chunk: bytes, at: int, path: str, position: int, index: int) -> Fields:
    """As :func:`header_at`, without building the header."""
    try:
        fields = decode_fields(chunk, at)
    except ProtocolError as error:
        raise Corrupt(path, position, f"the header of batch {index}", str(error)) from error
    found = fields[4]
    if found != index:
        raise Corrupt(path, position, f"batch {index}", f"batch {found}")
    return fields


class Scan:
    """Walks over everything in a segment from ``position`` on and checks it all.

    Iterate to get position and header of each good batch. Afterwards ``position`` is behind the
    last of them, and ``damage`` says what is wrong there; it is None where the file ends.
    """

    def __init__(self, file: File, position: int, before: BatchHeader) -> None:
        """``before`` is the header the first batch has to continue."""
        self._file = file
        self._before = before
        self.position = position
        self.damage: str | None = None

    def __iter__(self) -> Iterator[tuple[int, BatchHeader]]:
        chunk = memoryview(b"")
        chunk_position = self.position
        while True:
            at = self.position - chunk_position
            if at + HEADER_SIZE > len(chunk):
                chunk = memoryview(self._file.read_at(self.position, _SCAN_BYTES))
                chunk_position = self.position
                at = 0
            if not chunk:
                return
            try:
                header = decode_header(chunk, at)
                if at + header.size_bytes > len(chunk):
                    size_bytes = max(_SCAN_BYTES, header.size_bytes)
                    chunk = memoryview(self._file.read_at(self.position, size_bytes))
                    chunk_position = self.position
                    at = 0
                check_body(header, chunk[at + HEADER_SIZE : at + header.size_bytes])
                self._check_order(header)
            except ProtocolError as error:
                self.damage = str(error)
                return
            yield self.position, header
            self._before = header
            self.position += header.size_bytes

    def _check_order(self, header: BatchHeader) -> None:
        before = self._before
        if header.index != before.next_index:
            raise ProtocolError(f"batch {header.index} stands where {before.next_index} belongs")
        if header.base_offset != before.next_offset:
            raise ProtocolError(f"base offset is {header.base_offset}, not {before.next_offset}")
        if header.term < before.term:
            raise ProtocolError(f"term {header.term} comes after term {before.term}")
        if header.timestamp_ms < before.timestamp_ms:
            raise ProtocolError("the timestamp is before that of the batch before")


def end_of_data(file: Readable, position: int) -> int:
    """The position behind the last byte from ``position`` on that is not zero."""
    end = position
    while chunk := file.read_at(position, _SCAN_BYTES):
        used = _size_without_zeros(chunk)
        if used:
            end = position + used
        position += len(chunk)
    return end


def _size_without_zeros(chunk: bytes) -> int:
    """The length of ``chunk`` without the zeros at its end."""
    # By pages: stripping looks at each byte by itself, and most of what is preallocated is zeros.
    for begin in reversed(range(0, len(chunk), len(_ZERO_PAGE))):
        page = chunk[begin : begin + len(_ZERO_PAGE)]
        if not _ZERO_PAGE.startswith(page):
            return begin + len(page.rstrip(b"\0"))
    return 0


def count_intact_headers(file: File, position: int, end: int) -> int:
    """How many batch headers between ``position`` and ``end`` are valid, wherever they stand."""
    count = 0
    while position < end:
        chunk = file.read_at(position, min(_SCAN_BYTES, end - position))
        at = chunk.find(b"QLB\x01")
        while at >= 0 and at + HEADER_SIZE <= len(chunk):
            try:
                decode_header(chunk, at)
                count += 1
            except ProtocolError:
                pass
            at = chunk.find(b"QLB\x01", at + 1)
        if len(chunk) < _SCAN_BYTES:
            break
        position += len(chunk) - HEADER_SIZE + 1
    return count
