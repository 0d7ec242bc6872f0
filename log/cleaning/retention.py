"""How much of a log is kept: one pure policy from segments, limits and time to an offset.

Whole segments go, oldest first, and only what no limit asks for: at least as much as each limit
names stays. So that a limit works on a log that never fills a segment, the active segment is
rolled once it holds a quarter of what any limit keeps; what stays in excess is a quarter, then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from quorumlog.errors import ConfigError
from quorumlog.types import Offset

ROLLS_PER_LIMIT: Final = 4
"""The active segment is rolled when it holds one part in so many of a limit."""

_MAX_AGE_S: Final = 1000 * 366 * 86_400
_MAX_COUNT: Final = 2**63 - 1


class SegmentExtent(Protocol):
    """What the policy asks of a segment; :class:`quorumlog.log.upkeep.SegmentInfo` has it."""

    @property
    def base_offset(self) -> Offset: ...
    @property
    def next_offset(self) -> Offset: ...
    @property
    def first_timestamp_ms(self) -> int | None: ...
    @property
    def last_timestamp_ms(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Retention:
    """What of a log has to stay; older segments are deleted. None: no limit.

    With several limits a segment goes as soon as one of them lets it go.

    Attributes:
        age_s: records younger than this stay, in seconds (above 0).
        bytes: the newest segments of so many bytes together stay (at least 1).
        records: the newest so many offsets stay (at least 1). Compaction leaves fewer records.
    """

    age_s: float | None = None
    bytes: int | None = None
    records: int | None = None

    def __post_init__(self) -> None:
        if self.age_s is not None and not 0 < self.age_s <= _MAX_AGE_S:
            raise ConfigError(f"retention age_s is above 0 and at most {_MAX_AGE_S}: {self.age_s}")
        for name, number in (("bytes", self.bytes), ("records", self.records)):
            if number is not None and not 1 <= number <= _MAX_COUNT:
                raise ConfigError(f"retention {name} is from 1 to {_MAX_COUNT}, not {number}")

    @property
    def is_limited(self) -> bool:
        return (self.age_s, self.bytes, self.records) != (None, None, None)


def first_offset_to_keep(
    segments: Sequence[SegmentExtent], limits: Retention, now_ms: int, commit_offset: int
) -> Offset:
    """Where the log may begin: the base offset of the first segment that has to stay.

    Args:
        segments: all of the log in order, at least one; the last is the active one and stays.
        limits: what has to stay.
        now_ms: the time, on the clock that stamped the batches.
        commit_offset: the offset behind the last committed record; a segment that goes beyond
            it stays, and so do all that follow.
    """
    newer_bytes = sum(segment.size_bytes for segment in segments)
    end_offset = segments[-1].next_offset
    for segment in segments[:-1]:
        newer_bytes -= segment.size_bytes
        is_spare = (
            _is_older(segment.last_timestamp_ms, limits.age_s, now_ms)
            or (limits.bytes is not None and newer_bytes >= limits.bytes)
            or (limits.records is not None and end_offset - segment.next_offset >= limits.records)
        )
        if not is_spare or segment.next_offset > commit_offset:
            return segment.base_offset
    return segments[-1].base_offset


def should_roll(active: SegmentExtent, limits: Retention, now_ms: int) -> bool:
    """Whether the active segment holds a quarter of what a limit keeps."""
    if active.first_timestamp_ms is None:
        return False
    age_s = None if limits.age_s is None else limits.age_s / ROLLS_PER_LIMIT
    return (
        _is_older(active.first_timestamp_ms, age_s, now_ms)
        or (limits.bytes is not None and active.size_bytes * ROLLS_PER_LIMIT >= limits.bytes)
        or (
            limits.records is not None
            and (active.next_offset - active.base_offset) * ROLLS_PER_LIMIT >= limits.records
        )
    )


def _is_older(timestamp_ms: int, age_s: float | None, now_ms: int) -> bool:
    return age_s is not None and now_ms - timestamp_ms > age_s * 1000
