"""Finishing or undoing, at open, what a crash left of a compaction.

A compaction writes its result to ``<first index>.<next index>.compacted``: the batches, a sync,
then mark and header, a sync. A valid header says that the result is complete, and is the decision:
from there on the segments of that range are removed and the file takes the name of the first one.
This order lets any crash be rolled forward; a file without a valid header is an attempt that came
to nothing.
"""

from contextlib import suppress

from quorumlog.errors import Corrupt
from quorumlog.log.mark import Mark, MarkPages
from quorumlog.log.paths import (
    compacted_name,
    compacted_range_of,
    first_index_of,
    index_path_of,
    parent_of,
    segment_name,
)
from quorumlog.log.segment import reserve_segment
from quorumlog.log.segment_header import HEADER_BYTES, SegmentHeader, decode_segment_header
from quorumlog.ports import Disk, File
from quorumlog.types import Index


def settle_leftovers(disk: Disk, directory: str) -> tuple[list[str], int]:
    """The names in ``directory`` once every compacted file has found its place or is gone.

    Returns:
        The names, and how many compactions were finished.
    """
    names = disk.list_directory(directory)
    ranges = [each for name in names if (each := compacted_range_of(name)) is not None]
    finished = 0
    for first_index, next_index in ranges:
        path = f"{directory}/{compacted_name(first_index, next_index)}"
        if _is_complete(disk, path, first_index):
            firsts = [first for name in names if (first := first_index_of(name)) is not None]
            others = [first for first in firsts if first_index < first < next_index]
            take_place(disk, directory, first_index, next_index, others)
            finished += 1
        else:
            disk.remove(path)
    return (disk.list_directory(directory) if ranges else names), finished


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

    As a compaction puts its result in place, so that a crash leaves the one or the other. Can be
    done again after an error at any point. Durable when it returns the file, open for writing.
    """
    directory, next_index = parent_of(path), Index(header.first_index + 1)
    file = reserve_segment(disk, f"{directory}/{compacted_name(header.first_index, next_index)}")
    try:
        marks = MarkPages()
        marks.store(file, mark)
        file.sync()
        file.write_at(0, [header.encode()])
        file.sync()
        take_place(disk, directory, header.first_index, next_index, [])
    except BaseException:
        file.close()
        raise
    return file, marks


def _is_complete(disk: Disk, path: str, first_index: Index) -> bool:
    file = disk.open_readonly(path)
    try:
        return decode_segment_header(file.read_at(0, HEADER_BYTES), path).first_index == first_index
    except Corrupt:
        return False
    finally:
        file.close()
