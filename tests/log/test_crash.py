"""Power cuts and disk errors at every place: what was flushed stays, nothing is invented."""

import errno
from collections.abc import Callable
from random import Random

import pytest

from quorumlog.errors import DiskFull, LogFenced
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import append, content, open_log
from stored.disasters import (
    bytes_in,
    full_at_byte,
    full_at_call,
    io_error,
    killed,
    places_in,
    places_of,
    power_cut,
    power_cut_twice,
    refused_at_open,
)
from stored.scenarios import SCENARIOS, Scenario
from stored.tracked import TrackedLog, check_found, check_goes_on

OUTCOMES = 2
"""How many different power cuts are tried at each place; `make storage` tries any number."""

ALL = [pytest.param(scenario, id=scenario.name) for scenario in SCENARIOS]


def test_the_scenarios_have_many_places_to_die_at() -> None:
    assert sum(places_in(scenario) for scenario in SCENARIOS) > 600


@pytest.mark.parametrize("scenario", ALL)
def test_a_power_cut_at_every_call_loses_nothing_flushed_and_invents_nothing(
    scenario: Scenario,
) -> None:
    for place in places_of(scenario):
        for seed in range(OUTCOMES):
            power_cut(scenario, place, seed)


@pytest.mark.parametrize("scenario", ALL)
def test_what_a_killed_process_left_is_complete_and_durable_once_it_was_opened(
    scenario: Scenario,
) -> None:
    for place in places_of(scenario):
        killed(scenario, place)


@pytest.mark.parametrize("scenario", ALL)
def test_a_power_cut_or_an_error_during_recovery_loses_nothing_either(scenario: Scenario) -> None:
    for place in places_of(scenario)[::17]:
        for second in range(1, 8):
            power_cut_twice(scenario, place, second, second)
            refused_at_open(scenario, place, second, second)


@pytest.mark.parametrize("scenario", ALL)
def test_an_io_error_at_every_call_fences_the_log_or_does_not_matter(scenario: Scenario) -> None:
    places = places_of(scenario)
    fenced = 0
    for place in places:
        fenced += io_error(scenario, place, 0, cut=place % 2 == 0)
    assert fenced > len(places) // 3


@pytest.mark.parametrize("scenario", ALL)
def test_a_disk_full_at_every_call_loses_nothing_and_goes_on(scenario: Scenario) -> None:
    full = 0
    for place in places_of(scenario):
        full += full_at_call(scenario, place, place)
    assert full > 2


@pytest.mark.parametrize("scenario", ALL)
def test_a_disk_full_at_any_byte_loses_nothing_and_goes_on(scenario: Scenario) -> None:
    lowest, highest = bytes_in(scenario)
    full = [full_at_byte(scenario, size, size) for size in range(lowest, highest, 8_009)]
    assert scenario.name in FITS or any(full)
    assert not full[-1]


FITS = ("clean stops",)
"""Needs no more space than a log has at first."""


def retention_and(step: Callable[[TrackedLog], None]) -> Scenario:
    def run(log: TrackedLog) -> None:
        log.append(10, values=[b"x" * 400])
        log.flush()
        log.commit(8)
        step(log)

    return Scenario("retention", run)


def test_a_start_flushed_together_with_batches_survives_a_power_cut() -> None:
    def step(log: TrackedLog) -> None:
        log.append(1)
        log.delete_before(7)
        log.flush()

    for seed in range(20):
        disk = SimDisk(Random(seed))
        tracked = TrackedLog(disk)
        retention_and(step).run(tracked)
        disk.crash()
        assert open_log(disk).start_offset == 7


def test_start_and_commit_floor_survive_a_power_cut_while_a_segment_is_made() -> None:
    def step(log: TrackedLog) -> None:
        log.delete_before(7)
        log.flush()
        log.append(1, values=[b"x" * 3000])
        log.flush()

    scenario = retention_and(step)
    places = places_in(scenario)
    for place in range(places - 8, places + 1):
        for seed in range(40):
            power_cut(scenario, place, seed)


def test_the_start_survives_a_power_cut_in_the_middle_of_a_truncation() -> None:
    def step(log: TrackedLog) -> None:
        log.append(12, values=[b"y" * 400])
        log.flush()
        log.delete_before(3)
        log.flush()
        log.truncate(9)
        log.flush()

    scenario = retention_and(step)
    for place in places_of(scenario)[-20:]:
        for seed in range(5):
            power_cut(scenario, place, seed)


def open_changes() -> int:
    """Changing calls of opening an empty directory."""
    disk = SimDisk(Random(0))
    open_log(disk)
    return disk.changes


def test_a_power_cut_in_the_middle_of_the_first_open_leaves_an_empty_log() -> None:
    for change in range(1, open_changes() + 1):
        for seed in range(10):
            disk = SimDisk(Random(seed))
            disk.crash_before(change)
            with pytest.raises(SimulatedCrash):
                open_log(disk)
            disk.crash()
            log = open_log(disk)
            assert log.last_index == 0
            append(log, 1)
            log.flush()
            log.close()


def test_an_error_in_the_middle_of_the_first_open_leaves_an_empty_log() -> None:
    for code in (errno.EIO, errno.ENOSPC):
        for change in range(1, open_changes() + 1):
            disk = SimDisk(Random(change))
            disk.fail_at(change, code)
            with pytest.raises(OSError, match=r"error|space"):
                open_log(disk)
            disk.kill()
            log = open_log(disk)
            assert log.last_index == 0
            append(log, 1)
            log.close()


def test_a_failed_fdatasync_fences_although_a_second_one_would_succeed() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 2)
    log.flush()
    append(log, 1)
    disk.fail_at(2)
    with pytest.raises(LogFenced, match="fdatasync failed"):
        log.flush()
    assert log.is_fenced
    assert log.durable_index == 2
    with pytest.raises(LogFenced):
        log.slice(1, 1000)
    log.close()


def test_a_full_disk_keeps_what_waits_until_there_is_space() -> None:
    disk = SimDisk(Random(3))
    tracked = TrackedLog(disk)
    tracked.append(5)
    tracked.flush()
    disk.capacity_bytes = sum(len(disk.content(f"data/{name}")) for name in ["0" * 19 + "1.log"])
    tracked.append(100, values=[b"x" * 900])
    for _ in range(3):
        with pytest.raises(DiskFull, match="no space"):
            tracked.log.flush()
    assert tracked.log.durable_index == 5
    assert tracked.log.dirty
    assert tracked.log.unflushed_bytes > 90_000
    assert content(tracked.log) == tracked.state
    disk.capacity_bytes = None
    tracked.flush()
    assert tracked.log.unflushed_bytes == 0
    disk.crash()
    log = open_log(disk)
    check_found(log, tracked, power_cut=True)
    check_goes_on(disk, log)


def test_whole_batches_of_a_write_that_failed_do_not_come_back() -> None:
    for seed in range(40):
        disk = SimDisk(Random(seed))
        log = open_log(disk)
        append(log, 5, values=[b"same size"])
        disk.fail_at(1, errno.ENOSPC)
        with pytest.raises(DiskFull):
            log.flush()
        log.truncate(2)
        append(log, 1, values=[b"same size"])
        log.flush()
        expected = content(log)
        disk.kill()
        assert content(open_log(disk)) == expected


def test_what_a_full_disk_kept_waiting_can_be_truncated_away() -> None:
    disk = SimDisk(Random(3))
    tracked = TrackedLog(disk)
    tracked.append(5)
    tracked.flush()
    disk.capacity_bytes = len(disk.content("data/" + "0" * 19 + "1.log"))
    tracked.append(100, values=[b"x" * 900])
    with pytest.raises(DiskFull):
        tracked.log.flush()
    tracked.truncate(6)
    tracked.flush()
    tracked.append(1, term=2)
    tracked.flush()
    disk.crash()
    log = open_log(disk)
    check_found(log, tracked, power_cut=True)
    check_goes_on(disk, log)
