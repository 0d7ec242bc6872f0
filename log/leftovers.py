"""Files that take the place of segments; and what is done at open with those a crash left.

A compaction writes its result to ``<first index>.<next index>.compacted``: batches and mark, a
sync, a sync of the directory, then the header, a sync. A valid header says that the result is
complete, and is the decision: from there on the segments of that range are removed and the file
takes the name of the first one. This order lets any crash be rolled forward; a file without a valid
header is an attempt that came to nothing, and one whose segments were deleted before, with more
behind them, has come too late.

An empty last segment that begins again is written to ``<first index>.remade``, whole; the rename is
the decision.
"""

from collections.abc import Sequence
from contextlib import suppress

from quorumlog.errors import Corrupt
from quorumlog.log.mark import Mark, MarkPages
from quorumlog.log.paths import (
    COMPACTED_SUFFIX,
    REMADE_SUFFIX,
    compacted_name,
    compacted_range_of,
    first_indexes_of,
    index_path_of,
    is_remade_name,
    parent_of,
    remade_name,
    segment_name,
)
from quorumlog.log.scan import end_of_data
from quorumlog.log.segment import (
    DATA_START,
    RESERVED_BYTES,
    reserve_segment,
    write_first_pages,
)
from quorumlog.log.segment_header import HEADER_BYTES, SegmentHeader, decode_segment_header
from quorumlog.log.sparse_index import decode_seal, read_index
from quorumlog.ports import Disk, File
from quorumlog.types import Index


def settle_leftovers(disk: Disk, directory: str) -> tuple[list[str], int]:
    """The names in ``directory`` once every such file has found its place or is gone.

    Returns:
        The names, and how many compactions were finished.
    """
    names = disk.list_directory(directory)
    unusual = [name for name in names if name.endswith((REMADE_SUFFIX, COMPACTED_SUFFIX))]
    remade = [name for name in unusual if is_remade_name(name)]
    for name in remade:
        disk.remove(f"{directory}/{name}")
    ranges = [each for name in unusual if (each := compacted_range_of(name)) is not None]
    finished = 0
    for first_index, next_index in ranges:
        path = f"{directory}/{compacted_name(first_index, next_index)}"
        firsts = first_indexes_of(names)
        if not is_left_behind(firsts, next_index) and _is_complete(disk, path, first_index):
            _make_durable(disk, path)
            others = [first for first in firsts if first_index < first < next_index]
            take_place(disk, directory, first_index, next_index, others)
            finished += 1
        else:
            disk.remove(path)
    return (disk.list_directory(directory) if ranges or remade else names), finished


def is_left_behind(firsts: Sequence[Index], next_index: Index) -> bool:
    """Whether a compacted file up to ``next_index`` is of what was deleted before it was finished.

    The segments of its range were deleted then, and more behind them: in its place it would stand
    before a hole. Of segments that it takes the place of, the first is never removed.

    Args:
        firsts: first indexes of the segments that are there.
        next_index: as its name says.
    """
    return bool(firsts) and min(firsts) > next_index


def is_unborn(disk: Disk, file: File, path: str, first_index: int, *, is_alone: bool) -> bool:
    """Whether the last segment's ``file``, which has no valid header, is one never made.

    Its header was synced before the first batch was written. So a crash leaves no mark, nothing but
    zeros where batches stand, no more space than is reserved first, and no index beside it.

    Args:
        is_alone: there is no segment before it.

    Raises:
        OSError
    """
    mark = MarkPages().load(file)
    was_written = mark is not None and mark.index >= first_index
    if was_written or (is_alone and first_index != 1) or file.size_bytes() > RESERVED_BYTES:
        return False
    is_empty = end_of_data(file, DATA_START) == DATA_START
    return is_empty and indexed_end(disk, path, first_index) is None


def indexed_end(disk: Disk, segment_path: str, first_index: int) -> int | None:
    """The last batch of segment ``first_index`` as a valid index beside it says; None without one.

    The index of a last segment is written when the log is closed, and removed before the segment
    is: where there is one, the segment was there and held batches.
    """
    with suppress(OSError):
        stored = disk.open_readonly(index_path_of(segment_path))
        try:
            seal = decode_seal(read_index(stored))
        finally:
            stored.close()
        if seal is not None and seal.first_index == first_index:
            return seal.last_index
    return None


def take_place(
    disk: Disk, directory: str, first_index: Index, next_index: Index, others: list[Index]
) -> None:
    """Put a complete compacted file in the place of segment ``first_index`` and of ``others``.

    Can be done again after a crash or an error at any point. Durable when it returns.
    """
    for each in others:
        path = f"{directory}/{segment_name(each)}"
        for doomed in (index_path_of(path), path):
            with suppress(FileNotFoundError):
                disk.remove(doomed)
    target = f"{directory}/{segment_name(first_index)}"
    with suppress(FileNotFoundError):
        disk.remove(index_path_of(target))
    # Were the new name durable before the others are gone, they would stand beside it for good.
    disk.sync_directory(directory)
    disk.rename(f"{directory}/{compacted_name(first_index, next_index)}", target)
    disk.sync_directory(directory)


def remake_segment(
    disk: Disk, path: str, header: SegmentHeader, mark: Mark
) -> tuple[File, MarkPages]:
    """Put a new file without batches in the place of the last segment, which has none either.

    A crash leaves the one or the other. Can be done again after an error at any point. Durable
    when it returns the file, open for writing.
    """
    directory = parent_of(path)
    remade_path = f"{directory}/{remade_name(header.first_index)}"
    file = reserve_segment(disk, remade_path)
    try:
        marks = write_first_pages(file, header, mark, file.sync)
        disk.rename(remade_path, path)
        disk.sync_directory(directory)
    except BaseException:
        file.close()
        raise
    return file, marks


def _make_durable(disk: Disk, path: str) -> None:
    """Sync the header, which is all that can be in the page cache only.

    Who wrote it may have died before the sync, or the sync failed: then the page counts as clean,
    and is written again for this one to take it.
    """
    file = disk.open(path)
    try:
        file.write_at(0, [file.read_at(0, HEADER_BYTES)])
        file.sync()
    finally:
        file.close()


def _is_complete(disk: Disk, path: str, first_index: Index) -> bool:
    file = disk.open_readonly(path)
    try:
        return decode_segment_header(file.read_at(0, HEADER_BYTES), path).first_index == first_index
    except Corrupt:
        return False
    finally:
        file.close()
