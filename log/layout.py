"""The logical state of a log: what it contains once all pending disk work is done. Memory only."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from quorumlog.errors import InvariantViolation
from quorumlog.log.batch import ENCRYPTED, Batch, BatchHeader
from quorumlog.log.cipher import SegmentCipher, sealed_size
from quorumlog.log.config import LogConfig
from quorumlog.log.paths import segment_name
from quorumlog.log.pending import AppendWork, RemakeWork, RollWork, TruncateWork, Work
from quorumlog.log.segment import DATA_START, Segment
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.log.sparse_index import SparseIndex
from quorumlog.log.tail import Tail
from quorumlog.types import Index, Offset, Term

_SMALL_BYTES: Final = 32 * 1024


class _End(NamedTuple):
    """Where a log ends, and how much work there is: what an append changes."""

    segments: list[Segment]
    position: int
    next_index: Index
    end_offset: Offset
    last_term: Term
    last_timestamp_ms: int
    works: int


class Layout:
    """Segments, tail and the work that leads from what is on disk to them.

    Not safe for threads: the log's lock guards it. One owner changes it; a flush takes work away
    (``take_work``) and says how far it came (``give_back``, ``written``). The list ``segments``
    itself is never changed but replaced: who took it may go on looking at it without the lock.

    ``taken`` is the work that a flush does or has left; it removes from it what is done.
    """

    def __init__(
        self, directory: str, config: LogConfig, segments: list[Segment], last: BatchHeader
    ) -> None:
        self._directory = directory
        self._config = config
        self._key_id = None if config.keys is None else config.keys.active or None
        self.segments = segments
        self.next_index = last.next_index
        self.end_offset = last.next_offset
        self.last_term = last.term
        self.last_timestamp_ms = last.timestamp_ms
        self.tail = Tail(self.next_index)
        self.written_index = Index(last.next_index - 1)
        self._work: list[Work] = []
        self.taken: list[Work] = []
        self._handed_out_next = self.next_index
        """The next index on disk once the work that was handed out is done."""
        self._before_remake: Segment | None = None
        """What is on disk where a RemakeWork is still to be done."""

    @property
    def has_work(self) -> bool:
        return bool(self._work or self.taken)

    @property
    def is_work_small(self) -> bool:
        """Whether all there is to do is to write one batch of ``_SMALL_BYTES`` at most."""
        if self.taken or len(self._work) != 1:
            return False
        work = self._work[0]
        return (
            isinstance(work, AppendWork)
            and len(work.batches) == 1
            and work.batches[0].size_bytes <= _SMALL_BYTES
        )

    @property
    def unwritten_bytes(self) -> int:
        return self.tail.bytes_between(self.written_index + 1, self.next_index)

    def append(self, batches: Sequence[Batch], now_ms: int) -> None:
        """Add ``batches`` at the end: all, or none when a signal handler raises an exception.

        Raises:
            InvariantViolation: one does not continue the log; nothing was changed.
        """
        self._check_order(batches)
        before = _End(
            self.segments,
            self.segments[-1].end,
            self.next_index,
            self.end_offset,
            self.last_term,
            self.last_timestamp_ms,
            len(self._work),
        )
        try:
            self._append(batches, now_ms)
        except BaseException:
            self._go_back(before)
            raise

    def _append(self, batches: Sequence[Batch], now_ms: int) -> None:
        for batch in batches:
            header = batch.header
            segment = self._segment_for(batch, now_ms)
            index = segment.index
            if index is None:
                raise InvariantViolation(f"{segment.path}: the last segment has no index")
            if segment.first_term is None:
                segment.first_term = header.term
                segment.first_timestamp_ms = header.timestamp_ms
            index.add(header, segment.end)
            work = self._work[-1] if self._work else None
            if not isinstance(work, AppendWork):
                work = AppendWork(segment, segment.end)
                self._work.append(work)
            work.batches.append(batch)
            segment.end += batch.size_bytes if segment.key_id is None else sealed_size(header)
            self.tail.append(batch)
            self.next_index = Index(header.index + 1)
            self.end_offset = header.next_offset
            self.last_term = header.term
            self.last_timestamp_ms = header.timestamp_ms

    def truncate(self, before: BatchHeader, position: int, index: SparseIndex) -> None:
        """Drop everything behind the batch ``before``.

        Args:
            before: header of the last batch that stays, or what stands for it.
            position: where in its segment, which becomes the last, the first dropped batch stands.
            index: the sparse index of that segment, without what is dropped.
        """
        from_index = before.next_index
        # Counted now: segments at the front may have gone since the place was looked up.
        number = self.segment_of_index(from_index)
        unrolled = self._drop_work(from_index)
        if unrolled is not None:
            # The segment that would be empty now was never made: the one before stays the last.
            number, position, index = number - 1, unrolled.end, unrolled.index
        removed = tuple(self.segments[number + 1 :])
        self.segments = self.segments[: number + 1]
        segment = self.segments[number]
        segment.is_sealed = False
        segment.index = index
        segment.end = position
        if position == DATA_START:
            segment.first_term = segment.first_timestamp_ms = None
        physical_next = self._work[-1].next_index if self._work else self._handed_out_next
        if from_index < physical_next:
            self._work.append(TruncateWork(segment, position, before, removed))
        self.tail.cut(from_index)
        self.next_index = from_index
        self.end_offset = before.next_offset
        self.last_term = before.term
        self.last_timestamp_ms = before.timestamp_ms
        self.written_index = Index(min(self.written_index, from_index - 1))

    def roll(self, now_ms: int) -> bool:
        """Begin a new segment, unless the last one has no batch yet."""
        if self.segments[-1].end == DATA_START:
            return False
        self._add_segment(now_ms)
        return True

    def remove_first(self, count: int) -> list[Segment]:
        """Take away the first ``count`` segments."""
        removed, self.segments = self.segments[:count], self.segments[count:]
        return removed

    def holds(self, run: Sequence[Segment]) -> bool:
        """Whether the segments ``run`` follow one another in the log."""
        number = self.segment_of_index(run[0].first_index)
        return list(run) == self.segments[number : number + len(run)]

    def replace(self, old: Sequence[Segment], new: Segment) -> None:
        """Put ``new`` where the run ``old`` is, which the log holds."""
        number = self.segment_of_index(old[0].first_index)
        self.segments = [*self.segments[:number], new, *self.segments[number + len(old) :]]
        self.tail.forget(self.last_index_of(number))

    def take_work(self) -> None:
        """Add everything there is to do, in order, to ``taken``; the caller does it now."""
        self.taken, self._work = self.taken + self._work, []
        self._handed_out_next = self.next_index

    def give_back(self, on_disk_next: int) -> None:
        """Put what was taken and could not be done before what came in the meantime."""
        self._work, self.taken = self.taken + self._work, []
        self._handed_out_next = Index(on_disk_next)

    def written(self, index: Index) -> None:
        """Everything through ``index`` can be read from the files."""
        self.written_index = index
        self.tail.evict(index, self._config.tail_cache_bytes)

    def segment_of_index(self, index: int) -> int:
        """Which of ``segments`` holds, or would hold, batch ``index``."""
        return bisect_right(self.segments, index, key=_first_index) - 1

    def last_index_of(self, number: int) -> int:
        """The last index in segment ``number``."""
        if number + 1 < len(self.segments):
            return self.segments[number + 1].first_index - 1
        return self.next_index - 1

    def _check_order(self, batches: Sequence[Batch]) -> None:
        index, offset = self.next_index, self.end_offset
        term, timestamp_ms = self.last_term, self.last_timestamp_ms
        for batch in batches:
            header = batch.header
            if (
                header.index_count != 1
                or header.flags & ENCRYPTED
                or header.index != index
                or header.base_offset != offset
                or header.term < term
                or header.timestamp_ms < timestamp_ms
            ):
                raise InvariantViolation(
                    f"a batch with index {header.index}, offset {header.base_offset}, term "
                    f"{header.term}, timestamp {header.timestamp_ms}, flags {header.flags:#x} "
                    "cannot follow: expected "
                    f"index {index}, offset {offset}, term >= {term}, timestamp >= {timestamp_ms}"
                )
            index = Index(index + 1)
            offset = header.next_offset
            term = header.term
            timestamp_ms = header.timestamp_ms

    def _go_back(self, before: _End) -> None:
        """Undo an append that was interrupted anywhere."""
        del self._work[before.works :]
        work = self._work[-1] if self._work else None
        if isinstance(work, AppendWork):
            del work.batches[before.next_index - work.batches[0].header.index :]
        self.segments = before.segments
        segment = self.segments[-1]
        segment.end = before.position
        if segment.index is not None:
            segment.index = segment.index.until(before.next_index)
        if before.position == DATA_START:
            segment.first_term = segment.first_timestamp_ms = None
        self.tail.cut(before.next_index)
        self.next_index = before.next_index
        self.end_offset = before.end_offset
        self.last_term = before.last_term
        self.last_timestamp_ms = before.last_timestamp_ms

    def _segment_for(self, batch: Batch, now_ms: int) -> Segment:
        """The last segment, or a new one when ``batch`` does not fit into it."""
        last = self.segments[-1]
        has_other_key = last.key_id != self._key_id
        if last.end == DATA_START:
            return self._remake_last(now_ms) if has_other_key else last
        if has_other_key:
            return self._add_segment(now_ms)
        size_bytes = batch.size_bytes if last.key_id is None else sealed_size(batch.header)
        max_age_s = self._config.segment_age_s
        is_full = last.end + size_bytes - DATA_START > self._config.segment_bytes
        is_old = max_age_s is not None and now_ms - last.header.created_ms >= max_age_s * 1000
        return self._add_segment(now_ms) if is_full or is_old else last

    def _add_segment(self, now_ms: int) -> Segment:
        """Seal the last segment, which has a batch, and begin a new one."""
        last = self.segments[-1]
        if last.index is None:
            raise InvariantViolation(f"{last.path}: the last segment has no index")
        header = SegmentHeader(
            self.next_index, self.end_offset, self.last_term, self.last_timestamp_ms, now_ms
        )
        path = f"{self._directory}/{segment_name(self.next_index)}"
        segment = self._new_segment(path, header)
        self._work.append(RollWork(last, last.end, last.index, segment))
        self.segments = [*self.segments, segment]
        return segment

    def _remake_last(self, now_ms: int) -> Segment:
        """Begin the last segment, which has no batch, again with the active key."""
        last = self.segments[-1]
        header = replace(last.header, created_ms=now_ms, generation=0)
        segment = self._new_segment(last.path, header)
        self._before_remake = last
        self._work.append(RemakeWork(segment))
        self.segments = [*self.segments[:-1], segment]
        return segment

    def _new_segment(self, path: str, header: SegmentHeader) -> Segment:
        _, header = SegmentCipher.create(self._config.keys, header)
        return Segment.new(path, header, SparseIndex(self._config.index_interval_bytes))

    def _drop_work(self, from_index: int) -> RollWork | None:
        """Take back the work, not handed out yet, for what is dropped now.

        Returns:
            The making of a segment that would have begun with ``from_index``, if taken back.
        """
        unrolled = None
        while self._work:
            work = self._work[-1]
            if isinstance(work, AppendWork):
                first = work.batches[0].header.index
                del work.batches[max(from_index - first, 0) :]
                if work.batches:
                    break
            elif isinstance(work, RemakeWork) and work.next_index >= from_index:
                self._keep_last(work)
            elif not isinstance(work, RollWork) or work.next_index < from_index:
                break
            elif work.next_index == from_index:
                unrolled = work
            self._work.pop()
        return unrolled

    def _keep_last(self, work: RemakeWork) -> None:
        """Nothing of what the last segment was to be begun again for is left: it stays as it is.

        Doing it all the same would take space that a full disk, which took the rest back, has not.
        """
        before = self._before_remake
        if before is None:
            raise InvariantViolation(f"{work.segment.path} was never begun before")
        self.segments = [before if each is work.segment else each for each in self.segments]


def _first_index(segment: Segment) -> int:
    return segment.first_index
