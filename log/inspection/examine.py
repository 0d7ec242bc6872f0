"""Looking at one segment in all its parts, whatever state it is in. Changes nothing."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from quorumlog.errors import Corrupt, ProtocolError
from quorumlog.log.batch import HEADER_SIZE, decode_fields
from quorumlog.log.inspection.batch_check import BatchCheck, Counts
from quorumlog.log.inspection.damage import ORIGIN, Finding, Flaw, Point, Severity, Span
from quorumlog.log.inspection.inventory import SegmentFile, header_in
from quorumlog.log.inspection.survey import Hole, Run, SafeReader, Survey, follow, survey
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.mark import Mark, MarkPages
from quorumlog.log.paths import index_path_of
from quorumlog.log.scan import end_of_data
from quorumlog.log.segment import DATA_START
from quorumlog.log.segment_files import seal_of
from quorumlog.log.segment_header import HEADER_BYTES, SegmentHeader, decode_segment_header
from quorumlog.log.sparse_index import SparseIndex, decode_index
from quorumlog.ports import Disk, File
from quorumlog.types import Index, Offset, Term

_PAGE_BYTES: Final = 4096
_OPEN_ATTEMPTS: Final = 3
"""How often the mark of a log that is written meanwhile is read before it counts as damaged."""

Progress = Callable[[int], None]
"""Called with the number of bytes that were read since the call before."""


@dataclass(frozen=True, slots=True)
class Task:
    """Which segment to look at, and what is known around it.

    Attributes:
        before: what it has to continue; None: not known.
        bound: what the segment behind it continues; None: not known.
        is_last: it is the end of the log.
        is_open: a process appends to it: only what is synced counts.
        with_records: decode bodies.
    """

    source: SegmentFile
    before: Point | None
    bound: Point | None
    is_last: bool
    is_open: bool = False
    with_records: bool = True
    ring: KeyRing | None = None


@dataclass(slots=True)
class Examined:
    """What a segment is.

    Attributes:
        header, mark: None where there is no valid one.
        begin: what its first batch continues; its offset is a guess unless ``is_begin_known``.
        survey: of the batches that have to be there.
        tail: good batches behind those, which the mark does not vouch for.
        after: what a batch behind its last one continues.
        end: behind its last batch that counts; of a torn tail, where that begins.
        torn_end: behind the last byte of a torn tail; ``end`` where there is none.
        has_index: there is an index file that is not what it should be, or one is to be made.
    """

    source: SegmentFile
    is_last: bool
    header: SegmentHeader | None = None
    mark: Mark | None = None
    damaged_slots: list[int] = field(default_factory=list)
    begin: Point = ORIGIN
    is_begin_known: bool = True
    survey: Survey = field(default_factory=Survey)
    tail: Run | None = None
    after: Point = ORIGIN
    end: int = DATA_START
    torn_end: int = DATA_START
    size_bytes: int = 0
    is_index_wrong: bool = False
    is_mark_wrong: bool = False
    is_header_wrong: bool = False
    counts: Counts = field(default_factory=Counts)
    findings: list[Finding] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """All good batches."""
        is_empty = self.tail is None or self.tail.end == self.tail.position
        return self.survey.runs if is_empty or self.tail is None else [*self.survey.runs, self.tail]

    @property
    def was_closed(self) -> bool:
        """The log was closed cleanly behind this segment."""
        mark = self.mark
        return mark is not None and mark.is_closed and mark.position == self.size_bytes

    def note(
        self,
        severity: Severity,
        flaw: Flaw,
        position: int,
        expected: str,
        found: str,
        indexes: Span | None = None,
        offsets: Span | None = None,
        file: str = "",
    ) -> None:
        self.findings.append(
            Finding(
                severity,
                flaw,
                file or self.source.path,
                position,
                expected,
                found,
                indexes,
                offsets,
            )
        )


def examine(disk: Disk, task: Task, progress: Progress) -> Examined:
    """Read all of a segment.

    Raises:
        FileNotFoundError: it is gone.
    """
    result = Examined(task.source, task.is_last)
    file = disk.open_readonly(task.source.path)
    try:
        result.size_bytes = file.size_bytes()
        reader = SafeReader(file, progress)
        _look_at_header(task, reader, result)
        _look_at_marks(task, file, reader, result)
        index = _load_index(disk, task, result)
        check = BatchCheck(
            task.source.path, result.header, task.ring, index, with_records=task.with_records
        )
        _look_at_batches(task, reader, result, check)
        if task.is_last and not task.is_open:
            _look_at_tail(task, file, reader, result, check)
        result.counts = check.counts
        _judge_mark(task, result)
        wrong = check.wrong_entry or (None if result.survey.holes else check.passed_entry)
        if wrong is not None:
            _index_is_wrong(task, result, f"an entry that is not so: {wrong}")
        for position, reason in reader.unreadable:
            result.note(
                Severity.DAMAGE, Flaw.UNREADABLE, position, "readable bytes", f"an error: {reason}"
            )
    finally:
        file.close()
    return result


def _look_at_header(task: Task, reader: SafeReader, result: Examined) -> None:
    source, before = task.source, task.before
    raw = reader.read(0, _PAGE_BYTES)
    try:
        result.header = header = decode_segment_header(raw, source.path)
    except Corrupt as error:
        # What it meant for the log is known once the batches were looked at.
        result.is_header_wrong = True
        severity = Severity.REPAIRABLE if before is not None else Severity.DAMAGE
        result.note(severity, Flaw.HEADER, error.position, error.expected, error.got)
        known = before is not None and before.index == source.first_index
        if before is not None and known:
            result.begin = before
        else:
            result.begin = Point(source.first_index, Offset(0), Term(0), 0)
            result.is_begin_known = source.first_index == 1
        return
    result.begin = Point(
        header.first_index, header.base_offset, header.prev_term, header.prev_timestamp_ms
    )
    if before is not None and before.index == header.first_index and before != result.begin:
        result.is_header_wrong = True
        result.note(
            Severity.DAMAGE, Flaw.FOREIGN, 0, f"to continue {before}", f"to continue {result.begin}"
        )
    if raw[HEADER_BYTES:].strip(b"\0"):
        result.note(Severity.NOTE, Flaw.PADDING, HEADER_BYTES, "zeros", "other bytes")


def _look_at_marks(task: Task, file: File, reader: SafeReader, result: Examined) -> None:
    attempts = _OPEN_ATTEMPTS if task.is_open and task.is_last else 1
    marks = MarkPages()
    for _ in range(attempts):
        try:
            result.mark, result.damaged_slots = marks.load(file), marks.damaged(file)
        except OSError as error:
            result.note(
                Severity.DAMAGE,
                Flaw.UNREADABLE,
                _PAGE_BYTES,
                "a mark",
                error.strerror or "an error",
            )
        if not result.damaged_slots:
            break
    if result.mark is None:
        result.is_mark_wrong = True
        found = "two damaged slots" if result.damaged_slots else "none"
        severity = Severity.DAMAGE if task.is_last else Severity.REPAIRABLE
        result.note(severity, Flaw.MARK, _PAGE_BYTES, "a valid mark", found)
    else:
        for place in result.damaged_slots:
            result.note(
                Severity.REPAIRABLE,
                Flaw.MARK_SLOT,
                place,
                "a valid slot",
                "damage; the other counts",
            )
    slot_bytes = marks.slot_bytes
    for page in (_PAGE_BYTES, 2 * _PAGE_BYTES):
        if reader.read(page, _PAGE_BYTES)[slot_bytes:].strip(b"\0"):
            result.note(Severity.NOTE, Flaw.PADDING, page + slot_bytes, "zeros", "other bytes")


def _must_end(task: Task, result: Examined) -> int:
    """How far the batches have to reach that were on stable storage."""
    mark, bound = result.mark, task.bound
    end = DATA_START if task.is_last else max(result.size_bytes, DATA_START)
    if mark is not None and (task.is_last or (bound is not None and mark.index < bound.index)):
        end = max(end, mark.position)
    return end


def point_at(mark: Mark) -> Point:
    """What a batch behind the mark continues."""
    return Point(Index(mark.index + 1), mark.next_offset, mark.term, mark.timestamp_ms)


def _look_at_batches(task: Task, reader: SafeReader, result: Examined, check: BatchCheck) -> None:
    bound = task.bound
    mark = result.mark
    if task.is_last or (mark is not None and bound is not None and mark.index + 1 == bound.index):
        # Of its own end a segment knows more than the one behind it, which may be a foreign one.
        bound = None if mark is None else point_at(mark)
    begin = result.begin
    if not result.is_begin_known:
        first = first_point(reader, begin.index)
        if first is not None:
            result.begin, result.is_begin_known = first, True
            begin = first
    end = _must_end(task, result)
    found = survey(reader, DATA_START, begin, end, bound, check.visit)
    result.survey = found
    result.after, result.end = found.after, found.end
    for hole in found.holes:
        _note_hole(result, hole)
    if found.holes and found.holes[-1].end == end and found.holes[-1].after is not None:
        result.after, result.end = found.holes[-1].after, end
    result.torn_end = result.end


def first_point(reader: SafeReader, first_index: Index) -> Point | None:
    """What the first batch continues as far as it says that itself; None if it is damaged."""
    try:
        fields = decode_fields(reader.read(DATA_START, HEADER_SIZE), 0)
    except ProtocolError:
        return None
    index, term, offset, timestamp_ms = fields[4:8]
    return (
        Point(Index(index), Offset(offset), Term(term), timestamp_ms)
        if index == first_index
        else None
    )


def begin_of(disk: Disk, source: SegmentFile) -> Point | None:
    """What a segment's first batch continues, by its header or by that batch."""
    header = header_in(disk, source.path)
    if header is not None:
        return Point(
            header.first_index, header.base_offset, header.prev_term, header.prev_timestamp_ms
        )
    with suppress(OSError):
        file = disk.open_readonly(source.path)
        try:
            return first_point(SafeReader(file, lambda size_bytes: None), source.first_index)
        finally:
            file.close()
    return None


def _note_hole(result: Examined, hole: Hole) -> None:
    before, after = hole.before, hole.after
    if after is not None and (before.index, before.offset) == (after.index, after.offset):
        result.note(
            Severity.REPAIRABLE, Flaw.TRAILING, hole.position, "the end of the segment", hole.found
        )
        return
    is_start_known = result.is_begin_known or hole.position > DATA_START
    result.note(
        Severity.DAMAGE,
        Flaw.BATCHES,
        hole.position,
        hole.expected,
        hole.found,
        Span(before.index, None if after is None else after.index),
        Span(before.offset if is_start_known else None, None if after is None else after.offset),
    )


def _look_at_tail(
    task: Task, file: File, reader: SafeReader, result: Examined, check: BatchCheck
) -> None:
    """What is behind the mark: good batches that were not vouched for, then zeros or a torn end."""
    run, wrong = follow(reader, result.end, result.after, result.size_bytes, check.visit)
    result.tail = run
    result.after, result.end = run.after, run.end
    result.torn_end = result.end
    if wrong is None:
        return
    result.torn_end = end_of_data(file, result.end)
    if result.torn_end > result.end:
        result.note(
            Severity.REPAIRABLE,
            Flaw.TORN_TAIL,
            result.end,
            f"zeros or batch {result.after.index}",
            f"{result.torn_end - result.end} bytes that no mark vouches for ({wrong})",
        )


def _judge_mark(task: Task, result: Examined) -> None:
    """Whether the mark says what the batches say."""
    mark, found = result.mark, result.survey
    if mark is None or found.holes:
        return
    if task.is_last:
        truth, position = found.after, found.end
    elif task.bound is not None and mark.index + 1 < result.after.index:
        # A truncation that was cut short lowers the mark first, and leaves what it meant to cut.
        return
    else:
        truth, position = result.after, result.end
    if (point_at(mark), mark.position) != (truth, position):
        result.is_mark_wrong = True
        result.note(
            Severity.REPAIRABLE,
            Flaw.MARK,
            _PAGE_BYTES,
            f"a mark at byte {position} behind {truth}",
            f"one at byte {mark.position} behind {point_at(mark)}",
        )


def _load_index(disk: Disk, task: Task, result: Examined) -> SparseIndex | None:
    """The sparse index where there has to be a true one, and what is wrong with its file."""
    source, header, mark = task.source, result.header, result.mark
    path = index_path_of(source.home)
    if source.path != source.home or header is None or not disk.exists(path):
        return None
    if task.is_last:
        if mark is None or not result.was_closed or mark.index < source.first_index:
            # What is left of an earlier close is out of date, and known to be by its seal.
            return None
        seal = seal_of(header, mark.index, mark.position)
    elif mark is not None and mark.position == result.size_bytes:
        seal = seal_of(header, mark.index, result.size_bytes)
    elif task.bound is None or task.bound.index <= source.first_index:
        return None
    else:
        seal = seal_of(header, task.bound.index - 1, result.size_bytes)
    try:
        file = disk.open_readonly(path)
        try:
            raw = file.read_at(0, file.size_bytes())
        finally:
            file.close()
    except OSError as error:
        _index_is_wrong(task, result, f"an error: {error.strerror}")
        return None
    index = decode_index(raw, seal, 1)
    if index is None:
        _index_is_wrong(task, result, "a damaged one, or one of another state")
    return index


def _index_is_wrong(task: Task, result: Examined, found: str) -> None:
    result.is_index_wrong = True
    result.note(
        Severity.REPAIRABLE,
        Flaw.INDEX,
        0,
        "the sparse index of the segment",
        f"{found}: it is made again when it is needed",
        file=index_path_of(task.source.home),
    )
