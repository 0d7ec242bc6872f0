"""What a repair would do, as a list of values: made from what verify found, changes nothing.

The good runs of batches of all segments are laid out in order; what is missing between two of them
becomes a gap of exactly the indexes and offsets that they leave. So no offset ever changes or is
used again. A replica's log is not bridged: it would differ from its peers unnoticed.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

from quorumlog.log.inspection.damage import ORIGIN, Flaw, Point, Severity, Span
from quorumlog.log.inspection.examine import Examined, point_at
from quorumlog.log.inspection.repair_actions import (
    CutTail,
    Gap,
    KeepAside,
    Place,
    Plan,
    RebuildIndex,
    RenewHardState,
    Rewrite,
    Settle,
    WriteHeader,
    WriteMark,
)
from quorumlog.log.inspection.survey import Run
from quorumlog.log.inspection.verify import Verified
from quorumlog.log.mark import Mark
from quorumlog.log.paths import segment_name
from quorumlog.log.segment import DATA_START
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.types import Index, Offset


def plan_repair(verified: Verified, now_ms: int) -> Plan:
    """The actions for what ``verified`` found.

    Args:
        now_ms: milliseconds since the Unix epoch, for the headers of new segments.
    """
    plan = Plan()
    _plan_names(verified, plan)
    if plan.actions:
        plan.is_partial = True
        return plan
    _plan_owner_files(verified, plan)
    if verified.segments:
        _Planner(verified, now_ms, plan).run()
    return plan


def _plan_names(verified: Verified, plan: Plan) -> None:
    """Files that have to get their names before the rest can be judged."""
    inventory = verified.inventory
    unfinished = [each for each in inventory.findings if each.flaw == Flaw.UNFINISHED]
    leftovers = [each for each in unfinished if each.file.endswith(".compacted")]
    for each in leftovers:
        plan.actions.append(Settle(f"settle {each.file}: {each.found}", each.file))
    compacted = {each.path for each in inventory.compactions}
    for source in inventory.segments:
        if source.path != source.home and source.path not in compacted:
            sentence = f"rename {source.path} to {source.home}: that is the segment in it"
            plan.actions.append(Place(sentence, source.path, home=source.home))
    for each in inventory.findings:
        if each.flaw == Flaw.MISPLACED and each.severity == Severity.DAMAGE:
            sentence = f"keep {each.file} aside: it is {each.found}"
            plan.actions.append(KeepAside(sentence, each.file))


def _plan_owner_files(verified: Verified, plan: Plan) -> None:
    for each in verified.report.findings:
        if each.flaw == Flaw.STATE_SNAPSHOT:
            sentence = f"keep {each.file} aside: it is damaged and not used"
            plan.actions.append(KeepAside(sentence, each.file))
        elif each.flaw == Flaw.HARD_STATE and each.severity == Severity.REPAIRABLE:
            sentence = f"store term and vote in {each.file} again, over a damaged slot"
            plan.actions.append(RenewHardState(sentence, each.file))
        elif each.flaw == Flaw.HARD_STATE:
            plan.refusals.append(
                f"{each.file} has lost term and vote, and nothing else knows them: remove this "
                "node from the cluster and let a new one take its place"
            )


@dataclass(slots=True)
class _Part:
    """A segment as the planner sees it. Without runs it is alive only if it never had batches."""

    examined: Examined
    runs: list[Run]
    begin: Point | None
    is_broken: bool

    @property
    def is_alive(self) -> bool:
        return bool(self.runs) or not self.is_broken

    @property
    def home(self) -> str:
        return self.examined.source.home

    def starts_at(self, before: Point | None) -> Point:
        """Where it is to begin when ``before`` is what it continues."""
        if self.begin is not None:
            return self.begin
        return before or self.runs[0].begin


class _Planner:
    def __init__(self, verified: Verified, now_ms: int, plan: Plan) -> None:
        self._verified = verified
        self._now_ms = now_ms
        self._plan = plan
        self._is_replica = verified.report.is_replica
        marks = [each.mark for each in verified.segments if each.mark is not None]
        self._start_offset = max((mark.start_offset for mark in marks), default=Offset(0))

    def run(self) -> None:
        parts = [_part_of(each) for each in self._verified.segments]
        refusal = self._refusal(parts)
        if refusal:
            self._plan.refusals.append(refusal)
            if self._is_replica:
                self._plan_small(parts)
            return
        alive = [part for part in parts if part.is_alive]
        end = _end_of(parts)
        if alive:
            first = alive[0].starts_at(None)
            leading = [part for part in parts[: parts.index(alive[0])] if part.begin is not None]
            if leading and leading[0].begin is not None:
                first = leading[0].begin
            self._start_offset = max(self._start_offset, first.offset)
        self._lay_out(parts, alive, end)
        self._plan_small([part for part in alive if not self._is_rewritten(part)])

    def _refusal(self, parts: list[_Part]) -> str:
        """Why nothing can be bridged, or an empty string."""
        directory = self._verified.report.directory
        is_torn = any(part.is_broken for part in parts) or any(
            each.flaw in (Flaw.MISSING_SEGMENT, Flaw.MISSING_START)
            for each in self._verified.report.findings
        )
        if self._is_replica and is_torn:
            return (
                f"{directory} is one of several replicas and has lost batches: filled with a gap "
                "it would differ from the others unnoticed; remove this node from the cluster and "
                "let a new one take its place, which gets the batches from the others"
            )
        last = parts[-1]
        if _is_unvouched(last) or (last.is_broken and _end_of(parts) is None):
            return (
                f"{last.home} is damaged and no mark says how far it went: the log cannot go on "
                "without using offsets again; restore this file from a copy, or begin a new log"
            )
        known = any(part.is_alive or part.begin is not None for part in parts)
        if not known:
            return f"nothing in {directory} can be read: restore it from a copy"
        return ""

    def _lay_out(self, parts: list[_Part], alive: list[_Part], end: Point | None) -> None:
        before: Point | None = None
        dead: list[_Part] = []
        for part in parts:
            if not part.is_alive:
                dead.append(part)
                continue
            behind = next((each for each in alive[alive.index(part) + 1 :]), None)
            before = self._lay_part(part, dead, before, behind, end if part is parts[-1] else None)
            dead = []
        if dead:
            begin = before or next(part.begin for part in dead if part.begin is not None)
            self._drop_dead([part for part in dead if part.home < self._home(begin)])
            if end is not None and begin.index < end.index:
                self._bridge(begin, end, dead)

    def _lay_part(
        self,
        part: _Part,
        dead: list[_Part],
        before: Point | None,
        behind: _Part | None,
        end: Point | None,
    ) -> Point:
        """Plan one segment and what is missing before it; returns what comes next continues."""
        if before is None:
            before = next((each.begin for each in dead if each.begin is not None), None)
        start = part.starts_at(before)
        if before is not None and before.index < start.index:
            self._bridge(before, start, dead)
            self._drop_dead([each for each in dead if each.home < self._home(before)])
        else:
            self._drop_dead(dead)
        after = part.runs[-1].after if part.runs else start
        goal = end
        if behind is not None and part.is_broken:
            goal = behind.begin
        is_short = goal is not None and after.index < goal.index
        if part.is_broken or start.index != part.examined.source.first_index or is_short:
            reached = goal if is_short and goal is not None else after
            self._rewrite(part, start, reached)
            return reached
        return after

    def _home(self, point: Point) -> str:
        return f"{self._verified.report.directory}/{segment_name(point.index)}"

    def _drop_dead(self, dead: list[_Part]) -> None:
        for part in dead:
            sentence = f"keep {part.home} aside: nothing in it can be read"
            self._plan.actions.append(KeepAside(sentence, part.home))

    def _bridge(self, begin: Point, end: Point, dead: list[_Part]) -> None:
        home = self._home(begin)
        replaced = [part.home for part in dead if home <= part.home < self._home(end)]
        what = f"in the place of {', '.join(replaced)}" if replaced else "for a missing segment"
        lost = Span(begin.offset, end.offset)
        sentence = f"make {home}, a gap {what}: offsets {lost} are lost"
        header = SegmentHeader(
            begin.index, begin.offset, begin.term, begin.timestamp_ms, self._now_ms
        )
        self._plan.actions.append(
            Rewrite(
                sentence,
                home,
                (lost,),
                header=header,
                next_index=end.index,
                pieces=(Gap(begin, end),),
                mark=self._mark(None, end),
            )
        )

    def _rewrite(self, part: _Part, start: Point, reached: Point) -> None:
        examined = part.examined
        pieces: list[Run | Gap] = []
        lost: list[Span] = []
        point = start
        for run in part.runs:
            if point.index < run.begin.index:
                pieces.append(Gap(point, run.begin))
                lost.append(Span(point.offset, run.begin.offset))
            pieces.append(run)
            point = run.after
        if point.index < reached.index:
            pieces.append(Gap(point, reached))
            lost.append(Span(point.offset, reached.offset))
        home = self._home(start)
        old = examined.header
        if old is not None and old.key is not None and any(span.start == span.end for span in lost):
            self._plan.refusals.append(
                f"{examined.source.home} is encrypted and has lost batches without records, which "
                "no gap can stand for: restore it from a copy"
            )
            return
        if old is None or old.first_index != start.index:
            old = SegmentHeader(
                start.index, start.offset, start.term, start.timestamp_ms, self._now_ms
            )
        spans = ", ".join(map(str, lost))
        loss = f"offsets {spans} cannot be read and become gaps" if lost else "nothing is lost"
        self._plan.actions.append(
            Rewrite(
                f"rewrite {examined.source.home}: {loss}",
                examined.source.home,
                tuple(lost),
                header=old,
                next_index=reached.index,
                pieces=tuple(pieces),
                mark=self._mark(examined.mark, reached),
            )
        )
        if home > examined.source.home:
            # It begins later now, under another name.
            sentence = f"keep {examined.source.home} aside: its start is lost"
            self._plan.actions.append(KeepAside(sentence, examined.source.home))

    def _mark(self, old: Mark | None, end: Point) -> Mark:
        """Of a segment that ends there; its position is known when it is written."""
        last_index = Index(end.index - 1)
        base = old or Mark(
            last_index, 0, end.offset, end.term, end.timestamp_ms, Index(0), Offset(0)
        )
        return replace(
            base,
            index=last_index,
            position=0,
            next_offset=end.offset,
            term=end.term,
            timestamp_ms=end.timestamp_ms,
            commit_floor=Index(min(base.commit_floor, last_index)),
            start_offset=self._start_offset,
            is_closed=False,
        )

    def _is_rewritten(self, part: _Part) -> bool:
        return any(
            isinstance(action, Rewrite) and part.home == action.path
            for action in self._plan.actions
        )

    def _plan_small(self, parts: list[_Part]) -> None:
        """What is put right in place, and loses nothing."""
        for before, part in pairwise([None, *parts]):
            if part is None or part.is_broken or _is_unvouched(part):
                continue
            self._plan_header(part, before)
            self._plan_mark(part)
            self._plan_tail_and_index(part)

    def _plan_header(self, part: _Part, before: _Part | None) -> None:
        examined = part.examined
        if examined.header is not None or part.begin is None:
            return
        begin, home = part.begin, part.home
        if self._is_replica and before is None and begin != ORIGIN:
            self._plan.refusals.append(
                f"{home} has lost its header, which alone knows the term before it: remove this "
                "node from the cluster and let a new one take its place"
            )
            return
        header = SegmentHeader(
            begin.index, begin.offset, begin.term, begin.timestamp_ms, self._now_ms
        )
        sentence = f"write the header of {home} again, from its neighbours and its first batch"
        self._plan.actions.append(WriteHeader(sentence, home, header=header))

    def _plan_mark(self, part: _Part) -> None:
        examined = part.examined
        mark = examined.mark
        start_offset = self._start_offset
        is_start_low = examined.is_last and mark is not None and mark.start_offset < start_offset
        if not (examined.is_mark_wrong or examined.damaged_slots or is_start_low):
            return
        if mark is None or examined.is_mark_wrong:
            mark = replace(self._mark(mark, examined.after), position=examined.end)
            sentence = f"write the mark of {part.home} again, from its batches"
        elif is_start_low:
            sentence = (
                f"let the log start at offset {start_offset}: what is before is not there any more"
            )
        else:
            sentence = f"write the mark of {part.home} again, over a damaged slot"
        lost: tuple[Span, ...] = ()
        if is_start_low:
            lost = (Span(mark.start_offset, start_offset),)
            mark = replace(mark, start_offset=start_offset)
        self._plan.actions.append(WriteMark(sentence, part.home, lost, mark=mark))

    def _plan_tail_and_index(self, part: _Part) -> None:
        examined = part.examined
        if examined.torn_end > examined.end:
            size_bytes = examined.torn_end - examined.end
            sentence = f"cut {size_bytes} bytes at the end of {part.home} that were never synced"
            self._plan.actions.append(
                CutTail(sentence, part.home, position=examined.end, end=examined.torn_end)
            )
        elif examined.is_index_wrong and examined.header is not None:
            sentence = f"make the sparse index of {part.home} again"
            last_index = Index(examined.after.index - 1)
            self._plan.actions.append(RebuildIndex(sentence, part.home, last_index=last_index))


def _part_of(examined: Examined) -> _Part:
    is_foreign = any(each.flaw == Flaw.FOREIGN for each in examined.findings)
    is_keyless = examined.header is None and bool(examined.counts.encrypted)
    is_lost = is_foreign or is_keyless
    return _Part(
        examined,
        [] if is_lost else examined.runs,
        examined.begin if examined.is_begin_known and not is_foreign else None,
        bool(examined.survey.holes) or is_lost,
    )


def _is_unvouched(part: _Part) -> bool:
    """Whether a damaged end may be torn or lost: no mark says how far it was synced."""
    examined = part.examined
    return examined.mark is None and examined.torn_end > examined.end


def _end_of(parts: list[_Part]) -> Point | None:
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
