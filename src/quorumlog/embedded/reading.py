"""Records of a log in order, or newest first."""

from collections.abc import Generator, Iterator
from typing import Protocol

from quorumlog.embedded.arguments import whole
from quorumlog.errors import IndexOutOfRange, InvalidArgument, OffsetOutOfRange
from quorumlog.log.batch import Batch, Kind
from quorumlog.log.records import decode_records
from quorumlog.types import Index, Offset, Record

_BACKWARD_BYTES = 256 * 1024


class Source(Protocol):
    """What is asked of a log; the contracts stand in :class:`quorumlog.log.log.Log`."""

    @property
    def start_offset(self) -> Offset: ...

    def index_of_offset(self, offset: int) -> Index: ...

    def stream(self, first_index: int) -> Iterator[list[Batch]]: ...

    def batches_before(self, index: int, max_bytes: int) -> list[Batch]: ...


def checked_range(
    start: int | None,
    end: int | None,
    log_range: tuple[Offset, Offset],
    *,
    follow: bool,
    reverse: bool,
) -> tuple[int, int | None]:
    """Where a read begins and ends in a log that has the offsets of ``log_range``.

    Raises:
        InvalidArgument, OffsetOutOfRange: see :meth:`quorumlog.EmbeddedLog.read`.
    """
    if follow and reverse:
        raise InvalidArgument("a read follows the log or goes backwards, not both")
    first, next_offset = log_range
    begin = first if start is None else whole("start", start)
    if not first <= begin <= next_offset:
        raise OffsetOutOfRange(begin, first, next_offset)
    stop = None if end is None else whole("end", end)
    if reverse:
        stop = next_offset if stop is None else min(stop, next_offset)
    return begin, stop


class Cursor:
    """Where one reader is. It reads on from there without a search."""

    def __init__(self, source: Source, offset: int) -> None:
        self._source = source
        self._index: Index | None = None
        self.offset = offset
        """The next one to be read."""

    def records(self, limit: int) -> Iterator[Record]:
        """The records of ``[offset, limit)``. Take all of them, or give the cursor up.

        Raises:
            OffsetOutOfRange: they were deleted meanwhile.
            Corrupt, StorageError, LogFenced, Closed
        """
        for batches in self.lists(limit):
            for batch in batches:
                yield from self.of_batch(batch, limit)

    def lists(self, limit: int) -> Generator[list[Batch], None, None]:
        """The batches from the one that holds ``offset`` on, up to ``limit`` or behind it.

        Does what blocks; give each batch to ``of_batch`` before the next list is asked for.
        """
        if self.offset >= limit:
            return
        try:
            if self._index is None:
                self._index = self._source.index_of_offset(self.offset)
            for batches in self._source.stream(self._index):
                yield batches
                if self.offset >= limit:
                    return
        except IndexOutOfRange as error:
            raise OffsetOutOfRange(self.offset, self._source.start_offset, limit) from error

    def of_batch(self, batch: Batch, limit: int) -> Iterator[Record]:
        """The records of ``batch`` in ``[offset, limit)``, decoded when they are asked for."""
        header = batch.header
        if header.base_offset >= limit:
            return
        if header.kind is Kind.RECORDS:
            records = decode_records(header, batch.body, self.offset)
            if header.next_offset <= limit:
                yield from records
            else:
                yield from until(records, limit)
                self.offset = limit
                return
        self.offset = max(self.offset, header.next_offset)
        self._index = header.next_index


def until(records: Iterator[Record], end: int) -> Iterator[Record]:
    """Those before offset ``end``."""
    for record in records:
        if record.offset >= end:
            return
        yield record


def backward(source: Source, start: int, end: int) -> Iterator[Record]:
    """The records of ``[start, end)``, the newest first; ends early where older ones are deleted.

    A batch is decoded as a whole.

    Raises:
        Corrupt, StorageError, LogFenced, Closed
    """
    if start >= end:
        return
    index = Index(source.index_of_offset(end - 1) + 1)
    while batches := batches_before(source, index):
        for batch in reversed(batches):
            if batch.header.next_offset <= start:
                return
            yield from newest_first(batch, start, end)
        index = batches[0].header.index


def batches_before(source: Source, index: int) -> list[Batch]:
    """Some batches before ``index``, oldest first; none where they are deleted."""
    try:
        return source.batches_before(index, _BACKWARD_BYTES)
    except IndexOutOfRange:
        return []


def newest_first(batch: Batch, start: int, end: int) -> list[Record]:
    """The records of ``batch`` in ``[start, end)``, the newest first."""
    if batch.header.kind is not Kind.RECORDS:
        return []
    return list(until(decode_records(batch.header, batch.body, start), end))[::-1]
