"""Compaction: what a pass keeps, what it takes out, and when."""

import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from threading import Event

import pytest

from quorumlog.errors import ConfigError, Corrupt
from quorumlog.log.batch import SPARSE, Draft, Kind, iterate_batches
from quorumlog.log.cleaning import compaction_pass
from quorumlog.log.cleaning.compaction import Compactor
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.cleaning.thinning import thin
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from quorumlog.log.records import encode_body
from quorumlog.system import SystemDisk
from quorumlog.types import RecordData
from sim.disk import SimDisk
from stored.keyed import ALWAYS, CONFIG, KeyedLog, WallClock


def a_log(settings: Compaction = ALWAYS) -> KeyedLog:
    return KeyedLog(SimDisk(Random(1)), settings)


def test_of_every_key_the_newest_record_stays_and_offsets_do_not_change() -> None:
    keyed = a_log()
    for value in range(60):
        keyed.append((b"k%d" % (value % 7), b"%d" % value))
    keyed.seal()
    report = keyed.compact()
    assert report is not None
    assert report.is_complete
    assert report.totals.keys == 7
    assert report.totals.records_dropped == 53
    assert sorted(keyed.records()) == list(range(53, 60))
    assert keyed.log.end_offset == 60
    assert keyed.log.next_index == 61


def test_a_batch_that_keeps_some_of_its_records_is_sparse() -> None:
    keyed = a_log()
    keyed.append((b"a", b"1"), (b"b", b"2"), (None, b"3"), (b"c", b"4"))
    keyed.append((b"b", b"5"))
    keyed.seal()
    keyed.compact()
    first = keyed.stored()[0].header
    assert first.flags == SPARSE
    assert (first.record_count, first.base_offset, first.next_offset) == (4, 0, 4)
    assert sorted(keyed.records()) == [0, 2, 3, 4]


def test_emptied_batches_of_one_term_become_one_gap() -> None:
    keyed = a_log()
    for term in (1, 1, 1, 2, 2):
        keyed.append((b"k", b"v"), (b"k", b"w"), term=term)
    keyed.append(term=3)
    keyed.append((b"k", b"x"), term=3)
    keyed.append((b"k", b"y"), term=3)
    keyed.seal()
    keyed.compact()
    shape = [
        (batch.header.kind, batch.header.term, batch.header.index_count, batch.header.record_count)
        for batch in keyed.stored()
    ]
    assert shape == [
        (Kind.GAP, 1, 3, 6),
        (Kind.GAP, 2, 2, 4),
        (Kind.NOOP, 3, 1, 0),
        (Kind.GAP, 3, 1, 1),
        (Kind.RECORDS, 3, 1, 1),
    ]


def test_records_without_a_key_stay() -> None:
    keyed = a_log()
    for number in range(40):
        keyed.append((None, b"%d" % number), (None, None))
    keyed.append((b"k", b"1"))
    keyed.append((b"k", b"2"))
    keyed.seal()
    keyed.compact()
    assert len(keyed.records()) == 81


def test_a_segment_in_which_nothing_goes_is_not_rewritten_and_not_looked_at_again() -> None:
    keyed = a_log()
    for number in range(60):
        keyed.append((b"%d" % number, b"v"))
    keyed.seal()
    before = [info.generation for info in keyed.log.segments()]
    report = keyed.compact()
    assert report is not None
    assert report.totals.segments_rewritten == 0
    assert [info.generation for info in keyed.log.segments()] == before
    assert keyed.compact() is None
    keyed.reopen()
    assert keyed.compact() is None


def test_what_became_small_is_joined() -> None:
    keyed = a_log()
    for number in range(400):
        keyed.append((b"k%d" % (number % 5), b"x" * 40))
    keyed.seal()
    before = len(keyed.log.segments())
    keyed.compact()
    sizes = [info.size_bytes for info in keyed.log.segments()]
    assert before > 40
    # The newest one and the rest differ too much in size to be joined.
    assert len(sizes) == 3
    keyed.reopen()
    keyed.check()


def test_readers_near_the_end_do_not_find_in_memory_what_was_taken_out() -> None:
    config = replace(CONFIG, tail_cache_bytes=1_000_000)
    keyed = KeyedLog(SimDisk(Random(1)), ALWAYS, config)
    for number in range(60):
        keyed.append((b"k%d" % (number % 7), b"%d" % number))
    keyed.seal()
    keyed.append((b"k0", b"last"))
    keyed.flush()
    assert len(keyed.records()) == 61
    keyed.compact()
    assert sorted(keyed.records()) == list(range(53, 61))
    fetched = keyed.log.fetch(0, 10**6, 61)
    first = next(iterate_batches(fetched.data))
    assert first.header.base_offset == 53


def test_the_active_segment_is_left_alone() -> None:
    keyed = a_log()
    keyed.append((b"k", b"1"))
    keyed.append((b"k", b"2"))
    keyed.flush()
    assert keyed.compact() is None
    assert len(keyed.records()) == 2


def test_nothing_that_is_not_committed_is_touched_or_supersedes_anything() -> None:
    keyed = a_log()
    keyed.append((b"k", b"1"))
    keyed.append((b"j", b"1"))
    keyed.append((b"j", b"2"))
    keyed.seal()
    keyed.append((b"k", b"2"))
    keyed.log.roll()
    keyed.log.flush()
    keyed.append((b"k", b"3"))
    keyed.log.flush()
    assert keyed.log.commit_floor == 3
    keyed.compact()
    assert sorted(keyed.records()) == [0, 2, 3, 4]
    keyed.log.truncate(4)
    assert keyed.records()[0].value == b"1"


def test_tombstones_stay_for_the_delay_and_then_go() -> None:
    keyed = a_log()
    keyed.append((b"k", b"1"))
    keyed.append((b"k", None))
    keyed.seal()
    keyed.compact()
    assert sorted(keyed.records()) == [1]
    keyed.clock.now_s += 99.9
    assert keyed.compact() is None
    keyed.clock.now_s += 0.1
    assert keyed.compact() is not None
    assert keyed.records() == {}
    keyed.clock.now_s += 1_000
    assert keyed.compact() is None


def test_passes_more_frequent_than_the_delay_do_not_put_tombstones_off() -> None:
    keyed = a_log()
    left: dict[int, float] = {}
    for turn in range(300):
        tombstone = keyed.append((b"t%d" % turn, None)).header.base_offset
        left[tombstone] = keyed.clock.now_s
        keyed.append((b"k", b"%d" % turn))
        keyed.seal()
        keyed.compact()
        keyed.clock.now_s += 10
        found = keyed.records()
        left = {offset: at for offset, at in left.items() if offset in found}
        # One delay until the horizon that was there is due, one more for its own.
        assert all(keyed.clock.now_s - at <= 2 * 100 + 30 for at in left.values())
    assert len(left) < 25


def test_a_tombstone_hides_what_an_older_segment_held_until_that_is_gone() -> None:
    keyed = a_log()
    for number in range(30):
        keyed.append((b"k%d" % number, b"x" * 40))
    keyed.seal()
    keyed.compact()
    for number in range(30):
        keyed.append((b"k%d" % number, None))
    keyed.seal()
    keyed.compact()
    assert all(record.value is None for record in keyed.records().values())
    keyed.clock.now_s += 100
    keyed.compact()
    assert keyed.records() == {}
    keyed.reopen()
    keyed.check()


def test_a_full_map_ends_the_pass_there_and_the_next_ones_go_on() -> None:
    keyed = a_log(Compaction(min_dirty_ratio=0.0, map_bytes=4096))
    for turn in range(2):
        for number in range(400):
            keyed.append((b"k%d" % number, b"%d" % turn))
    keyed.seal()
    ends = []
    while (report := keyed.compact()) is not None:
        assert report.totals.keys <= 111
        ends.append(report.cleaned_to)
    assert len(ends) > 5
    assert ends == sorted(set(ends))
    assert ends[-1] == 800
    assert sorted(keyed.records()) == list(range(400, 800))


def test_the_newest_batch_of_a_producer_keeps_its_header() -> None:
    keyed = a_log()
    for producer_id in (5, 6, 5, 6, 5):
        keyed.append((b"k", b"v"), producer_id=producer_id)
    keyed.append((b"k", b"last"))
    keyed.seal()
    keyed.compact()
    headers = [batch.header for batch in keyed.stored()]
    assert [(each.kind, each.producer_id) for each in headers] == [
        (Kind.GAP, 0),
        (Kind.RECORDS, 6),
        (Kind.RECORDS, 5),
        (Kind.RECORDS, 0),
    ]
    assert [each.body_length for each in headers[1:3]] == [0, 0]
    assert sorted(keyed.records()) == [5]
    keyed.append((b"k", b"again"), producer_id=6)
    keyed.append((b"other", b"again"), producer_id=5)
    keyed.seal()
    keyed.compact()
    assert sum(batch.header.producer_id != 0 for batch in keyed.stored()) == 2


def test_a_producer_s_newest_batch_is_known_again_after_a_restart() -> None:
    keyed = a_log()
    keyed.append((b"a", b"v"), producer_id=5)
    keyed.append((b"b", b"v"), producer_id=5)
    keyed.seal()
    keyed.compact()
    keyed.reopen()
    for turn in range(2):
        keyed.append((b"a", b"%d" % turn))
        keyed.seal()
        keyed.compact()
    # The first pass met the older batch before the newer one; the second one knew both.
    producers = [batch.header.producer_id for batch in keyed.stored()]
    assert producers.count(5) == 1


def test_records_that_were_deleted_are_taken_out_of_the_segment_they_share() -> None:
    keyed = a_log()
    for number in range(6):
        keyed.append((b"k%d" % number, b"v"), (None, b"w"))
    keyed.seal()
    keyed.log.advance_start(7)
    keyed.log.flush()
    keyed.compact()
    assert sorted(record for record in keyed.records()) == list(range(7, 12))
    kinds = [batch.header.kind for batch in keyed.stored()]
    assert kinds == [Kind.GAP, Kind.RECORDS, Kind.RECORDS, Kind.RECORDS]


def test_a_pass_can_be_stopped_at_any_batch_and_the_next_one_goes_on() -> None:
    for after in range(0, 200, 7):
        keyed = a_log()
        for number in range(120):
            keyed.append((b"k%d" % (number % 9), b"%d" % number))
        keyed.seal()
        stop = keyed.stop
        calls = 0

        def stops(after: int = after) -> bool:
            nonlocal calls
            calls += 1
            return calls > after

        stop.is_set = stops  # type: ignore[method-assign]
        report = keyed.compact()
        assert report is not None
        stop.is_set = lambda: False  # type: ignore[method-assign]
        if not report.is_complete:
            report = keyed.compact()
            assert report is not None
            assert report.is_complete
        assert sorted(keyed.records()) == list(range(111, 120))


def test_rot_in_a_segment_ends_the_pass_with_an_error_that_names_it() -> None:
    keyed = a_log()
    for number in range(60):
        keyed.append((b"k", b"%d" % number))
    keyed.seal()
    second = keyed.log.segments()[1]
    keyed.disk.flip_bit(second.path, second.size_bytes - 1, 3)  # type: ignore[attr-defined]
    with pytest.raises(Corrupt) as caught:
        keyed.compactor.run()
    assert caught.value.file == second.path
    assert [info.generation for info in keyed.log.segments()] == [0] * 7
    with pytest.raises(Corrupt):
        keyed.compactor.run()


def test_a_batch_that_cannot_be_thinned_holds_back_the_tombstone_of_what_it_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyed = a_log()
    keyed.append(*[(b"%d" % number, b"v") for number in range(100)])
    keyed.append((b"7", None))
    keyed.seal()
    monkeypatch.setattr(compaction_pass, "thin", partial(thin, limit_bytes=100))
    for number in range(5):
        keyed.compact()
        keyed.clock.now_s += 1_000
        keyed.append((b"other", b"%d" % number))
        keyed.seal()
    found = keyed.records()
    assert [record.value for record in found.values() if record.key == b"7"] == [b"v", None]
    assert sum(record.key == b"other" for record in found.values()) == 2
    monkeypatch.undo()
    for _ in range(3):
        keyed.compact()
        keyed.clock.now_s += 1_000
    assert not [record for record in keyed.records().values() if record.key == b"7"]


def test_a_pass_takes_as_long_as_its_bytes_at_the_rate() -> None:
    keyed = a_log(Compaction(min_dirty_ratio=0.0, bytes_s=4_000))
    for number in range(120):
        keyed.append((b"k%d" % (number % 9), b"%060d" % number))
    keyed.seal()
    began_s = keyed.clock.now_s

    def wait(timeout: float) -> bool:
        keyed.clock.now_s += timeout
        return False

    keyed.stop.wait = wait  # type: ignore[method-assign]
    report = keyed.compact()
    assert report is not None
    assert report.moved_bytes > 30_000
    assert keyed.clock.now_s - began_s == pytest.approx(report.moved_bytes / 4_000, rel=0.01)


def peak_of_a_pass(directory: str, batches: int, map_bytes: int) -> int:
    """Bytes of memory that a pass over ``batches`` of 100 KB takes at most."""
    settings = Compaction(min_dirty_ratio=0.0, map_bytes=map_bytes, bytes_s=10**12)
    config = LogConfig(segment_bytes=1_000_000, tail_cache_bytes=0, fsync="never")
    log = Log.open(SystemDisk(), directory, config, WallClock())
    for number in range(batches):
        value = b"x" * 1_000
        records = [RecordData(value, b"%d" % (each + number % 7 * 50)) for each in range(100)]
        draft = Draft.of(encode_body(records), len(records))
        log.append([draft.stamp(log.next_index, 1, log.end_offset, number)])
        log.flush()
    log.roll()
    log.flush()
    log.advance_commit_floor(log.last_index)
    compactor = Compactor(
        log, SystemDisk(), directory, config.segment_bytes, settings, WallClock(), Event()
    )
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        report = compactor.run()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    log.close()
    assert report is not None
    assert report.totals.records_dropped > batches * 50
    return peak


def test_the_memory_of_a_pass_does_not_grow_with_the_log(tmp_path: Path) -> None:
    map_bytes = 100_000
    small = peak_of_a_pass(str(tmp_path / "small"), 20, map_bytes)
    large = peak_of_a_pass(str(tmp_path / "large"), 70, map_bytes)
    # The map, one read of a MiB, one write of a MiB, and what is made of one batch.
    assert large < map_bytes + 3 * 1024 * 1024
    assert large < small + 300_000


@pytest.mark.parametrize(
    "settings",
    [
        {"min_dirty_ratio": 1.1},
        {"min_dirty_ratio": -0.1},
        {"min_lag_s": -1},
        {"min_lag_s": 10, "max_lag_s": 9},
        {"tombstone_delay_s": float("nan")},
        {"map_bytes": 100},
        {"bytes_s": 0},
    ],
)
def test_an_impossible_setting_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="compaction"):
        Compaction(**settings)  # type: ignore[arg-type]
