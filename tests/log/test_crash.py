"""Power cuts and disk errors at every place: what was flushed stays, nothing is invented."""

import errno
from random import Random

import pytest

from quorumlog.errors import DiskFull, LogFenced
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import append, content, open_log, plain
from stored.tracked import TrackedLog

OUTCOMES = 6
"""How many different power cuts are tried at each place."""


def changes_of_scenario() -> int:
    """How many places to crash at there are."""
    disk = SimDisk(Random(0))
    TrackedLog(disk).scenario()
    return disk.changes


def check_reopened(disk: SimDisk, tracked: TrackedLog) -> None:
    """The log opens, holds one of the legal states, and goes on from there."""
    log = open_log(disk)
    found = content(log)
    assert found in tracked.legal
    assert log.commit_floor <= log.last_index
    found += plain(append(log, 3, term=9, values=[b"after" * 20]))
    log.flush()
    disk.kill()
    again = open_log(disk)
    assert content(again) == found
    assert again.recovery.cut_bytes == 0
    again.close()


def crashed_at(change: int, seed: int) -> tuple[SimDisk, TrackedLog]:
    disk = SimDisk(Random(seed * 1009 + change))
    tracked = TrackedLog(disk)
    disk.crash_before(change)
    with pytest.raises(SimulatedCrash):
        tracked.scenario()
    return disk, tracked


def test_a_power_cut_at_every_call_loses_nothing_flushed_and_invents_nothing() -> None:
    places = changes_of_scenario()
    assert places > 100
    first = open_changes()
    for change in range(1, places - first + 1):
        for seed in range(OUTCOMES):
            disk, tracked = crashed_at(change, seed)
            disk.crash()
            check_reopened(disk, tracked)


def open_changes() -> int:
    """Changing calls of opening an empty directory: the crash hooks count from after that."""
    disk = SimDisk(Random(0))
    TrackedLog(disk)
    return disk.changes


def test_a_killed_process_loses_nothing_flushed_and_invents_nothing() -> None:
    for change in range(1, changes_of_scenario() - open_changes() + 1):
        disk, tracked = crashed_at(change, 0)
        disk.kill()
        check_reopened(disk, tracked)


def test_a_power_cut_in_the_middle_of_the_first_open_leaves_an_empty_log() -> None:
    for change in range(1, open_changes() + 1):
        for seed in range(OUTCOMES):
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


def test_a_power_cut_during_recovery_loses_nothing_either() -> None:
    places = changes_of_scenario() - open_changes()
    for change in range(1, places + 1, 3):
        for second in range(1, 8):
            disk, tracked = crashed_at(change, second)
            disk.crash()
            disk.crash_before(second)
            try:
                log = open_log(disk)
                log.close()
            except SimulatedCrash:
                pass
            disk.crash()
            check_reopened(disk, tracked)


def test_what_a_dead_process_left_unsynced_is_durable_once_the_log_was_opened() -> None:
    for change in range(1, changes_of_scenario() - open_changes() + 1):
        disk, tracked = crashed_at(change, 0)
        disk.kill()
        found = content(open_log(disk))
        assert found in tracked.legal
        disk.crash()
        assert content(open_log(disk)) == found


@pytest.mark.parametrize("power_cut", [False, True])
def test_an_io_error_at_every_call_fences_the_log_or_does_not_matter(power_cut: bool) -> None:
    fenced = 0
    for change in range(1, changes_of_scenario() - open_changes() + 1):
        disk = SimDisk(Random(change))
        tracked = TrackedLog(disk)
        disk.fail_at(change, errno.EIO)
        try:
            tracked.scenario()
        except LogFenced:
            fenced += 1
            with pytest.raises(LogFenced):
                tracked.log.flush()
            with pytest.raises(LogFenced):
                append(tracked.log)
            tracked.log.close()
        if power_cut:
            disk.crash()
        else:
            disk.kill()
        check_reopened(disk, tracked)
    assert fenced > 80


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


def test_a_disk_full_at_every_call_loses_nothing_and_goes_on() -> None:
    full = 0
    for change in range(1, changes_of_scenario() - open_changes() + 1):
        disk = SimDisk(Random(change))
        tracked = TrackedLog(disk)
        real_flush = tracked.log.flush
        disk.fail_at(change, errno.ENOSPC)
        outcome = {"full": 0, "fenced": 0}

        def flush_twice() -> object:
            try:
                return real_flush()  # noqa: B023 - called within this turn of the loop
            except DiskFull:
                outcome["full"] += 1  # noqa: B023 - as above
                return real_flush()  # noqa: B023 - as above

        tracked.log.flush = flush_twice  # type: ignore[method-assign, assignment]
        try:
            tracked.scenario()
        except LogFenced:
            outcome["fenced"] += 1
        except DiskFull:
            pass
        full += outcome["full"]
        disk.crash()
        check_reopened(disk, tracked)
    assert full > 20


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
    check_reopened(disk, tracked)


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
    check_reopened(disk, tracked)
