"""A log that is emptied to begin where another replica's does: decided, then carried out."""

from dataclasses import replace
from random import Random

import pytest

from quorumlog.errors import Corrupt, StorageError
from quorumlog.log.config import LogConfig
from quorumlog.log.inspection.damage import Flaw, Severity
from quorumlog.log.inspection.repair import repair
from quorumlog.log.inspection.verify import verify_log
from quorumlog.log.install import DRAFT_NAME, decide_install
from quorumlog.log.log import Log
from quorumlog.log.state_snapshot import (
    LogOrigin,
    StateSnapshot,
    encode_snapshot,
    load_newest,
    save_snapshot,
)
from quorumlog.types import Index, Offset, Term
from sim.disk import SimDisk, SimFile, SimulatedCrash
from stored.batches import DIRECTORY, FixedClock, append, content, open_log

CONFIG = LogConfig(segment_bytes=1024, tail_cache_bytes=0)
START = LogOrigin(Index(50), Offset(200), Term(3), 900, Offset(203))
STATE = StateSnapshot(Index(60), Term(4), Offset(240), 2_000, b"who", b"state", START)
OLD_STATE = StateSnapshot(Index(4), Term(1), Offset(4), 100, b"", b"old")


def old_log(seed: int = 1) -> SimDisk:
    """A log of several segments with a saved state."""
    disk = SimDisk(Random(seed))
    log = open_log(disk, CONFIG)
    for number in range(6):
        append(log, 1, values=[b"%d" % number * 400])
    log.close()
    save_snapshot(disk, DIRECTORY, OLD_STATE)
    return disk


def draft(disk: SimDisk, state: StateSnapshot = STATE) -> None:
    """As a transfer leaves it: complete, and not synced."""
    file = disk.open(f"{DIRECTORY}/{DRAFT_NAME}", create=True)
    file.truncate(0)
    file.write_at(0, [encode_snapshot(state, DIRECTORY)])
    file.close()


def names_in(disk: SimDisk) -> list[str]:
    return disk.list_directory(DIRECTORY)


def is_begun(log: Log) -> bool:
    """Whether ``log`` is empty and begins at START; it has to be the old one otherwise."""
    if log.start_index == 1:
        assert log.last_index == 6
        return False
    assert (log.start_index, log.last_index, log.last_term) == (50, 49, 3)
    assert (log.start_offset, log.end_offset, log.last_timestamp_ms) == (200, 200, 900)
    assert (log.commit_floor, log.durable_index, log.term_at(49)) == (49, 49, 3)
    assert log.origin == replace(START, start_offset=Offset(200))
    return True


def test_the_next_open_begins_an_empty_log_and_keeps_the_state() -> None:
    disk = old_log()
    draft(disk)
    assert decide_install(disk, DIRECTORY) == STATE
    log = open_log(disk, CONFIG)
    assert is_begun(log)
    assert log.recovery.was_emptied
    assert load_newest(disk, DIRECTORY, 1 << 40).snapshot == STATE
    assert names_in(disk) == [f"{50:020}.log", f"{60:020}.state"]
    append(log, 3, term=5, values=[b"new" * 100])
    log.close()
    again = open_log(disk, CONFIG)
    assert (again.start_index, again.last_index, again.end_offset) == (50, 52, 203)
    assert not again.recovery.was_emptied
    assert len(content(again)) == 3
    again.close()


def test_a_power_cut_at_every_call_leaves_the_old_log_or_the_empty_one() -> None:
    outcomes = set()
    for change in range(1, 60):
        for seed in range(6):
            disk = old_log(seed * 100 + change)
            draft(disk)
            disk.crash_before(change)
            decided = done = False
            try:
                decide_install(disk, DIRECTORY)
                decided = True
                open_log(disk, CONFIG).close()
                done = True
            except SimulatedCrash:
                pass
            disk.crash()
            log = open_log(disk, CONFIG)
            begun = is_begun(log)
            assert begun or not decided
            if begun:
                assert load_newest(disk, DIRECTORY, 1 << 40).snapshot == STATE
                append(log, 2, term=6)
                log.close()
                disk.crash()
                log = open_log(disk, CONFIG)
                assert log.last_index == 51
            log.close()
            outcomes.add((decided, begun, done))
    assert {(False, False, False), (True, True, False), (True, True, True)} <= outcomes


def test_a_kill_at_every_call_leaves_the_old_log_or_the_empty_one() -> None:
    for change in range(1, 60):
        disk = old_log(change)
        draft(disk)
        disk.crash_before(change)
        decided = False
        try:
            decide_install(disk, DIRECTORY)
            decided = True
            open_log(disk, CONFIG).close()
        except SimulatedCrash:
            disk.kill()
        disk.kill()
        # The power goes right after the next start has carried it out.
        log = open_log(disk, CONFIG)
        begun = is_begun(log)
        assert begun or not decided
        disk.crash()
        log = open_log(disk, CONFIG)
        assert is_begun(log) == begun
        log.close()


def test_an_error_at_every_call_can_be_tried_again() -> None:
    change = 0
    while True:
        change += 1
        disk = old_log(change)
        draft(disk)
        decide_install(disk, DIRECTORY)
        disk.fail_at(change)
        try:
            log = open_log(disk, CONFIG)
        except OSError:
            log = open_log(disk, CONFIG)
            assert is_begun(log)
            log.close()
        else:
            break
    assert change > 10


def test_a_damaged_draft_is_removed_and_nothing_is_changed() -> None:
    disk = old_log()
    draft(disk)
    disk.flip_bit(f"{DIRECTORY}/{DRAFT_NAME}", 70, 1)
    with pytest.raises(StorageError, match="damaged"):
        decide_install(disk, DIRECTORY)
    assert DRAFT_NAME not in names_in(disk)
    draft(disk, replace(STATE, origin=None))
    with pytest.raises(StorageError, match="where its log begins"):
        decide_install(disk, DIRECTORY)
    assert not is_begun(open_log(disk, CONFIG))


@pytest.mark.parametrize(
    "start",
    [
        LogOrigin(Index(0), Offset(0), Term(0), 0, Offset(0)),
        LogOrigin(Index(62), Offset(200), Term(3), 900, Offset(203)),
        LogOrigin(Index(50), Offset(204), Term(3), 900, Offset(203)),
        LogOrigin(Index(50), Offset(200), Term(3), 900, Offset(241)),
        LogOrigin(Index(50), Offset(200), Term(5), 900, Offset(203)),
        LogOrigin(Index(50), Offset(200), Term(3), 2_001, Offset(203)),
    ],
)
def test_a_state_whose_log_cannot_begin_there_is_refused(start: LogOrigin) -> None:
    disk = old_log()
    draft(disk, replace(STATE, origin=start))
    with pytest.raises(StorageError, match="damaged"):
        decide_install(disk, DIRECTORY)


def test_rot_in_a_decided_state_is_damage_and_nothing_more_is_removed() -> None:
    disk = old_log()
    draft(disk)
    decide_install(disk, DIRECTORY)
    path = f"{DIRECTORY}/{60:020}.install"
    disk.flip_bit(path, 20, 3)
    before = names_in(disk)
    with pytest.raises(Corrupt, match="takes the log's place"):
        open_log(disk, CONFIG)
    assert names_in(disk) == before


def test_verify_says_that_an_install_is_decided_and_looks_at_nothing_it_removes() -> None:
    disk = old_log()
    disk.open(f"{DIRECTORY}/hard-state.new", create=True).close()
    draft(disk)
    decide_install(disk, DIRECTORY)
    disk.flip_bit(f"{DIRECTORY}/{1:020}.log", 5_000, 1)
    disk.remove(f"{DIRECTORY}/{3:020}.log")
    report = verify_log(disk, DIRECTORY).report
    assert {finding.severity for finding in report.findings} == {Severity.NOTE}
    assert any("empties the log" in finding.found for finding in report.findings)
    open_log(disk, CONFIG).close()
    assert is_begun(open_log(disk, CONFIG))


def test_repair_keeps_a_damaged_decision_aside_and_the_log_that_is_there_opens() -> None:
    disk = old_log()
    draft(disk)
    decide_install(disk, DIRECTORY)
    disk.flip_bit(f"{DIRECTORY}/{60:020}.install", 20, 3)
    findings = verify_log(disk, DIRECTORY).report.findings
    assert [each.flaw for each in findings if each.severity is Severity.DAMAGE] == [
        Flaw.STATE_SNAPSHOT
    ]
    repair(disk, DIRECTORY, FixedClock())
    assert verify_log(disk, DIRECTORY).report.is_clean
    assert not is_begun(open_log(disk, CONFIG))


def test_the_bytes_on_disk_are_those_of_format_version_2() -> None:
    assert encode_snapshot(STATE, DIRECTORY).hex() == (
        "514c5002" + "ad4b6754"
        "3c00000000000000" + "0400000000000000" + "f000000000000000" + "d007000000000000"
        "03000000" + "05000000"
        "3200000000000000" + "c800000000000000" + "0300000000000000" + "8403000000000000"
        "cb00000000000000" + "77686f" + "7374617465"
    )


def test_a_state_that_is_not_synced_before_the_log_is_emptied_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sync = SimFile.sync
    monkeypatch.setattr(
        SimFile, "sync", lambda file: None if file._path.endswith(DRAFT_NAME) else sync(file)
    )
    with pytest.raises((Corrupt, AssertionError)):
        test_a_power_cut_at_every_call_leaves_the_old_log_or_the_empty_one()
