"""When a pass is due, how far it goes, and what is joined."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.log.cleaning.compaction_plan import (
    Compaction,
    Horizon,
    Plan,
    joined_state,
    plan_pass,
    runs_to_join,
    should_roll_to_compact,
)
from quorumlog.types import Index, Offset

NOW_MS = 1_000_000
NEVER_BY_RATIO = Compaction(min_dirty_ratio=1.0, tombstone_delay_s=100)
"""A pass is due only where everything is dirty."""


@dataclass(frozen=True)
class Info:
    """The segment of the indexes and offsets ``[first, next)``: ten of each, 100 bytes."""

    first_index: Index
    cleaned_to: Offset = Offset(0)  # noqa: RUF009 - a number
    horizon_offset: Offset = Offset(0)  # noqa: RUF009 - a number
    horizon_ms: int = 0
    first_timestamp_ms: int | None = NOW_MS - 2_000
    last_timestamp_ms: int = NOW_MS - 1_000
    size_bytes: int = 100
    key_id: str = ""
    is_active: bool = False

    @property
    def next_index(self) -> Index:
        return Index(self.first_index + 10)

    @property
    def base_offset(self) -> Offset:
        return Offset(self.first_index - 1)

    @property
    def next_offset(self) -> Offset:
        return Offset(self.base_offset + 10)


def infos(*cleaned_to: int) -> list[Info]:
    """Sealed segments that are clean so far, and an active one."""
    sealed = [Info(Index(1 + 10 * number), Offset(end)) for number, end in enumerate(cleaned_to)]
    return [*sealed, Info(Index(1 + 10 * len(sealed)), is_active=True)]


def planned(segments: list[Info], settings: Compaction = NEVER_BY_RATIO) -> Plan | None:
    return plan_pass(segments, settings, NOW_MS, commit_floor=1_000)


def test_a_log_that_was_never_cleaned_is_cleaned_from_its_start() -> None:
    assert planned(infos(0, 0, 0)) == Plan(3, Offset(0), Offset(0), Offset(30), None, NOW_MS)


def test_a_log_without_a_sealed_segment_needs_no_pass() -> None:
    assert planned(infos()) is None


@pytest.mark.parametrize(("ratio", "is_due"), [(0.0, True), (0.25, True), (0.26, False)])
def test_a_pass_is_due_when_enough_is_dirty(ratio: float, is_due: bool) -> None:
    plan = planned(infos(30, 30, 30, 0), Compaction(min_dirty_ratio=ratio))
    assert (plan is not None) == is_due
    if plan is not None:
        assert (plan.clean_point, plan.goal) == (30, 40)


def test_a_clean_log_needs_no_pass_however_small_the_ratio() -> None:
    assert planned(infos(30, 30, 30), Compaction(min_dirty_ratio=0.0)) is None


def test_a_map_that_was_full_in_the_middle_of_a_segment_leaves_the_rest_dirty() -> None:
    plan = planned(infos(14, 14, 0), Compaction(min_dirty_ratio=0.5))
    assert plan is not None
    assert (plan.clean_point, plan.goal) == (14, 30)


def test_a_pass_that_was_cut_short_is_finished_first() -> None:
    plan = planned(infos(30, 30, 20, 0, 0))
    assert plan is not None
    assert (plan.clean_point, plan.goal) == (20, 30)


def test_a_segment_that_could_not_be_cleaned_does_not_hold_up_what_comes_later() -> None:
    segments = infos(30, 0, 30, 0)
    assert planned(segments) is not None
    assert plan_pass(infos(30, 0, 30), Compaction(min_dirty_ratio=0), NOW_MS, 99, 30) is None
    assert plan_pass(segments, NEVER_BY_RATIO, NOW_MS, 1_000, finished_to=30) is None
    plan = plan_pass(segments, Compaction(min_dirty_ratio=0.25), NOW_MS, 1_000, finished_to=30)
    assert plan is not None
    assert (plan.clean_point, plan.goal) == (10, 40)


def test_segments_with_something_uncommitted_are_not_looked_at() -> None:
    assert plan_pass(infos(0, 0, 0), NEVER_BY_RATIO, NOW_MS, 9) is None
    for floor, ready in ((10, 1), (19, 1), (20, 2), (30, 3)):
        plan = plan_pass(infos(0, 0, 0), NEVER_BY_RATIO, NOW_MS, floor)
        assert plan is not None
        assert (plan.ready, plan.goal) == (ready, ready * 10)


def test_young_records_are_left_alone() -> None:
    segments = infos(0, 0, 0)
    segments[1] = replace(segments[1], last_timestamp_ms=NOW_MS - 999)
    plan = planned(segments, Compaction(min_lag_s=1.0))
    assert plan is not None
    assert plan.ready == 1
    assert planned(segments, Compaction(min_lag_s=1.1)) is None


def test_a_record_does_not_wait_longer_than_the_longest_lag() -> None:
    segments = infos(30, 30, 30, 0)
    assert planned(segments, Compaction(min_dirty_ratio=0.9, max_lag_s=2.1)) is None
    assert planned(segments, Compaction(min_dirty_ratio=0.9, max_lag_s=2.0)) is not None
    assert not should_roll_to_compact(segments[-1], Compaction(), NOW_MS)
    assert not should_roll_to_compact(segments[-1], Compaction(max_lag_s=2.1), NOW_MS)
    assert should_roll_to_compact(segments[-1], Compaction(max_lag_s=2.0), NOW_MS)
    empty = replace(segments[-1], first_timestamp_ms=None)
    assert not should_roll_to_compact(empty, Compaction(max_lag_s=2.0), NOW_MS)


def with_horizon(segment: Info, offset: int, age_s: float) -> Info:
    return replace(segment, horizon_offset=Offset(offset), horizon_ms=round(NOW_MS - age_s * 1000))


def test_tombstones_whose_delay_is_over_make_a_pass_due() -> None:
    segments = infos(30, 30, 30)
    segments[1] = with_horizon(segments[1], 30, 99)
    assert planned(segments) is None
    segments[1] = with_horizon(segments[1], 30, 100)
    plan = planned(segments)
    assert plan is not None
    assert plan.horizon is None


def test_a_horizon_is_kept_until_it_is_due() -> None:
    segments = infos(30, 30, 30, 0, 0, 0, 0)
    segments[0] = with_horizon(segments[0], 30, 50)
    plan = planned(segments, Compaction(tombstone_delay_s=100))
    assert plan is not None
    assert plan.horizon == Horizon(Offset(30), NOW_MS - 50_000)


def test_of_two_horizons_only_what_is_true_of_both_is_kept() -> None:
    """They differ after a pass that was cut short."""
    segments = infos(40, 30, 30, 0)
    segments[0] = with_horizon(segments[0], 40, 10)
    segments[1] = with_horizon(segments[1], 30, 120)
    plan = planned(segments)
    assert plan is not None
    assert plan.horizon == Horizon(Offset(30), NOW_MS - 10_000)


def test_a_horizon_says_nothing_of_what_is_not_clean_everywhere() -> None:
    segments = infos(40, 20, 0, 0)
    segments[0] = with_horizon(segments[0], 40, 10)
    plan = planned(segments)
    assert plan is not None
    assert plan.horizon == Horizon(Offset(20), NOW_MS - 10_000)


def test_a_segment_under_another_key_makes_a_pass_due() -> None:
    segments = infos(20, 20)
    assert plan_pass(segments, NEVER_BY_RATIO, NOW_MS, 1_000, key_id="new") is not None
    segments = [replace(segment, key_id="new") for segment in segments]
    assert plan_pass(segments, NEVER_BY_RATIO, NOW_MS, 1_000, key_id="new") is None


def test_a_joined_segment_says_what_is_true_of_all_its_parts() -> None:
    parts = infos(40, 30, 40)[:3]
    assert joined_state(parts).horizon == Horizon(Offset(0), 0)
    parts[0] = with_horizon(parts[0], 40, 10)
    parts[2] = with_horizon(parts[2], 35, 20)
    state = joined_state(parts)
    assert state.cleaned_to == 30
    assert state.horizon == Horizon(Offset(35), NOW_MS - 10_000)


@given(st.lists(st.integers(0, 120), max_size=12), st.integers(1, 300))
def test_runs_are_joined_within_the_limit_and_worth_it(sizes: list[int], limit: int) -> None:
    behind = 0
    for begin, end in runs_to_join(sizes, limit):
        run = sizes[begin:end]
        assert behind <= begin < end - 1 <= len(sizes)
        assert sum(run) <= limit
        assert sum(run) >= 2 * max(run)
        behind = end


@pytest.mark.parametrize(
    ("sizes", "runs"),
    [
        ([], []),
        ([10], []),
        ([10, 10], [(0, 2)]),
        ([40, 10, 10], [(1, 3)]),
        ([40, 10, 10, 10, 10], [(0, 5)]),
        ([100, 10, 100], []),
        ([50, 50, 50, 50], [(0, 2), (2, 4)]),
        ([101, 30, 30, 30], [(1, 4)]),
    ],
)
def test_what_is_joined(sizes: list[int], runs: list[tuple[int, int]]) -> None:
    assert list(runs_to_join(sizes, 100)) == runs
