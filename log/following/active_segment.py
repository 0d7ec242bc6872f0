"""The segment that another process appends to, as far as its mark says that it is durable."""

from collections.abc import Sequence
from typing import Final

from quorumlog.log.batch import BatchHeader
from quorumlog.log.mark import Mark, MarkPages
from quorumlog.log.scan import walk_headers
from quorumlog.log.segment import Segment, first_mark
from quorumlog.log.segment_header import HEADER_BYTES, SegmentHeader, decode_segment_header
from quorumlog.log.sparse_index import SparseIndex
from quorumlog.ports import Disk, File
from quorumlog.types import Index, Offset

_WALK_BYTES: Final = 64 * 1024


class ActiveSegment:
    """The segment that the writer appends to, up to the mark that was last seen."""

    def __init__(self, path: str, file: File, header: SegmentHeader, interval_bytes: int) -> None:
        """``file`` is kept, open. Reads every header before the mark.

        Raises:
            Corrupt: there is no valid mark, or a header before it is damaged.
        """
        self.path = path
        self.file = file
        self.header = header
        self._marks = MarkPages()
        self.segment = Segment.new(path, header, SparseIndex(interval_bytes))
        self.mark = first_mark(header, Index(0), Offset(0))
        mark = self.load_mark()
        self.extend(mark, self.headers_until(mark))

    def load_mark(self) -> Mark:
        """The mark as it is now; one that cannot be read, as it was."""
        mark = self._marks.load(self.file)
        return self.mark if mark is None else mark

    def is_ended(self) -> bool:
        """Whether the writer may be in another file: this one is sealed, closed, or was empty."""
        return (
            self.file.size_bytes() <= self.mark.position
            or self.mark.index < self.segment.first_index
        )

    def is_current(self, disk: Disk) -> bool:
        """Whether the file of this name is still this one: an empty one may be made anew."""
        return header_in(disk, self.path) == self.header

    def headers_until(self, mark: Mark) -> list[tuple[int, BatchHeader]]:
        """Position and header of each batch behind the last mark, up to this one."""
        position = self.mark.position
        return list(
            walk_headers(
                self.file, self.path, position, self.mark.index + 1, mark.index, _WALK_BYTES
            )
        )

    def extend(self, mark: Mark, added: Sequence[tuple[int, BatchHeader]]) -> None:
        """Go on to ``mark``; ``added`` are the batches before it. Readers look at the index."""
        segment = self.segment
        for position, header in added:
            if segment.first_term is None:
                segment.first_term = header.term
                segment.first_timestamp_ms = header.timestamp_ms
            if segment.index is not None:
                segment.index.add(header, position)
        segment.end = mark.position
        self.mark = mark


def header_in(disk: Disk, path: str) -> SegmentHeader:
    """The header of the segment at ``path``; raises Corrupt, OSError."""
    file = disk.open_readonly(path)
    try:
        return decode_segment_header(file.read_at(0, HEADER_BYTES), path)
    finally:
        file.close()
