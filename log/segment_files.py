"""Open segment files for reading, and the indexes of sealed segments: a bounded cache."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from quorumlog.errors import Corrupt, StorageError
from quorumlog.log.paths import index_path_of
from quorumlog.log.scan import walk_headers
from quorumlog.log.segment import DATA_START, Segment
from quorumlog.log.sparse_index import Seal, SparseIndex, decode_index
from quorumlog.ports import Disk, File

_REBUILD_CHUNK_BYTES = 64 * 1024


class _Opened:
    """One segment's handle. It is closed when nobody reads and the cache has let it go."""

    __slots__ = ("file", "index", "is_dropped", "readers")

    def __init__(self, file: File) -> None:
        self.file = file
        self.index: SparseIndex | None = None
        self.readers = 0
        self.is_dropped = False


class SegmentFiles:
    """Hands out read handles to any number of threads, at most ``limit`` kept open when idle."""

    def __init__(self, disk: Disk, limit: int, index_interval_bytes: int) -> None:
        self._disk = disk
        self._limit = limit
        self._interval_bytes = index_interval_bytes
        self._lock = Lock()
        self._opened: dict[str, _Opened] = {}
        self.indexes_rebuilt = 0

    @contextmanager
    def reading(self, segment: Segment) -> Iterator[File]:
        """The segment's file. It stays open, and readable even if removed, until the exit.

        Raises:
            StorageError: for every error of the disk in the block.
        """
        with self._opened_segment(segment) as opened:
            yield opened.file

    def index_of(self, segment: Segment, last_index: int) -> SparseIndex:
        """The index of a sealed segment whose last batch is ``last_index``.

        Loaded from its file; made again, and the file with it, when that is missing, damaged or of
        another state of the segment.

        Raises:
            Corrupt: the segment itself is damaged.
            StorageError: it cannot be read.
        """
        with self._opened_segment(segment) as opened:
            if opened.index is None:
                opened.index = self._load(segment, opened.file, last_index)
            return opened.index

    @contextmanager
    def _opened_segment(self, segment: Segment) -> Iterator[_Opened]:
        try:
            opened = self._acquire(segment.path)
            try:
                yield opened
            finally:
                self._release(opened)
        except OSError as error:
            raise StorageError(
                f"{segment.path} cannot be read ({error.strerror or error}): check the disk"
            ) from error

    def forget(self, path: str) -> None:
        """Drop the handle and the index of a segment that is removed or cut."""
        with self._lock:
            opened = self._opened.pop(path, None)
        if opened is not None:
            self._drop(opened)

    def close(self) -> None:
        """Close every handle nobody reads from at this moment, the others when that ends."""
        with self._lock:
            dropped = list(self._opened.values())
            self._opened.clear()
        for opened in dropped:
            self._drop(opened)

    def _acquire(self, path: str) -> _Opened:
        with self._lock:
            opened = self._opened.pop(path, None)
            if opened is None:
                opened = _Opened(self._disk.open_readonly(path))
            # Put back at the end: the dict is in the order of use.
            self._opened[path] = opened
            opened.readers += 1
            oldest = next(iter(self._opened)) if len(self._opened) > self._limit else None
            evicted = self._opened.pop(oldest) if oldest is not None else None
        if evicted is not None:
            self._drop(evicted)
        return opened

    def _release(self, opened: _Opened) -> None:
        with self._lock:
            opened.readers -= 1
            is_last = opened.is_dropped and not opened.readers
        if is_last:
            opened.file.close()

    def _drop(self, opened: _Opened) -> None:
        with self._lock:
            opened.is_dropped = True
            is_idle = not opened.readers
        if is_idle:
            opened.file.close()

    def _load(self, segment: Segment, file: File, last_index: int) -> SparseIndex:
        header = segment.header
        seal = Seal(header.first_index, header.created_ms, last_index, file.size_bytes())
        path = index_path_of(segment.path)
        with suppress(OSError):
            stored = self._disk.open_readonly(path)
            try:
                raw = stored.read_at(0, stored.size_bytes())
            finally:
                stored.close()
            index = decode_index(raw, seal, self._interval_bytes)
            if index is not None:
                return index
        index = self._rebuild(segment, file, seal)
        with suppress(OSError):
            write_index(self._disk, segment.path, index, seal)
        self.indexes_rebuilt += 1
        return index

    def _rebuild(self, segment: Segment, file: File, seal: Seal) -> SparseIndex:
        index = SparseIndex(self._interval_bytes)
        end = DATA_START
        for position, header in walk_headers(
            file, segment.path, DATA_START, seal.first_index, seal.last_index, _REBUILD_CHUNK_BYTES
        ):
            index.add(header, position)
            end = position + header.size_bytes
        if end != seal.end:
            raise Corrupt(segment.path, end, "the end of the file", f"{seal.end - end} more bytes")
        return index


def write_index(disk: Disk, segment_path: str, index: SparseIndex, seal: Seal) -> None:
    """Write the index file of a sealed segment. Not synced: it can be made again."""
    file = disk.open(index_path_of(segment_path), create=True)
    try:
        encoded = index.encode(seal)
        file.write_at(0, [encoded])
        file.truncate(len(encoded))
    finally:
        file.close()
