"""Opening a log directory: find the segments, scan the last one, cut a torn tail.

Torn or rotten? The first bad batch of the last segment is a *torn tail* if it stands at or behind
the mark (:class:`quorumlog.log.segment.Mark`), for then nothing says that it was ever on stable
storage; before the mark it is rot. Good batches behind a bad one prove nothing by themselves: one
flush writes many batches, and a power cut keeps any of its sectors. Every other segment was
durable as a whole before the next one was made, so nothing in it can be torn.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from quorumlog.errors import Corrupt, UnusableDirectory
from quorumlog.log.batch import HEADER_SIZE, BatchHeader
from quorumlog.log.config import LogConfig
from quorumlog.log.paths import first_index_of, index_path_of, segment_name
from quorumlog.log.scan import Scan, count_intact_headers, end_of_data, header_at
from quorumlog.log.segment import (
    DATA_START,
    Mark,
    MarkPages,
    Segment,
    SegmentHeader,
    decode_segment_header,
    reserve_segment,
    write_first_pages,
)
from quorumlog.log.sparse_index import SparseIndex
from quorumlog.ports import Clock, Disk, File
from quorumlog.types import Index, Offset, Term

_REWRITE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What opening a log found and did.

    Attributes:
        cut_bytes: bytes of the torn tail that were cut; 0 after a clean stop.
        cut_batches: batch headers that were intact in it. None of these was ever acknowledged.
        reason: why it was cut, empty when nothing was.
        removed_segment: the file of a segment that was being made and held nothing, or empty.
        indexes_missing: sealed segments without an index file; made again when first needed.
        scanned_bytes: bytes of the last segment that were read and checked.
    """

    cut_bytes: int = 0
    cut_batches: int = 0
    reason: str = ""
    removed_segment: str = ""
    indexes_missing: int = 0
    scanned_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Recovered:
    """A log as it was found: its segments, the state at its end, the open file of the last."""

    segments: list[Segment]
    last: BatchHeader
    """Header of the last batch; of an empty log, one that the next batch continues."""
    commit_floor: Index
    file: File
    marks: MarkPages
    report: RecoveryReport


def recover(disk: Disk, directory: str, config: LogConfig, clock: Clock) -> Recovered:
    """Open ``directory``, made when missing. Everything it returns is durable.

    Raises:
        Corrupt: what may have been acknowledged is damaged; nothing was changed.
        UnusableDirectory: it cannot be made, read or written.
    """
    try:
        disk.make_directory(directory)
        names = disk.list_directory(directory)
        firsts = [first for name in names if (first := first_index_of(name)) is not None]
        removed = _remove_unborn(disk, directory, firsts)
        if not firsts:
            _create_first(disk, directory, clock)
            firsts.append(Index(1))
        return _recover(disk, directory, firsts, config, removed, set(names))
    except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        raise UnusableDirectory(
            f"{directory} cannot be used: {error.strerror or error}; "
            "it has to be a directory that this user can write to"
        ) from error


def _remove_unborn(disk: Disk, directory: str, firsts: list[Index]) -> str:
    """Remove the last segment file if a crash cut its making short; returns its path.

    Only a file without a valid header, without a mark and with nothing but zeros where batches
    stand is that: its header was synced before the first batch was written.
    """
    if not firsts:
        return ""
    path = f"{directory}/{segment_name(firsts[-1])}"
    file = disk.open(path)
    try:
        try:
            decode_segment_header(file.read_at(0, DATA_START), path)
            return ""
        except Corrupt:
            mark = MarkPages().load(file)
            was_written = mark is not None and mark.synced_index >= firsts[-1]
            is_first = firsts[-1] == 1 or len(firsts) > 1
            if was_written or not is_first or end_of_data(file, DATA_START) > DATA_START:
                raise
    finally:
        file.close()
    disk.remove(path)
    disk.sync_directory(directory)
    firsts.pop()
    return path


def _create_first(disk: Disk, directory: str, clock: Clock) -> None:
    path = f"{directory}/{segment_name(1)}"
    file = reserve_segment(disk, path)
    try:
        header = SegmentHeader(Index(1), Offset(0), Term(0), 0, Index(0), clock.wall_ms())
        write_first_pages(file, header, Index(0))
        file.sync()
    finally:
        file.close()
    disk.sync_directory(directory)


def _recover(
    disk: Disk,
    directory: str,
    firsts: list[Index],
    config: LogConfig,
    removed: str,
    names: set[str],
) -> Recovered:
    segments = [_load_sealed(disk, directory, first) for first in firsts[:-1]]
    path = f"{directory}/{segment_name(firsts[-1])}"
    file = disk.open(path)
    try:
        last = _load_header(file, path, firsts[-1])
        segments.append(last)
        _check_chain(segments)
        marks = MarkPages()
        mark = marks.load(file)
        end, report = _scan_last(file, last, mark, config)
        # A process that died leaves in the page cache what was never synced; from here on it
        # counts as durable. Written again first: after a failed fdatasync the kernel holds such
        # pages for clean, and a sync alone would pass them over.
        synced = mark.synced_position if mark is not None else DATA_START
        _write_again(file, 0 if synced == DATA_START else synced, last.end)
        file.sync()
        disk.sync_directory(directory)
        floor = Index(min(mark.commit_floor if mark else 0, end.index))
        marks.store(file, Mark(end.index, last.end, floor))
    except BaseException:
        file.close()
        raise
    missing = sum(index_path_of(segment_name(first)) not in names for first in firsts[:-1])
    report = RecoveryReport(
        report.cut_bytes, report.cut_batches, report.reason, removed, missing, report.scanned_bytes
    )
    return Recovered(segments, end, max(floor, Index(firsts[0] - 1)), file, marks, report)


def _write_again(file: File, position: int, end: int) -> None:
    """Write the bytes ``[position, end)`` as they read now, so that the next sync takes them."""
    while position < end:
        chunk = file.read_at(position, min(_REWRITE_BYTES, end - position))
        file.write_at(position, [chunk])
        position += len(chunk)


def _load_header(file: File, path: str, first_index: Index) -> Segment:
    header = decode_segment_header(file.read_at(0, DATA_START), path)
    if header.first_index != first_index:
        raise Corrupt(path, 8, f"first index {first_index}", str(header.first_index))
    return Segment(path, header)


def _load_sealed(disk: Disk, directory: str, first_index: Index) -> Segment:
    """A segment's header and that of its first batch, in one read."""
    path = f"{directory}/{segment_name(first_index)}"
    file = disk.open_readonly(path)
    try:
        raw = file.read_at(0, DATA_START + HEADER_SIZE)
    finally:
        file.close()
    header = decode_segment_header(raw, path)
    if header.first_index != first_index:
        raise Corrupt(path, 8, f"first index {first_index}", str(header.first_index))
    segment = Segment(path, header)
    first = header_at(raw, DATA_START, path, DATA_START, first_index)
    segment.first_term = first.term
    segment.first_timestamp_ms = first.timestamp_ms
    segment.end = 0
    return segment


def _check_chain(segments: list[Segment]) -> None:
    """Every segment names the one before it, so a missing one is found without a scan."""
    for before, segment in pairwise(segments):
        named = segment.header.prev_first_index
        if named != before.first_index:
            raise Corrupt(
                segment.path,
                40,
                f"the segment before to be {segment_name(named)}",
                f"{segment_name(before.first_index)} (missing or foreign files)",
            )
        if segment.base_offset < before.base_offset:
            raise Corrupt(
                segment.path, 16, f"offsets from {before.base_offset} on", str(segment.base_offset)
            )


def _scan_last(
    file: File, segment: Segment, mark: Mark | None, config: LogConfig
) -> tuple[BatchHeader, RecoveryReport]:
    """Scan the last segment, fill in ``segment``, cut a torn tail; returns the last header."""
    last = header_before(segment.header)
    index = SparseIndex(config.index_interval_bytes)
    scan = Scan(file, DATA_START, last)
    for position, header in scan:
        if segment.first_term is None:
            segment.first_term = header.term
            segment.first_timestamp_ms = header.timestamp_ms
        index.add(header, position)
        last = header
    segment.index = index
    segment.end = scan.position
    if mark is not None and scan.position < mark.synced_position:
        raise Corrupt(
            segment.path,
            scan.position,
            f"batch {last.index + 1}, which was on stable storage",
            scan.damage or "the end of the file",
        )
    scanned_bytes = scan.position - DATA_START
    if scan.damage is None:
        return last, RecoveryReport(scanned_bytes=scanned_bytes)
    end = end_of_data(file, scan.position)
    if end == scan.position:
        return last, RecoveryReport(scanned_bytes=scanned_bytes)
    report = RecoveryReport(
        cut_bytes=end - scan.position,
        cut_batches=count_intact_headers(file, scan.position, end),
        reason=f"{segment.path}: never synced, byte {scan.position}: {scan.damage}",
        scanned_bytes=scanned_bytes,
    )
    file.truncate(scan.position)
    return last, report


def header_before(header: SegmentHeader) -> BatchHeader:
    """A stand-in for the batch before a segment, of which only these fields are known."""
    return BatchHeader(
        body_crc=0,
        body_length=0,
        record_count=0,
        index=Index(header.first_index - 1),
        term=header.prev_term,
        base_offset=header.base_offset,
        timestamp_ms=header.prev_timestamp_ms,
    )
