"""What a log needs from time to time: old segments deleted, superseded records taken out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from quorumlog.errors import Closed, InvariantViolation, LogFenced, QuorumlogError
from quorumlog.log.cleaning.compaction import CompactionReport, Compactor
from quorumlog.log.cleaning.compaction_plan import should_roll_to_compact
from quorumlog.log.cleaning.retention import Retention, first_offset_to_keep, should_roll
from quorumlog.log.log import Log
from quorumlog.log.upkeep import SegmentInfo
from quorumlog.ports import Clock
from quorumlog.types import Offset

_FIRST_PAUSE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 600.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HousekeepingReport:
    """What one turn did.

    Attributes:
        start_offset: where the log begins now.
        segments_removed: files that were deleted.
        is_rolled: the active segment was sealed, for it was old or large enough.
        compaction: what the pass did; None when there was none.
        errors: what went wrong, in order. Nothing is lost by it. The next turn tries again, a pass
            that failed only after a pause of one to ten minutes: it may have read much before.
            Until then its error is in every report.
    """

    start_offset: Offset
    segments_removed: int
    is_rolled: bool
    compaction: CompactionReport | None
    errors: tuple[QuorumlogError, ...]


class Housekeeper:
    """Takes care of one log; its owner calls ``run_once`` again and again, on one thread."""

    def __init__(
        self,
        log: Log,
        retention: Retention,
        compactor: Compactor | None,
        clock: Clock,
        flush: Callable[[], object] | None = None,
    ) -> None:
        """
        Args:
            log: open.
            retention: what has to stay.
            compactor: of the same log; None: it is not compacted.
            clock: the one that stamps the log's batches.
            flush: the owner's way to flush the log; None: ``log.flush``.
        """
        self._log = log
        self._retention = retention
        self._compactor = compactor
        self._clock = clock
        self._flush = flush or log.flush
        self._errors: list[QuorumlogError] = []
        self._pass_error: QuorumlogError | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._retry_at_s = 0.0

    def run_once(self) -> HousekeepingReport:
        """Delete what need not stay, then make the compaction pass that is due. Blocks.

        One part that fails does not keep the others from being tried: deletion is what makes space
        on a full disk.

        Raises:
            LogFenced, Closed: nothing can be done any more.
            InvariantViolation
        """
        self._errors = []
        is_rolled = bool(self._try(self._roll))
        self._try(self._advance_start)
        removed = self._try(self._log.remove_deleted) or 0
        compaction = None if self._compactor is None else self._compact(self._compactor)
        return HousekeepingReport(
            self._log.start_offset, removed, is_rolled, compaction, tuple(self._errors)
        )

    def _roll(self) -> bool:
        """Seal the active segment if what it holds has to go, or be compacted, some time soon."""
        if not self._retention.is_limited and self._compactor is None:
            return False
        active = self._log.segments()[-1]
        now_ms = self._clock.wall_ms()
        is_due = should_roll(active, self._retention, now_ms) or (
            self._compactor is not None
            and should_roll_to_compact(active, self._compactor.settings, now_ms)
        )
        if not is_due or not self._log.roll():
            return False
        self._flush()
        return True

    def _advance_start(self) -> None:
        if not self._retention.is_limited:
            return
        segments = self._log.segments()
        offset = first_offset_to_keep(
            segments, self._retention, self._clock.wall_ms(), self._committed_offset(segments)
        )
        if offset > self._log.start_offset:
            self._log.advance_start(offset)
            # It may fail on a full disk, and what is deleted is removed all the same: a log that
            # lost its first segments begins with the next one, whatever the mark says.
            self._flush()

    def _compact(self, compactor: Compactor) -> CompactionReport | None:
        if self._pass_error is not None and self._clock.monotonic_s() < self._retry_at_s:
            self._errors.append(self._pass_error)
            return None
        told = len(self._errors)
        report = self._try(compactor.run)
        if len(self._errors) == told:
            self._pass_error, self._pause_s = None, _FIRST_PAUSE_S
        else:
            self._pass_error = self._errors[-1]
            self._retry_at_s = self._clock.monotonic_s() + self._pause_s
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        return report

    def _committed_offset(self, segments: list[SegmentInfo]) -> Offset:
        """Before this offset everything is committed: the end of a segment."""
        floor = self._log.commit_floor
        committed = [info.next_offset for info in segments if info.next_index <= floor + 1]
        return max(committed, default=segments[0].base_offset)

    def _try(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except (LogFenced, Closed, InvariantViolation):
            raise
        except QuorumlogError as error:
            self._errors.append(error)
            return None
