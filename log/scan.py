"""Walking over the batches of a segment file."""

from collections.abc import Iterator
from typing import Final

from quorumlog.errors import Corrupt, ProtocolError
from quorumlog.log.batch import (
    HEADER_SIZE,
    BatchHeader,
    Fields,
    check_body,
    decode_fields,
    decode_header,
    header_of,
)
from quorumlog.ports import File

_BIG_BATCH_BYTES: Final = 16 * 1024
_SCAN_BYTES: Final = 1024 * 1024


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


def end_of_data(file: File, position: int) -> int:
    """The position behind the last byte from ``position`` on that is not zero."""
    end = position
    while chunk := file.read_at(position, _SCAN_BYTES):
        used = len(chunk.rstrip(b"\0"))
        if used:
            end = position + used
        position += len(chunk)
    return end


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
