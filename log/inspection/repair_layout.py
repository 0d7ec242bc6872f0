"""Planning what stands in the place of what is lost.

The good runs of batches of all segments are laid out in order; what is missing between two of them
becomes a gap of exactly the indexes and offsets that they leave. So no offset ever changes or is
used again.
"""

from quorumlog.log.inspection.damage import Point, Span
from quorumlog.log.inspection.repair_actions import Gap, KeepAside, Plan, Rewrite
from quorumlog.log.inspection.repair_parts import Part, mark_at
from quorumlog.log.inspection.survey import Run
from quorumlog.log.paths import segment_name
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.types import Offset


class RepairLayout:
    """Adds the actions to a plan.

    Attributes:
        rewritten: paths of the segments that are written anew.
    """

    def __init__(self, plan: Plan, directory: str, now_ms: int, start_offset: Offset) -> None:
        self.rewritten: set[str] = set()
        self._plan = plan
        self._directory = directory
        self._now_ms = now_ms
        self._start_offset = start_offset

    def run(self, parts: list[Part], alive: list[Part], end: Point | None) -> None:
        """Plan all of ``parts``, of which ``alive`` can be used; the log has to end at ``end``."""
        followers = dict(zip(map(id, alive), alive[1:], strict=False))
        before: Point | None = None
        dead: list[Part] = []
        for part in parts:
            if not part.is_alive:
                dead.append(part)
                continue
            behind = followers.get(id(part))
            before = self._lay_part(part, dead, before, behind, end if part is parts[-1] else None)
            dead = []
        if dead:
            begin = before or next(part.begin for part in dead if part.begin is not None)
            self._drop_dead([part for part in dead if part.home < self._home(begin)])
            if end is not None and begin.index < end.index:
                self._bridge(begin, end, dead)

    def _lay_part(
        self,
        part: Part,
        dead: list[Part],
        before: Point | None,
        behind: Part | None,
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
        return f"{self._directory}/{segment_name(point.index)}"

    def _drop_dead(self, dead: list[Part]) -> None:
        for part in dead:
            sentence = f"keep {part.home} aside: nothing in it can be read"
            self._plan.actions.append(KeepAside(sentence, part.home))

    def _bridge(self, begin: Point, end: Point, dead: list[Part]) -> None:
        home = self._home(begin)
        if not self._can_stand(Gap(begin, end), home):
            return
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
                mark=mark_at(None, end, self._start_offset),
            )
        )

    def _rewrite(self, part: Part, start: Point, reached: Point) -> None:
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
        gaps = [piece for piece in pieces if isinstance(piece, Gap)]
        if not all(self._can_stand(gap, examined.source.home) for gap in gaps):
            return
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
        self.rewritten.add(examined.source.home)
        self._plan.actions.append(
            Rewrite(
                f"rewrite {examined.source.home}: {loss}",
                examined.source.home,
                tuple(lost),
                header=old,
                next_index=reached.index,
                pieces=tuple(pieces),
                mark=mark_at(examined.mark, reached, self._start_offset),
            )
        )
        if home > examined.source.home:
            # It begins later now, under another name.
            sentence = f"keep {examined.source.home} aside: its start is lost"
            self._plan.actions.append(KeepAside(sentence, examined.source.home))

    def _can_stand(self, gap: Gap, path: str) -> bool:
        """Whether batches can stand for ``gap``; a refusal if not."""
        if gap.is_possible:
            return True
        self._plan.refusals.append(
            f"{path}: no gap can lead from {gap.before} to {gap.after}: one of the files around is "
            "of another log, or of another state of this one; move it away"
        )
        return False
