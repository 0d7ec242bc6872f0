"""Writing the file that is to take the place of one or some segments.

The order makes a valid header the decision, see :mod:`quorumlog.log.leftovers`: space, batches
and mark, sync, sync of the directory, header, sync.
"""

from contextlib import suppress
from typing import Final

from quorumlog.errors import Corrupt, StorageError
from quorumlog.log.batch import Batch
from quorumlog.log.mark import Mark, MarkPages
from quorumlog.log.pacer import Pacer
from quorumlog.log.paths import compacted_name, compacted_range_of
from quorumlog.log.segment import DATA_START, reserve_segment
from quorumlog.log.segment_header import HEADER_BYTES, SegmentHeader, decode_segment_header
from quorumlog.ports import Disk
from quorumlog.types import Index

_BUFFER_BYTES: Final = 1024 * 1024


class CompactedFile:
    """A compacted file while it is written; nothing of the log is touched.

    Attributes:
        path: of the file.
        end: position behind the last batch that was written.
    """

    def __init__(
        self, disk: Disk, directory: str, header: SegmentHeader, next_index: Index, pacer: Pacer
    ) -> None:
        """Make the file for the batches ``[header.first_index, next_index)``; there is none yet.

        Raises:
            OSError
        """
        self.path = f"{directory}/{compacted_name(header.first_index, next_index)}"
        self.end = DATA_START
        self._disk = disk
        self._directory = directory
        self._header = header
        self._pacer = pacer
        self._buffer = bytearray()
        try:
            self._file = reserve_segment(disk, self.path)
        except OSError:
            self._remove()
            raise

    @property
    def next_position(self) -> int:
        """Where the next batch will stand."""
        return self.end + len(self._buffer)

    def append(self, batch: Batch) -> None:
        """Add a batch as it is to be stored.

        Raises:
            OSError, Stopped
        """
        # Copied: a few small batches of each MiB that was read must not keep all of them alive.
        self._buffer += batch.head
        self._buffer += batch.body
        if len(self._buffer) >= _BUFFER_BYTES:
            self._write()

    def finish(self, mark: Mark) -> None:
        """Make the file complete and durable: from now on it is a part of the log.

        Raises:
            OSError: it may be complete or not; ``abandon`` it.
            Stopped
        """
        self._write()
        self._file.truncate(self.end)
        MarkPages().store(self._file, mark)
        self._file.sync()
        self._disk.sync_directory(self._directory)
        self._file.write_at(0, [self._header.encode()])
        self._file.sync()
        self._file.close()

    def abandon(self) -> None:
        """Remove the file, as far as the disk lets; the next open removes what is left."""
        self._file.close()
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self._disk.remove(self.path)
            self._disk.sync_directory(self._directory)

    def _write(self) -> None:
        size_bytes = len(self._buffer)
        self._pacer.spend(size_bytes)
        self._file.write_at(self.end, [self._buffer])
        self.end += size_bytes
        self._buffer = bytearray()


def remove_attempts(disk: Disk, directory: str) -> None:
    """Remove the compacted files in ``directory`` that were not finished.

    Raises:
        StorageError: one was finished, and could not take its place: the next open lets it. Until
            then it may be the only copy of what it holds.
        OSError
    """
    for name in disk.list_directory(directory):
        if compacted_range_of(name) is None:
            continue
        path = f"{directory}/{name}"
        if _has_header(disk, path):
            raise StorageError(
                f"{path} could not take the place of the segments it was made from: "
                "close the log and open it again"
            )
        disk.remove(path)
        disk.sync_directory(directory)


def _has_header(disk: Disk, path: str) -> bool:
    file = disk.open_readonly(path)
    try:
        decode_segment_header(file.read_at(0, HEADER_BYTES), path)
    except Corrupt:
        return False
    finally:
        file.close()
    return True
