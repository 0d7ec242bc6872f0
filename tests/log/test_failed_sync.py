"""What a failed fdatasync leaves behind: readable for the next process, gone with the power."""

import errno
from contextlib import suppress
from random import Random

import pytest

from quorumlog.errors import DiskFull, LogFenced
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.config import LogConfig
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.log import Log
from quorumlog.types import NodeId, Term
from sim.disk import SimDisk


class _Clock:
    def monotonic_s(self) -> float:
        return 0.0

    def wall_ms(self) -> int:
        return 0


def _open(disk: SimDisk) -> Log:
    return Log.open(disk, "log", LogConfig(segment_bytes=4096), _Clock())


def _append(log: Log) -> None:
    draft = Draft.of(b"x" * 200, kind=Kind.COMMAND)
    log.append([draft.stamp(log.next_index, 1, 0, 0)])


def test_what_a_log_holds_after_a_failed_sync_and_a_reopen_survives_a_power_cut() -> None:
    fenced = 0
    for change in range(1, 12):
        for seed in range(10):
            disk = SimDisk(Random(seed))
            log = _open(disk)
            disk.fail_at(change)
            try:
                for _ in range(3):
                    _append(log)
                    log.flush()
            except LogFenced:
                fenced += 1
            disk.kill()
            found = _open(disk).last_index
            disk.crash()
            assert _open(disk).last_index >= found
    assert fenced > 0


def test_a_vote_loaded_after_a_failed_sync_survives_a_power_cut() -> None:
    state = HardState(Term(2), NodeId("a"))
    kept = 0
    for seed in range(20):
        disk = SimDisk(Random(seed))
        disk.make_directory("log")
        file = HardStateFile(disk, "log/hard-state")
        file.save(HardState(Term(1), None))
        disk.fail_at(3)
        with suppress(LogFenced):
            file.save(state)
        disk.kill()
        loaded = HardStateFile(disk, "log/hard-state").load()
        disk.crash()
        assert HardStateFile(disk, "log/hard-state").load() == loaded
        kept += loaded == state
    assert kept == 20


def test_a_flush_that_met_a_full_disk_after_the_sync_is_still_to_be_done() -> None:
    # Of the changes a flush makes, the third writes the mark: what it covers is synced by then.
    disk = SimDisk(Random(1))
    log = _open(disk)
    _append(log)
    log.flush()
    disk.fail_at(3, errno.ENOSPC)
    _append(log)
    with pytest.raises(DiskFull):
        log.flush()
    assert log.dirty
    log.flush()
    assert log.durable_index == log.last_index
    assert not log.dirty
