"""Open segment files for reading, and the indexes of sealed segments: two bounded caches.

A descriptor costs little memory, an index a thousand times as much: so many files stay open, and of
few of them the index is in memory, and where reads ended.
"""

from contextlib import suppress
from itertools import islice
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Final

from quorumlog.errors import Corrupt, StorageError
from quorumlog.log.batch import HEADER_SIZE, BatchHeader
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.index_files import build_index, load_index, seal_of, write_index
from quorumlog.log.mark import MarkPages
from quorumlog.log.scan import header_at
from quorumlog.log.segment import DATA_START, Segment
from quorumlog.log.segment_header import HEADER_BYTES, SegmentHeader, decode_segment_header
from quorumlog.log.sparse_index import Entry, Seal, SparseIndex
from quorumlog.ports import Disk, File

if TYPE_CHECKING:
    from quorumlog.log.key_ring import KeyRing

_FEW_HANDLES: Final = 16
"""So many files stay open when idle though descriptors are scarce."""

_MAX_WARM: Final = 32
"""So many segments have their index in memory, and the places where reads ended."""

_MAX_HINTS: Final = 256


class SegmentChanged(Exception):
    """The file is gone, or of another generation than the segment: look the place up again."""


class OpenSegment:
    """One file, open for reading; use it as ``with``, which gives it back to the cache.

    It is closed when nobody reads and the cache has let it go: so it stays readable after the
    segment was removed or replaced.

    Attributes:
        file: its file.
        header: what the file says in its header.
        by_index, by_offset: where reads ended, by the index and the offset that come next there;
            reading on takes no search then. Forgotten when the log is truncated.
        index: its sparse index while that is in memory. It goes, and the hints with it, when
            others were used since.
    """

    __slots__ = (
        "_cipher",
        "_files",
        "by_index",
        "by_offset",
        "file",
        "header",
        "index",
        "is_dropped",
        "is_pinned",
        "path",
        "readers",
    )

    def __init__(self, files: "SegmentFiles", path: str, file: File, header: SegmentHeader) -> None:
        self._files = files
        self.path = path
        self.file = file
        self.header = header
        self.by_index: dict[int, Entry] = {}
        self.by_offset: dict[int, Entry] = {}
        self.index: SparseIndex | None = None
        self.readers = 1
        self.is_dropped = False
        self.is_pinned = False
        self._cipher: SegmentCipher | None = None

    @property
    def cipher(self) -> SegmentCipher | None:
        """What opens its batches; None where they are not encrypted.

        Made when bodies are first read: for headers, lookups and upkeep no key is needed.

        Raises:
            KeyMissing, WrongKey
        """
        if self._cipher is None and self.header.key is not None:
            self._cipher = SegmentCipher.open(self._files.keys, self.header, self.path)
        return self._cipher

    def remember(self, entry: Entry) -> None:
        """A batch may stand at ``entry``; only its index, offset and position are used."""
        if not self.by_index:
            self._files.keep_warm(self)
        elif len(self.by_index) >= _MAX_HINTS:
            self.forget_hints()
        self.by_index[entry.index] = entry
        self.by_offset[entry.base_offset] = entry

    def forget_hints(self) -> None:
        # New ones: a reader may be looking into the old ones.
        self.by_index, self.by_offset = {}, {}

    def __enter__(self) -> "OpenSegment":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raises StorageError for an error of the disk in the block."""
        self._files.release(self)
        if isinstance(error, OSError):
            raise unreadable(self.path, error) from error


class SegmentFiles:
    """Hands out read handles to any number of threads.

    At most ``limit`` are kept open when idle, and few where the disk has no handles to spare.
    """

    def __init__(
        self,
        disk: Disk,
        limit: int,
        index_interval_bytes: int,
        keys: "KeyRing | None" = None,
    ) -> None:
        self._disk = disk
        self.keys = keys
        self._limit = limit
        self._interval_bytes = index_interval_bytes
        self._lock = Lock()
        self._opened: dict[str, OpenSegment] = {}
        """In the order of use, as is the next one."""
        self._warm: dict[OpenSegment, None] = {}
        """Those of ``_opened`` that have an index or hints in memory."""
        self._is_closed = False
        self.indexes_rebuilt = 0

    def acquire(self, segment: Segment) -> OpenSegment:
        """The segment's file, and what it says of itself in ``segment``.

        It stays open until it is released (leave its ``with``), even if it is removed meanwhile.

        Raises:
            SegmentChanged: see there.
            Corrupt: it is not the segment that its name says.
            StorageError: it cannot be read.
        """
        with self._lock:
            opened = self._opened.pop(segment.path, None)
            if opened is not None:
                self._opened[segment.path] = opened
                if opened in self._warm:
                    del self._warm[opened]
                    self._warm[opened] = None
                if _is_of(segment, opened.header):
                    opened.readers += 1
                    if segment.is_loaded:
                        return opened
                else:
                    opened = None
        if opened is None:
            opened = self._open(segment)
        if not segment.is_loaded:
            try:
                self._load(segment, opened)
            except BaseException as error:
                opened.__exit__(type(error), error, None)
                raise
        return opened

    def load(self, segment: Segment) -> Segment:
        """See that ``segment`` is loaded; raises what ``acquire`` does."""
        if not segment.is_loaded:
            with self.acquire(segment):
                pass
        return segment

    def index_of(self, opened: OpenSegment, last_index: int) -> SparseIndex:
        """The index of a sealed segment whose last batch is ``last_index``.

        Loaded from its file; made again, and the file with it, when that is missing, damaged or of
        another state of the segment.

        Raises:
            Corrupt: the segment itself is damaged.
            OSError: it cannot be read.
        """
        index = opened.index
        if index is None:
            index = opened.index = self._load_index(opened, last_index)
            self.keep_warm(opened)
        return index

    def keep_warm(self, opened: OpenSegment) -> None:
        """Let ``opened`` have its index and hints; the least recently used others lose theirs."""
        with self._lock:
            if opened.is_dropped:
                return
            self._warm.pop(opened, None)
            self._warm[opened] = None
            if len(self._warm) > _MAX_WARM:
                coldest = next(iter(self._warm))
                del self._warm[coldest]
                coldest.index = None
                coldest.forget_hints()

    def release(self, opened: OpenSegment) -> None:
        with self._lock:
            opened.readers -= 1
            is_last = opened.is_dropped and not opened.readers
        if is_last:
            opened.file.close()

    def adopt(self, segment: Segment, file: File) -> OpenSegment:
        """Read ``segment`` from ``file``, which will take its path, from now on.

        ``unpin`` what it returns once the file has that name: until then it is kept open.
        """
        opened = OpenSegment(self, segment.path, file, segment.header)
        opened.readers = 0
        opened.is_pinned = True
        with self._lock:
            before = self._opened.pop(segment.path, None)
            self._opened[segment.path] = opened
        if before is not None:
            self._drop(before)
        return opened

    def unpin(self, opened: OpenSegment) -> None:
        with self._lock:
            opened.is_pinned = False
            evicted = self._over_limit()
        for each in evicted:
            self._drop(each)

    def forget(self, path: str) -> None:
        """Drop the handle and the index of a segment that is removed or cut."""
        with self._lock:
            opened = self._opened.pop(path, None)
        if opened is not None:
            self._drop(opened)

    def forget_hints(self) -> None:
        """After a truncation other batches may stand where others stood."""
        with self._lock:
            for opened in self._opened.values():
                opened.forget_hints()

    def close(self) -> None:
        """Close every handle nobody reads from at this moment, the others when that ends."""
        with self._lock:
            self._is_closed = True
            dropped = list(self._opened.values())
            self._opened.clear()
        for opened in dropped:
            self._drop(opened)

    def _open(self, segment: Segment) -> OpenSegment:
        """Open the file, outside of the lock, and make it known."""
        path = segment.path
        try:
            file = self._disk.open_readonly(path)
        except FileNotFoundError as error:
            raise SegmentChanged(path) from error
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            header = _identify(segment, file)
        except OSError as error:
            file.close()
            raise unreadable(path, error) from error
        except BaseException:
            file.close()
            raise
        opened = OpenSegment(self, path, file, header)
        with self._lock:
            before = self._opened.get(path)
            is_old = before is not None and before.header.generation > header.generation
            if is_old or self._is_closed:
                # What is in its place will take this path soon; this is for who still asks for it.
                opened.is_dropped = True
                return opened
            self._opened.pop(path, None)
            self._opened[path] = opened
            evicted = [] if before is None else [before]
            evicted += self._over_limit()
        for each in evicted:
            self._drop(each)
        return opened

    def _over_limit(self) -> list[OpenSegment]:
        """Take out the least recently used over the limit; the caller, who has the lock, drops
        them when he gave it back."""
        limit = self._limit
        if _FEW_HANDLES < len(self._opened) <= limit and not self._disk.has_spare_handles():
            limit = _FEW_HANDLES
        count = len(self._opened) - limit
        if count <= 0:
            return []
        idle = (path for path, each in self._opened.items() if not each.is_pinned)
        return [self._opened.pop(path) for path in list(islice(idle, count))]

    def _load(self, segment: Segment, opened: OpenSegment) -> None:
        """Fill in a sealed segment."""
        file = opened.file
        mark = MarkPages().load(file)
        first = first_batch_header(file, segment.path, segment.first_index)
        end = file.size_bytes()
        with self._lock:
            # Once: from then on its owner may cut it.
            if not segment.is_loaded:
                segment.load(opened.header, mark, first, end)

    def _drop(self, opened: OpenSegment) -> None:
        with self._lock:
            opened.is_dropped = True
            self._warm.pop(opened, None)
            is_idle = not opened.readers
        if is_idle:
            opened.file.close()

    def _load_index(self, opened: OpenSegment, last_index: int) -> SparseIndex:
        seal = seal_of(opened.header, last_index, opened.file.size_bytes())
        index = load_index(self._disk, opened.path, seal, self._interval_bytes)
        if index is None:
            index = self._rebuild(opened, seal)
            with suppress(OSError):
                write_index(self._disk, opened.path, index, seal)
            self.indexes_rebuilt += 1
        return index

    def _rebuild(self, opened: OpenSegment, seal: Seal) -> SparseIndex:
        index, end = build_index(
            opened.file, opened.path, seal.first_index, seal.last_index, self._interval_bytes
        )
        if end != seal.end:
            raise Corrupt(opened.path, end, "the end of the file", f"{seal.end - end} more bytes")
        return index


def unreadable(path: str, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be read ({error.strerror or error}): check the disk")


def first_batch_header(file: File, path: str, first_index: int) -> BatchHeader:
    """The header of the first batch; raises Corrupt."""
    return header_at(file.read_at(DATA_START, HEADER_SIZE), 0, path, DATA_START, first_index)


def _is_of(segment: Segment, header: SegmentHeader) -> bool:
    if not segment.is_loaded:
        return True
    known = segment.header
    return (
        header.generation == known.generation
        and header.created_ms == known.created_ms
        and header.key == known.key
    )


def _identify(segment: Segment, file: File) -> SegmentHeader:
    header = decode_segment_header(file.read_at(0, HEADER_BYTES), segment.path)
    if header.first_index != segment.first_index:
        raise Corrupt(
            segment.path, 8, f"first index {segment.first_index}", str(header.first_index)
        )
    if not _is_of(segment, header):
        raise SegmentChanged(segment.path)
    return header
