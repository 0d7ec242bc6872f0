"""Finding where on disk a batch stands: by index, by offset, by time.

A lookup begins with the list of segments as it is and holds no lock while it reads. Where a file
turns out to be gone or replaced, it begins again: the list is changed before the files are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from quorumlog.errors import Corrupt, IndexOutOfRange, InvariantViolation, OffsetOutOfRange
from quorumlog.log.reader import Range, read_headers
from quorumlog.log.segment import Segment
from quorumlog.log.segment_files import OpenSegment, SegmentChanged, SegmentFiles
from quorumlog.log.sparse_index import Entry, SparseIndex
from quorumlog.log.state import LogState
from quorumlog.types import Index, Term

Place = tuple[OpenSegment, Range]
"""An open file, to be released by who gets it, and where in it to read."""


class Lookup:
    """For batches that are written. Any thread; see the module."""

    def __init__(self, state: LogState, files: SegmentFiles) -> None:
        self._state = state
        self._layout = state.layout
        self._files = files
        self._found = 0
        """Where the search before ended; whoever reads on is there still."""

    def at_index(self, index: int) -> Place:
        """Where the batch that takes ``index``, and what follows it, stand.

        Raises:
            IndexOutOfRange, Closed, LogFenced, Corrupt, StorageError
        """
        opened, segment, last_index, sparse = self._open_at(index)
        with _released_on_error(opened):
            entry = opened.by_index.get(index) or self._entry(
                opened, segment, last_index, sparse, lambda each: each.at_index(index)
            )
        return opened, self._range(entry, index, last_index, segment)

    def before_index(self, last_index: int, max_bytes: int) -> Place:
        """Where to read at most ``max_bytes``, or a batch, that end with batch ``last_index``."""
        opened, segment, in_segment, sparse = self._open_at(last_index)

        def find(index: SparseIndex) -> Entry:
            near = index.at_index(last_index)
            return index.before_position(max(near.position - max_bytes, 0))

        with _released_on_error(opened):
            entry = self._entry(opened, segment, in_segment, sparse, find)
        return opened, self._range(entry, entry.index, last_index, segment)

    def at_offset(self, offset: int, *, is_near_enough: bool = False) -> Place:
        """Where the batch that holds ``offset``, and what follows it, stand.

        With ``is_near_enough`` batches without offsets may come first: that is so where a read
        ended before them, and takes no search then.

        Raises:
            OffsetOutOfRange, Closed, LogFenced, Corrupt, StorageError
        """
        while True:
            number, segments = self._search(lambda each: each.base_offset <= offset)
            with self._state.lock:
                self._state.check_usable()
                layout = self._layout
                if not self._state.start_offset <= offset < layout.end_offset:
                    raise OffsetOutOfRange(offset, self._state.start_offset, layout.end_offset)
                segment = segments[number]
                last_index = layout.last_index_of(number)
                sparse = segment.index
                is_same = layout.segments is segments
            opened = self._acquire(segment) if is_same else None
            if opened is not None:
                break
        # Written out, not a context manager: that would cost a fetch that reads on a tenth.
        try:
            found = opened.by_offset.get(offset) if is_near_enough else None
            if found is None:
                found = self._find_offset(opened, segment, last_index, sparse, offset)
            return opened, self._range(found, found.index, last_index, segment)
        except BaseException as error:
            opened.__exit__(type(error), error, None)
            raise

    def index_before_time(self, timestamp_ms: int) -> Index:
        """An index at or before the first batch of ``timestamp_ms`` or later."""
        while True:
            number, segments = self._search(
                lambda each: (
                    each.first_timestamp_ms is not None and each.first_timestamp_ms < timestamp_ms
                )
            )
            with self._state.lock:
                self._state.check_usable()
                layout = self._layout
                segment = segments[number]
                last_index = layout.last_index_of(number)
                is_same = layout.segments is segments
                if is_same and last_index < segment.first_index:
                    return segment.first_index
                if is_same and segment.index is not None:
                    return Index(segment.index.before_time(timestamp_ms).index)
            opened = self._acquire(segment) if is_same else None
            if opened is not None:
                break
        with opened:
            entry = self._entry(
                opened, segment, last_index, None, lambda each: each.before_time(timestamp_ms)
            )
            return Index(entry.index)

    def term_at(self, index: int) -> Term:
        """The term of batch ``index``, which is in the files."""
        opened, segment, last_index, sparse = self._open_at(index)
        with opened:
            entry = self._entry(
                opened, segment, last_index, sparse, lambda each: each.at_index(index)
            )
            return Term(entry.term)

    def index_of(self, segment: Segment, last_index: int) -> SparseIndex:
        """The index of a sealed segment that is in the log to stay.

        Raises:
            Corrupt, StorageError
        """
        opened = self._acquire(segment)
        if opened is None:
            raise InvariantViolation(f"{segment.path} was removed or replaced under its owner")
        with opened:
            return self._files.index_of(opened, last_index)

    def load(self, segment: Segment) -> bool:
        """Load it if need be; False when it was removed or replaced meanwhile.

        Raises:
            Corrupt, StorageError
        """
        if segment.is_loaded:
            return True
        opened = self._acquire(segment)
        if opened is None:
            return False
        with opened:
            return True

    def _open_at(self, index: int) -> tuple[OpenSegment, Segment, int, SparseIndex | None]:
        """The segment of ``index``, open; its last index, and its index if that is in memory."""
        while True:
            with self._state.lock:
                self._state.check_usable()
                layout = self._layout
                start_index = layout.segments[0].first_index
                if not start_index <= index < layout.next_index:
                    raise IndexOutOfRange(index, start_index, layout.next_index)
                number = layout.segment_of_index(index)
                segment = layout.segments[number]
                last_index = layout.last_index_of(number)
                sparse = segment.index
            opened = self._acquire(segment)
            if opened is not None:
                return opened, segment, last_index, sparse

    def _find_offset(
        self,
        opened: OpenSegment,
        segment: Segment,
        last_index: int,
        sparse: SparseIndex | None,
        offset: int,
    ) -> Entry:
        """Where the batch that holds ``offset`` stands."""
        entry = self._entry(
            opened, segment, last_index, sparse, lambda each: each.at_offset(offset)
        )
        where = self._range(entry, entry.index, last_index, segment)
        for position, header in read_headers(opened, where):
            if offset < header.next_offset:
                return Entry(header.index, position, header.base_offset, 0, 0)
        raise InvariantViolation(f"{segment.path}: offset {offset} is in no batch of it")

    def _entry(
        self,
        opened: OpenSegment,
        segment: Segment,
        last_index: int,
        sparse: SparseIndex | None,
        find: Callable[[SparseIndex], Entry],
    ) -> Entry:
        """An entry of the segment's sparse index, which grows under the lock while it is open."""
        if sparse is None:
            try:
                return find(self._files.index_of(opened, last_index))
            except Corrupt:
                with self._state.lock:
                    sparse = segment.index
                if sparse is None:
                    raise
                # The owner has cut the segment meanwhile, behind what is looked for.
        with self._state.lock:
            return find(sparse)

    def _range(self, entry: Entry, first_index: int, last_index: int, segment: Segment) -> Range:
        readable = min(last_index, self._layout.written_index)
        return Range(entry, first_index, readable, segment.end)

    def _search(self, is_before: Callable[[Segment], bool]) -> tuple[int, Sequence[Segment]]:
        """The number of the last segment that ``is_before``, or 0, and the list it is in.

        Loads the segments it looks at.
        """
        while True:
            segments = self._layout.segments
            found = self._found
            if _ends_at(found, segments, is_before):
                return found, segments
            low, high = 0, len(segments)
            while high - low > 1:
                middle = (low + high) // 2
                if not self.load(segments[middle]):
                    break
                if is_before(segments[middle]):
                    low = middle
                else:
                    high = middle
            else:
                self._found = low
                return low, segments

    def _acquire(self, segment: Segment) -> OpenSegment | None:
        """The segment's file, or None when it was removed or replaced meanwhile."""
        try:
            return self._files.acquire(segment)
        except SegmentChanged as error:
            with self._state.lock:
                if segment in self._layout.segments:
                    raise Corrupt(segment.path, 0, "the segment", "none or another one") from error
            return None


def _ends_at(
    number: int, segments: Sequence[Segment], is_before: Callable[[Segment], bool]
) -> bool:
    """Whether a search would end at that number, as far as is known without loading a segment."""
    if number >= len(segments):
        return False
    here = segments[number]
    if not here.is_loaded or not is_before(here):
        return False
    if number + 1 == len(segments):
        return True
    behind = segments[number + 1]
    return behind.is_loaded and not is_before(behind)


@contextmanager
def _released_on_error(opened: OpenSegment) -> Iterator[None]:
    """Give ``opened`` back when the block fails."""
    try:
        yield
    except BaseException as error:
        opened.__exit__(type(error), error, None)
        raise
