"""Reading sealed segments as a whole, and writing one that takes the place of some."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from quorumlog.errors import Corrupt
from quorumlog.log.batch import Batch, BatchHeader
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.cleaning.compaction_plan import CleanState
from quorumlog.log.cleaning.thinning import with_gaps
from quorumlog.log.compacted_file import CompactedFile
from quorumlog.log.log import Log
from quorumlog.log.mark import Mark
from quorumlog.log.pacer import Pacer
from quorumlog.log.paths import parent_of
from quorumlog.log.reader import Range, read_batches
from quorumlog.log.segment import DATA_START
from quorumlog.log.segment_files import OpenSegment, SegmentChanged, SegmentFiles
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.log.sparse_index import Entry
from quorumlog.log.upkeep import SegmentInfo
from quorumlog.ports import Clock, Disk
from quorumlog.types import Index, Offset, Term

if TYPE_CHECKING:
    from quorumlog.log.key_ring import KeyRing

_READ_BYTES: Final = 1024 * 1024
_INDEX_INTERVAL_BYTES: Final = 32 * 1024
"""Of no effect: whole segments are read, and that needs no index."""


class SegmentRewriter:
    """Reads and writes segments of one log at the pace of ``pacer``."""

    def __init__(
        self,
        log: Log,
        disk: Disk,
        keys: "KeyRing | None",
        clock: Clock,
        pacer: Pacer,
    ) -> None:
        """``keys``: what is written is encrypted with the active one; None: with none."""
        self._log = log
        self._disk = disk
        self._keys = keys
        self._files = SegmentFiles(disk, 1, _INDEX_INTERVAL_BYTES, keys)
        self._clock = clock
        self._pacer = pacer

    def close(self) -> None:
        """Close the segment that was read last."""
        self._files.close()

    def batches(self, info: SegmentInfo) -> Iterator[Batch]:
        """All batches of a segment, checked, at the pace of the pass.

        From its file, never from the log's memory: that may hold what compaction took out before.

        Raises:
            SegmentChanged: the segment was deleted before the first one was read.
            Corrupt: also where its file is gone, and nobody deleted it.
            StorageError, Stopped
        """
        index, offset = info.first_index, info.base_offset
        start = Entry(index, DATA_START, offset, 0, 0)
        with self._acquire(info) as opened:
            while index < info.next_index:
                where = Range(start, index, info.next_index - 1, info.size_bytes)
                for batch in read_batches(opened, where, _READ_BYTES):
                    header = batch.header
                    _check_place(info, index, offset, header.base_offset)
                    index, offset = header.next_index, header.next_offset
                    self._pacer.spend(batch.size_bytes)
                    yield batch
        _check_place(info, info.next_index, info.next_offset, offset)

    def _acquire(self, info: SegmentInfo) -> OpenSegment:
        try:
            return self._files.acquire(info.segment)
        except SegmentChanged as error:
            if self._log.upkeep.holds(info):
                raise Corrupt(info.path, 0, "the segment", "no such file") from error
            raise

    def rewrite(
        self,
        old: Sequence[SegmentInfo],
        kept: Iterable[tuple[BatchHeader, Batch | None]],
        state: Callable[[], CleanState],
    ) -> int | None:
        """Let one segment take the place of ``old``.

        Args:
            old: segments that follow one another.
            kept: the header of every batch in them, and what is left of it.
            state: what the new segment's mark says of cleaning; asked when all is written.

        Returns:
            Bytes of the new segment; None when ``old`` is not in the log any more.

        Raises:
            OSError: of what is written; the log is as it was.
            SegmentChanged, Corrupt, StorageError, Stopped
        """
        cipher, header = SegmentCipher.create(self._keys, self._header_for(old))
        file = CompactedFile(
            self._disk, parent_of(old[0].path), header, old[-1].next_index, self._pacer
        )
        try:
            term = header.prev_term
            for batch in with_gaps(kept):
                term = batch.header.term
                file.append(batch if cipher is None else cipher.seal(batch))
            file.finish(self._mark(old[-1], term, file.next_position, state()))
        except BaseException:
            file.abandon()
            raise
        return file.end if self._log.upkeep.replace(old) else None

    def _header_for(self, old: Sequence[SegmentInfo]) -> SegmentHeader:
        """Of the segment that takes the place of ``old``."""
        return replace(
            old[0].segment.header,
            created_ms=self._clock.wall_ms(),
            generation=max(info.generation for info in old) + 1,
        )

    def _mark(self, last: SegmentInfo, term: Term, position: int, state: CleanState) -> Mark:
        last_index = Index(last.next_index - 1)
        return Mark(
            last_index,
            position,
            last.next_offset,
            term,
            last.last_timestamp_ms,
            last_index,
            # All of it may be deleted, and a log does not begin behind its end.
            Offset(min(self._log.start_offset, last.next_offset)),
            state.cleaned_to,
            state.horizon.offset,
            state.horizon.since_ms,
        )


def _check_place(info: SegmentInfo, index: int, offset: int, found: int) -> None:
    """Raise Corrupt unless the records before batch ``index`` end where they should."""
    if found != offset:
        raise Corrupt(info.path, DATA_START, f"offset {offset} at batch {index}", str(found))
