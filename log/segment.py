"""A segment file: a header page, two pages of marks, then batches one after the other.

======  ==============================================================================
byte    what
======  ==============================================================================
0       the header (:mod:`quorumlog.log.segment_header`); the rest of its page is zero
4096    the two slots of the mark (:mod:`quorumlog.log.mark`), each in its own page
12288   the first batch (:mod:`quorumlog.log.batch`)
======  ==============================================================================

The file is preallocated with zeros; a sealed segment, one that has another behind it, ends with its
last batch.
"""

from collections.abc import Callable
from typing import Final

from quorumlog.errors import InvariantViolation
from quorumlog.log.batch import BatchHeader
from quorumlog.log.mark import MARKS_END, Mark, MarkPages
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.log.sparse_index import SparseIndex
from quorumlog.ports import Disk, File
from quorumlog.types import Index, Offset, Term

DATA_START: Final = MARKS_END
"""Where the first batch stands."""

PREALLOCATION_STEP_BYTES: Final = 64 * 1024
"""What a new segment file has room for; it grows in larger steps."""

RESERVED_BYTES: Final = DATA_START + PREALLOCATION_STEP_BYTES
"""Size of a new segment file."""


class Segment:
    """What is kept in memory of a segment, whether its file exists yet or not.

    A segment that was sealed before the log was opened is known by the name of its file only,
    until :class:`quorumlog.log.segment_files.SegmentFiles` has loaded the rest.

    Attributes:
        path: of its file.
        first_index: index of its first batch, as in the name of the file.
        mark: as it was when the segment was loaded or sealed; None: it has none that is valid.
        end: position behind the last batch; 0 until loaded.
        first_term: of its first batch; None while it has none.
        first_timestamp_ms: of its first batch; None while it has none.
        key_id: name of the key it is encrypted with; None: it is not.
        index: its sparse index; None once that is in a file and can be loaded again. Never
            changed after the segment was sealed, but replaced.
        is_sealed: a later segment is on disk: nothing is appended here any more.
    """

    __slots__ = (
        "_header",
        "end",
        "first_index",
        "first_term",
        "first_timestamp_ms",
        "index",
        "is_sealed",
        "key_id",
        "mark",
        "path",
    )

    def __init__(self, path: str, first_index: Index) -> None:
        self.path = path
        self.first_index = first_index
        self._header: SegmentHeader | None = None
        self.mark: Mark | None = None
        self.end = 0
        self.first_term: Term | None = None
        self.first_timestamp_ms: int | None = None
        self.key_id: str | None = None
        self.index: SparseIndex | None = None
        self.is_sealed = False

    @staticmethod
    def new(path: str, header: SegmentHeader, index: SparseIndex) -> "Segment":
        """A segment without batches."""
        segment = Segment(path, header.first_index)
        segment.load(header, None, None, DATA_START)
        segment.index = index
        return segment

    def load(
        self, header: SegmentHeader, mark: Mark | None, first: BatchHeader | None, end: int
    ) -> None:
        """Take over what its file says; ``first`` is the header of its first batch."""
        self.mark = mark
        self.end = end
        self.key_id = None if header.key is None else header.key.key_id
        if first is not None:
            self.first_term = first.term
            self.first_timestamp_ms = first.timestamp_ms
        # Last: it says that the rest is there, to threads that look without a lock.
        self._header = header

    @property
    def is_loaded(self) -> bool:
        return self._header is not None

    @property
    def header(self) -> SegmentHeader:
        if self._header is None:
            raise InvariantViolation(f"{self.path} is not loaded")
        return self._header

    @property
    def base_offset(self) -> Offset:
        return self.header.base_offset


def reserve_segment(disk: Disk, path: str) -> File:
    """An empty segment file with room for its first batches; not durable, without a header."""
    file = disk.open(path, create=True)
    try:
        file.truncate(0)
        file.allocate(RESERVED_BYTES)
    except BaseException:
        file.close()
        raise
    return file


def first_mark(header: SegmentHeader, commit_floor: Index, start_offset: Offset) -> Mark:
    """The mark of a segment that has no batch yet."""
    return Mark(
        Index(header.first_index - 1),
        DATA_START,
        header.base_offset,
        header.prev_term,
        header.prev_timestamp_ms,
        commit_floor,
        start_offset,
    )


def write_first_pages(
    file: File, header: SegmentHeader, mark: Mark, sync: Callable[[], None]
) -> MarkPages:
    """Write the first mark and the header of a new segment, each durably, by ``sync``.

    In this order a valid header says that there is a mark.
    """
    marks = MarkPages()
    marks.store(file, mark)
    sync()
    file.write_at(0, [header.encode()])
    sync()
    return marks


def header_before(header: SegmentHeader) -> BatchHeader:
    """A stand-in for the batch before a segment, of which only these fields are known."""
    return stand_in(
        Index(header.first_index - 1),
        header.base_offset,
        header.prev_term,
        header.prev_timestamp_ms,
    )


def header_at_mark(mark: Mark) -> BatchHeader:
    """A stand-in for the batch at which the mark stands."""
    return stand_in(mark.index, mark.next_offset, mark.term, mark.timestamp_ms)


def stand_in(index: Index, next_offset: Offset, term: Term, timestamp_ms: int) -> BatchHeader:
    """For a batch of which only index, term, timestamp and the offset behind it are known."""
    return BatchHeader(
        body_crc=0,
        body_length=0,
        record_count=0,
        index=index,
        term=term,
        base_offset=next_offset,
        timestamp_ms=timestamp_ms,
    )
