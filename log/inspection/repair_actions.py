"""The steps of a repair, as values."""

from dataclasses import dataclass, field
from typing import Final

from quorumlog.log.batch import MAX_GAP
from quorumlog.log.inspection.damage import ORIGIN, Point, Span
from quorumlog.log.inspection.survey import Run
from quorumlog.log.mark import Mark
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.types import Index

MAX_FILLERS: Final = 1_000_000
"""Batches that may stand for one hole: more are no hole, but the file of another log."""

_MAX: Final = 2**63


@dataclass(frozen=True, slots=True)
class Action:
    """One step; ``sentence`` says it to people.

    Attributes:
        path: of the file it is about.
        lost: the offsets that cannot be read afterwards and could be written once.
    """

    sentence: str
    path: str
    lost: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Settle(Action):
    """Finish a compaction that was decided.

    Attributes:
        kept: files it takes the place of that are copied before, for the new one is damaged.
    """

    kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place(Action):
    """Give a segment the name its header says: ``home``."""

    home: str = ""


@dataclass(frozen=True, slots=True)
class KeepAside(Action):
    """Move a file away that the log does not need, or cannot use."""


@dataclass(frozen=True, slots=True)
class CutTail(Action):
    """Cut what stands behind ``position``, up to ``end``, and was never synced."""

    position: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class WriteHeader(Action):
    header: SegmentHeader | None = None


@dataclass(frozen=True, slots=True)
class WriteMark(Action):
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class RebuildIndex(Action):
    """Make the sparse index of the segment at ``path`` again, for batches up to ``last_index``."""

    last_index: Index = ORIGIN.index


@dataclass(frozen=True, slots=True)
class RenewHardState(Action):
    """Store term and vote again, over the damaged slot."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Stands for what is missing between two points."""

    before: Point
    after: Point

    @property
    def is_possible(self) -> bool:
        """Whether batches can stand for it, and not more than ``MAX_FILLERS``."""
        before, after = self.before, self.after
        indexes, offsets = after.index - before.index, after.offset - before.offset
        is_forward = after.term >= before.term and after.timestamp_ms >= before.timestamp_ms
        if indexes <= 0 or offsets < 0 or not is_forward or max(after.index, after.offset) > _MAX:
            return False
        return self.parts <= (min(indexes, offsets, MAX_FILLERS) if offsets else MAX_FILLERS)

    @property
    def parts(self) -> int:
        """How many batches: without offsets one for each index, for a gap takes offsets."""
        indexes, offsets = (
            self.after.index - self.before.index,
            self.after.offset - self.before.offset,
        )
        return -(-max(indexes, offsets) // MAX_GAP) if offsets else indexes


@dataclass(frozen=True, slots=True)
class Rewrite(Action):
    """Put a new file in the place of all segments of ``[header.first_index, next_index)``.

    Attributes:
        header: as it is stored, the stamp of a key included.
        pieces: runs of the file at ``path``, and gaps.
        mark: of the new file but for its position.
    """

    header: SegmentHeader | None = None
    next_index: Index = ORIGIN.index
    pieces: tuple[Run | Gap, ...] = ()
    mark: Mark | None = None


@dataclass(slots=True)
class Plan:
    """What is to be done, in order, and what cannot be.

    ``is_partial``: there is more to do, which is known once these actions were done.
    """

    actions: list[Action] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    is_partial: bool = False

    @property
    def lost(self) -> list[Span]:
        return [span for action in self.actions for span in action.lost]
