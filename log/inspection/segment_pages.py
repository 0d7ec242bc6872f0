"""Looking at the first pages of a segment: its header and its mark."""

from typing import Final

from quorumlog.errors import Corrupt
from quorumlog.log.inspection.damage import Flaw, Point, Severity
from quorumlog.log.inspection.examined import Examined, Task
from quorumlog.log.inspection.survey import SafeReader
from quorumlog.log.mark import MarkPages
from quorumlog.log.segment_header import HEADER_BYTES, decode_segment_header
from quorumlog.types import Offset, Term

_PAGE_BYTES: Final = 4096
_OPEN_ATTEMPTS: Final = 3
"""How often the mark of a log that is written meanwhile is read before it counts as damaged."""


def look_at_header(task: Task, reader: SafeReader, result: Examined) -> None:
    source, before = task.source, task.before
    raw = reader.read_at(0, _PAGE_BYTES)
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


def look_at_marks(task: Task, reader: SafeReader, result: Examined) -> None:
    attempts = _OPEN_ATTEMPTS if task.is_open and task.is_last else 1
    pages = [(at, reader.read_at(at, _PAGE_BYTES)) for at in (_PAGE_BYTES, 2 * _PAGE_BYTES)]
    marks = MarkPages()
    for _ in range(attempts):
        result.mark, result.damaged_slots = marks.load(reader), marks.damaged(reader)
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
    for at, page in pages:
        if page[slot_bytes:].strip(b"\0"):
            result.note(Severity.NOTE, Flaw.PADDING, at + slot_bytes, "zeros", "other bytes")
