"""The files of sparse indexes: each stands beside its segment, and can be made from it again."""

from contextlib import suppress
from typing import Final

from quorumlog.log.paths import index_path_of
from quorumlog.log.scan import walk_headers
from quorumlog.log.segment import DATA_START
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.log.sparse_index import Seal, SparseIndex, decode_index, read_index
from quorumlog.ports import Disk, File

_REBUILD_CHUNK_BYTES: Final = 64 * 1024


def seal_of(header: SegmentHeader, last_index: int, end: int) -> Seal:
    return Seal(header.first_index, header.created_ms, header.generation, last_index, end)


def load_index(
    disk: Disk, segment_path: str, seal: Seal, interval_bytes: int
) -> SparseIndex | None:
    """The index in the file beside a segment, or None where it cannot be used."""
    with suppress(OSError):
        stored = disk.open_readonly(index_path_of(segment_path))
        try:
            return decode_index(read_index(stored), seal, interval_bytes)
        finally:
            stored.close()
    return None


def build_index(
    file: File, path: str, first_index: int, last_index: int, interval_bytes: int
) -> tuple[SparseIndex, int]:
    """The index of a segment made from its batches, and the position behind the last of them.

    Raises:
        Corrupt: a header is damaged.
    """
    index = SparseIndex(interval_bytes)
    end = DATA_START
    for position, header in walk_headers(
        file, path, DATA_START, first_index, last_index, _REBUILD_CHUNK_BYTES
    ):
        index.add(header, position)
        end = position + header.size_bytes
    return index, end


def write_index(disk: Disk, segment_path: str, index: SparseIndex, seal: Seal) -> None:
    """Write the index file of a segment. Not synced: it can be made again."""
    file = disk.open(index_path_of(segment_path), create=True)
    try:
        encoded = index.encode(seal)
        file.write_at(0, [encoded])
        file.truncate(len(encoded))
    finally:
        file.close()
