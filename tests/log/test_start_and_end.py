"""Where a log is found to begin and to end, in the cases that are neither."""

from random import Random

import pytest

from quorumlog.errors import DiskFull
from quorumlog.log.batch import Kind
from quorumlog.log.log import Log
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import append, open_log, plain
from stored.shapes import Drafter, store


def deleted_ahead_of_the_disk(seed: int) -> tuple[SimDisk, Log]:
    """What others have is committed, and deleted, before this disk has taken it."""
    disk = SimDisk(Random(seed))
    log = open_log(disk)
    append(log, 8)
    log.flush()
    append(log, 20, values=[b"x" * 200])
    log.advance_commit_floor(28)
    log.advance_start(25)
    return disk, log


def test_a_power_cut_leaves_no_log_that_begins_behind_its_end() -> None:
    starts = set()
    for change in range(1, 80):
        disk, log = deleted_ahead_of_the_disk(change)
        disk.crash_before(change)
        try:
            log.flush()
            is_over = True
        except SimulatedCrash:
            is_over = False
        disk.crash()
        again = open_log(disk)
        assert again.start_offset <= again.end_offset
        assert again.fetch(again.end_offset, 1, again.end_offset).next_offset == again.end_offset
        starts.add(int(again.start_offset))
        if is_over:
            break
    assert is_over
    assert starts == {0, 25}


def test_a_full_disk_does_not_either() -> None:
    disk, log = deleted_ahead_of_the_disk(1)
    disk.capacity_bytes = 0
    with pytest.raises(DiskFull):
        log.flush()
    disk.kill()
    disk.capacity_bytes = None
    again = open_log(disk)
    # What there was room for in the segment.
    assert again.start_offset <= again.end_offset == 12


@pytest.mark.parametrize("is_closed", [True, False])
def test_a_log_may_end_with_a_gap(is_closed: bool) -> None:
    """As a repair leaves it, or one whose last segment lost its header with nothing in it."""
    make = Drafter()
    disk = store([[make.records(2)], [make.records(1), make.gap(5, 9)]], is_closed=is_closed)
    log = open_log(disk)
    assert (log.last_index, log.end_offset, log.start_index) == (7, 12, 1)
    assert (log.durable_index, log.commit_floor, log.unflushed_bytes) == (7, 7, 0)
    assert not log.dirty
    for index in range(3, 8):
        assert [each.header.kind for each in log.slice(index, 1)] == [Kind.GAP]
        assert log.term_at(index) == 1
    assert log.fetch(5, 1, 12).next_offset == 12
    append(log, 2)
    assert log.unflushed_bytes > 0
    log.truncate(log.durable_index + 1)
    appended = append(log, 1, term=2)
    log.flush()
    disk.kill()
    again = open_log(disk)
    assert (again.last_index, again.last_term) == (8, 2)
    assert plain(again.slice(8, 1)) == plain(appended)
