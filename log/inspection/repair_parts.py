"""Segments as the planner of a repair sees them."""

from dataclasses import dataclass, replace

from quorumlog.log.inspection.damage import Flaw, Point
from quorumlog.log.inspection.examined import Examined, point_at
from quorumlog.log.inspection.survey import Run
from quorumlog.log.mark import Mark
from quorumlog.log.segment import DATA_START
from quorumlog.types import Index, Offset


@dataclass(slots=True)
class Part:
    """A segment as the planner sees it.

    Attributes:
        runs: its good batches.
        begin: what the first of its batches continues; None: not known.
        is_broken: it has to be written anew, or cannot be used at all.
    """

    examined: Examined
    runs: list[Run]
    begin: Point | None
    is_broken: bool

    @property
    def is_alive(self) -> bool:
        """It has batches, or never had any."""
        return bool(self.runs) or (not self.is_broken and self.begin is not None)

    @property
    def home(self) -> str:
        return self.examined.source.home

    def starts_at(self, before: Point | None) -> Point:
        """Where it is to begin when ``before`` is what it continues."""
        if self.begin is not None:
            return self.begin
        return before or self.runs[0].begin


def part_of(examined: Examined) -> Part:
    """What ``examined`` is to the planner."""
    is_foreign = any(each.flaw == Flaw.FOREIGN for each in examined.findings)
    is_keyless = examined.header is None and bool(examined.counts.encrypted)
    is_wiped = examined.header is None and examined.mark is None and not examined.runs
    is_lost = is_foreign or is_keyless or is_wiped
    # Written anew it stands in sectors that can be read.
    is_unreadable = any(each.flaw == Flaw.UNREADABLE for each in examined.findings)
    return Part(
        examined,
        [] if is_lost else examined.runs,
        examined.begin if examined.is_begin_known and not is_foreign else None,
        bool(examined.survey.holes) or is_lost or is_unreadable,
    )


def is_unvouched(part: Part) -> bool:
    """Whether a damaged end may be torn or lost: no mark says how far it was synced."""
    examined = part.examined
    return examined.mark is None and examined.torn_end > examined.end


def end_of(parts: list[Part]) -> Point | None:
    """Where the mark of the last segment says that the log ends, or its batches if that is more."""
    last = parts[-1]
    mark = last.examined.mark
    is_foreign = last.begin is None and not last.runs
    if mark is None or is_foreign or mark.position < DATA_START:
        return None
    end = point_at(mark)
    if last.runs and last.runs[-1].after.index > end.index:
        return last.runs[-1].after
    return end


def mark_at(old: Mark | None, end: Point, start_offset: Offset) -> Mark:
    """Of a segment that ends there; its position is known when it is written."""
    last_index = Index(end.index - 1)
    base = old or Mark(last_index, 0, end.offset, end.term, end.timestamp_ms, Index(0), Offset(0))
    return replace(
        base,
        index=last_index,
        position=0,
        next_offset=end.offset,
        term=end.term,
        timestamp_ms=end.timestamp_ms,
        commit_floor=Index(min(base.commit_floor, last_index)),
        start_offset=start_offset,
        is_closed=False,
    )
