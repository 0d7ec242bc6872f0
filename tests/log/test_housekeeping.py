"""Retention and compaction of one log, turn by turn."""

from random import Random
from threading import Event

import pytest

from quorumlog.errors import Closed, Corrupt, LogFenced, OffsetOutOfRange
from quorumlog.log.cleaning.compaction import Compactor
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.cleaning.housekeeping import Housekeeper
from quorumlog.log.cleaning.retention import Retention
from sim.disk import SimDisk
from stored.keyed import KeyedLog, records_in

NO_COMPACTION = Compaction(min_dirty_ratio=1.0)


def filled(batches: int = 60, seconds_each: int = 1) -> KeyedLog:
    """Seven batches a segment, one record of 60 bytes each, committed."""
    keyed = KeyedLog(SimDisk(Random(1)))
    for number in range(batches):
        keyed.append((None, b"%060d" % number))
        keyed.clock.now_s += seconds_each
    keyed.flush()
    return keyed


def keeper(keyed: KeyedLog, retention: Retention, *, compact: bool = False) -> Housekeeper:
    return Housekeeper(keyed.log, retention, keyed.compactor if compact else None, keyed.clock)


def test_the_oldest_segments_go_and_as_many_records_stay_as_were_asked_for() -> None:
    keyed = filled()
    report = keeper(keyed, Retention(records=20)).run_once()
    assert report.errors == ()
    assert report.segments_removed > 3
    assert 20 <= keyed.log.end_offset - report.start_offset < 20 + 7
    assert keyed.log.start_offset == report.start_offset
    with pytest.raises(OffsetOutOfRange):
        keyed.log.fetch(report.start_offset - 1, 1_000, keyed.log.end_offset)
    keyed.reopen()
    assert keyed.log.start_offset == report.start_offset
    assert sorted(keyed.records()) == list(range(report.start_offset, 60))


def test_records_younger_than_the_age_stay() -> None:
    keyed = filled()
    report = keeper(keyed, Retention(age_s=30)).run_once()
    now_ms = keyed.clock.wall_ms()
    found = keyed.records()
    assert report.start_offset > 0
    assert all(
        offset in found
        for offset, record in keyed.model.records.items()
        if now_ms - record.timestamp_ms <= 30_000
    )


def test_a_log_that_nobody_writes_to_gets_empty_in_time() -> None:
    keyed = filled(batches=3)
    house = keeper(keyed, Retention(age_s=30))
    assert not house.run_once().is_rolled
    keyed.clock.now_s += 10
    assert house.run_once().is_rolled
    assert len(keyed.records()) == 3
    keyed.clock.now_s += 30
    assert house.run_once().segments_removed == 1
    assert keyed.records() == {}
    assert keyed.log.start_offset == keyed.log.end_offset == 3
    keyed.clock.now_s += 1_000
    assert not house.run_once().is_rolled
    keyed.append((None, b"later"))
    keyed.flush()
    assert sorted(keyed.records()) == [3]


def test_a_limit_that_is_smaller_than_a_segment_holds() -> None:
    keyed = filled(batches=5)
    house = keeper(keyed, Retention(records=4))
    for number in range(40):
        keyed.append((None, b"%d" % number))
        keyed.flush()
        house.run_once()
    assert len(keyed.records()) == 4


def test_what_is_not_committed_stays_however_old_it_is() -> None:
    keyed = filled()
    floor = keyed.log.commit_floor
    for number in range(30):
        keyed.append((None, b"%060d" % number))
    keyed.log.flush()
    keyed.clock.now_s += 10_000
    report = keeper(keyed, Retention(age_s=1, records=1)).run_once()
    assert report.start_offset <= floor
    assert keyed.log.start_index <= floor + 1
    assert set(range(floor, 90)) <= set(keyed.records())


def test_what_the_owner_deleted_is_removed_without_any_limit() -> None:
    keyed = filled()
    keyed.log.advance_start(30)
    report = keeper(keyed, Retention()).run_once()
    assert report.segments_removed == 4
    assert sorted(keyed.records()) == list(range(30, 60))


def test_nothing_is_rolled_or_removed_without_need() -> None:
    keyed = filled()
    changes = keyed.disk.changes  # type: ignore[attr-defined]
    report = keeper(keyed, Retention(records=1_000)).run_once()
    assert (report.segments_removed, report.is_rolled, report.errors) == (0, False, ())
    assert keyed.disk.changes == changes  # type: ignore[attr-defined]


def test_both_policies_work_on_one_log() -> None:
    keyed = KeyedLog(SimDisk(Random(1)))
    house = keeper(keyed, Retention(records=100), compact=True)
    for number in range(300):
        keyed.append((b"k%d" % (number % 11), b"%060d" % number), (None, b"%d" % number))
        if number % 10 == 0:
            keyed.flush()
            assert house.run_once().errors == ()
            keyed.check()
    assert keyed.log.start_offset >= 600 - 100 - 40
    assert len(keyed.records()) < 100


def test_an_idle_log_is_compacted_once_its_records_have_waited() -> None:
    keyed = KeyedLog(SimDisk(Random(1)), Compaction(max_lag_s=60))
    house = keeper(keyed, Retention(), compact=True)
    keyed.append((b"k", b"1"))
    keyed.append((b"k", b"2"))
    keyed.flush()
    assert not house.run_once().is_rolled
    keyed.clock.now_s += 60
    report = house.run_once()
    assert report.is_rolled
    assert report.compaction is not None
    assert sorted(keyed.records()) == [1]


def test_a_reader_reads_on_in_the_segment_it_is_in() -> None:
    keyed = KeyedLog(SimDisk(Random(1)))
    for number in range(60):
        keyed.append((b"k", b"%060d" % number))
    keyed.seal()
    reader = iter(keyed.log.stream(keyed.log.segments()[2].first_index))
    first = next(reader)
    keyed.compact()
    expected = [batch.header.index for batch in first]
    assert expected == list(range(expected[0], expected[-1] + 1))
    kept = [*records_in(first)]
    assert [record.offset for record in kept] == [index - 1 for index in expected]
    # What comes next is what compaction left: everything is a gap but the newest record.
    rest = [batch for batches in reader for batch in batches]
    assert [record.offset for record in records_in(rest)] == [59]


def test_a_pass_goes_on_behind_a_segment_that_is_removed_under_it() -> None:
    keyed = KeyedLog(SimDisk(Random(1)))
    for number in range(120):
        keyed.append((b"k%d" % (number % 9), b"%d" % number))
    keyed.seal()
    log, asked = keyed.log, 0

    class Deletes:
        """Deletes half of the log the fortieth time it is asked."""

        def is_set(self) -> bool:
            nonlocal asked
            asked += 1
            if asked == 40:
                log.advance_start(70)
                log.flush()
                log.remove_deleted()
            return False

        def wait(self, timeout: float) -> bool:
            return False

    compactor = Compactor(log, keyed.disk, "data", 1024, keyed.settings, keyed.clock, Deletes())
    report = compactor.run()
    assert report is not None
    assert report.is_complete
    keyed.check()
    assert sorted(keyed.records()) == list(range(111, 120))


def test_rot_is_reported_and_does_not_keep_deletion_from_its_work() -> None:
    keyed = filled()
    third = keyed.log.segments()[2]
    keyed.disk.flip_bit(third.path, third.size_bytes - 1, 3)  # type: ignore[attr-defined]
    report = keeper(keyed, Retention(records=40), compact=True).run_once()
    assert [type(error) for error in report.errors] == [Corrupt]
    assert report.segments_removed == 2
    report = keeper(keyed, Retention(records=20), compact=True).run_once()
    assert report.errors == ()
    assert report.segments_removed > 0


def test_a_pass_that_failed_is_tried_again_after_a_pause_and_told_of_meanwhile() -> None:
    keyed = filled()
    last = keyed.log.segments()[-2]
    disk = keyed.disk
    assert isinstance(disk, SimDisk)
    disk.flip_bit(last.path, last.size_bytes - 1, 3)
    house = keeper(keyed, Retention(), compact=True)
    tried_at = []
    began_s = keyed.clock.now_s
    for _ in range(200):
        reads = disk.calls["read"]
        report = house.run_once()
        assert [type(error) for error in report.errors] == [Corrupt]
        if disk.calls["read"] > reads:
            tried_at.append(keyed.clock.now_s - began_s)
        keyed.clock.now_s += 10
    assert tried_at == [0, 60, 180, 420, 900, 1_500]
    disk.flip_bit(last.path, last.size_bytes - 1, 3)
    keyed.clock.now_s += 600
    assert house.run_once().errors == ()


def test_a_fenced_log_and_a_closed_one_end_it() -> None:
    keyed = filled()
    keyed.append((None, b"x"))
    keyed.disk.fail_at(2)  # type: ignore[attr-defined]
    with pytest.raises(LogFenced):
        keyed.log.flush()
    with pytest.raises(LogFenced):
        keeper(keyed, Retention(records=1)).run_once()
    other = filled()
    house = keeper(other, Retention(records=1))
    other.log.close()
    with pytest.raises(Closed):
        house.run_once()


def test_the_owner_s_way_to_flush_is_taken() -> None:
    keyed = filled()
    flushed = Event()

    def flush() -> None:
        flushed.set()
        keyed.log.flush()

    Housekeeper(keyed.log, Retention(records=20), None, keyed.clock, flush).run_once()
    assert flushed.is_set()
