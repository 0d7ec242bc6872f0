"""One pass of compaction: learn the newest offset of every key, then rewrite what is older.

:mod:`.compaction_plan` says when and how far, :mod:`.thinning` what goes,
:mod:`.segment_rewrite` how it gets to disk. A segment in which nothing goes is not rewritten; what
became small is joined at the end. Memory: the map, the batches of one read (about a MiB) and a
write buffer of a MiB.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from quorumlog.errors import Corrupt, InvalidBatch
from quorumlog.log.batch import Batch, BatchHeader, Kind
from quorumlog.log.cleaning.compaction_plan import (
    NO_HORIZON,
    CleanState,
    Compaction,
    Horizon,
    Plan,
    clean_state_of,
    has_stood,
    is_horizon_due,
    joined_state,
    runs_to_join,
)
from quorumlog.log.cleaning.key_map import KeyMap, NewestBatches
from quorumlog.log.cleaning.segment_rewrite import SegmentRewriter
from quorumlog.log.cleaning.thinning import Rules, Thinned, thin
from quorumlog.log.log import Log
from quorumlog.log.records import iterate_keyed
from quorumlog.log.segment import DATA_START
from quorumlog.log.segment_files import SegmentChanged
from quorumlog.log.upkeep import SegmentInfo
from quorumlog.ports import Clock
from quorumlog.types import Offset


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pass works with."""

    log: Log
    clock: Clock
    settings: Compaction
    producers: NewestBatches
    """Known from former passes too: no pass reads all of the log before it decides."""
    key_id: str
    """Name of the key that segments have to be encrypted with; empty: none."""


@dataclass(slots=True)
class Totals:
    """What a pass has done so far.

    Attributes:
        keys: how many the map held.
        records_dropped: records that were superseded, deleted, or tombstones past their delay.
        segments_rewritten: files that were made, the joined ones too.
        freed_bytes: by which the log got smaller.
    """

    keys: int = 0
    records_dropped: int = 0
    segments_rewritten: int = 0
    freed_bytes: int = 0


@dataclass(slots=True)
class _Outcome:
    """What thinning found in a segment."""

    is_changed: bool = False
    is_clean: bool = True
    tombstones: int = 0
    dropped: int = 0

    def add(self, batch: Batch, thinned: Thinned) -> None:
        self.is_changed |= thinned.batch is not batch and batch.header.kind != Kind.GAP
        self.is_clean &= thinned.is_clean
        self.tombstones += thinned.tombstones
        self.dropped += thinned.dropped


class Pass:
    """The state of one pass.

    Attributes:
        cleaned_to: before this offset every key has one record when ``clean`` has returned.
        totals: what was done so far.
    """

    def __init__(
        self,
        around: Surroundings,
        plan: Plan,
        ready: Sequence[SegmentInfo],
        map_bytes: int,
        rewriter: SegmentRewriter,
        between: Callable[[], object],
    ) -> None:
        """
        Args:
            around: see there.
            plan: of this pass.
            ready: the segments that it is about.
            map_bytes: memory for the keys.
            rewriter: of the same log.
            between: called before each segment that is read; it may delete some of them.
        """
        self._around = around
        self._plan = plan
        self._ready = ready
        self._rewriter = rewriter
        self._between = between
        self._keys = KeyMap(map_bytes, plan.goal - plan.learn_from)
        self.cleaned_to = plan.goal
        self.totals = Totals()

    def clean(self) -> None:
        """Learn the keys from the clean point on, then take out what they supersede.

        What is deleted meanwhile is passed over: everything before it is deleted too.

        Raises:
            Stopped: what was done so far counts.
            Corrupt: a segment is damaged; it stays as it is, and what is behind it too.
            OSError: of what is written.
            StorageError, CodecUnavailable, LogFenced, Closed
        """
        for info in self._ready:
            if info.next_offset > self._plan.learn_from:
                self._between()
                with suppress(SegmentChanged):
                    if not self._learn(info):
                        break
        self.totals.keys = len(self._keys)
        for info in self._ready:
            if self._has_to_visit(info):
                self._between()
                with suppress(SegmentChanged):
                    self._clean(info)

    def join(self, segment_bytes: int) -> None:
        """Make one segment of small ones that follow one another; raises what ``clean`` does."""
        # Again while it helps: gaps that meet take less than before.
        while self._join_runs(segment_bytes):
            pass

    def _learn(self, info: SegmentInfo) -> bool:
        """Put the keys of a segment into the map; False where the map or the goal ends that."""
        plan = self._plan
        for batch in self._rewriter.batches(info):
            header = batch.header
            if header.kind != Kind.RECORDS or header.next_offset <= plan.learn_from:
                continue
            try:
                for delta, key, _, _ in iterate_keyed(header, batch.body):
                    offset = Offset(header.base_offset + delta)
                    if offset >= plan.goal:
                        return False
                    if key is None or offset < plan.learn_from:
                        continue
                    if not self._keys.put(key, offset):
                        self.cleaned_to = offset
                        return False
            except InvalidBatch as error:
                raise _damaged(info, header, error) from error
            if header.producer_id:
                self._around.producers.note(header.producer_id, header.index)
        return True

    def _has_to_visit(self, info: SegmentInfo) -> bool:
        # One without records lies at an offset and takes none: the last ones of all begin there.
        if info.base_offset >= self.cleaned_to and info.next_offset > self.cleaned_to:
            return False
        return (
            info.cleaned_to < self.cleaned_to
            or info.key_id != self._around.key_id
            or is_horizon_due(info, self._around.settings, self._plan.now_ms)
        )

    def _clean(self, info: SegmentInfo) -> None:
        """Rewrite a segment if there is something to take out, else say that it is clean."""
        rules = self._rules_for(info)
        # Where both slots of the mark are damaged there is none that could be changed.
        if info.key_id == self._around.key_id and info.segment.mark is not None:
            outcome = _Outcome()
            for batch in self._rewriter.batches(info):
                outcome.add(batch, self._thinned(info, batch, rules))
                if outcome.is_changed:
                    break
            else:
                self._set_cleaned(info, self._state_of(info, outcome))
                return
        outcome = _Outcome()
        thinned = self._thin_all(info, rules, outcome)
        self._rewrite([info], thinned, lambda: self._state_of(info, outcome))
        self.totals.records_dropped += outcome.dropped

    def _rules_for(self, info: SegmentInfo) -> Rules:
        since_ms, settings = info.horizon_ms, self._around.settings
        before = 0
        if since_ms and has_stood(since_ms, settings, self._plan.now_ms):
            before = min(info.horizon_offset, self._plan.clean_point)
        return Rules(
            self._keys,
            self._around.producers,
            max(self.cleaned_to, info.cleaned_to),
            self._around.log.start_offset,
            Offset(before),
        )

    def _thin_all(
        self, info: SegmentInfo, rules: Rules, outcome: _Outcome
    ) -> Iterator[tuple[BatchHeader, Batch | None]]:
        for batch in self._rewriter.batches(info):
            thinned = self._thinned(info, batch, rules)
            outcome.add(batch, thinned)
            yield batch.header, thinned.batch

    def _thinned(self, info: SegmentInfo, batch: Batch, rules: Rules) -> Thinned:
        header = batch.header
        if header.kind == Kind.RECORDS and header.producer_id:
            self._around.producers.note(header.producer_id, header.index)
        try:
            return thin(batch, rules)
        except InvalidBatch as error:
            raise _damaged(info, header, error) from error

    def _state_of(self, info: SegmentInfo, outcome: _Outcome) -> CleanState:
        """What the mark of a segment says once it was looked at."""
        cleaned_to = info.cleaned_to
        # What was not clean as far as the map begins may hold what that does not know of.
        if outcome.is_clean and max(cleaned_to, info.base_offset) >= self._plan.learn_from:
            cleaned_to = max(cleaned_to, self.cleaned_to)
        if not outcome.tombstones:
            return CleanState(cleaned_to, NO_HORIZON)
        horizon = self._plan.horizon
        if horizon is None:
            # As of now, not of the pass's beginning: only now are the older records gone.
            # Never 0, which says that there are none.
            horizon = Horizon(self.cleaned_to, max(self._around.clock.wall_ms(), 1))
        return CleanState(cleaned_to, horizon)

    def _set_cleaned(self, info: SegmentInfo, state: CleanState) -> None:
        if state != clean_state_of(info):
            horizon = state.horizon
            self._around.log.upkeep.set_cleaned(
                info, state.cleaned_to, horizon.offset, horizon.since_ms
            )

    def _join_runs(self, segment_bytes: int) -> bool:
        clean: list[SegmentInfo] = []
        for info in self._around.log.segments():
            if info.is_active or not info.cleaned_to:
                break
            clean.append(info)
        sizes = [info.size_bytes - DATA_START for info in clean]
        runs = list(runs_to_join(sizes, segment_bytes))
        for begin, end in runs:
            self._between()
            with suppress(SegmentChanged):
                self._join(clean[begin:end])
        return bool(runs)

    def _join(self, run: Sequence[SegmentInfo]) -> None:
        state = joined_state(run)
        batches = (batch for info in run for batch in self._rewriter.batches(info))
        kept = (
            (batch.header, None if batch.header.kind == Kind.GAP else batch) for batch in batches
        )
        self._rewrite(run, kept, lambda: state)

    def _rewrite(
        self,
        old: Sequence[SegmentInfo],
        kept: Iterable[tuple[BatchHeader, Batch | None]],
        state: Callable[[], CleanState],
    ) -> None:
        size_bytes = self._rewriter.rewrite(old, kept, state)
        if size_bytes is not None:
            self.totals.segments_rewritten += 1
            self.totals.freed_bytes += sum(info.size_bytes for info in old) - size_bytes


def _damaged(info: SegmentInfo, header: BatchHeader, error: InvalidBatch) -> Corrupt:
    return Corrupt(info.path, DATA_START, f"the records of batch {header.index}", str(error))
