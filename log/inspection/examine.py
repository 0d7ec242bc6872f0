"""Looking at one segment in all its parts, whatever state it is in. Changes nothing."""

from contextlib import suppress

from quorumlog.errors import ProtocolError
from quorumlog.log.batch import HEADER_SIZE, decode_fields
from quorumlog.log.inspection.batch_check import BatchCheck
from quorumlog.log.inspection.damage import Flaw, Point, Severity, Span
from quorumlog.log.inspection.examined import Examined, Progress, Task, point_at
from quorumlog.log.inspection.index_check import index_is_wrong, load_index
from quorumlog.log.inspection.inventory import SegmentFile, header_in
from quorumlog.log.inspection.segment_pages import look_at_header, look_at_marks
from quorumlog.log.inspection.survey import Hole, SafeReader, follow, survey
from quorumlog.log.mark import MARKS_START
from quorumlog.log.scan import end_of_data
from quorumlog.log.segment import DATA_START
from quorumlog.ports import Disk
from quorumlog.types import Index, Offset, Term


def examine(disk: Disk, task: Task, progress: Progress) -> Examined:
    """Read all of a segment.

    Raises:
        FileNotFoundError: it is gone.
        OSError: it cannot be opened, or is no file.
    """
    result = Examined(task.source, task.is_last)
    file = disk.open_readonly(task.source.path)
    try:
        result.size_bytes = file.size_bytes()
        reader = SafeReader(file, progress)
        look_at_header(task, reader, result)
        look_at_marks(task, reader, result)
        index = load_index(disk, task, result)
        check = BatchCheck(
            task.source.path, result.header, task.ring, index, with_records=task.with_records
        )
        _look_at_batches(task, reader, result, check)
        if task.is_last and not task.is_open:
            _look_at_tail(reader, result, check)
        result.counts = check.counts
        _judge_mark(task, result)
        wrong = check.wrong_entry or (None if result.survey.holes else check.passed_entry)
        if wrong is not None:
            index_is_wrong(task, result, f"an entry that is not so: {wrong}")
        for position, size_bytes, reason in reader.unreadable():
            found = f"an error: {reason}"
            expected = f"{size_bytes} readable bytes"
            result.note(Severity.DAMAGE, Flaw.UNREADABLE, position, expected, found)
    finally:
        file.close()
    return result


def _must_end(task: Task, result: Examined) -> int:
    """How far the batches have to reach that were on stable storage."""
    mark, bound = result.mark, task.bound
    end = DATA_START if task.is_last else max(result.size_bytes, DATA_START)
    if mark is not None and (task.is_last or (bound is not None and mark.index < bound.index)):
        end = max(end, mark.position)
    return end


def _look_at_batches(task: Task, reader: SafeReader, result: Examined, check: BatchCheck) -> None:
    bound = task.bound
    mark = result.mark
    is_complete = mark is not None and mark.position == result.size_bytes
    is_beyond = mark is not None and bound is not None and mark.index + 1 >= bound.index
    if task.is_last or is_complete or is_beyond:
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
        fields = decode_fields(reader.read_at(DATA_START, HEADER_SIZE), 0)
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


def _look_at_tail(reader: SafeReader, result: Examined, check: BatchCheck) -> None:
    """What is behind the mark: good batches that were not vouched for, then zeros or a torn end."""
    run, wrong = follow(reader, result.end, result.after, result.size_bytes, check.visit)
    result.tail = run
    result.after, result.end = run.after, run.end
    result.torn_end = result.end
    if wrong is None:
        return
    result.torn_end = end_of_data(reader, result.end)
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
            MARKS_START,
            f"a mark at byte {position} behind {truth}",
            f"one at byte {mark.position} behind {point_at(mark)}",
        )
