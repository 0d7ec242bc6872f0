"""Changes to what is sealed: removing segments, putting compacted ones in their place."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from threading import Lock

from quorumlog.errors import Corrupt, StorageError
from quorumlog.log.batch import HEADER_SIZE
from quorumlog.log.leftovers import take_place
from quorumlog.log.mark import MarkPages
from quorumlog.log.paths import compacted_name, index_path_of
from quorumlog.log.scan import header_at
from quorumlog.log.segment import DATA_START, Segment
from quorumlog.log.segment_files import OpenSegment, SegmentChanged, SegmentFiles
from quorumlog.log.segment_header import HEADER_BYTES, decode_segment_header
from quorumlog.log.state import LogState
from quorumlog.ports import Disk, File
from quorumlog.types import Index, Offset


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """What is known of a segment; ranges are half-open.

    Attributes:
        segment: the segment this is about; only for giving it back to the log.
        path: of its file.
        first_timestamp_ms: of its first batch; None while it has none.
        last_timestamp_ms: of its last batch, or of what is before it.
        size_bytes: of its file, without what is preallocated.
        generation: how often it was compacted.
        cleaned_to: compacted by all keys before this offset; 0: not compacted.
        horizon_offset, horizon_ms: tombstones before that offset have stood in cleaned log
            since that time.
        key_id: name of the key it is encrypted with; empty: it is not.
        is_active: it is, or will be, appended to; nothing can be done with it.
    """

    segment: Segment
    path: str
    first_index: Index
    next_index: Index
    base_offset: Offset
    next_offset: Offset
    first_timestamp_ms: int | None
    last_timestamp_ms: int
    size_bytes: int
    generation: int
    cleaned_to: Offset
    horizon_offset: Offset
    horizon_ms: int
    key_id: str
    is_active: bool


@dataclass(slots=True)
class _Replacement:
    """A compacted file on its way into the place of the segments ``old``.

    ``adopted`` is the segment that it holds, and the handle from which that is read.
    """

    old: Sequence[Segment]
    next_index: Index
    adopted: tuple[Segment, OpenSegment] | None = None

    @property
    def name(self) -> str:
        return compacted_name(self.old[0].first_index, self.next_index)


class Upkeep:
    """What changes sealed segments, and tells of them. Any thread; one call at a time."""

    def __init__(self, disk: Disk, state: LogState, files: SegmentFiles) -> None:
        self._disk = disk
        self._state = state
        self._layout = state.layout
        self._files = files
        self._lock = Lock()
        self._doomed: list[Segment] = []
        """Not in the log any more, and their files still to be removed."""
        self._unfinished: _Replacement | None = None

    def segments(self) -> list[SegmentInfo]:
        """See :meth:`quorumlog.log.log.Log.segments`."""
        infos, damage = self.segments_before_damage()
        if damage is not None:
            raise damage
        return infos

    def segments_before_damage(self) -> tuple[list[SegmentInfo], StorageError | None]:
        """As ``segments``; where one cannot be read, those before it, and the error.

        The last of them stands for all the rest of the log then: where its own segment ends is not
        known. What of the rest cannot be read counts as empty in ``size_bytes``.

        Raises:
            Corrupt, StorageError: of the first segment.
            LogFenced, Closed
        """
        while True:
            with self._state.lock:
                self._state.check_usable()
                layout = self._layout
                segments = layout.segments
                end = (layout.next_index, layout.end_offset, layout.last_timestamp_ms)
                written_next = layout.written_index + 1
                active_bytes = segments[-1].end
            damage: StorageError | None = None
            known = len(segments)
            for number, segment in enumerate(segments):
                error = self._load_error(segment)
                if error is not None and damage is None:
                    damage, known = error, number
            if damage is not None:
                with self._state.lock:
                    if layout.segments is not segments:
                        continue
                if not known:
                    raise damage
            infos = [
                _info(
                    segment,
                    (behind.first_index, behind.base_offset, behind.header.prev_timestamp_ms),
                    segment.end,
                    # While a flush that sealed it goes on, its batches are read from memory.
                    is_active=not segment.is_sealed or behind.first_index > written_next,
                )
                for segment, behind in pairwise(segments[:known])
            ]
            rest_bytes = sum(segment.end for segment in segments[known - 1 : -1]) + active_bytes
            return [*infos, _info(segments[known - 1], end, rest_bytes, is_active=True)], damage

    def active(self) -> SegmentInfo:
        """The last segment; nothing is read for it. Raises LogFenced, Closed."""
        with self._state.lock:
            self._state.check_usable()
            layout = self._layout
            end = (layout.next_index, layout.end_offset, layout.last_timestamp_ms)
            segment = layout.segments[-1]
            return _info(segment, end, segment.end, is_active=True)

    def _load_error(self, segment: Segment) -> StorageError | None:
        """Load a segment; the error if it cannot be read."""
        try:
            self._files.load(segment)
        except SegmentChanged as error:
            missing = Corrupt(str(error), 0, "the segment", "no such file")
            missing.__cause__ = error
            return missing
        except StorageError as error:
            return error
        return None

    def remove_deleted(self, through_index: int | None = None) -> int:
        """See :meth:`quorumlog.log.log.Log.remove_deleted`."""
        with self._lock:
            self._finish_replacement()
            removed = len(self._doomed)
            committed_next = self._state.commit_floor + 1
            if through_index is not None:
                committed_next = min(committed_next, through_index + 1)
            infos, damage = self.segments_before_damage()
            for info in infos:
                # A segment of no-ops has no offset of its own, and may yet be truncated.
                is_deleted = info.next_offset <= self._state.start_offset
                if info.is_active or not is_deleted or info.next_index > committed_next:
                    break
                with self._state.lock:
                    self._doomed += self._layout.remove_first(1)
                removed += 1
            try:
                while self._doomed:
                    self._remove(self._doomed[0].path)
                    del self._doomed[0]
            except OSError as error:
                raise StorageError(
                    f"{self._doomed[0].path} cannot be removed ({error.strerror or error}): "
                    "check the disk"
                ) from error
            if damage is not None and infos[-1].base_offset < self._state.start_offset:
                raise damage
            return removed

    def holds(self, info: SegmentInfo) -> bool:
        """Whether a segment is in the log still: not deleted, and not replaced."""
        with self._state.lock:
            return self._layout.holds([info.segment])

    def replace(self, old: Sequence[SegmentInfo]) -> bool:
        """Put the compacted file of exactly the sealed segments ``old`` in their place, durably.

        It has to be complete and synced (:mod:`quorumlog.log.leftovers`).

        Returns:
            False when one of them is not in the log any more: the file was removed.

        Raises:
            StorageError: the disk refused; the next call of upkeep finishes it, or the next open.
            Corrupt: the file is damaged, and was removed; ``old`` stay.
            LogFenced, Closed
        """
        with self._lock:
            self._finish_replacement()
            self._state.check_usable()
            self._unfinished = _Replacement([info.segment for info in old], old[-1].next_index)
            return self._finish_replacement()

    def set_cleaned(
        self, info: SegmentInfo, cleaned_to: int, horizon_offset: int, horizon_ms: int
    ) -> None:
        """Take note, durably, that compaction has nothing to take out of a sealed segment.

        Raises:
            StorageError: the disk refused. Nothing is lost by that.
            LogFenced, Closed
        """
        with self._lock:
            self._state.check_usable()
            self._finish_replacement()
            if not self.holds(info):
                return
            try:
                self._update_mark(
                    info.segment,
                    cleaned_to=cleaned_to,
                    horizon_offset=horizon_offset,
                    horizon_ms=horizon_ms,
                )
            except OSError as error:
                raise StorageError(
                    f"{info.path} cannot be written ({error.strerror or error}): check the disk"
                ) from error

    def _update_mark(self, segment: Segment, **fields: int) -> None:
        file = self._disk.open(segment.path)
        try:
            marks = MarkPages()
            mark = marks.load(file)
            if mark is None:
                return
            # Their names are those of the mark; a dict of them has one type for all.
            mark = replace(mark, **fields)  # type: ignore[arg-type]
            # A process that died may have left the other slot unsynced.
            file.sync()
            marks.store(file, mark)
            file.sync()
            segment.mark = mark
        finally:
            file.close()

    def _finish_replacement(self) -> bool:
        """Bring a replacement that was begun to its end; False when its segments are gone.

        As long as it has none, nothing else may be changed: files of its segments are there that
        the log does not know any more, and the next open would put the compacted file in front of
        whatever is left then.

        Raises:
            StorageError: the next call tries again.
            Corrupt: the compacted file is damaged, and was removed.
        """
        unfinished = self._unfinished
        if unfinished is None:
            return False
        path = f"{self._state.directory}/{unfinished.name}"
        try:
            new, adopted = unfinished.adopted or self._adopt(unfinished, path)
            with self._state.lock:
                if self._layout.holds(unfinished.old):
                    self._layout.replace(unfinished.old, new)
            is_there = new in self._layout.segments
            if is_there:
                self._take_place(unfinished, path)
            else:
                self._files.forget(new.path)
                self._throw_away(path)
        except OSError as error:
            raise StorageError(
                f"{path} cannot take the place of the segments it was made from "
                f"({error.strerror or error}): check the disk"
            ) from error
        self._unfinished = None
        self._files.unpin(adopted)
        return is_there

    def _adopt(self, unfinished: "_Replacement", path: str) -> tuple[Segment, OpenSegment]:
        """The segment in the compacted file, and the handle from which it is read from now on."""
        first = unfinished.old[0]
        try:
            file = self._disk.open_readonly(path)
        except FileNotFoundError:
            self._unfinished = None
            raise
        try:
            new = _load_compacted(file, path, first.path, first.first_index)
        except BaseException as error:
            file.close()
            if isinstance(error, Corrupt):
                # All that it was made from is there. It has to be gone before anything else is
                # changed: its header is a decision, and the next open would take it.
                self._throw_away(path)
                self._unfinished = None
            raise
        adopted = self._files.adopt(new, file)
        unfinished.adopted = new, adopted
        return new, adopted

    def _take_place(self, unfinished: "_Replacement", path: str) -> None:
        others = unfinished.old[1:]
        for each in others:
            self._files.forget(each.path)
        directory = self._state.directory
        if self._disk.exists(path):
            take_place(
                self._disk,
                directory,
                unfinished.old[0].first_index,
                unfinished.next_index,
                [each.first_index for each in others],
            )
        else:
            # It was renamed by the call before, which failed then.
            self._disk.sync_directory(directory)

    def _throw_away(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._disk.remove(path)
        self._disk.sync_directory(self._state.directory)

    def _remove(self, path: str) -> None:
        """The oldest first, each durably: what a crash leaves is the end of the log."""
        self._files.forget(path)
        for doomed in (index_path_of(path), path):
            with suppress(FileNotFoundError):
                self._disk.remove(doomed)
        self._disk.sync_directory(self._state.directory)


def _info(
    segment: Segment, end: tuple[Index, Offset, int], size_bytes: int, *, is_active: bool
) -> SegmentInfo:
    header, mark = segment.header, segment.mark
    next_index, next_offset, last_timestamp_ms = end
    return SegmentInfo(
        segment,
        segment.path,
        segment.first_index,
        next_index,
        header.base_offset,
        next_offset,
        segment.first_timestamp_ms,
        last_timestamp_ms,
        size_bytes,
        header.generation,
        Offset(0 if mark is None else mark.cleaned_to),
        Offset(0 if mark is None else mark.horizon_offset),
        0 if mark is None else mark.horizon_ms,
        "" if header.key is None else header.key.key_id,
        is_active,
    )


def _load_compacted(file: File, path: str, target: str, first_index: Index) -> Segment:
    """The segment in a compacted file that is to be called ``target``."""
    header = decode_segment_header(file.read_at(0, HEADER_BYTES), path)
    first = header_at(file.read_at(DATA_START, HEADER_SIZE), 0, path, DATA_START, first_index)
    segment = Segment(target, first_index)
    segment.load(header, MarkPages().load(file), first, file.size_bytes())
    segment.is_sealed = True
    return segment
