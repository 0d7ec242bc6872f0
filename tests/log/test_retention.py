"""What of a log has to stay: the policy beside an obviously correct one."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import ConfigError
from quorumlog.log.cleaning.retention import Retention, first_offset_to_keep, should_roll
from quorumlog.types import Offset


@dataclass(frozen=True)
class Extent:
    base_offset: Offset
    next_offset: Offset
    first_timestamp_ms: int | None
    last_timestamp_ms: int
    size_bytes: int


@st.composite
def logs(draw: st.DrawFn) -> list[Extent]:
    offset, timestamp_ms = draw(st.integers(0, 50)), draw(st.integers(0, 5_000))
    segments = []
    for _ in range(draw(st.integers(1, 8))):
        first_ms = timestamp_ms + draw(st.integers(0, 2_000))
        timestamp_ms = first_ms + draw(st.integers(0, 2_000))
        next_offset = offset + draw(st.integers(0, 20))
        segments.append(
            Extent(
                Offset(offset),
                Offset(next_offset),
                first_ms,
                timestamp_ms,
                draw(st.integers(1, 100)),
            )
        )
        offset = next_offset
    return segments


limits_of_any_kind = st.builds(
    Retention,
    age_s=st.none() | st.floats(0.001, 20, allow_nan=False),
    bytes=st.none() | st.integers(1, 500),
    records=st.none() | st.integers(1, 100),
)


def segments_that_go(
    segments: list[Extent], limits: Retention, now_ms: int, commit_offset: int
) -> int:
    """The longest run of oldest segments without which each segment in it was too much."""
    count = 0
    while count < len(segments) - 1:
        segment, newer = segments[count], segments[count + 1 :]
        too_old = limits.age_s is not None and (
            segment.last_timestamp_ms < now_ms - limits.age_s * 1000
        )
        too_large = limits.bytes is not None and (
            sum(each.size_bytes for each in newer) >= limits.bytes
        )
        too_many = limits.records is not None and (
            sum(each.next_offset - each.base_offset for each in newer) >= limits.records
        )
        if not (too_old or too_large or too_many) or segment.next_offset > commit_offset:
            break
        count += 1
    return count


@given(logs(), limits_of_any_kind, st.integers(0, 60_000), st.integers(0, 300))
def test_what_may_go_is_what_the_naive_policy_says(
    segments: list[Extent], limits: Retention, now_ms: int, commit_offset: int
) -> None:
    kept = segments[segments_that_go(segments, limits, now_ms, commit_offset) :]
    found = first_offset_to_keep(segments, limits, now_ms, commit_offset)
    assert found == kept[0].base_offset


@given(logs(), limits_of_any_kind, st.integers(0, 60_000), st.integers(0, 300))
def test_at_least_as_much_stays_as_every_limit_names(
    segments: list[Extent], limits: Retention, now_ms: int, commit_offset: int
) -> None:
    offset = first_offset_to_keep(segments, limits, now_ms, commit_offset)
    assert segments[0].base_offset <= offset <= segments[-1].base_offset
    assert offset <= max(commit_offset, segments[0].base_offset)
    gone = [each for each in segments[:-1] if each.next_offset <= offset > each.base_offset]
    for number, segment in enumerate(gone):
        newer = segments[number + 1 :]
        assert (
            (limits.age_s is not None and now_ms - segment.last_timestamp_ms > limits.age_s * 1000)
            or (limits.bytes is not None and sum(e.size_bytes for e in newer) >= limits.bytes)
            or (
                limits.records is not None
                and newer[-1].next_offset - newer[0].base_offset >= limits.records
            )
        )


@given(logs(), limits_of_any_kind, st.integers(0, 60_000), st.integers(0, 300), st.data())
def test_more_time_more_commits_and_tighter_limits_never_bring_anything_back(
    segments: list[Extent],
    limits: Retention,
    now_ms: int,
    commit_offset: int,
    data: st.DataObject,
) -> None:
    offset = first_offset_to_keep(segments, limits, now_ms, commit_offset)
    later_ms = now_ms + data.draw(st.integers(0, 5_000))
    committed = commit_offset + data.draw(st.integers(0, 50))
    tighter = Retention(
        None if limits.age_s is None else limits.age_s / 2,
        None if limits.bytes is None else max(limits.bytes // 2, 1),
        None if limits.records is None else max(limits.records // 2, 1),
    )
    assert first_offset_to_keep(segments, limits, later_ms, committed) >= offset
    assert first_offset_to_keep(segments, tighter, now_ms, commit_offset) >= offset


@given(logs(), st.integers(0, 60_000), st.integers(0, 300))
def test_without_a_limit_everything_stays(
    segments: list[Extent], now_ms: int, commit_offset: int
) -> None:
    assert not Retention().is_limited
    found = first_offset_to_keep(segments, Retention(), now_ms, commit_offset)
    assert found == segments[0].base_offset
    assert not should_roll(segments[-1], Retention(), now_ms)


ACTIVE = Extent(Offset(100), Offset(120), 10_000, 12_000, 1_000)


@pytest.mark.parametrize(
    ("limits", "now_ms", "expected"),
    [
        (Retention(age_s=8), 12_000, False),
        (Retention(age_s=8), 12_001, True),
        (Retention(bytes=4_000), 0, True),
        (Retention(bytes=4_001), 0, False),
        (Retention(records=80), 0, True),
        (Retention(records=81), 0, False),
    ],
)
def test_the_active_segment_is_rolled_at_a_quarter_of_a_limit(
    limits: Retention, now_ms: int, expected: bool
) -> None:
    assert should_roll(ACTIVE, limits, now_ms) == expected


def test_an_active_segment_that_holds_nothing_is_not_rolled() -> None:
    empty = Extent(Offset(100), Offset(100), None, 12_000, 12_288)
    assert not should_roll(empty, Retention(age_s=1, bytes=1, records=1), 10**9)


@pytest.mark.parametrize(
    "settings",
    [
        {"age_s": 0},
        {"age_s": -1},
        {"age_s": float("nan")},
        {"age_s": float("inf")},
        {"bytes": 0},
        {"records": 0},
        {"records": 2**63},
    ],
)
def test_an_impossible_limit_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"retention {next(iter(settings))}"):
        Retention(**settings)  # type: ignore[arg-type]
