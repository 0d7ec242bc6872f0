"""When compaction is due, and what it has to look at: pure functions of the segments.

A segment says how far it is clean: in ``cleaned_to`` that a record of it before that offset is the
newest of its key among all before that offset. The *clean point* of a log is the least of these:
before it each key has one record, behind it is what a pass has to learn. A pass goes oldest first,
so a crash leaves segments in front that are clean further than those behind: the next pass first
brings the others as far.

A tombstone goes when it has stood in clean log for the delay, so that a reader who saw an older
record of its key had that long to come by. The segments that hold tombstones say since when, in
their *horizon*. A pass sets a new one only where the old one is due, so frequent passes do not put
it off; it is a log's rather than a segment's, since new segments would put it off as well. One
that a clock set which was ahead would keep tombstones for ever: it is set anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from quorumlog.errors import ConfigError
from quorumlog.log.cleaning.retention import SegmentExtent
from quorumlog.types import Index, Offset

_MIB: Final = 1024 * 1024
_MAX_S: Final = 1000 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class Compaction:
    """How a log is compacted: of every key at least the newest record stays.

    Attributes:
        min_dirty_ratio: a pass is due when so much of the sealed segments, by size, was never
            cleaned (0 to 1). Smaller: less space for what is superseded; larger: less work.
        min_lag_s: records younger than this, in seconds (0 or more), are left alone.
        max_lag_s: a pass is due, whatever the ratio, when a record was not looked at for so long;
            the active segment is rolled for that. None: no limit. At least ``min_lag_s``.
        tombstone_delay_s: seconds (0 or more) for which a tombstone stays once everything older of
            its key is gone. Longer than any reader takes from the start to the end, and than any
            replica is away: who misses a tombstone keeps what it should have deleted.
        map_bytes: memory of a pass (4 KiB to 64 GiB), 37 bytes a key. When it is full the pass
            ends there and the next one goes on.
        bytes_s: what a pass reads and writes a second at most (from 1 KiB). At the default it
            takes about a quarter of a core where records have 100 bytes.
    """

    min_dirty_ratio: float = 0.5
    min_lag_s: float = 0.0
    max_lag_s: float | None = None
    tombstone_delay_s: float = 86_400.0
    map_bytes: int = 64 * _MIB
    bytes_s: int = 16 * _MIB

    def __post_init__(self) -> None:
        _check_range("min_dirty_ratio", self.min_dirty_ratio, 0, 1)
        _check_range("min_lag_s", self.min_lag_s, 0, _MAX_S)
        if self.max_lag_s is not None:
            _check_range("max_lag_s", self.max_lag_s, self.min_lag_s, _MAX_S)
        _check_range("tombstone_delay_s", self.tombstone_delay_s, 0, _MAX_S)
        _check_range("map_bytes", self.map_bytes, 4096, 64 * 1024 * _MIB)
        _check_range("bytes_s", self.bytes_s, 1024, 1024**4)


def _check_range(name: str, number: float, low: float, high: float) -> None:
    if not low <= number <= high:
        raise ConfigError(f"compaction {name} is from {low:g} to {high:g}, not {number}")


class CleanableSegment(SegmentExtent, Protocol):
    """What a plan asks of a segment; :class:`quorumlog.log.upkeep.SegmentInfo` has it."""

    @property
    def first_index(self) -> Index: ...
    @property
    def next_index(self) -> Index: ...
    @property
    def key_id(self) -> str: ...
    @property
    def cleaned_to(self) -> Offset: ...
    @property
    def horizon_offset(self) -> Offset: ...
    @property
    def horizon_ms(self) -> int: ...
    @property
    def is_active(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Horizon:
    """Tombstones before ``offset`` have stood in clean log since ``since_ms``; 0: no tombstones."""

    offset: Offset
    since_ms: int


NO_HORIZON: Final = Horizon(Offset(0), 0)


@dataclass(frozen=True, slots=True)
class CleanState:
    """What a segment's mark says of cleaning."""

    cleaned_to: Offset
    horizon: Horizon


def clean_state_of(segment: CleanableSegment) -> CleanState:
    return CleanState(segment.cleaned_to, Horizon(segment.horizon_offset, segment.horizon_ms))


def joined_state(run: Sequence[CleanableSegment]) -> CleanState:
    """What is true of one segment that holds what is in all of ``run``."""
    since_ms = max(segment.horizon_ms for segment in run)
    offset = min((each.horizon_offset for each in run if each.horizon_ms), default=Offset(0))
    return CleanState(min(segment.cleaned_to for segment in run), Horizon(offset, since_ms))


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass.

    Attributes:
        ready: how many segments from the oldest on may be looked at and rewritten.
        clean_point: before it every key has one record.
        learn_from: the map begins here; behind the clean point where that cannot move on and the
            map was full before it came further.
        goal: the offset up to which the pass cleans, if the map has room.
        horizon: to be kept; None: the pass sets a new one.
        now_ms: when the pass began.
    """

    ready: int
    clean_point: Offset
    learn_from: Offset
    goal: Offset
    horizon: Horizon | None
    now_ms: int


def plan_pass(
    segments: Sequence[CleanableSegment],
    settings: Compaction,
    now_ms: int,
    commit_floor: int,
    finished_to: int = 0,
    key_id: str = "",
    full_at: int = 0,
) -> Plan | None:
    """The pass that is due now, or None.

    Args:
        segments: all of the log, in order.
        settings: when a pass is due.
        now_ms: the time, on the clock that stamped the batches.
        commit_floor: a segment with a batch behind this index is left alone.
        finished_to: the last pass came to its end, at this offset: what is not clean as far could
            not be cleaned.
        key_id: segments encrypted with another key, or plain where this is not empty, are due.
        full_at: the map of the last pass was full at this offset; 0: it was not.
    """
    ready = _ready(segments, settings, now_ms, commit_floor)
    if not ready:
        return None
    clean_point = min(max(segment.cleaned_to, segment.base_offset) for segment in ready)
    furthest = max(segment.cleaned_to for segment in ready)
    end = ready[-1].next_offset
    was_interrupted = furthest > max(clean_point, finished_to)
    if not (
        was_interrupted
        or any(is_horizon_due(segment, settings, now_ms) for segment in ready)
        or any(segment.key_id != key_id for segment in ready)
        or _is_dirty(ready, max(clean_point, finished_to), settings, now_ms)
    ):
        return None
    goal = max(min(furthest, end) if was_interrupted else end, clean_point)
    learn_from = Offset(max(min(full_at, goal), clean_point))
    horizon = _horizon_to_keep(ready, clean_point, settings, now_ms)
    return Plan(len(ready), clean_point, learn_from, goal, horizon, now_ms)


def is_horizon_due(segment: CleanableSegment, settings: Compaction, now_ms: int) -> bool:
    """Whether a segment has tombstones that may go, or that have to be dated anew."""
    since_ms = segment.horizon_ms
    return since_ms > 0 and (
        has_stood(since_ms, settings, now_ms) or _is_ahead(since_ms, settings, now_ms)
    )


def has_stood(since_ms: int, settings: Compaction, now_ms: int) -> bool:
    """Whether tombstones have stood in clean log for long enough."""
    return now_ms - since_ms >= settings.tombstone_delay_s * 1000


def should_roll_to_compact(active: CleanableSegment, settings: Compaction, now_ms: int) -> bool:
    """Whether the active segment holds a batch that waited for ``max_lag_s``."""
    return _has_waited(active.first_timestamp_ms, settings, now_ms)


def runs_to_join(sizes: Sequence[int], limit_bytes: int) -> Iterator[tuple[int, int]]:
    """Runs ``[begin, end)`` of segments that are better one, by their sizes in bytes.

    A run is at most ``limit_bytes``, and at least twice its largest member: so no record is
    copied more than once for every doubling of its segment.
    """
    begin = 0
    while begin < len(sizes):
        end, total_bytes = begin, 0
        while end < len(sizes) and total_bytes + sizes[end] <= limit_bytes:
            total_bytes += sizes[end]
            end += 1
        if end - begin > 1 and total_bytes >= 2 * max(sizes[begin:end]):
            yield begin, end
            begin = end
        else:
            begin += 1


def _ready(
    segments: Sequence[CleanableSegment], settings: Compaction, now_ms: int, commit_floor: int
) -> Sequence[CleanableSegment]:
    """The sealed segments, oldest first, that are committed and old enough."""
    # Without a lag the time does not matter: batches keep that of a clock which was ahead.
    youngest_ms = now_ms - settings.min_lag_s * 1000 if settings.min_lag_s else inf
    for number, segment in enumerate(segments):
        if (
            segment.is_active
            or segment.next_index - 1 > commit_floor
            or segment.last_timestamp_ms > youngest_ms
        ):
            return segments[:number]
    return segments


def _horizon_to_keep(
    ready: Sequence[CleanableSegment], clean_point: Offset, settings: Compaction, now_ms: int
) -> Horizon | None:
    horizon = joined_state(ready).horizon
    since_ms = [segment.horizon_ms for segment in ready if segment.horizon_ms]
    if (
        not since_ms
        or has_stood(horizon.since_ms, settings, now_ms)
        or any(_is_ahead(each, settings, now_ms) for each in since_ms)
    ):
        return None
    return Horizon(min(horizon.offset, clean_point), horizon.since_ms)


def _is_ahead(since_ms: int, settings: Compaction, now_ms: int) -> bool:
    """Whether a time lies so far ahead that the clock must have been wrong when it was taken."""
    return since_ms - now_ms > settings.tombstone_delay_s * 1000


def _is_dirty(
    ready: Sequence[CleanableSegment], clean_to: int, settings: Compaction, now_ms: int
) -> bool:
    dirty = [segment for segment in ready if segment.next_offset > clean_to]
    if not dirty:
        return False
    if any(_has_waited(segment.first_timestamp_ms, settings, now_ms) for segment in dirty):
        return True
    dirty_bytes = sum(segment.size_bytes for segment in dirty)
    return dirty_bytes >= settings.min_dirty_ratio * sum(segment.size_bytes for segment in ready)


def _has_waited(since_ms: int | None, settings: Compaction, now_ms: int) -> bool:
    return (
        settings.max_lag_s is not None
        and since_ms is not None
        and now_ms - since_ms >= settings.max_lag_s * 1000
    )
