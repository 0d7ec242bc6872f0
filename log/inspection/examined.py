"""What is asked about a segment, and what it turned out to be, as values."""

from collections.abc import Callable
from dataclasses import dataclass, field

from quorumlog.log.inspection.batch_check import Counts
from quorumlog.log.inspection.damage import ORIGIN, Finding, Flaw, Point, Severity, Span
from quorumlog.log.inspection.inventory import SegmentFile
from quorumlog.log.inspection.survey import Run, Survey
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.mark import Mark
from quorumlog.log.segment import DATA_START
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.types import Index

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


def point_at(mark: Mark) -> Point:
    """What a batch behind the mark continues."""
    return Point(Index(mark.index + 1), mark.next_offset, mark.term, mark.timestamp_ms)
