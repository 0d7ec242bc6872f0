"""A full disk keeps back what waits for space, not the fdatasync of what was written before."""

from random import Random

import pytest

from quorumlog.errors import DiskFull, LogFenced
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from sim.disk import SimDisk
from stored.batches import FixedClock, append, content, open_log

INTERVAL = LogConfig(fsync="interval", fsync_interval_s=1.0, segment_bytes=2048)
LARGE = [b"x" * 900_000]
"""More than is preallocated."""


def written_then_full(config: LogConfig, clock: FixedClock, seed: int = 3) -> tuple[SimDisk, Log]:
    """A log with one batch written, of which the next one meets a full disk.

    With small segments that is when the next segment is made, otherwise at the write.
    """
    disk = SimDisk(Random(seed))
    log = open_log(disk, config, clock)
    append(log, 1)
    log.flush()
    disk.capacity_bytes = 0
    append(log, 1, values=LARGE)
    return disk, log


@pytest.mark.parametrize("segment_bytes", [2048, 1 << 20])
def test_what_was_written_before_the_disk_filled_up_is_synced_when_it_is_due(
    segment_bytes: int,
) -> None:
    config = LogConfig(fsync="interval", fsync_interval_s=1.0, segment_bytes=segment_bytes)
    for seed in range(20):
        clock = FixedClock()
        disk, log = written_then_full(config, clock, seed)
        expected = content(log)[:1]
        before = disk.calls["sync"]
        with pytest.raises(DiskFull):
            log.flush()
        assert (disk.calls["sync"], log.sync_due_s) == (before, 1.0)
        for clock.now_s in (1.0, 2.0, 3.0):
            with pytest.raises(DiskFull):
                log.flush()
            assert (disk.calls["sync"], log.sync_due_s) == (before + 1, None)
        disk.crash()
        assert content(open_log(disk)) == expected


def test_the_interval_begins_with_a_flush_that_wrote_something_and_then_met_a_full_disk() -> None:
    clock = FixedClock()
    disk = SimDisk(Random(3))
    log = open_log(disk, INTERVAL, clock)
    disk.capacity_bytes = len(disk.content("data/" + "0" * 19 + "1.log"))
    append(log, 1)
    append(log, 1, values=LARGE)
    with pytest.raises(DiskFull):
        log.flush()
    assert log.sync_due_s == 1.0


@pytest.mark.parametrize(("fsync", "synced"), [("always", 1), ("never", 0)])
def test_a_flush_that_met_a_full_disk_half_way_syncs_as_the_setting_says(
    fsync: str, synced: int
) -> None:
    disk = SimDisk(Random(3))
    log = open_log(disk, LogConfig(fsync=fsync, segment_bytes=2048))
    disk.capacity_bytes = len(disk.content("data/" + "0" * 19 + "1.log"))
    append(log, 1)
    append(log, 1, values=LARGE)
    before = disk.calls["sync"]
    for _ in range(2):
        with pytest.raises(DiskFull):
            log.flush()
        assert disk.calls["sync"] == before + synced
    disk.capacity_bytes = None
    expected = content(log)
    log.sync()
    disk.crash()
    assert content(open_log(disk)) == expected


def test_closing_on_a_full_disk_syncs_what_was_written() -> None:
    for seed in range(20):
        disk, log = written_then_full(INTERVAL, FixedClock(), seed)
        expected = content(log)[:1]
        with pytest.raises(DiskFull):
            log.close()
        disk.crash()
        assert content(open_log(disk)) == expected


def test_a_sync_that_fails_while_the_disk_is_full_fences() -> None:
    clock = FixedClock()
    disk, log = written_then_full(INTERVAL, clock)
    clock.now_s = 1.0
    # The next segment's file is made (1, 2), has no room (3), is removed (4); then comes the sync.
    disk.fail_at(5)
    with pytest.raises(LogFenced, match="fdatasync failed"):
        log.flush()
    assert log.is_fenced
