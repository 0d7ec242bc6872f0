"""Planning what is put right in place, and loses nothing: headers, marks, torn tails, indexes."""

from dataclasses import replace

from quorumlog.log.inspection.damage import ORIGIN, Span
from quorumlog.log.inspection.repair_actions import (
    CutTail,
    Plan,
    RebuildIndex,
    WriteHeader,
    WriteMark,
)
from quorumlog.log.inspection.repair_parts import Part, is_unvouched, mark_at
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.types import Index, Offset


class SmallRepairs:
    """Adds the actions to a plan."""

    def __init__(self, plan: Plan, now_ms: int, start_offset: Offset, *, is_replica: bool) -> None:
        self._plan = plan
        self._now_ms = now_ms
        self._start_offset = start_offset
        self._is_replica = is_replica

    def run(self, parts: list[Part]) -> None:
        """What is put right in place, and loses nothing."""
        for before, part, behind in zip([None, *parts], parts, [*parts[1:], None], strict=False):
            if part.is_broken or is_unvouched(part) or _is_short(part, behind):
                continue
            self._plan_header(part, before)
            self._plan_mark(part)
            self._plan_tail_and_index(part)

    def _plan_header(self, part: Part, before: Part | None) -> None:
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

    def _plan_mark(self, part: Part) -> None:
        examined = part.examined
        mark = examined.mark
        start_offset = self._start_offset
        is_start_low = examined.is_last and mark is not None and mark.start_offset < start_offset
        if not (examined.is_mark_wrong or examined.damaged_slots or is_start_low):
            return
        if mark is None or examined.is_mark_wrong:
            mark = replace(mark_at(mark, examined.after, self._start_offset), position=examined.end)
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

    def _plan_tail_and_index(self, part: Part) -> None:
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


def _is_short(part: Part, behind: Part | None) -> bool:
    """Whether its end is missing: then it is not what it says, whatever is done to its parts."""
    if behind is None:
        return False
    return part.examined.after.index < behind.examined.source.first_index
