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
from quorumlog.log.segment_files import SegmentChanged, SegmentFiles
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


class Upkeep:
    """The contracts stand in :class:`quorumlog.log.log.Log`. Any thread; one call at a time."""

    def __init__(self, disk: Disk, state: LogState, files: SegmentFiles) -> None:
        self._disk = disk
        self._state = state
        self._layout = state.layout
        self._files = files
        self._lock = Lock()
        self._doomed: list[Segment] = []
        """Not in the log any more, and their files still to be removed."""

    def segments(self) -> list[SegmentInfo]:
        """See :meth:`quorumlog.log.log.Log.segments`."""
        while True:
            with self._state.lock:
                self._state.check_usable()
                layout = self._layout
                segments = layout.segments
                end = (layout.next_index, layout.end_offset, layout.last_timestamp_ms)
                active_bytes = segments[-1].end
            try:
                for segment in segments:
                    self._files.load(segment)
            except SegmentChanged as error:
                with self._state.lock:
                    if layout.segments is segments:
                        raise Corrupt(str(error), 0, "the segment", "no such file") from error
                continue
            infos = [
                _info(
                    segment,
                    (behind.first_index, behind.base_offset, behind.header.prev_timestamp_ms),
                    segment.end,
                )
                for segment, behind in pairwise(segments)
            ]
            return [*infos, _info(segments[-1], end, active_bytes)]

    def remove_deleted(self) -> int:
        """See :meth:`quorumlog.log.log.Log.remove_deleted`."""
        with self._lock:
            removed = len(self._doomed)
            for info in self.segments():
                if info.is_active or info.next_offset > self._state.start_offset:
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
            return removed

    def replace(self, old: Sequence[SegmentInfo]) -> bool:
        """See :meth:`quorumlog.log.log.Log.replace`."""
        first_index, next_index = old[0].first_index, old[-1].next_index
        directory = self._state.directory
        path = f"{directory}/{compacted_name(first_index, next_index)}"
        others = [info.first_index for info in old[1:]]
        with self._lock:
            try:
                file = self._disk.open_readonly(path)
                new = _load_compacted(file, path, old[0].path, first_index)
                adopted = self._files.adopt(new, file)
                with self._state.lock:
                    is_there = self._layout.replace([info.segment for info in old], new)
                if is_there:
                    for info in old[1:]:
                        self._files.forget(info.path)
                    take_place(self._disk, directory, first_index, next_index, others)
                else:
                    self._files.forget(new.path)
                    self._disk.remove(path)
                self._files.unpin(adopted)
            except OSError as error:
                raise StorageError(
                    f"{path} cannot take the place of the segments it was made from "
                    f"({error.strerror or error}): check the disk"
                ) from error
        return is_there

    def set_cleaned(
        self, info: SegmentInfo, cleaned_to: int, horizon_offset: int, horizon_ms: int
    ) -> None:
        """See :meth:`quorumlog.log.log.Log.set_cleaned`."""
        with self._lock:
            segment = info.segment
            try:
                file = self._disk.open(info.path)
            except FileNotFoundError:
                return
            try:
                marks = MarkPages()
                mark = marks.load(file)
                if mark is None or segment not in self._layout.segments:
                    return
                mark = replace(
                    mark,
                    cleaned_to=cleaned_to,
                    horizon_offset=horizon_offset,
                    horizon_ms=horizon_ms,
                )
                # A process that died may have left the other slot unsynced.
                file.sync()
                marks.store(file, mark)
                file.sync()
                segment.mark = mark
            except OSError as error:
                raise StorageError(
                    f"{info.path} cannot be written ({error.strerror or error}): check the disk"
                ) from error
            finally:
                file.close()

    def _remove(self, path: str) -> None:
        """The oldest first, each durably: what a crash leaves is the end of the log."""
        self._files.forget(path)
        for doomed in (index_path_of(path), path):
            with suppress(FileNotFoundError):
                self._disk.remove(doomed)
        self._disk.sync_directory(self._state.directory)


def _info(segment: Segment, end: tuple[Index, Offset, int], size_bytes: int) -> SegmentInfo:
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
        not segment.is_sealed,
    )


def _load_compacted(file: File, path: str, target: str, first_index: Index) -> Segment:
    """The segment in a compacted file that is to be called ``target``."""
    header = decode_segment_header(file.read_at(0, HEADER_BYTES), path)
    first = header_at(file.read_at(DATA_START, HEADER_SIZE), 0, path, DATA_START, first_index)
    segment = Segment(target, first_index)
    segment.load(header, MarkPages().load(file), first, file.size_bytes())
    segment.is_sealed = True
    return segment
