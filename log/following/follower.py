"""Reading a log that another process writes: nothing is locked, nothing is written.

The mark of the last segment says how far the log is on stable storage; a follower shows that much
and no more, so never a torn tail, nor what a writer may still take back. The segments are known by
listing the directory; where a file turns out to be gone or replaced (deletion, compaction), it is
listed again, and where a read begins and the directory's stamp is not the one it was. Sealed
segments are read as everybody reads them; the sparse index of the last one is made here, from the
headers between one mark and the next.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar

from quorumlog.errors import Corrupt, StorageError, UnusableDirectory
from quorumlog.log.batch import Batch
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.config import LogConfig
from quorumlog.log.following.active_segment import ActiveSegment, header_in
from quorumlog.log.following.read_only import ReadOnlyDisk
from quorumlog.log.layout import Layout
from quorumlog.log.leftovers import is_left_behind
from quorumlog.log.mark import Mark
from quorumlog.log.paths import compacted_range_of, first_index_of
from quorumlog.log.segment import Segment, header_at_mark
from quorumlog.log.segment_files import OpenSegment, SegmentChanged, SegmentFiles, unreadable
from quorumlog.log.segment_header import HEADER_BYTES, decode_segment_header
from quorumlog.log.state import LogState
from quorumlog.log.tail import Tail
from quorumlog.log.view import LogView
from quorumlog.ports import Clock, Disk
from quorumlog.types import Index, Offset

if TYPE_CHECKING:
    from quorumlog.log.key_ring import KeyRing

T = TypeVar("T")

_MAX_ATTEMPTS: Final = 100
"""So often a look that files vanish under is repeated."""

_MAX_HANDLES: Final = 16
"""Few: an open file keeps its space, and a follower hears late that its writer deleted it."""


class FollowedLog:
    """A log as far as it was durable when ``refresh`` last looked; for any number of threads."""

    def __init__(
        self, disk: Disk, directory: str, clock: Clock, keys: "KeyRing | None" = None
    ) -> None:
        """Look at the log in ``directory`` for the first time.

        Raises:
            UnusableDirectory: it cannot be read, or holds no log.
            Corrupt, StorageError
        """
        config = LogConfig(keys=keys)
        self._disk = ReadOnlyDisk(disk)
        self._directory = directory
        self._keys = keys
        self._interval_bytes = config.index_interval_bytes
        self._mutex = Lock()
        """Held by the one thread that looks."""
        self._files = _FollowedFiles(
            self._disk, _MAX_HANDLES, self._interval_bytes, keys, self._replaced
        )
        seen = self._look(None)
        self._paths, self._stamp = seen.paths, seen.stamp
        last = header_at_mark(seen.active.mark)
        layout = Layout(directory, config, seen.segments, last)
        self._state = LogState(directory, config, clock, layout, last.index, seen.start_offset)
        self._view = LogView(self._state, self._files)
        self._active: ActiveSegment = seen.active

    @property
    def start_offset(self) -> Offset:
        """The first offset that can be read."""
        return self._state.start_offset

    @property
    def end_offset(self) -> Offset:
        """The first offset that could not be read when ``refresh`` looked."""
        return self._state.layout.end_offset

    def refresh(self) -> bool:
        """Look how far the log is now; returns whether it grew, or was cut.

        Where nothing happened that takes two small reads of the last segment, and its size.

        Raises:
            UnusableDirectory, Corrupt, StorageError, Closed
        """
        with self._mutex:
            self._state.check_usable()
            before = self._state.layout.next_index
            try:
                self._grow()
                if self._active.is_ended() and not self._is_listed():
                    self._look_again()
            except OSError as error:
                raise unreadable(self._active.path, error) from error
            return self._state.layout.next_index != before

    def index_of_offset(self, offset: int) -> Index:
        """See :meth:`quorumlog.log.log.Log.index_of_offset`."""
        return self._twice(lambda: self._view.index_of_offset(offset))

    def stream(self, first_index: int) -> Iterator[list[Batch]]:
        """See :meth:`quorumlog.log.log.Log.stream`."""
        index = first_index
        failed_at = -1
        while True:
            try:
                for batches in self._view.stream(index):
                    yield batches
                    index = batches[-1].header.next_index
                return
            except Corrupt:
                if failed_at == index:
                    raise
                failed_at = index
                self._renew(is_sure=False)

    def batches_before(self, index: int, max_bytes: int) -> list[Batch]:
        """See :meth:`quorumlog.log.log.Log.batches_before`."""
        return self._twice(lambda: self._view.batches_before(index, max_bytes))

    def offset_for_time(self, timestamp_ms: int) -> Offset:
        """The first offset whose timestamp is ``timestamp_ms`` or later, or ``end_offset``."""
        end_offset = self.end_offset
        return self._twice(lambda: self._view.offset_for_time(timestamp_ms, end_offset))

    def close(self) -> None:
        """Close the files; a second call does nothing."""
        with self._mutex:
            self._state.is_closed = True
            self._active.file.close()
            self._files.close()

    def _twice(self, read: Callable[[], T]) -> T:
        """Damage may be a listing in the middle of a change: believed when it is found again."""
        try:
            return read()
        except Corrupt:
            self._renew(is_sure=False)
            return read()

    def renew(self) -> None:
        """As ``refresh``, and see what was compacted meanwhile: for a read that begins.

        Raises:
            UnusableDirectory, Corrupt, StorageError, Closed
        """
        self._renew(is_sure=True)

    def _renew(self, *, is_sure: bool) -> None:
        """Look again, unless it ``is_sure`` that what was listed is right and it is there still."""
        with self._mutex:
            self._state.check_usable()
            try:
                self._grow()
                if not (is_sure and self._is_listed()):
                    self._look_again(is_changed=True)
            except OSError as error:
                raise unreadable(self._active.path, error) from error

    def _is_listed(self) -> bool:
        """Whether no name in the directory has changed since it was listed, as far as is known."""
        stamp = self._disk.directory_stamp(self._directory)
        return stamp is not None and stamp == self._stamp

    def _replaced(self, segment: Segment) -> None:
        """A reader found that the file of ``segment`` is gone or another one."""
        with self._mutex:
            self._state.check_usable()
            if segment in self._state.layout.segments:
                self._grow()
                self._look_again(is_changed=True)

    def _grow(self) -> None:
        """See how far the writer has come in the same segment; the caller holds the mutex."""
        active = self._active
        mark = active.load_mark()
        if mark == active.mark:
            return
        if mark.index < active.mark.index:
            self._look_again(is_changed=True, is_cut=True)
            return
        added = active.headers_until(mark)
        layout = self._state.layout
        with self._state.lock:
            active.extend(mark, added)
            self._state.start_offset = max(self._state.start_offset, mark.start_offset)
            _move_end(layout, mark)

    def _look_again(self, *, is_changed: bool = False, is_cut: bool = False) -> None:
        """List the directory; the caller holds the mutex.

        Args:
            is_changed: something is not as it was, though the names may be the same.
            is_cut: nor is the last segment.
        """
        seen = self._look(None if is_cut else self._active)
        self._stamp = seen.stamp
        if not is_changed and seen.active is self._active and seen.paths == self._paths:
            return
        self._paths = seen.paths
        layout = self._state.layout
        # Handles of what was compacted would hold its space, and show what is not there any more.
        for segment in layout.segments:
            self._files.forget(segment.path)
        with self._state.lock:
            layout.segments = seen.segments
            self._state.start_offset = max(self._state.start_offset, seen.start_offset)
            _move_end(layout, seen.active.mark)
        if seen.active is not self._active:
            self._active.file.close()
            self._active = seen.active

    def _look(self, active: ActiveSegment | None) -> "_Seen":
        """What the directory holds now; files may vanish meanwhile."""
        for _ in range(_MAX_ATTEMPTS):
            try:
                return self._look_once(active)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unreadable(self._directory, error) from error
        raise StorageError(
            f"{self._directory}: its files are replaced faster than they can be looked at"
        )

    def _look_once(self, active: ActiveSegment | None) -> "_Seen":
        paths, stamp = self._list()
        *sealed, last = sorted(paths)
        if active is None or active.path != paths[last] or not active.is_current(self._disk):
            active = self._open_active(paths[last], last)
        segments = [Segment(paths[first], first) for first in sealed]
        for segment in segments:
            segment.is_sealed = True
        header = active.header
        if segments:
            header = header_in(self._disk, segments[0].path)
        start_offset = max(header.base_offset, active.mark.start_offset)
        segments.append(active.segment)
        return _Seen(paths, segments, active, start_offset, stamp)

    def _list(self) -> tuple[dict[Index, str], int | None]:
        """The segments' paths by first index, the last one has a valid header; and the stamp that
        the directory has as long as they are these."""
        directory = self._directory
        try:
            stamp = self._disk.directory_stamp(directory)
            names = self._disk.list_directory(directory)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise UnusableDirectory(
                f"{directory} cannot be read: {error.strerror or error}"
            ) from error
        paths = {
            first: f"{directory}/{name}"
            for name in names
            if (first := first_index_of(name)) is not None
        }
        for name in names:
            replaced = compacted_range_of(name)
            path = f"{directory}/{name}"
            if (
                replaced is not None
                and not is_left_behind(tuple(paths), replaced[1])
                and _is_complete(self._disk, path, replaced[0])
            ):
                # It is about to take their place; some of them may be gone already.
                paths = {
                    first: path
                    for first, path in paths.items()
                    if not replaced[0] <= first < replaced[1]
                }
                paths[replaced[0]] = path
        while paths and not _is_complete(self._disk, paths[max(paths)], max(paths)):
            # The writer is making it: the header that it lacks changes no name.
            del paths[max(paths)]
            stamp = None
        if not paths:
            raise UnusableDirectory(
                f"{directory} holds no log: follow it when its writer has opened it"
            )
        return paths, stamp

    def _open_active(self, path: str, first_index: Index) -> ActiveSegment:
        file = self._disk.open_readonly(path)
        try:
            header = decode_segment_header(file.read_at(0, HEADER_BYTES), path)
            SegmentCipher.open(self._keys, header, path)
            return ActiveSegment(path, file, header, self._interval_bytes)
        except BaseException:
            file.close()
            raise


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look at the directory found; the paths of the segments are by first index."""

    paths: dict[Index, str]
    segments: list[Segment]
    active: ActiveSegment
    start_offset: Offset
    stamp: int | None
    """Of the directory, from before it was listed; None: look again at the next occasion."""


class _FollowedFiles(SegmentFiles):
    """Tells when a file is not the one that was looked for."""

    def __init__(
        self,
        disk: Disk,
        limit: int,
        index_interval_bytes: int,
        keys: "KeyRing | None",
        on_changed: Callable[[Segment], None],
    ) -> None:
        super().__init__(disk, limit, index_interval_bytes, keys)
        self._on_changed = on_changed

    def acquire(self, segment: Segment) -> OpenSegment:
        try:
            return super().acquire(segment)
        except SegmentChanged:
            self._on_changed(segment)
            raise


def _move_end(layout: Layout, mark: Mark) -> None:
    """Let ``layout`` end at ``mark``; nothing of it is in memory."""
    layout.next_index = Index(mark.index + 1)
    layout.end_offset = mark.next_offset
    layout.last_term = mark.term
    layout.last_timestamp_ms = mark.timestamp_ms
    layout.written_index = mark.index
    layout.tail = Tail(layout.next_index)


def _is_complete(disk: Disk, path: str, first_index: Index) -> bool:
    """Whether the file has the header of segment ``first_index``."""
    try:
        return header_in(disk, path).first_index == first_index
    except Corrupt:
        return False
