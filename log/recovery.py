"""Opening a log directory: find the segments, scan the last one, cut a torn tail.

Torn or rotten? The first bad batch of the last segment is a *torn tail* if it stands at or behind
the mark (:class:`quorumlog.log.segment.Mark`), for then nothing says that it was ever on stable
storage; before the mark it is rot. Good batches behind a bad one prove nothing by themselves: one
flush writes many batches, and a power cut keeps any of its sectors. Every other segment was
durable as a whole before the next one was made, so nothing in it can be torn.
"""

from dataclasses import dataclass, replace
from typing import Final

from quorumlog.errors import Corrupt, UnusableDirectory
from quorumlog.log.batch import HEADER_SIZE, BatchHeader
from quorumlog.log.cipher import SegmentCipher, check_library
from quorumlog.log.config import LogConfig
from quorumlog.log.index_files import build_index, load_index, seal_of
from quorumlog.log.install import WHOLE_LOG, create_first_segment, settle_install
from quorumlog.log.leftovers import is_unborn, settle_leftovers
from quorumlog.log.mark import MARKS_START, Mark, MarkPages
from quorumlog.log.paths import count_without_index, first_indexes_of, segment_name
from quorumlog.log.scan import Scan, count_intact_headers, end_of_data, header_at
from quorumlog.log.segment import (
    DATA_START,
    Segment,
    first_mark,
    header_at_mark,
    header_before,
)
from quorumlog.log.segment_files import SegmentChanged, SegmentFiles, first_batch_header
from quorumlog.log.segment_header import SegmentHeader, decode_segment_header
from quorumlog.log.sparse_index import SparseIndex
from quorumlog.ports import Clock, Disk, File
from quorumlog.types import Index, Offset

_REWRITE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What opening a log found and did.

    Attributes:
        was_closed: it was closed cleanly: nothing had to be scanned.
        cut_bytes: bytes of the torn tail that were cut; 0 after a clean stop.
        cut_batches: batch headers that were intact in it. None of these was ever acknowledged.
        reason: why it was cut, empty when nothing was.
        removed_segment: the file of a segment that was being made and held nothing, or empty.
        compactions_finished: compactions that a crash had cut short after they were decided.
        indexes_missing: sealed segments without an index file; made again when first needed.
        scanned_bytes: bytes of the last segment that were read and checked.
        was_emptied: it begins anew, where the log of another replica did (log/install.py).
    """

    was_closed: bool = False
    cut_bytes: int = 0
    cut_batches: int = 0
    reason: str = ""
    removed_segment: str = ""
    compactions_finished: int = 0
    indexes_missing: int = 0
    scanned_bytes: int = 0
    was_emptied: bool = False


@dataclass(frozen=True, slots=True)
class Recovered:
    """A log as it was found: its segments, the state at its end, the open file of the last."""

    segments: list[Segment]
    last: BatchHeader
    """Header of the last batch; of an empty log, one that the next batch continues."""
    commit_floor: Index
    start_offset: Offset
    file: File
    marks: MarkPages
    report: RecoveryReport


def recover(
    disk: Disk, directory: str, config: LogConfig, clock: Clock, files: SegmentFiles
) -> Recovered:
    """Open ``directory``, made when missing. Everything it returns is durable.

    Reads the last segment as far as its mark does not say where it ends, and the headers of the
    first one and of the one before the last. Only the list of names grows with the log.

    Raises:
        Corrupt: what may have been acknowledged is damaged; nothing was changed.
        UnusableDirectory: it cannot be made, read or written.
        KeyMissing, WrongKey: the keys do not fit the last segment; nothing was changed in it.
        ConfigError: there are keys, and the library that encrypts is not installed.
    """
    if config.keys is not None:
        check_library()
    try:
        disk.make_directory(directory)
        names, finished = settle_leftovers(disk, directory)
        was_emptied = settle_install(disk, directory, names, clock, config)
        if was_emptied:
            names = disk.list_directory(directory)
        firsts = first_indexes_of(names)
        removed = _remove_unborn(disk, directory, firsts)
        if not firsts:
            create_first_segment(disk, directory, clock, config, WHOLE_LOG)
            firsts.append(Index(1))
        found = _recover(disk, directory, firsts, config, files)
        report = replace(
            found.report,
            removed_segment=removed,
            compactions_finished=finished,
            indexes_missing=count_without_index(names, firsts[-1]),
            was_emptied=was_emptied,
        )
        return replace(found, report=report)
    except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        raise UnusableDirectory(
            f"{directory} cannot be used: {error.strerror or error}; "
            "it has to be a directory that this user can write to"
        ) from error


def _remove_unborn(disk: Disk, directory: str, firsts: list[Index]) -> str:
    """Remove the last segment file if a crash cut its making short; returns its path."""
    if not firsts:
        return ""
    path = f"{directory}/{segment_name(firsts[-1])}"
    file = disk.open(path)
    try:
        try:
            decode_segment_header(file.read_at(0, DATA_START), path)
            return ""
        except Corrupt:
            if not is_unborn(disk, file, path, firsts[-1], is_alone=len(firsts) == 1):
                raise
    finally:
        file.close()
    disk.remove(path)
    disk.sync_directory(directory)
    firsts.pop()
    return path


def _recover(
    disk: Disk, directory: str, firsts: list[Index], config: LogConfig, files: SegmentFiles
) -> Recovered:
    segments = [Segment(f"{directory}/{segment_name(first)}", first) for first in firsts]
    for segment in segments[:-1]:
        segment.is_sealed = True
    last = segments[-1]
    file = disk.open(last.path)
    try:
        header = _load_header(file, last.path, last.first_index)
        SegmentCipher.open(config.keys, header, last.path)
        marks = MarkPages()
        mark = marks.load(file)
        if mark is None:
            raise Corrupt(last.path, MARKS_START, "a mark", "two damaged ones")
        _check_mark(mark, header, last.path)
        marks.store_again(file, mark)
        if mark.is_closed and mark.position == file.size_bytes():
            end = header_at_mark(mark)
            report = RecoveryReport(was_closed=True)
            index = _index_of_closed(disk, file, last.path, header, mark, config)
        else:
            end, index, report = _scan_last(file, last, header, mark, config)
            # A process that died leaves in the page cache what was never synced; from here on
            # it counts as durable. Written again first: after a failed fdatasync the kernel
            # holds such pages for clean, and a sync alone would pass them over.
            _write_again(file, 0 if mark.position == DATA_START else mark.position, last.end)
            file.sync()
            disk.sync_directory(directory)
        _fill(last, header, file, end.index, file.size_bytes() if report.was_closed else last.end)
        last.index = index
        first = _check_neighbours(segments, files)
        floor = Index(min(mark.commit_floor, end.next_index - 1))
        start = Offset(max(mark.start_offset, first.base_offset))
        if not report.was_closed:
            marks.store(file, _mark_at(end, last.end, floor, start))
    except BaseException:
        file.close()
        raise
    return Recovered(segments, end, max(floor, Index(firsts[0] - 1)), start, file, marks, report)


def _fill(segment: Segment, header: SegmentHeader, file: File, last_index: int, end: int) -> None:
    """Load the last segment, whose last batch is ``last_index``."""
    first = None
    if last_index >= segment.first_index:
        first = first_batch_header(file, segment.path, segment.first_index)
    segment.load(header, None, first, end)


def _check_mark(mark: Mark, header: SegmentHeader, path: str) -> None:
    """Raise Corrupt where the mark cannot be of the segment with this header."""
    if mark.position == DATA_START:
        empty = first_mark(header, mark.commit_floor, mark.start_offset)
        fits = header_at_mark(mark) == header_at_mark(empty)
    else:
        fits = mark.position > DATA_START and mark.index >= header.first_index
    if not fits:
        raise Corrupt(path, MARKS_START, "a mark of this segment", f"{mark}")


def _mark_at(last: BatchHeader, position: int, floor: Index, start: Offset) -> Mark:
    index = Index(last.next_index - 1)
    return Mark(index, position, last.next_offset, last.term, last.timestamp_ms, floor, start)


def _index_of_closed(
    disk: Disk, file: File, path: str, header: SegmentHeader, mark: Mark, config: LogConfig
) -> SparseIndex:
    """The index of a last segment that was closed cleanly; it is not complete without batches."""
    interval_bytes = config.index_interval_bytes
    if mark.index < header.first_index:
        return SparseIndex(interval_bytes)
    seal = seal_of(header, mark.index, mark.position)
    index = load_index(disk, path, seal, interval_bytes)
    if index is None:
        index, end = build_index(file, path, header.first_index, mark.index, interval_bytes)
        if end != mark.position:
            raise Corrupt(path, end, f"the last batch to end at {mark.position}", str(end))
    return index


def _check_neighbours(segments: list[Segment], files: SegmentFiles) -> Segment:
    """Check that the last segment continues the one before it; returns the first one, loaded."""
    try:
        if len(segments) > 1:
            before, next_first_index = segments[-2], segments[-1].first_index
            with files.acquire(before) as opened:
                mark = before.mark
                # A truncation lowers the mark first: one that was cut short has left it low.
                if mark is None or mark.index + 1 != next_first_index:
                    _check_ends_before(opened.file, before, next_first_index)
        return files.load(segments[0])
    except SegmentChanged as error:
        raise Corrupt(str(error), 0, "the segment", "no such file") from error


def _check_ends_before(file: File, segment: Segment, next_first_index: int) -> None:
    """Raise Corrupt where there was a segment between ``segment`` and the next."""
    last = segment.first_index - 1
    position = DATA_START
    while position < segment.end:
        header = header_at(file.read_at(position, HEADER_SIZE), 0, segment.path, position, last + 1)
        last = header.next_index - 1
        position += header.size_bytes
    if last + 1 != next_first_index:
        raise Corrupt(
            segment.path,
            segment.end,
            f"the segment {segment_name(last + 1)} behind this one",
            f"{segment_name(next_first_index)} (missing or foreign files)",
        )


def _write_again(file: File, position: int, end: int) -> None:
    """Write the bytes ``[position, end)`` as they read now, so that the next sync takes them."""
    while position < end:
        chunk = file.read_at(position, min(_REWRITE_BYTES, end - position))
        if not chunk:
            # A file without batches may end before the place where they begin.
            return
        file.write_at(position, [chunk])
        position += len(chunk)


def _load_header(file: File, path: str, first_index: Index) -> SegmentHeader:
    header = decode_segment_header(file.read_at(0, DATA_START), path)
    if header.first_index != first_index:
        raise Corrupt(path, 8, f"first index {first_index}", str(header.first_index))
    return header


def _scan_last(
    file: File, segment: Segment, header: SegmentHeader, mark: Mark, config: LogConfig
) -> tuple[BatchHeader, SparseIndex, RecoveryReport]:
    """Scan the last segment, note where it ends, cut a torn tail; returns the last header."""
    last = header_before(header)
    index = SparseIndex(config.index_interval_bytes)
    scan = Scan(file, DATA_START, last)
    for position, found in scan:
        index.add(found, position)
        last = found
    segment.end = scan.position
    if scan.position < mark.position:
        raise Corrupt(
            segment.path,
            scan.position,
            f"batch {last.next_index}, which was on stable storage",
            scan.damage or "the end of the file",
        )
    scanned_bytes = scan.position - DATA_START
    end = scan.position if scan.damage is None else end_of_data(file, scan.position)
    if end == scan.position:
        return last, index, RecoveryReport(scanned_bytes=scanned_bytes)
    report = RecoveryReport(
        cut_bytes=end - scan.position,
        cut_batches=count_intact_headers(file, scan.position, end),
        reason=f"{segment.path}: never synced, byte {scan.position}: {scan.damage}",
        scanned_bytes=scanned_bytes,
    )
    file.truncate(scan.position)
    return last, index, report
