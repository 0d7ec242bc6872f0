"""The physical side of a log: writes, syncs, seals and cuts segment files.

Runs on the flushing thread only. Every step can be done again after an error, or an exception of a
signal handler, that left it undone: what a step leads to is taken over in one statement without a
call, where the interpreter runs no handler (it looks for signals at calls, loops and returns).
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from quorumlog.errors import InvariantViolation
from quorumlog.log.batch import Batch, BatchHeader
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.config import FSYNC_ALWAYS, LogConfig
from quorumlog.log.disk_errors import SyncFailed, is_full, is_interruption
from quorumlog.log.index_files import seal_of, write_index
from quorumlog.log.leftovers import remake_segment
from quorumlog.log.mark import Mark, MarkPages
from quorumlog.log.paths import index_path_of, parent_of
from quorumlog.log.pending import AppendWork, Limits, RemakeWork, RollWork, TruncateWork, Work
from quorumlog.log.recovery import Recovered
from quorumlog.log.segment import (
    DATA_START,
    PREALLOCATION_STEP_BYTES,
    Segment,
    first_mark,
    reserve_segment,
    write_first_pages,
)
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.log.sparse_index import SparseIndex
from quorumlog.ports import Disk, File
from quorumlog.types import Buffer, Index, Offset

_MAX_STEP_BYTES: Final = 16 * 1024 * 1024
_SMALL_WRITE_BYTES: Final = 32 * 1024
_ZEROS: Final = memoryview(bytes(64 * 1024))
"""What a small write fills ahead of it."""


class SegmentWriter:
    """Owns the file of the segment at the end of the log.

    Attributes:
        next_index: behind the last batch that was written.
        synced_index: every batch through this one is on stable storage.
        is_synced: nothing that was written waits for an fdatasync.
        durable_start: the start offset that a mark on stable storage says.
        done: the last work that was performed as a whole.
    """

    def __init__(self, disk: Disk, found: Recovered, config: LogConfig) -> None:
        """``found`` is as recovery left it: all that is in the last segment is synced.

        With fsync ``always`` zeros are written ahead of small writes. The first write into
        preallocated space makes the fdatasync behind it pay for a transaction of the file system,
        one over zeros does not: with a sync for every 10 KB that takes a third of the time away.
        """
        segment, last = found.segments[-1], found.last
        self._disk = disk
        self._segment = segment
        self._file = found.file
        self._marks = found.marks
        self._position = segment.end
        self._allocated_bytes = found.file.size_bytes()
        self._fills_ahead = config.fsync == FSYNC_ALWAYS
        self._filled_bytes = segment.end
        self._preallocation_limit = DATA_START + config.segment_bytes
        self._keys = config.keys
        self._sealing: tuple[Segment, SegmentCipher] | None = None
        self._last = last
        self._limits = Limits(found.commit_floor, found.start_offset)
        self.next_index = last.next_index
        self.synced_index = Index(last.next_index - 1)
        self.is_synced = True
        self.durable_start = found.start_offset
        self.done: Work | None = None

    def perform(self, work: Work, limits: Limits) -> None:
        """Do one piece of work; ``limits`` is what a mark written now says.

        Raises:
            SyncFailed: see there.
            OSError: from anything else; the work is undone or half done and can be done again.
        """
        self._limits = limits
        if isinstance(work, AppendWork):
            self._append(work)
        elif isinstance(work, RollWork):
            self._roll(work)
        elif isinstance(work, RemakeWork):
            self._remake(work)
        else:
            self._truncate(work)

    def sync(self, limits: Limits) -> None:
        """Make durable what was written, then say so in the mark (durable with the next sync)."""
        self._limits = limits
        if not self.is_synced:
            self._sync(self._file)
            self.synced_index = Index(self.next_index - 1)
            self._store_mark()
            self.is_synced = True

    def sync_mark(self, limits: Limits) -> None:
        """As ``sync``, and the mark is durable too."""
        self.sync(limits)
        # The sync before: two marks in turn without one between could both be torn.
        self._sync(self._file)
        self._store_mark()
        self._sync(self._file)
        self.durable_start = self._start(self._last.next_offset)

    def finish(self, limits: Limits, index: SparseIndex | None) -> None:
        """Sync, give back what was preallocated, say that the log is closed, close the file."""
        try:
            self.sync(limits)
            self._sync(self._file)
            self._store_mark(is_closed=True)
            self._file.truncate(self._position)
            self._sync(self._file)
            if index is not None and len(index):
                self._write_index(self._segment, index, self._position)
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close the file and leave it as it is."""
        self._file.close()

    def _append(self, work: AppendWork) -> None:
        if work.segment is not self._segment or work.position != self._position:
            raise InvariantViolation(
                f"{work.segment.path}: to write at {work.position}, "
                f"but {self._segment.path} ends at {self._position}"
            )
        buffers: list[Buffer] = []
        end = work.position
        for batch in self._stored(work):
            buffers.append(batch.head)
            buffers.append(batch.body)
            end += batch.size_bytes
        if end > self._allocated_bytes:
            self._allocate(self._file, end)
        filled_bytes = max(end, self._filled_bytes)
        if self._fills_ahead and end == filled_bytes and end - work.position <= _SMALL_WRITE_BYTES:
            zeros = _ZEROS[: max(self._allocated_bytes - end, 0)]
            buffers.append(zeros)
            filled_bytes += len(zeros)
        self.is_synced = False
        try:
            self._file.write_at(work.position, buffers)
        except OSError:
            # Whole batches of it may stand there now, and never be written again.
            self._file.truncate(work.position)
            self._allocated_bytes = self._filled_bytes = work.position
            raise
        self._filled_bytes = filled_bytes
        last = work.batches[-1].header
        next_index = last.next_index
        self._position, self._last, self.next_index, self.done = end, last, next_index, work

    def _stored(self, work: AppendWork) -> Iterable[Batch]:
        """The batches as they stand in the file.

        Encrypted anew each time: where a write is done again, no nonce is used twice.
        """
        segment = work.segment
        if segment.key_id is None:
            return work.batches
        if self._sealing is None or self._sealing[0] is not segment:
            cipher = SegmentCipher.open(self._keys, segment.header, segment.path)
            if cipher is None:
                raise InvariantViolation(f"{segment.path}: its header names no key")
            self._sealing = segment, cipher
        return map(self._sealing[1].seal, work.batches)

    def _allocate(self, file: File, needed_bytes: int) -> None:
        """Reserve space in growing steps, and no more than is needed when the disk is full."""
        step_bytes = min(max(self._position, PREALLOCATION_STEP_BYTES), _MAX_STEP_BYTES)
        wanted_bytes = min(needed_bytes + step_bytes, max(needed_bytes, self._preallocation_limit))
        try:
            file.allocate(wanted_bytes)
        except OSError as error:
            if not is_full(error):
                raise
            wanted_bytes = needed_bytes
            file.allocate(wanted_bytes)
        self._allocated_bytes = wanted_bytes

    def _roll(self, work: RollWork) -> None:
        try:
            self._make_segment(work)
        except OSError:
            # It may be taken back instead of done again: no file may be left in the middle.
            self._remove(work.segment.path)
            raise

    def _make_segment(self, work: RollWork) -> None:
        # Space first: a full disk leaves the old segment open and as it was.
        file = reserve_segment(self._disk, work.segment.path)
        try:
            self._seal(work)
            header = work.segment.header
            mark = self._first_mark(header)
            marks = write_first_pages(file, header, mark, lambda: self._sync(file))
            self._sync_directory()
        except BaseException:
            file.close()
            raise
        self._adopt(work, self._last, file, marks, DATA_START)

    def _remake(self, work: RemakeWork) -> None:
        segment = work.segment
        mark = self._first_mark(segment.header)
        file, marks = remake_segment(self._disk, segment.path, segment.header, mark)
        self._adopt(work, self._last, file, marks, DATA_START)

    def _seal(self, work: RollWork) -> None:
        """From now on everything in the old segment is durable, and its file ends with it.

        The next segment's header is written after this: whoever finds one knows that.
        """
        self.sync(self._limits)
        self._file.truncate(work.end)
        self._sync(self._file)
        self._allocated_bytes = work.end
        work.sealed.mark = self._mark()
        self._write_index(work.sealed, work.index, work.end)

    def _write_index(self, segment: Segment, index: SparseIndex, end: int) -> None:
        """Write the index file of a segment that ends here; without one it is made again."""
        with suppress(OSError):
            seal = seal_of(segment.header, self.next_index - 1, end)
            write_index(self._disk, segment.path, index, seal)

    def _truncate(self, work: TruncateWork) -> None:
        """Lower the mark first, then remove from the end: any crash leaves a prefix of the log."""
        self.sync(self._limits)
        file, marks = self._file, self._marks
        if work.segment is not self._segment:
            file, marks = self._disk.open(work.segment.path), MarkPages()
            marks.load(file)
        try:
            self._cut(work, file, marks)
        except BaseException:
            if file is not self._file:
                file.close()
            raise
        self._adopt(work, work.before, file, marks, work.position)

    def _cut(self, work: TruncateWork, file: File, marks: MarkPages) -> None:
        self._sync(file)
        marks.store(file, self._mark_behind(work.before, work.position))
        self._sync(file)
        for number in reversed(range(len(work.removed))):
            path = work.removed[number].path
            if number:
                self._tell_limits(work.removed[number - 1].path)
            self._remove(index_path_of(path))
            self._remove(path)
            self._sync_directory()
        if self._remove(index_path_of(work.segment.path)):
            self._sync_directory()
        file.truncate(work.position)
        self._sync(file)

    def _tell_limits(self, path: str) -> None:
        """Bring the mark of a sealed segment, about to be the last one, up to date.

        What it says of the log dates from its sealing: a crash before it is removed as well must
        not take the log back to that.
        """
        try:
            file = self._disk.open(path)
        except FileNotFoundError:
            return
        try:
            marks = MarkPages()
            mark = marks.load(file)
            if mark is not None:
                floor = Index(min(self._limits.commit_floor, mark.index))
                self._sync(file)
                marks.store(
                    file,
                    replace(mark, commit_floor=floor, start_offset=self._start(mark.next_offset)),
                )
                self._sync(file)
        finally:
            file.close()

    def _adopt(
        self,
        work: RollWork | TruncateWork | RemakeWork,
        last: BatchHeader,
        file: File,
        marks: MarkPages,
        position: int,
    ) -> None:
        """Go on behind batch ``last`` in the segment of ``work``, which is done with this."""
        before = self._file
        next_index = last.next_index
        synced_index = Index(next_index - 1)
        start_offset = self._start(last.next_offset)
        allocated_bytes = file.size_bytes()
        (
            (self._segment, self._file, self._marks, self._last, self.done),
            (self._position, self._filled_bytes, self._allocated_bytes, self.is_synced),
            (self.next_index, self.synced_index, self.durable_start),
        ) = (
            (work.segment, file, marks, last, work),
            (position, position, allocated_bytes, True),
            (next_index, synced_index, start_offset),
        )
        if before is not file:
            before.close()

    def _floor(self, next_index: int) -> Index:
        return Index(min(self._limits.commit_floor, next_index - 1))

    def _start(self, next_offset: int) -> Offset:
        """For a mark: what is deleted may not be written yet, where others have committed it."""
        start_offset = self._limits.start_offset
        return start_offset if start_offset <= next_offset else self.durable_start

    def _mark(self) -> Mark:
        """Of what is written; it is synced."""
        return self._mark_behind(self._last, self._position)

    def _first_mark(self, header: SegmentHeader) -> Mark:
        return first_mark(header, self._floor(header.first_index), self._start(header.base_offset))

    def _mark_behind(self, last: BatchHeader, position: int, *, is_closed: bool = False) -> Mark:
        next_index, next_offset = last.next_index, last.next_offset
        return Mark(
            Index(next_index - 1),
            position,
            next_offset,
            last.term,
            last.timestamp_ms,
            self._floor(next_index),
            self._start(next_offset),
            is_closed=is_closed,
        )

    def _store_mark(self, *, is_closed: bool = False) -> None:
        mark = self._mark_behind(self._last, self._position, is_closed=is_closed)
        self._marks.store(self._file, mark)

    def _remove(self, path: str) -> bool:
        """Remove a file; False when it was not there."""
        try:
            self._disk.remove(path)
        except FileNotFoundError:
            return False
        return True

    def _sync(self, file: File) -> None:
        try:
            file.sync()
        except OSError as error:
            if is_interruption(error):
                raise
            raise SyncFailed(str(error)) from error

    def _sync_directory(self) -> None:
        try:
            self._disk.sync_directory(parent_of(self._segment.path))
        except OSError as error:
            if is_interruption(error):
                raise
            raise SyncFailed(str(error)) from error
