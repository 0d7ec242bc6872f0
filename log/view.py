"""The reading side of a log: from memory near the end, from the files otherwise."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from quorumlog.errors import IndexOutOfRange, OffsetOutOfRange
from quorumlog.log.batch import Batch, BatchHeader, Kind, join_batches
from quorumlog.log.cipher import plain_header, sealed_size
from quorumlog.log.lookup import Lookup
from quorumlog.log.reader import Fetched, read_batches, read_headers, read_records
from quorumlog.log.segment import DATA_START, header_before
from quorumlog.log.segment_files import SegmentFiles
from quorumlog.log.sparse_index import SparseIndex
from quorumlog.log.state import LogState
from quorumlog.types import Index, Offset, Term

_STREAM_BYTES = 1024 * 1024


class LogView:
    """Answers for a :class:`quorumlog.log.readable.ReadableLog`; the contracts stand there."""

    def __init__(self, state: LogState, files: SegmentFiles) -> None:
        self._state = state
        self._layout = state.layout
        self._files = files
        self._lookup = Lookup(state, files)

    @property
    def indexes_rebuilt(self) -> int:
        return self._files.indexes_rebuilt

    def forget_hints(self) -> None:
        self._files.forget_hints()

    def term_at(self, index: int) -> Term:
        """See :meth:`quorumlog.log.readable.ReadableLog.term_at`."""
        while True:
            with self._state.lock:
                layout = self._layout
                if index == layout.next_index - 1:
                    return layout.last_term
                self._check_index(index, self._start_index - 1)
                if index >= layout.tail.first_index:
                    return layout.tail.get(index).header.term
                first = layout.segments[0]
                if index < first.first_index:
                    return first.header.prev_term
            # Where the start came to it meanwhile, it is found above.
            with suppress(IndexOutOfRange):
                return self._lookup.term_at(index)

    def slice(self, first_index: int, max_bytes: int) -> list[Batch]:
        """See :meth:`quorumlog.log.readable.ReadableLog.slice`."""
        with self._state.lock:
            self._state.check_usable()
            layout = self._layout
            if first_index >= layout.next_index:
                return []
            self._check_index(first_index, self._start_index)
            if first_index >= layout.tail.first_index:
                return layout.tail.slice(first_index, layout.next_index - 1, max_bytes)
        opened, where = self._lookup.at_index(first_index)
        with opened:
            return read_batches(opened, where, max_bytes)

    def fetch(
        self, offset: int, max_bytes: int, end_offset: int, max_records: int | None
    ) -> Fetched:
        """See :meth:`quorumlog.log.readable.ReadableLog.fetch`."""
        with self._state.lock:
            self._state.check_usable()
            layout = self._layout
            end_offset = min(end_offset, layout.end_offset)
            if not self._state.start_offset <= offset <= end_offset:
                raise OffsetOutOfRange(offset, self._state.start_offset, end_offset)
            if offset == end_offset:
                return Fetched(b"", Offset(offset))
            index = layout.tail.find_offset(offset)
            if index is not None:
                batches = layout.tail.slice(index, layout.next_index - 1, max_bytes)
                return _fetched(batches, end_offset, max_records)
        opened, where = self._lookup.at_offset(offset, is_near_enough=True)
        with opened:
            fetched = read_records(opened, where, max_bytes, end_offset, max_records)
        if fetched.next_offset == offset:
            # What stands there, and was all there was room for, takes no offsets.
            opened, where = self._lookup.at_offset(offset)
            with opened:
                fetched = read_records(opened, where, max_bytes, end_offset, max_records)
        return fetched

    def index_of_offset(self, offset: int) -> Index:
        """See :meth:`quorumlog.log.readable.ReadableLog.index_of_offset`."""
        with self._state.lock:
            self._state.check_usable()
            layout = self._layout
            start_offset = self._state.start_offset
            if not start_offset <= offset < layout.end_offset:
                raise OffsetOutOfRange(offset, start_offset, layout.end_offset)
            index = layout.tail.find_offset(offset)
        if index is not None:
            return Index(index)
        opened, where = self._lookup.at_offset(offset)
        with opened:
            return Index(where.first_index)

    def headers(self, first_index: int) -> Iterator[BatchHeader]:
        """See :meth:`quorumlog.log.readable.ReadableLog.headers`."""
        index = Index(first_index)
        last_index = self._layout.next_index - 1
        while index <= last_index:
            batches = self._from_tail(index, last_index)
            if batches:
                yield from (batch.header for batch in batches)
                index = batches[-1].header.next_index
                continue
            opened, where = self._lookup.at_index(index)
            with opened:
                for _, header in read_headers(opened, where):
                    yield plain_header(header) if header.flags else header
                    index = header.next_index

    def stream(self, first_index: int) -> Iterator[list[Batch]]:
        """See :meth:`quorumlog.log.readable.ReadableLog.stream`."""
        index = Index(first_index)
        last_index = self._layout.next_index - 1
        while index <= last_index:
            batches = self._from_tail(index, last_index)
            if batches:
                yield batches
                index = batches[-1].header.next_index
                continue
            opened, where = self._lookup.at_index(index)
            end = min(where.last_index, last_index)
            with opened:
                while index <= end:
                    where = replace(where, first_index=index, last_index=end)
                    batches = read_batches(opened, where, _STREAM_BYTES)
                    yield batches
                    index = batches[-1].header.next_index

    def batches_before(self, index: int, max_bytes: int) -> list[Batch]:
        """See :meth:`quorumlog.log.readable.ReadableLog.batches_before`."""
        with self._state.lock:
            self._state.check_usable()
            tail = self._layout.tail
            last_index = min(index, self._layout.next_index) - 1
            if last_index < self._start_index:
                return []
            if last_index >= tail.first_index:
                return tail.slice_before(last_index, max_bytes)
        try:
            opened, where = self._lookup.before_index(last_index, max_bytes)
        except IndexOutOfRange:
            # Deleted meanwhile, and what is before it too.
            return []
        with opened:
            batches: list[Batch] = []
            while where.first_index <= last_index:
                batches += read_batches(opened, where, max_bytes)
                where = replace(where, first_index=batches[-1].header.next_index)
            return batches

    def offset_for_time(self, timestamp_ms: int, end_offset: int) -> Offset:
        """See :meth:`quorumlog.log.readable.ReadableLog.offset_for_time`."""
        while True:
            # Again where segments are deleted meanwhile: then the answer is behind them.
            with suppress(IndexOutOfRange):
                return self._offset_for_time(timestamp_ms, end_offset)

    def _offset_for_time(self, timestamp_ms: int, end_offset: int) -> Offset:
        for header in self.headers(self._lookup.index_before_time(timestamp_ms)):
            if header.base_offset >= end_offset:
                break
            if header.kind is Kind.RECORDS and header.timestamp_ms >= timestamp_ms:
                return max(header.base_offset, self._state.start_offset)
        return Offset(min(end_offset, self._layout.end_offset))

    def committed_offset(self) -> Offset:
        """The offset behind the last record that is committed."""
        while True:
            # Again where the floor has moved on meanwhile, and what was there is deleted.
            with suppress(IndexOutOfRange):
                return self.preceding_header(self._state.commit_floor + 1).next_offset

    def preceding_header(self, index: int) -> BatchHeader:
        """The header of batch ``index - 1``, or what stands for it before a segment."""
        while True:
            with self._state.lock:
                layout = self._layout
                if index - 1 >= layout.tail.first_index:
                    return layout.tail.get(index - 1).header
                segment = layout.segments[layout.segment_of_index(index)]
            if segment.first_index != index:
                break
            if self._lookup.load(segment):
                return header_before(segment.header)
        opened, where = self._lookup.at_index(index - 1)
        with opened:
            _, header = next(read_headers(opened, where))
            return header

    def place_of(self, index: int) -> tuple[int, SparseIndex]:
        """Where batch ``index`` stands in its segment, and the sparse index of what is before it.

        For the owner, above the commit floor: no segment there is removed or replaced.
        """
        with self._state.lock:
            layout = self._layout
            number = layout.segment_of_index(index)
            segment = layout.segments[number]
            last_index = layout.last_index_of(number)
            is_in_tail = index >= layout.tail.first_index
            in_tail_bytes = 0
            if is_in_tail and segment.key_id is None:
                in_tail_bytes = layout.tail.bytes_between(index, last_index + 1)
            elif is_in_tail:
                numbers = range(index, last_index + 1)
                in_tail_bytes = sum(sealed_size(layout.tail.get(each).header) for each in numbers)
            sparse = segment.index
        if sparse is None:
            sparse = self._lookup.index_of(segment, last_index)
        if is_in_tail:
            return segment.end - in_tail_bytes, sparse.until(index)
        if index == segment.first_index:
            return DATA_START, sparse.until(index)
        opened, where = self._lookup.at_index(index)
        with opened:
            position, _ = next(read_headers(opened, where))
        return position, sparse.until(index)

    def _from_tail(self, index: int, last_index: int) -> list[Batch]:
        """Batches from ``index`` on that are in memory; none where it is in the files only."""
        with self._state.lock:
            self._state.check_usable()
            self._check_index(index, self._start_index)
            tail = self._layout.tail
            if index < tail.first_index:
                return []
            return tail.slice(index, last_index, _STREAM_BYTES)

    def _check_index(self, index: int, start: int) -> None:
        if not start <= index < self._layout.next_index:
            raise IndexOutOfRange(index, start, self._layout.next_index)

    @property
    def _start_index(self) -> Index:
        return self._layout.segments[0].first_index


def _fetched(batches: list[Batch], end_offset: int, max_records: int | None) -> Fetched:
    """As :func:`quorumlog.log.reader.read_records`, from batches in memory."""
    taken: list[Batch] = []
    record_count = 0
    for batch in batches:
        record_count += batch.header.record_count
        if taken and (
            batch.header.base_offset >= end_offset
            or (max_records is not None and record_count > max_records)
        ):
            break
        taken.append(batch)
    kept = [batch for batch in taken if batch.header.kind is Kind.RECORDS]
    return Fetched(join_batches(kept), taken[-1].header.next_offset)
