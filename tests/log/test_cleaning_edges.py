"""Compaction and deletion at their edges: wrong clocks, files that are gone, passes cut short."""

from dataclasses import replace
from functools import partial
from random import Random

import pytest

from quorumlog.errors import Closed, Corrupt, LogFenced, StorageError
from quorumlog.log.cleaning import compaction_pass
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.cleaning.housekeeping import Housekeeper
from quorumlog.log.cleaning.retention import Retention
from quorumlog.log.cleaning.thinning import thin
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.mark import Mark, MarkPages
from quorumlog.log.segment import DATA_START
from sim.disk import SimDisk
from stored.keyed import ALWAYS, CONFIG, KeyedLog

YEAR_S = 366 * 86_400.0


def a_log(settings: Compaction = ALWAYS) -> KeyedLog:
    return KeyedLog(SimDisk(Random(1)), settings)


def overwritten(keyed: KeyedLog, batches: int = 120) -> None:
    """Nine keys again and again, about seven records a segment."""
    for number in range(batches):
        keyed.append((b"k%d" % (number % 9), b"%d" % number))
    keyed.seal()


class Waits:
    """A stop signal that is never set; lets time pass while it is waited for."""

    def __init__(self, keyed: KeyedLog) -> None:
        self._keyed = keyed

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float) -> bool:
        self._keyed.clock.now_s += timeout
        return False


# -- clocks --------------------------------------------------------------------------------------


def test_without_a_lag_a_clock_that_was_ahead_does_not_keep_a_log_from_being_compacted() -> None:
    keyed = a_log()
    keyed.clock.now_s += YEAR_S
    keyed.append((b"k", b"1"))
    keyed.append((b"k", b"2"))
    keyed.seal()
    keyed.clock.now_s -= YEAR_S
    assert keyed.compact() is not None
    assert sorted(keyed.records()) == [1]


def test_tombstones_that_a_wrong_clock_dated_go_after_the_delay_from_when_that_is_seen() -> None:
    keyed = a_log()
    keyed.append((b"k", b"1"), (b"k", None))
    keyed.seal()
    keyed.clock.now_s += YEAR_S
    keyed.compact()
    keyed.clock.now_s -= YEAR_S
    assert keyed.compact() is not None
    keyed.model.clean_since_s = {1: keyed.clock.now_s}
    assert sorted(keyed.records()) == [1]
    assert keyed.compact() is None
    keyed.clock.now_s += 99.9
    assert keyed.compact() is None
    keyed.clock.now_s += 0.1
    keyed.compact()
    assert keyed.records() == {}


def test_a_clock_that_went_back_a_little_makes_no_pass_due() -> None:
    keyed = a_log()
    keyed.append((b"k", b"1"), (b"k", None))
    keyed.seal()
    keyed.compact()
    keyed.clock.now_s -= 100
    assert keyed.compact() is None
    keyed.clock.now_s -= 0.1
    assert keyed.compact() is not None


def test_a_clock_that_begins_at_zero_dates_tombstones_too() -> None:
    keyed = a_log()
    keyed.clock.now_s = 0.0
    keyed.append((b"k", b"1"), (b"k", None))
    keyed.seal()
    keyed.compact()
    keyed.clock.now_s += 101
    assert keyed.compact() is not None
    assert keyed.records() == {}


# -- tombstones ----------------------------------------------------------------------------------


def test_a_tombstone_that_is_due_goes_although_another_segment_got_a_newer_date() -> None:
    keyed = a_log()
    for number in range(30):
        keyed.append((b"%d" % number, None))
    keyed.seal()
    keyed.compact()
    first, second = keyed.log.segments()[:2]
    keyed.clock.now_s += 100
    # What a pass that died behind the first segment leaves.
    keyed.log.upkeep.set_cleaned(
        first, first.cleaned_to, first.horizon_offset, keyed.clock.wall_ms()
    )
    keyed.model.clean_since_s = dict.fromkeys(range(30), keyed.clock.now_s - 100)
    assert keyed.compact() is not None
    found = set(keyed.records())
    assert found == set(range(first.base_offset, first.next_offset))
    assert second.base_offset not in found
    assert keyed.compact() is None
    keyed.clock.now_s += 100
    keyed.compact()
    assert keyed.records() == {}


def test_a_tombstone_keeps_a_date_where_a_full_map_ends_a_pass_before_it() -> None:
    keyed = a_log(replace(ALWAYS, map_bytes=4096))
    end = 22 + 111
    for number in range(200):
        keyed.append((b"%d" % number, b"" if number < end else None))
    keyed.seal()
    while keyed.compact():
        pass
    third = keyed.log.segments()[2]
    # As if it could not be cleaned as far as the others: the map begins here, and is full later in
    # a segment of which only the tombstones behind that place are left to be dated.
    keyed.log.upkeep.set_cleaned(third, third.base_offset, third.horizon_offset, third.horizon_ms)
    keyed.clock.now_s += 100
    report = keyed.compact()
    assert report is not None
    assert report.cleaned_to == end
    (shared,) = [each for each in keyed.log.segments() if each.base_offset < end < each.next_offset]
    assert shared.cleaned_to == 200
    for _ in range(3):
        keyed.compact()
        keyed.clock.now_s += 100
    keyed.compact()
    assert sorted(keyed.records()) == list(range(end))


def test_what_cannot_be_thinned_does_not_keep_passes_with_a_full_map_from_coming_to_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyed = a_log(replace(ALWAYS, map_bytes=4096))
    keyed.append(*[(b"%d" % number, b"v") for number in range(100)])
    keyed.append((b"7", None))
    for turn in range(2):
        for number in range(300):
            keyed.append((b"k%d" % number, b"%d" % turn))
    keyed.seal()
    monkeypatch.setattr(compaction_pass, "thin", partial(thin, limit_bytes=100))
    ends = []
    while (report := keyed.compact()) is not None:
        ends.append(int(report.cleaned_to))
        assert len(ends) < 12
    assert ends == sorted(set(ends))
    assert ends[-1] == keyed.log.end_offset
    assert len(keyed.records()) == 101 + 300
    # What was passed over is still there, and so is what hides it.
    keyed.clock.now_s += 1_000
    keyed.append((b"other", b"v"))
    keyed.seal()
    for _ in range(6):
        keyed.compact()
        keyed.clock.now_s += 1_000
    assert [each.value for each in keyed.records().values() if each.key == b"7"] == [b"v", None]
    monkeypatch.undo()
    keyed.reopen()
    for _ in range(12):
        keyed.compact()
        keyed.clock.now_s += 1_000
    assert not [record for record in keyed.records().values() if record.key == b"7"]


# -- what is not there ---------------------------------------------------------------------------


def test_a_segment_file_that_somebody_took_away_is_corruption_and_no_deletion() -> None:
    for at in (0, 3):
        keyed = a_log()
        overwritten(keyed)
        gone = keyed.log.segments()[at]
        keyed.disk.remove(gone.path)
        with pytest.raises(Corrupt) as caught:
            keyed.compactor.run()
        assert caught.value.file == gone.path


def test_a_pass_goes_on_behind_segments_that_are_deleted_under_it() -> None:
    for at in range(1, 400, 9):
        keyed = a_log()
        overwritten(keyed)
        log, asked = keyed.log, 0

        class Deletes:
            def is_set(self) -> bool:
                nonlocal asked
                asked += 1
                if asked == at:  # noqa: B023 - called in this turn only
                    log.advance_start(70)  # noqa: B023
                    log.flush()  # noqa: B023
                    log.remove_deleted()  # noqa: B023
                return False

            def wait(self, timeout: float) -> bool:
                return False

        keyed.compactor._stop = Deletes()
        report = keyed.compact()
        assert report is not None
        assert report.is_complete
        assert sorted(keyed.records()) == list(range(111, 120))
        assert not [name for name in keyed.disk.list_directory("data") if "compacted" in name]


def test_deletion_goes_on_while_a_long_pass_is_made() -> None:
    keyed = a_log(replace(ALWAYS, bytes_s=1024))
    keyed.compactor._stop = Waits(keyed)
    for number in range(900):
        keyed.append((b"k%d" % (number % 300), b"%d" % number))
    keyed.seal()
    began_s = keyed.clock.now_s
    report = Housekeeper(keyed.log, Retention(age_s=60), keyed.compactor, keyed.clock).run_once()
    assert report.errors == ()
    assert report.compaction is not None
    # When the pass began they were all younger than that.
    assert keyed.clock.now_s - began_s > 60
    assert report.start_offset == 900
    assert report.segments_removed > 50
    keyed.check()


def test_an_error_of_a_deletion_during_a_pass_is_told_once_and_until_it_is_over() -> None:
    keyed = a_log(replace(ALWAYS, bytes_s=1024))
    keyed.compactor._stop = Waits(keyed)
    for number in range(900):
        keyed.append((b"k%d" % (number % 300), b"%d" % number))
    keyed.seal()

    def fails() -> None:
        raise StorageError("no flush")

    house = Housekeeper(keyed.log, Retention(age_s=60), keyed.compactor, keyed.clock, fails)
    report = house.run_once()
    assert [str(error) for error in report.errors] == ["no flush"]
    assert report.compaction is not None


def test_a_sealed_segment_without_records_gets_another_key_too() -> None:
    rings = [KeyRing.generate("1", Random(1).randbytes)]
    keyed = KeyedLog(SimDisk(Random(1)), ALWAYS, replace(CONFIG, keys=rings[0]))
    keyed.append((b"k", b"v"))
    keyed.seal()
    keyed.append()
    keyed.seal()
    ring = rings[0].with_new_key("2")
    keyed.config = replace(CONFIG, keys=ring)
    keyed.reopen()
    keyed.flush()
    assert keyed.compact() is not None
    assert {info.key_id for info in keyed.log.segments()[:-1]} == {"2"}
    assert keyed.compact() is None


def test_a_segment_whose_mark_is_lost_gets_one_again() -> None:
    keyed = a_log()
    for number in range(30):
        keyed.append((b"%d" % number, b"v"))
    keyed.seal()
    path = keyed.log.segments()[1].path
    keyed.log.close()
    file = keyed.disk.open(path)
    file.write_at(4096, [bytes(8192)])
    file.sync()
    file.close()
    keyed.open()
    keyed.flush()
    keyed.compact()
    infos = keyed.log.segments()[:-1]
    assert {info.cleaned_to for info in infos} == {30}
    file = keyed.disk.open_readonly(path)
    assert MarkPages().load(file) is not None
    file.close()


# -- logs that are not to be touched any more -----------------------------------------------------


def test_nothing_is_noted_in_a_log_that_is_closed_or_fenced() -> None:
    keyed = a_log()
    overwritten(keyed)
    info = keyed.log.segments()[0]
    disk = keyed.disk
    assert isinstance(disk, SimDisk)
    keyed.append((b"k", b"v"))
    disk.fail_at(2)
    with pytest.raises(LogFenced):
        keyed.log.flush()
    changes = disk.changes
    with pytest.raises(LogFenced):
        keyed.log.upkeep.set_cleaned(info, 1, 0, 0)
    keyed.log.close()
    closed = a_log()
    overwritten(closed)
    info = closed.log.segments()[0]
    closed.log.close()
    with pytest.raises(Closed):
        closed.log.upkeep.set_cleaned(info, 1, 0, 0)
    assert disk.changes == changes


def marks_of(keyed: KeyedLog) -> list[Mark]:
    marks = []
    for info in keyed.log.segments()[:-1]:
        file = keyed.disk.open_readonly(info.path)
        mark = MarkPages().load(file)
        file.close()
        assert mark is not None
        marks.append(mark)
    return marks


def test_no_mark_of_a_compacted_segment_begins_behind_its_end() -> None:
    keyed = a_log()
    for number in range(40):
        keyed.append((b"%d" % number, b"x" * 100))
    keyed.seal()
    keyed.log.advance_start(30)
    keyed.log.flush()
    # Too little for two: a joined one would end behind the start.
    keyed.compactor._segment_bytes = 1
    keyed.compact()
    assert all(mark.start_offset <= mark.next_offset for mark in marks_of(keyed))


def test_the_mark_of_a_compacted_segment_stands_behind_its_last_batch() -> None:
    keyed = a_log()
    for number in range(60):
        keyed.append((b"k%d" % (number % 20), b"%060d" % number), term=1 + number // 5)
        keyed.clock.now_s += 1
    keyed.seal()
    keyed.compact()
    infos = keyed.log.segments()[:-1]
    assert any(info.generation for info in infos)
    for info, mark in zip(infos, marks_of(keyed), strict=True):
        last = [each.header for each in keyed.stored() if each.header.index < info.next_index][-1]
        assert (mark.index, mark.position) == (info.next_index - 1, info.size_bytes)
        assert mark.next_offset == last.next_offset
        assert (mark.term, mark.timestamp_ms) == (last.term, last.timestamp_ms)


def test_what_is_rewritten_is_of_a_generation_that_none_of_its_parts_was() -> None:
    """By that a reader with an open file, in this process or another, knows that it is old."""
    keyed = a_log()
    overwritten(keyed, 60)
    keyed.compact()
    (first, *_) = keyed.log.segments()
    # Thinned each for itself, then joined.
    assert first.generation > 1
    overwritten(keyed, 60)
    keyed.compact()
    assert keyed.log.segments()[0].generation > first.generation


# -- damage --------------------------------------------------------------------------------------


def with_damaged_header(position: int) -> KeyedLog:
    """Nine segments of seven records; the header page, or the first batch, of the fifth is rotten.

    Nothing of it is known yet.
    """
    keyed = a_log()
    for number in range(60):
        keyed.append((None, b"%060d" % number))
        keyed.clock.now_s += 1
    keyed.flush()
    path = keyed.log.segments()[4].path
    keyed.log.close()
    disk = keyed.disk
    assert isinstance(disk, SimDisk)
    disk.flip_bit(path, position, 3)
    keyed.open()
    keyed.flush()
    return keyed


@pytest.mark.parametrize("position", [20, DATA_START + 20])
@pytest.mark.parametrize(
    "limits", [Retention(records=10), Retention(bytes=45_000), Retention(age_s=15)]
)
def test_deletion_goes_on_up_to_a_segment_that_cannot_be_read(
    position: int, limits: Retention
) -> None:
    keyed = with_damaged_header(position)
    report = Housekeeper(keyed.log, limits, None, keyed.clock).run_once()
    assert (report.segments_removed, report.start_offset) == (3, 21)
    assert {type(error) for error in report.errors} == {Corrupt}
    assert keyed.log.slice(22, 1)[0].header.base_offset == 21
    assert keyed.log.fetch(45, 1, 60).next_offset == 46


def test_a_limit_that_is_kept_removes_nothing_where_a_segment_cannot_be_read() -> None:
    keyed = with_damaged_header(20)
    for limits in (Retention(records=60), Retention(bytes=10**6), Retention(age_s=61)):
        report = Housekeeper(keyed.log, limits, None, keyed.clock).run_once()
        assert (report.segments_removed, report.start_offset) == (0, 0)
        assert {type(error) for error in report.errors} == {Corrupt}


def test_a_log_of_which_a_segment_cannot_be_read_is_still_rolled() -> None:
    keyed = with_damaged_header(20)
    active = keyed.log.upkeep.active()
    report = Housekeeper(keyed.log, Retention(age_s=1), None, keyed.clock).run_once()
    assert report.is_rolled
    assert keyed.log.upkeep.active().first_index == active.next_index


def test_what_is_deleted_and_cannot_be_removed_for_damage_is_said() -> None:
    keyed = with_damaged_header(20)
    keyed.log.advance_start(14)
    assert keyed.log.remove_deleted() == 2
    keyed.log.advance_start(45)
    with pytest.raises(Corrupt):
        keyed.log.remove_deleted()
    assert keyed.log.start_index == 22
    with pytest.raises(Corrupt):
        keyed.log.segments()


def of_five_batches(last_records: int) -> KeyedLog:
    keyed = a_log()
    for number in range(4):
        keyed.append((b"k", b"%d" % number))
    keyed.append(*[(b"k", b"last")] * last_records)
    keyed.seal()
    keyed.append((b"k", b"newest"))
    keyed.seal()
    return keyed


def test_a_segment_that_is_whole_and_ends_at_another_offset_is_not_compacted() -> None:
    keyed, foreign = of_five_batches(1), of_five_batches(2)
    path = keyed.log.segments()[0].path
    file = foreign.disk.open_readonly(path)
    content = file.read_at(0, file.size_bytes())
    keyed.log.close()
    file = keyed.disk.open(path)
    file.write_at(0, [content])
    file.truncate(len(content))
    file.sync()
    keyed.open()
    keyed.flush()
    with pytest.raises(Corrupt) as caught:
        keyed.compactor.run()
    assert caught.value.file == path
    assert [info.generation for info in keyed.log.segments()] == [0, 0, 0]
