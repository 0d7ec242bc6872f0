"""Reading batches from segment files: sparse index, one pread, then from header to header."""

from collections.abc import Iterator
from dataclasses import dataclass

from quorumlog.errors import Corrupt, ProtocolError
from quorumlog.log.batch import HEADER_SIZE, Batch, BatchHeader, Kind, check_body
from quorumlog.log.scan import header_at, walk_headers
from quorumlog.log.segment import Segment
from quorumlog.log.segment_files import SegmentFiles
from quorumlog.log.sparse_index import Entry
from quorumlog.ports import File
from quorumlog.types import Buffer, Offset

_WALK_BYTES = 16 * 1024
_MAX_HINTS = 256


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
        data, position, headers = self._read(where, max_bytes, None)
        view = memoryview(data)
        batches = []
        at = 0
        for header in headers:
            body = view[at + HEADER_SIZE : at + header.size_bytes]
            try:
                check_body(header, body)
            except ProtocolError as error:
                raise Corrupt(
                    where.segment.path, position + at, f"batch {header.index}", str(error)
                ) from error
            batches.append(Batch(header, view[at : at + HEADER_SIZE], body))
            at += header.size_bytes
        return batches

    def records(self, where: Range, max_bytes: int, end_offset: int) -> Fetched:
        """The RECORDS batches among those with a base offset before ``end_offset``.

        At least one batch is looked at; one that holds no records leaves ``data`` empty.

        Raises:
            Corrupt: a header is damaged.
        """
        data, _, headers = self._read(where, max_bytes, end_offset)
        view = memoryview(data)
        runs: list[memoryview] = []
        run_at = at = 0
        for header in headers:
            if header.kind is not Kind.RECORDS:
                if at > run_at:
                    runs.append(view[run_at:at])
                run_at = at + header.size_bytes
            at += header.size_bytes
        if at > run_at:
            runs.append(view[run_at:at])
        joined: Buffer = runs[0] if len(runs) == 1 else b"".join(runs)
        return Fetched(joined, headers[-1].next_offset)

    def _read(
        self, where: Range, max_bytes: int, end_offset: int | None
    ) -> tuple[bytes, int, list[BatchHeader]]:
        """The bytes of whole batches, their position, and their headers: at least one."""
        path = where.segment.path
        hints = self._hints
        with self._files.reading(where.segment) as file:
            begin = self._position_of(file, where)
            size_bytes = max(max_bytes, HEADER_SIZE)
            if where.segment.end:
                size_bytes = min(size_bytes, where.segment.end - begin)
            data = file.read_at(begin, size_bytes)
            headers: list[BatchHeader] = []
            at = 0
            for index in range(where.first_index, where.last_index + 1):
                if headers and at + HEADER_SIZE > len(data):
                    break
                header = header_at(data, at, path, begin + at, index)
                end = at + header.size_bytes
                if headers and (
                    end > max_bytes or (end_offset is not None and header.base_offset >= end_offset)
                ):
                    break
                if end > len(data):
                    if headers:
                        break
                    data = file.read_at(begin, end)
                    if end > len(data):
                        raise Corrupt(
                            path, begin, f"a batch of {end} bytes", f"{len(data)} bytes to the end"
                        )
                headers.append(header)
                at = end
        if len(hints) >= _MAX_HINTS:
            hints.clear()
        hints[headers[-1].index + 1] = begin + at
        return data, begin, headers

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
