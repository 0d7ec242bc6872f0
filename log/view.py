"""The reading side of a log: from memory near the end, from the files otherwise."""

from collections.abc import Callable, Iterator

from quorumlog.errors import IndexOutOfRange, InvariantViolation, OffsetOutOfRange
from quorumlog.log.batch import Batch, BatchHeader, Kind, join_batches
from quorumlog.log.reader import BatchReader, Fetched, Range
from quorumlog.log.recovery import header_before
from quorumlog.log.segment import Segment
from quorumlog.log.segment_files import SegmentFiles
from quorumlog.log.sparse_index import Entry, SparseIndex
from quorumlog.log.state import LogState
from quorumlog.types import Index, Offset, Term

_REPLAY_BYTES = 1024 * 1024


class LogView:
    """Answers what :class:`quorumlog.log.log.Log` is asked; the contracts stand there."""

    def __init__(self, state: LogState, files: SegmentFiles) -> None:
        self._state = state
        self._layout = state.layout
        self._files = files
        self._reader = BatchReader(files)

    @property
    def indexes_rebuilt(self) -> int:
        return self._files.indexes_rebuilt

    def forget_hints(self) -> None:
        self._reader.forget_hints()

    def term_at(self, index: int) -> Term:
        """See :meth:`quorumlog.log.log.Log.term_at`."""
        with self._state.lock:
            layout = self._layout
            if index == layout.next_index - 1:
                return layout.last_term
            self._check_index(index, self._start_index - 1)
            if index >= layout.tail.first_index:
                return layout.tail.get(index).header.term
            number = max(layout.segment_of_index(index), 0)
            segment = layout.segments[number]
            if index < segment.first_index:
                return segment.header.prev_term
            last_index = layout.last_index_of(number)
            is_last = number + 1 == len(layout.segments)
            last_term = (
                layout.last_term if is_last else layout.segments[number + 1].header.prev_term
            )
        if segment.first_term == last_term:
            return last_term
        return Term(self._index_of(segment, last_index).at_index(index).term)

    def slice(self, first_index: int, max_bytes: int) -> list[Batch]:
        """See :meth:`quorumlog.log.log.Log.slice`."""
        with self._state.lock:
            self._state.check_usable()
            layout = self._layout
            if first_index >= layout.next_index:
                return []
            if first_index >= layout.tail.first_index:
                return layout.tail.slice(first_index, layout.next_index - 1, max_bytes)
            self._check_index(first_index, self._start_index)
        return self._reader.batches(self._range_at_index(first_index), max_bytes)

    def fetch(self, offset: int, max_bytes: int, end_offset: int) -> Fetched:
        """See :meth:`quorumlog.log.log.Log.fetch`."""
        with self._state.lock:
            self._state.check_usable()
            layout = self._layout
            end_offset = min(end_offset, layout.end_offset)
            if not self._layout.segments[0].base_offset <= offset <= end_offset:
                raise OffsetOutOfRange(offset, self._layout.segments[0].base_offset, end_offset)
            if offset == end_offset:
                return Fetched(b"", Offset(offset))
            index = layout.tail.find_offset(offset)
            if index is not None:
                batches = layout.tail.slice(index, layout.next_index - 1, max_bytes)
                return _fetched(batches, end_offset)
        return self._reader.records(self._range_at_offset(offset), max_bytes, end_offset)

    def index_of_offset(self, offset: int) -> Index:
        """See :meth:`quorumlog.log.log.Log.index_of_offset`."""
        with self._state.lock:
            self._state.check_usable()
            layout = self._layout
            start_offset = layout.segments[0].base_offset
            if not start_offset <= offset < layout.end_offset:
                raise OffsetOutOfRange(offset, start_offset, layout.end_offset)
            index = layout.tail.find_offset(offset)
        return Index(self._range_at_offset(offset).first_index if index is None else index)

    def headers(self, first_index: int) -> Iterator[BatchHeader]:
        """See :meth:`quorumlog.log.log.Log.headers`."""
        last_index = self._layout.next_index - 1
        while first_index <= last_index:
            with self._state.lock:
                self._state.check_usable()
                self._check_index(first_index, self._start_index)
                tail = self._layout.tail
                if first_index >= tail.first_index:
                    found = tail.slice(first_index, last_index, _REPLAY_BYTES)
                    batches: list[Batch] | None = found
                else:
                    batches = None
            if batches is not None:
                yield from (batch.header for batch in batches)
                first_index += len(batches)
                continue
            where = self._range_at_index(first_index)
            for header in self._reader.headers(where):
                yield header
                first_index += 1

    def batches(self, first_index: int) -> Iterator[Batch]:
        """See :meth:`quorumlog.log.log.Log.batches`."""
        last_index = self._layout.next_index - 1
        while first_index <= last_index:
            for batch in self.slice(first_index, _REPLAY_BYTES):
                if batch.header.index > last_index:
                    return
                yield batch
                first_index += 1

    def offset_for_time(self, timestamp_ms: int, end_offset: int) -> Offset:
        """See :meth:`quorumlog.log.log.Log.offset_for_time`."""
        for header in self.headers(self._index_before_time(timestamp_ms)):
            if header.base_offset >= end_offset:
                break
            if header.kind is Kind.RECORDS and header.timestamp_ms >= timestamp_ms:
                return header.base_offset
        return Offset(min(end_offset, self._layout.end_offset))

    def preceding_header(self, index: int) -> BatchHeader:
        """The header of batch ``index - 1``, or what stands for it before a segment."""
        with self._state.lock:
            layout = self._layout
            if index - 1 >= layout.tail.first_index:
                return layout.tail.get(index - 1).header
            segment = layout.segments[layout.segment_of_index(index)]
            if segment.first_index == index:
                return header_before(segment.header)
        return next(self._reader.headers(self._range_at_index(index - 1)))

    def place_of(self, index: int) -> tuple[int, int, SparseIndex]:
        """Segment number and position of batch ``index``, and the index of what is before it."""
        with self._state.lock:
            layout = self._layout
            number = layout.segment_of_index(index)
            segment = layout.segments[number]
            last_index = layout.last_index_of(number)
            position = None
            if index >= layout.tail.first_index:
                position = segment.end - layout.tail.bytes_between(index, last_index + 1)
        sparse = self._index_of(segment, last_index)
        if position is None:
            where = Range(segment, sparse.at_index(index), index, last_index)
            position, _ = next(self._reader.positioned_headers(where))
        return number, position, sparse.until(index)

    def _range_at_index(self, index: int) -> Range:
        """Where batch ``index``, which is not in the tail, and what follows it stand on disk."""
        with self._state.lock:
            layout = self._layout
            number = layout.segment_of_index(index)
            segment, last_index, entry = self._search(number, lambda each: each.at_index(index))
            readable = min(last_index, layout.written_index)
        if entry is None:
            entry = self._files.index_of(segment, last_index).at_index(index)
        return Range(segment, entry, index, readable)

    def _range_at_offset(self, offset: int) -> Range:
        """Where the batch that holds ``offset``, which is not in the tail, stands on disk."""
        with self._state.lock:
            layout = self._layout
            number = layout.segment_of_offset(offset)
            segment, last_index, entry = self._search(number, lambda each: each.at_offset(offset))
            readable = min(last_index, layout.written_index)
        if entry is None:
            entry = self._files.index_of(segment, last_index).at_offset(offset)
        where = Range(segment, entry, entry.index, readable)
        for header in self._reader.headers(where):
            if offset < header.next_offset:
                return Range(segment, entry, header.index, readable)
        raise InvariantViolation(f"{segment.path}: offset {offset} is in no batch of it")

    def _index_before_time(self, timestamp_ms: int) -> Index:
        """An index at or before the first batch of ``timestamp_ms`` or later."""
        with self._state.lock:
            layout = self._layout
            if layout.next_index == self._start_index:
                return layout.next_index
            number = layout.segment_before_time(timestamp_ms)
            segment, last_index, entry = self._search(
                number, lambda each: each.before_time(timestamp_ms)
            )
        if entry is None:
            entry = self._files.index_of(segment, last_index).before_time(timestamp_ms)
        return Index(entry.index)

    def _search(
        self, number: int, find: Callable[[SparseIndex], Entry]
    ) -> tuple[Segment, int, Entry | None]:
        """A segment, its last index, and the entry found if its sparse index is in memory."""
        segment = self._layout.segments[number]
        last_index = self._layout.last_index_of(number)
        return segment, last_index, None if segment.index is None else find(segment.index)

    def _index_of(self, segment: Segment, last_index: int) -> SparseIndex:
        index = segment.index
        return self._files.index_of(segment, last_index) if index is None else index

    def _check_index(self, index: int, start: int) -> None:
        if not start <= index < self._layout.next_index:
            raise IndexOutOfRange(index, start, self._layout.next_index)

    @property
    def _start_index(self) -> Index:
        return self._layout.segments[0].first_index


def _fetched(batches: list[Batch], end_offset: int) -> Fetched:
    """As :meth:`BatchReader.records`, from batches in memory."""
    batches = [batch for batch in batches if batch.header.base_offset < end_offset]
    kept = [batch for batch in batches if batch.header.kind is Kind.RECORDS]
    return Fetched(join_batches(kept), batches[-1].header.next_offset)
