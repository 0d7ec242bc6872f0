"""Compaction of one log: passes that are due, one after the other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from quorumlog.errors import DiskFull, StorageError
from quorumlog.log.cleaning.compaction_pass import Pass, Surroundings, Totals
from quorumlog.log.cleaning.compaction_plan import Compaction, plan_pass
from quorumlog.log.cleaning.key_map import PRODUCER_BYTES, NewestBatches
from quorumlog.log.cleaning.segment_rewrite import SegmentRewriter
from quorumlog.log.compacted_file import remove_attempts
from quorumlog.log.disk_errors import is_full
from quorumlog.log.log import Log
from quorumlog.log.pacer import Pacer, Stopped, StopSignal
from quorumlog.ports import Clock, Disk
from quorumlog.types import Offset

if TYPE_CHECKING:
    from quorumlog.log.key_ring import KeyRing

_PRODUCERS_PART: Final = 8
"""Producers get one part in so many of ``map_bytes``, keys the rest."""


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What a pass did.

    Attributes:
        is_complete: False: it was stopped; what it did counts.
        cleaned_to: before this offset every key has one record once the pass is complete.
        totals: records, segments and bytes.
        moved_bytes: read and written.
    """

    is_complete: bool
    cleaned_to: Offset
    totals: Totals
    moved_bytes: int


class Compactor:
    """Compacts one log, pass by pass; one thread at a time. The log may be used meanwhile."""

    def __init__(
        self,
        log: Log,
        disk: Disk,
        directory: str,
        segment_bytes: int,
        settings: Compaction,
        clock: Clock,
        stop: StopSignal,
        keys: "KeyRing | None" = None,
    ) -> None:
        """
        Args:
            log: open, in ``directory`` of ``disk``.
            segment_bytes: segments are joined up to this.
            settings: when, how much, how fast.
            clock: the one that stamps the log's batches.
            stop: once set, it ends a pass within a batch.
            keys: as the log's: what is rewritten is encrypted with the active one.
        """
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._stop = stop
        self._keys = keys
        producer_bytes = settings.map_bytes // _PRODUCERS_PART
        self._key_bytes = settings.map_bytes - producer_bytes
        producers = NewestBatches(producer_bytes // PRODUCER_BYTES)
        key_id = "" if keys is None else keys.active
        self._around = Surroundings(log, clock, settings, producers, key_id)
        self._finished_to = Offset(0)
        self._full_at = Offset(0)

    @property
    def settings(self) -> Compaction:
        return self._around.settings

    def run(self, between: Callable[[], object] = lambda: None) -> CompactionReport | None:
        """Make the pass that is due; None when there is none.

        Before each segment that it reads it calls ``between``, which may delete: a pass over a
        large log takes hours. What ``between`` raises ends the pass.

        Whatever it raises, the log holds every record it has to, and the next pass goes on.

        Raises:
            KeyMissing, WrongKey: the keys do not fit a segment; it stays as it is.
            Corrupt: a segment is damaged; it stays as it is, and what is behind it too.
            DiskFull: no space for what a segment would become; it stays as it is.
            StorageError: from the disk.
            CodecUnavailable: the library for a batch's codec is not installed.
            LogFenced, Closed
        """
        try:
            return self._run(between)
        except OSError as error:
            message = f"a compaction of {self._directory} cannot go on ({error.strerror or error})"
            if is_full(error):
                raise DiskFull(f"{message}: the log is as it was; make some space") from error
            raise StorageError(f"{message}: check the disk") from error

    def _run(self, between: Callable[[], object]) -> CompactionReport | None:
        around = self._around
        segments = around.log.segments()
        plan = plan_pass(
            segments,
            around.settings,
            around.clock.wall_ms(),
            around.log.commit_floor,
            self._finished_to,
            around.key_id,
            self._full_at,
        )
        if plan is None:
            return None
        remove_attempts(self._disk, self._directory)
        pacer = Pacer(around.settings.bytes_s, around.clock, self._stop)
        rewriter = SegmentRewriter(around.log, self._disk, self._keys, around.clock, pacer)
        ready = segments[: plan.ready]
        run = Pass(around, plan, ready, self._key_bytes, rewriter, between)
        is_complete = False
        try:
            run.clean()
            self._finished_to = run.cleaned_to
            self._full_at = run.cleaned_to if run.cleaned_to < plan.goal else Offset(0)
            run.join(self._segment_bytes)
            is_complete = True
        except Stopped:
            pass
        finally:
            rewriter.close()
        return CompactionReport(is_complete, run.cleaned_to, run.totals, pacer.spent_bytes)
