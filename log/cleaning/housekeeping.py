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
_DELETION_PAUSE_S: Final = 10.0
"""How often, at most, a pass is interrupted to delete."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HousekeepingReport:
    """What one turn did.

    Attributes:
        start_offset: where the log begins now.
        segments_removed: files that were deleted.
        is_rolled: the active segment was sealed, for it was old or large enough.
        compaction: what the pass did; None when there was none.
        errors: what went wrong, in order, when it was tried last. Nothing is lost by it. The next
            turn tries again, a pass that failed only after a pause of one to ten minutes: it may
            have read much before. Until then its error is in every report.
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
        self._is_rolled = False
        self._removed = 0
        self._delete_again_at_s = 0.0
        self._pass_error: QuorumlogError | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._retry_at_s = 0.0

    def run_once(self) -> HousekeepingReport:
        """Delete what need not stay, then make the compaction pass that is due. Blocks.

        One part that fails does not keep the others from being tried: deletion is what makes space
        on a full disk. It goes on during the pass, which may take hours.

        Raises:
            LogFenced, Closed: nothing can be done any more.
            InvariantViolation
        """
        self._is_rolled, self._removed = False, 0
        self._delete()
        compaction, pass_error = None, None
        if self._compactor is not None:
            compaction, pass_error = self._compact(self._compactor)
        errors = self._errors if pass_error is None else [*self._errors, pass_error]
        return HousekeepingReport(
            self._log.start_offset, self._removed, self._is_rolled, compaction, tuple(errors)
        )

    def _delete(self) -> None:
        self._errors = []
        self._is_rolled |= bool(self._try(self._roll))
        self._try(self._advance_start)
        self._removed += self._try(self._log.remove_deleted) or 0
        self._delete_again_at_s = self._clock.monotonic_s() + _DELETION_PAUSE_S

    def _delete_if_due(self) -> None:
        if self._clock.monotonic_s() >= self._delete_again_at_s:
            self._delete()

    def _roll(self) -> bool:
        """Seal the active segment if what it holds has to go, or be compacted, some time soon."""
        if not self._retention.is_limited and self._compactor is None:
            return False
        active = self._log.upkeep.active()
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
        segments, damage = self._log.upkeep.segments_before_damage()
        offset = first_offset_to_keep(
            segments, self._retention, self._clock.wall_ms(), self._committed_offset(segments)
        )
        if offset > self._log.start_offset:
            self._log.advance_start(offset)
            # It may fail on a full disk, and what is deleted is removed all the same: a log that
            # lost its first segments begins with the next one, whatever the mark says.
            self._flush()
        if damage is not None:
            raise damage

    def _compact(
        self, compactor: Compactor
    ) -> tuple[CompactionReport | None, QuorumlogError | None]:
        """What the pass did, if there was one, and the error that ended it or a former one."""
        if self._pass_error is not None and self._clock.monotonic_s() < self._retry_at_s:
            return None, self._pass_error
        try:
            report = compactor.run(self._delete_if_due)
        except (LogFenced, Closed, InvariantViolation):
            raise
        except QuorumlogError as error:
            self._pass_error = error
            self._retry_at_s = self._clock.monotonic_s() + self._pause_s
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
            return None, error
        self._pass_error, self._pause_s = None, _FIRST_PAUSE_S
        return report, None

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
