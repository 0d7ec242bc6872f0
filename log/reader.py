"""Reading batches from segment files: sparse index, one pread, then from header to header."""

from collections.abc import Iterator
from dataclasses import dataclass

from quorumlog.errors import Corrupt, ProtocolError
from quorumlog.log.batch import (
    HEADER_SIZE,
    Batch,
    BatchHeader,
    Fields,
    Kind,
    check_body,
    header_of,
)
from quorumlog.log.scan import fields_at, walk_headers
from quorumlog.log.segment import Segment
from quorumlog.log.segment_files import SegmentFiles
from quorumlog.log.sparse_index import Entry
from quorumlog.ports import File
from quorumlog.types import Buffer, Offset

_WALK_BYTES = 16 * 1024
_MAX_HINTS = 256

# Places in Fields.
_BODY_LENGTH = 2
_RECORD_COUNT = 3
_INDEX = 4
_BASE_OFFSET = 6
_KIND = 11


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
    """Where to read: batches ``first_index`` to ``last_index``, both in ``segment`` and written.

    ``entry`` is a batch of the segment at or before the first one.
    """

    segment: Segment
    entry: Entry
    first_index: int
    last_index: int


@dataclass(frozen=True, slots=True)
class _Read:
    """Whole batches as they stand at ``position``, and the fields of their headers."""

    data: bytes
    position: int
    headers: list[Fields]


class BatchReader:
    """Reads from segment files; any number of threads, no lock while reading.

    Remembers where the last reads ended, so that reading on takes no search.
    """

    def __init__(self, files: SegmentFiles) -> None:
        self._files = files
        self._hints: dict[int, int] = {}

    def forget_hints(self) -> None:
        """After a truncation: other batches may stand there now."""
        self._hints = {}

    def headers(self, where: Range) -> Iterator[BatchHeader]:
        """The headers in ``where``.

        Raises:
            Corrupt: one of them is damaged.
        """
        for _, header in self.positioned_headers(where):
            yield header

    def positioned_headers(self, where: Range) -> Iterator[tuple[int, BatchHeader]]:
        with self._files.reading(where.segment) as file:
            position = self._position_of(file, where)
            yield from walk_headers(
                file,
                where.segment.path,
                position,
                where.first_index,
                where.last_index,
                _WALK_BYTES,
            )

    def batches(self, where: Range, max_bytes: int) -> list[Batch]:
        """Batches from the first on, at least one, at most ``max_bytes`` otherwise.

        Raises:
            Corrupt: a header or a body is damaged.
        """
        read = self._read(where, max_bytes, None)
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
                    where.segment.path, read.position + at, f"batch {header.index}", str(error)
                ) from error
            batches.append(Batch(header, view[at:body_at], body))
            at = body_at + header.body_length
        return batches

    def records(self, where: Range, max_bytes: int, end_offset: int) -> Fetched:
        """The RECORDS batches among those with a base offset before ``end_offset``.

        At least one batch is looked at; one that holds no records leaves ``data`` empty.

        Raises:
            Corrupt: a header is damaged.
        """
        read = self._read(where, max_bytes, end_offset)
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
        last = read.headers[-1]
        return Fetched(joined, Offset(last[_BASE_OFFSET] + last[_RECORD_COUNT]))

    def _read(self, where: Range, max_bytes: int, end_offset: int | None) -> _Read:
        """At least one batch; only such with a base offset before ``end_offset``."""
        hints = self._hints
        with self._files.reading(where.segment) as file:
            begin = self._position_of(file, where)
            size_bytes = max(max_bytes, HEADER_SIZE)
            if where.segment.end:
                size_bytes = min(size_bytes, where.segment.end - begin)
            data = file.read_at(begin, size_bytes)
            headers = _headers_in(data, where, begin, max_bytes, end_offset)
            end = sum(fields[_BODY_LENGTH] for fields in headers) + len(headers) * HEADER_SIZE
            if end > len(data):
                data = file.read_at(begin, end)
        if end > len(data):
            raise Corrupt(
                where.segment.path, begin, f"a batch of {end} bytes", f"{len(data)} to the end"
            )
        if len(hints) >= _MAX_HINTS:
            hints.clear()
        hints[headers[-1][_INDEX] + 1] = begin + end
        return _Read(data, begin, headers)

    def _position_of(self, file: File, where: Range) -> int:
        if where.first_index == where.entry.index:
            return where.entry.position
        hint = self._hints.get(where.first_index)
        if hint is not None:
            return hint
        path = where.segment.path
        entry = where.entry
        position = entry.position
        for _, header in walk_headers(
            file, path, position, entry.index, where.first_index - 1, _WALK_BYTES
        ):
            position += header.size_bytes
        return position


def _headers_in(
    data: bytes, where: Range, position: int, max_bytes: int, end_offset: int | None
) -> list[Fields]:
    """The headers in ``data``, read at ``position``, up to the limits.

    The first batch is in it even if ``data`` ends before its body does, others only whole.
    """
    headers: list[Fields] = []
    at = 0
    limit = min(max_bytes, len(data))
    for index in range(where.first_index, where.last_index + 1):
        if headers and at + HEADER_SIZE > limit:
            break
        fields = fields_at(data, at, where.segment.path, position + at, index)
        end = at + HEADER_SIZE + fields[_BODY_LENGTH]
        if headers and (
            end > limit or (end_offset is not None and fields[_BASE_OFFSET] >= end_offset)
        ):
            break
        headers.append(fields)
        at = end
    return headers
