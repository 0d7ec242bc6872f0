"""Repair loses no more than the damage took, keeps what it removes, and can die at any moment."""

import contextlib
import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from quorumlog.errors import Corrupt, DiskFull, LogLocked, ProtocolError, StorageError
from quorumlog.log.batch import HEADER_SIZE, Batch, Kind
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.inspection.damage import Point, Span
from quorumlog.log.inspection.dump import DumpedBatch, batches_of, dump
from quorumlog.log.inspection.examined import Examined
from quorumlog.log.inspection.repair import RepairReport, gap_batches, plan, repair
from quorumlog.log.inspection.repair_actions import (
    CutTail,
    Gap,
    Plan,
    RebuildIndex,
    Rewrite,
    WriteMark,
)
from quorumlog.log.inspection.verify import verify_log
from quorumlog.log.segment import DATA_START, RESERVED_BYTES
from quorumlog.types import Index, NodeId, Offset, Term
from sim.disk import SimDisk, SimFile, SimulatedCrash
from stored.batches import DIRECTORY, SMALL, FixedClock, append, open_log
from stored.shapes import (
    RING,
    SHAPES,
    Drafter,
    Shape,
    empty,
    encrypted,
    never_closed,
    plain_log,
    store,
)

FIRST = f"{DIRECTORY}/{1:020d}.log"
SECOND = f"{DIRECTORY}/{5:020d}.log"
THIRD = f"{DIRECTORY}/{9:020d}.log"
LAST = f"{DIRECTORY}/{13:020d}.log"


def batches_on(disk: SimDisk) -> dict[int, tuple[bytes, bytes]]:
    """By index every batch that can be read, without gaps and what stands for nothing."""
    return {
        item.stored.header.index: (bytes(item.stored.head), bytes(item.stored.body))
        for item in dump(disk, DIRECTORY, 0, RING)
        if isinstance(item, DumpedBatch) and item.stored.header.kind not in (Kind.GAP, Kind.NOOP)
    }


def run(disk: SimDisk) -> RepairReport:
    return repair(disk, DIRECTORY, FixedClock(), RING)


def planned(disk: SimDisk) -> Plan:
    """The plan, which changes nothing."""
    changes = disk.changes
    made = plan(disk, DIRECTORY, FixedClock(), RING)
    assert disk.changes == changes
    return made


def check_repaired(disk: SimDisk, original: SimDisk, *, end_offset: int | None = None) -> None:
    """The log is clean, has what it had but for the damage, and goes on where it ended."""
    report = verify_log(disk, DIRECTORY, ring=RING).report
    assert report.is_clean, [str(each) for each in report.findings]
    before, after = batches_on(original), batches_on(disk)
    assert after.items() <= before.items()
    known = verify_log(original, DIRECTORY, ring=RING).report
    if end_offset is None:
        end_offset = known.end_offset
    assert report.end_offset == end_offset
    twin = disk.copy()
    ring = RING if any(_is_encrypted(each) for each in segments_of(original)) else None
    log = open_log(twin, replace(SMALL, keys=ring))
    assert log.end_offset == end_offset
    append(log, 3, term=9)
    log.flush()
    assert log.end_offset == end_offset + 3
    log.close()
    assert verify_log(twin, DIRECTORY, ring=RING).report.is_clean


def segments_of(disk: SimDisk) -> list[Examined]:
    return verify_log(disk, DIRECTORY, ring=RING).segments


def _is_encrypted(segment: Examined) -> bool:
    return segment.header is not None and segment.header.key is not None


def positions(disk: SimDisk, path: str) -> list[int]:
    """Where the batches of an undamaged segment begin."""
    return [
        item.position
        for item in dump(disk, DIRECTORY, 0, RING)
        if isinstance(item, DumpedBatch) and item.file == path
    ]


def overwrite(disk: SimDisk, path: str, position: int, data: bytes) -> None:
    file = disk.open(path)
    file.write_at(position, [data])
    file.sync()
    file.close()


def resize(disk: SimDisk, path: str, size_bytes: int) -> None:
    file = disk.open(path)
    file.truncate(size_bytes)
    file.sync()
    file.close()


def swap(disk: SimDisk, one: str, other: str) -> None:
    disk.rename(one, "data/swap")
    disk.rename(other, one)
    disk.rename("data/swap", other)
    disk.sync_directory(DIRECTORY)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_an_undamaged_log_needs_nothing(shape: Shape) -> None:
    disk = shape()
    assert planned(disk).actions == []
    before = {name: disk.content(f"{DIRECTORY}/{name}") for name in disk.list_directory(DIRECTORY)}
    report = run(disk)
    assert (report.actions, report.refusals, report.kept) == ([], [], "")
    disk.remove(f"{DIRECTORY}/lock")
    after = {name: disk.content(f"{DIRECTORY}/{name}") for name in disk.list_directory(DIRECTORY)}
    assert after == before


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_whatever_bit_flips_the_repaired_log_has_the_rest(shape: Shape) -> None:
    original = shape()
    if shape is empty:
        return
    rng = Random(7)
    known = batches_on(original)
    paths = [f"{DIRECTORY}/{name}" for name in original.list_directory(DIRECTORY)]
    for path in paths:
        raw = original.content(path)
        used = [at for at in range(len(raw)) if raw[at]]
        for position in sorted(rng.sample(used, min(len(used), 12))):
            disk = original.copy()
            disk.flip_bit(path, position, rng.randrange(8))
            was_clean = verify_log(disk, DIRECTORY, ring=RING).report.is_clean
            readable = batches_on(disk)
            report = run(disk)
            if report.refusals:
                assert any(word in report.refusals[0] for word in ("go on", "nothing in"))
                continue
            assert bool(report.actions) != was_clean
            check_repaired(disk, original)
            after = batches_on(disk)
            is_keyless = shape is encrypted and position < 140
            if not is_keyless:
                assert after == readable
                assert len(known) - len(after) <= 1


def test_a_bad_batch_becomes_a_gap_of_exactly_its_offsets() -> None:
    original = plain_log()
    disk = original.copy()
    disk.flip_bit(SECOND, positions(original, SECOND)[1] + HEADER_SIZE + 3, 1)
    made = planned(disk)
    assert [action.lost for action in made.actions] == [(Span(10, 12),)]
    assert "offsets [10, 12) cannot be read and become gaps" in made.actions[0].sentence
    assert [type(action).__name__ for action in run(disk).actions] == ["Rewrite"]
    check_repaired(disk, original)
    missing = batches_on(original).keys() - batches_on(disk).keys()
    assert missing == {6}
    gaps = [
        (each.stored.header.index, each.stored.header.base_offset, each.stored.header.record_count)
        for each in dump(disk, DIRECTORY)
        if isinstance(each, DumpedBatch) and each.stored.header.kind == Kind.GAP
    ]
    assert gaps == [(6, 10, 2)]


@pytest.mark.parametrize("path", [FIRST, SECOND, THIRD, LAST])
@pytest.mark.parametrize("damage", ["removed", "zeros", "empty", "half", "garbage", "no pages"])
def test_a_lost_segment_is_bridged(path: str, damage: str) -> None:
    original = plain_log()
    disk = original.copy()
    size_bytes = len(disk.content(path))
    if path == LAST:
        # A log that was not closed: the index of its last segment says that there was one.
        disk.remove(LAST.replace(".log", ".index"))
    if damage == "removed":
        disk.remove(path)
        disk.sync_directory(DIRECTORY)
    elif damage == "zeros":
        overwrite(disk, path, 0, bytes(size_bytes))
    elif damage == "empty":
        resize(disk, path, 0)
    elif damage == "half":
        resize(disk, path, positions(original, path)[2] + 11)
    elif damage == "garbage":
        overwrite(disk, path, 0, Random(1).randbytes(size_bytes))
    else:
        overwrite(disk, path, 0, bytes(DATA_START))
    report = run(disk)
    if path == LAST and damage == "garbage":
        # Nothing says how far the log went: to go on would use offsets again.
        assert "restore this file from a copy" in report.refusals[0]
        assert disk.content(path) != original.content(path)
        return
    # Without the last file nothing tells this log from one that ended before.
    is_end_unknown = path == LAST and damage in ("removed", "zeros", "empty")
    check_repaired(disk, original, end_offset=24 if is_end_unknown else None)
    lost = batches_on(original).keys() - batches_on(disk).keys()
    first = int(path.split("/")[1].removesuffix(".log"))
    expected = set(range(first, first + 4))
    if damage == "half":
        expected = set(range(first + 2, first + 4))
        names = [set(each.list_directory(DIRECTORY)) for each in (original, disk)]
        assert [name for name in names[1] - names[0] if name.endswith(".log")] == []
    elif damage == "no pages":
        expected = set()
    assert lost == expected


def test_swapped_segments_get_their_names_back() -> None:
    original = plain_log()
    disk = original.copy()
    swap(disk, FIRST, THIRD)
    made = planned(disk)
    assert made.is_partial
    assert made.lost == []
    run(disk)
    check_repaired(disk, original)
    assert batches_on(disk) == batches_on(original)


def test_the_start_of_a_log_that_is_lost_is_given_up() -> None:
    """Neither the header nor the first batch nor a segment before say which offset it was."""
    make = Drafter()
    make.records(3)
    original = store([[make.records(2), make.records(1)], [make.records(2)]])
    path = f"{DIRECTORY}/{2:020d}.log"
    disk = original.copy()
    overwrite(disk, path, 0, bytes(200))
    disk.flip_bit(path, DATA_START + 9, 1)
    report = run(disk)
    assert not report.refusals
    assert report.after is not None
    assert report.after.start_offset == 5
    check_repaired(disk, original)
    assert batches_on(original).keys() - batches_on(disk).keys() == {2}


def test_offsets_that_the_mark_vouches_for_are_not_used_again() -> None:
    original = plain_log()
    disk = original.copy()
    at = positions(original, LAST)[2]
    overwrite(disk, LAST, at, bytes(len(disk.content(LAST)) - at))
    made = planned(disk)
    assert made.lost == [Span(28, 32)]
    run(disk)
    check_repaired(disk, original, end_offset=32)


def test_what_was_deleted_inside_of_a_segment_stays_deleted() -> None:
    """The start of the log stands in the mark of its last segment, which is made again."""
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 8, values=[b"x" * 100])
    log.advance_commit_floor(8)
    log.advance_start(5)
    log.close()
    disk.flip_bit(FIRST, DATA_START + 90, 1)
    run(disk)
    log = open_log(disk)
    assert (log.start_offset, log.end_offset, log.commit_floor) == (5, 8, 8)
    log.close()


@pytest.mark.parametrize("is_replica", [True, False])
@pytest.mark.parametrize("header_is_lost", [True, False])
def test_without_a_mark_nothing_tells_a_torn_tail_from_lost_batches(
    header_is_lost: bool, is_replica: bool
) -> None:
    disk = plain_log()
    if is_replica:
        HardStateFile(disk, f"{DIRECTORY}/hard-state").save(HardState(Term(1), NodeId("n1")))
    overwrite(disk, LAST, 4096, bytes(8192))
    disk.flip_bit(LAST, positions(plain_log(), LAST)[2] + 90, 1)
    if header_is_lost:
        disk.flip_bit(LAST, 9, 1)
    before = disk.content(LAST)
    report = run(disk)
    assert "no mark says how far it went" in report.refusals[0]
    assert disk.content(LAST) == before


def test_a_torn_tail_is_cut_and_kept() -> None:
    original = SHAPES["never closed"]()
    disk = original.copy()
    last = f"{DIRECTORY}/{disk.list_directory(DIRECTORY)[-1]}"
    end = verify_log(disk, DIRECTORY).segments[-1].end
    overwrite(disk, last, end + 3, b"torn")
    assert [type(action) for action in planned(disk).actions] == [CutTail]
    report = run(disk)
    check_repaired(disk, original)
    assert disk.content(f"{report.kept}/{last.split('/')[1]}.{end}") == b"\0\0\0torn"


@pytest.mark.parametrize(
    ("damage", "action"),
    [
        (lambda disk: disk.flip_bit(FIRST.replace(".log", ".index"), 9, 1), RebuildIndex),
        (lambda disk: overwrite(disk, FIRST, 4096, bytes(8192)), WriteMark),
        (lambda disk: disk.flip_bit(LAST, 8192 + 3, 1), WriteMark),
    ],
)
def test_small_damage_loses_nothing(
    damage: Callable[[SimDisk], None], action: type[object]
) -> None:
    original = plain_log()
    disk = original.copy()
    damage(disk)
    made = planned(disk)
    assert action in [type(each) for each in made.actions]
    assert made.lost == []
    run(disk)
    check_repaired(disk, original)
    assert batches_on(disk) == batches_on(original)


def test_everything_that_is_removed_or_overwritten_is_kept_with_where_it_was() -> None:
    disk = plain_log()
    disk.flip_bit(SECOND, positions(disk, SECOND)[1] + 90, 1)
    disk.flip_bit(THIRD, 20, 1)
    damaged = {path: disk.content(path) for path in (SECOND, THIRD)}
    report = run(disk)
    lines = disk.content(f"{report.kept}/manifest.jsonl").decode().splitlines()
    entries = [json.loads(line) for line in lines]
    whole = {each["from"]: each for each in entries if each["position"] == 0}
    assert disk.content(f"{report.kept}/{whole[SECOND]['file']}") == damaged[SECOND]
    header = disk.content(f"{report.kept}/{whole[THIRD]['file']}")
    assert header == damaged[THIRD][:4096]
    assert all(each["why"] for each in entries)


def test_an_encrypted_segment_is_repaired_without_its_key_and_reads_as_before() -> None:
    original = encrypted()
    disk = original.copy()
    disk.flip_bit(FIRST, DATA_START + HEADER_SIZE + 40, 1)
    report = repair(disk, DIRECTORY, FixedClock(), None)
    assert report.refusals == []
    check_repaired(disk, original)
    for item in dump(disk, DIRECTORY, 0, RING):
        assert isinstance(item, DumpedBatch)
        assert item.plain is not None


def test_an_encrypted_segment_whose_header_is_lost_is_bridged_for_its_key_is_lost_with_it() -> None:
    original = encrypted()
    disk = original.copy()
    disk.flip_bit(FIRST, 90, 1)
    assert planned(disk).lost == [Span(0, 5)]
    run(disk)
    check_repaired(disk, original)
    assert min(batches_on(disk)) == 5


def test_a_replica_is_not_bridged_and_small_damage_is_repaired() -> None:
    disk = plain_log()
    state = HardStateFile(disk, f"{DIRECTORY}/hard-state")
    state.save(HardState(Term(1), NodeId("n1")))
    state.save(HardState(Term(2), NodeId("n2")))
    state.close()
    disk.flip_bit(f"{DIRECTORY}/hard-state", 4096 + 3, 1)
    disk.flip_bit(SECOND, positions(disk, SECOND)[1] + 90, 1)
    disk.flip_bit(THIRD.replace(".log", ".index"), 9, 1)
    damaged = disk.content(SECOND)
    report = run(disk)
    assert any("let a new one take its place" in each for each in report.refusals)
    assert {type(each).__name__ for each in report.actions} == {"RebuildIndex", "RenewHardState"}
    assert disk.content(SECOND) == damaged
    assert report.after is not None
    assert not report.after.is_clean


def test_a_log_that_is_open_is_refused() -> None:
    disk = plain_log()
    lock = disk.lock(f"{DIRECTORY}/lock")
    changes = disk.changes
    with pytest.raises(LogLocked, match="stop the process"):
        run(disk)
    assert disk.changes == changes
    with pytest.raises(LogLocked):
        plan(disk, DIRECTORY, FixedClock())
    lock.release()
    run(disk)
    assert disk.locked == set()


Damage = Callable[[SimDisk], None]


def _bad_batch(disk: SimDisk) -> None:
    disk.flip_bit(SECOND, DATA_START + 90, 1)
    disk.flip_bit(LAST, DATA_START + 90, 1)


def _swapped(disk: SimDisk) -> None:
    swap(disk, FIRST, THIRD)


def _missing(disk: SimDisk) -> None:
    disk.remove(SECOND)
    disk.remove(FIRST)
    disk.sync_directory(DIRECTORY)
    disk.flip_bit(THIRD, 10, 1)


def _pages(disk: SimDisk) -> None:
    overwrite(disk, SECOND, 0, bytes(DATA_START))
    overwrite(disk, LAST, 4096, bytes(8192))


def kept_on(disk: SimDisk) -> list[bytes]:
    """All that repairs have kept of whole files."""
    directories = [name for name in disk.list_directory(DIRECTORY) if name.startswith("removed-")]
    return [
        disk.content(f"{DIRECTORY}/{directory}/{name}")
        for directory in directories
        for name in disk.list_directory(f"{DIRECTORY}/{directory}")
    ]


def _intruder(disk: SimDisk) -> None:
    disk.open(f"{DIRECTORY}/{7:020d}.log", create=True).write_at(0, [b"junk"])
    disk.rename(THIRD, f"{DIRECTORY}/{99:020d}.log")
    disk.open(THIRD, create=True).write_at(0, [b"more junk"])
    disk.sync_directory(DIRECTORY)


def _torn(disk: SimDisk) -> None:
    overwrite(disk, LAST, len(disk.content(LAST)), b"torn" * 500)


@pytest.mark.parametrize("damage", [_bad_batch, _swapped, _missing, _pages, _torn, _intruder])
def test_a_repair_that_dies_at_any_call_can_be_finished(damage: Damage) -> None:
    original = plain_log()
    damaged = original.copy()
    damage(damaged)
    finished = damaged.copy()
    run(finished)
    expected = batches_on(finished)
    change = 0
    while True:
        change += 1
        for seed in range(2):
            disk = damaged.copy()
            disk.rng = Random(seed)
            disk.crash_before(change)
            try:
                run(disk)
                is_done = True
            except SimulatedCrash:
                is_done = False
            disk.crash() if seed else disk.kill()
            report = run(disk)
            assert not report.refusals
            assert batches_on(disk) == expected
            check_repaired(disk, original)
            assert run(disk).actions == []
        if is_done:
            break
    assert change > 3


@pytest.mark.parametrize("damage", [_bad_batch, _swapped, _missing, _pages, _torn, _intruder])
def test_what_was_done_and_what_was_kept_survives_a_power_cut(damage: Damage) -> None:
    damaged = plain_log()
    damage(damaged)
    for seed in range(12):
        disk = damaged.copy()
        disk.rng = Random(seed)
        run(disk)
        kept = kept_on(disk)
        disk.crash()
        assert run(disk).actions == []
        assert kept_on(disk) == kept
        assert damage is _swapped or len(kept) > 1


@pytest.mark.parametrize("damage", [_bad_batch, _missing, _pages])
def test_a_disk_that_refuses_or_is_full_leaves_a_log_that_can_be_repaired(damage: Damage) -> None:
    original = plain_log()
    damaged = original.copy()
    damage(damaged)
    for code, expected in ((errno.EIO, StorageError), (errno.ENOSPC, DiskFull)):
        for change in range(1, 60, 2):
            disk = damaged.copy()
            disk.fail_at(change, code)
            with contextlib.suppress(expected):
                run(disk)
            disk.kill()
            run(disk)
            check_repaired(disk, original)


def test_gaps_take_exactly_the_indexes_and_offsets_that_are_missing() -> None:
    rng = Random(2)
    for _ in range(300):
        indexes = rng.choice([1, 2, 3, 2**32 - 1, 2**32, 2**33])
        offsets = indexes * rng.choice([1, 3]) if indexes > 3 else rng.choice([1, 5, 10**6])
        begin = Point(Index(rng.randrange(1, 99)), Offset(rng.randrange(99)), Term(2), 50)
        end = Point(Index(begin.index + indexes), Offset(begin.offset + offsets), Term(3), 60)
        made = list(gap_batches(Gap(begin, end)))
        index, offset = begin.index, begin.offset
        for batch in made:
            assert isinstance(batch, Batch)
            assert (batch.header.index, batch.header.base_offset) == (index, offset)
            index, offset = batch.header.next_index, batch.header.next_offset
        assert (index, offset) == (end.index, end.offset)


def test_batches_without_records_are_replaced_by_such() -> None:
    begin, end = Point(Index(4), Offset(7), Term(1), 5), Point(Index(6), Offset(7), Term(2), 6)
    assert [each.header.kind for each in gap_batches(Gap(begin, end))] == [Kind.NOOP, Kind.NOOP]


@pytest.mark.parametrize("content", [b"", b"junk", bytes(20_000)])
@pytest.mark.parametrize("first_index", [3, 7, 14, 15])
def test_a_file_with_a_name_inside_of_a_segment_costs_no_record(
    first_index: int, content: bytes
) -> None:
    original = plain_log()
    disk = original.copy()
    disk.open(f"{DIRECTORY}/{first_index:020d}.log", create=True).write_at(0, [content])
    made = planned(disk)
    assert made.lost == []
    report = run(disk)
    assert (report.refusals, bool(report.actions)) == ([], bool(made.actions))
    assert batches_on(disk) == batches_on(original)
    if made.actions:
        check_repaired(disk, original)


@pytest.mark.parametrize("size_bytes", [None, DATA_START])
def test_of_two_segments_that_overlap_none_is_taken_for_the_right_one(
    size_bytes: int | None,
) -> None:
    """A copy of an older state over a newer one: 1 to 8 in one file, and 5 to 8 in their own."""
    make = Drafter()
    disk = store([[make.records(2, 90) for _ in range(8)], [make.records(1)]])
    older = plain_log()
    disk.open(SECOND, create=True).write_at(0, [older.content(SECOND)[:size_bytes]])
    disk.sync_directory(DIRECTORY)
    before = {name: disk.content(f"{DIRECTORY}/{name}") for name in disk.list_directory(DIRECTORY)}
    assert not verify_log(disk, DIRECTORY).report.is_clean
    report = run(disk)
    assert report.actions == []
    assert "begins inside of the segment before it" in report.refusals[0]
    assert {name: disk.content(f"{DIRECTORY}/{name}") for name in before} == before


@pytest.mark.parametrize("damage", ["zeros", "empty", "removed"])
def test_a_last_segment_that_had_an_index_is_not_taken_for_one_never_made(damage: str) -> None:
    disk = plain_log()
    if damage == "removed":
        disk.remove(LAST)
    elif damage == "empty":
        resize(disk, LAST, 0)
    else:
        overwrite(disk, LAST, 0, bytes(len(disk.content(LAST))))
    disk.sync_directory(DIRECTORY)
    assert not verify_log(disk, DIRECTORY).report.is_clean
    report = run(disk)
    assert report.actions == []
    assert "restore" in report.refusals[0]
    if damage != "removed":
        with pytest.raises(Corrupt):
            open_log(disk)


def test_a_last_file_of_zeros_that_has_grown_is_not_taken_for_one_never_made() -> None:
    disk = plain_log()
    disk.remove(LAST.replace(".log", ".index"))
    overwrite(disk, LAST, 0, bytes(RESERVED_BYTES))
    assert verify_log(disk, DIRECTORY).report.is_clean
    resize(disk, LAST, RESERVED_BYTES + 1)
    assert not verify_log(disk, DIRECTORY).report.is_clean
    with pytest.raises(Corrupt):
        open_log(disk)


def with_compacted() -> SimDisk:
    """A compaction of the first two segments that was decided, and these still there."""
    disk = plain_log()
    make = Drafter()
    make.timestamp_ms += 60
    made = store([[make.gap(7, 14), make.records(2, 90)]])
    compacted = f"{DIRECTORY}/{1:020d}.{9:020d}.compacted"
    disk.open(compacted, create=True).write_at(0, [made.content(FIRST)])
    disk.sync_directory(DIRECTORY)
    return disk


COMPACTED = f"{DIRECTORY}/{1:020d}.{9:020d}.compacted"


def test_a_damaged_compacted_file_does_not_take_the_place_of_whole_segments() -> None:
    disk = with_compacted()
    disk.flip_bit(COMPACTED, DATA_START + 80 + HEADER_SIZE + 3, 1)
    report = run(disk)
    assert (report.refusals, report.after and report.after.is_clean) == ([], True)
    assert batches_on(disk) == batches_on(plain_log())
    assert disk.exists(f"{report.kept}/{COMPACTED.split('/')[1]}")


def test_segments_that_a_damaged_compacted_file_replaces_are_kept() -> None:
    disk = with_compacted()
    disk.flip_bit(COMPACTED, DATA_START + 80 + HEADER_SIZE + 3, 1)
    disk.remove(SECOND)
    disk.sync_directory(DIRECTORY)
    first = disk.content(FIRST)
    report = run(disk)
    assert report.after is not None
    assert report.after.is_clean
    assert first in kept_on(disk)


def test_an_attempt_at_a_compaction_is_kept_aside() -> None:
    """Without its header it may be all that is left of its segments."""
    disk = with_compacted()
    overwrite(disk, COMPACTED, 0, bytes(140))
    attempt = disk.content(COMPACTED)
    run(disk)
    assert attempt in kept_on(disk)
    assert batches_on(disk) == batches_on(plain_log())


def test_a_good_segment_under_a_wrong_name_comes_before_a_damaged_one_under_its_own() -> None:
    original = plain_log()
    disk = original.copy()
    disk.rename(SECOND, f"{DIRECTORY}/{99:020d}.log")
    disk.open(SECOND, create=True).write_at(0, [b"junk" * 5000])
    disk.sync_directory(DIRECTORY)
    run(disk)
    assert batches_on(disk) == batches_on(original)
    check_repaired(disk, original)


def test_a_segment_of_another_log_far_behind_is_no_reason_for_a_gap() -> None:
    make = Drafter()
    make.index, make.timestamp_ms, make.offset = 2**40, 9_000, 32
    foreign = store([[make.records(1)]])
    name = f"{DIRECTORY}/{2**40:020d}.log"
    disk = plain_log()
    disk.open(name, create=True).write_at(0, [foreign.content(name)])
    before = batches_on(disk)
    report = run(disk)
    assert report.actions == []
    assert report.refusals
    assert before == batches_on(disk)
    assert batches_on(plain_log()).items() <= before.items()


def test_a_replica_whose_segments_are_gone_is_damaged_and_refused() -> None:
    disk = plain_log()
    HardStateFile(disk, f"{DIRECTORY}/hard-state").save(HardState(Term(1), NodeId("n1")))
    for name in disk.list_directory(DIRECTORY):
        if name != "hard-state":
            disk.remove(f"{DIRECTORY}/{name}")
    assert not verify_log(disk, DIRECTORY).report.is_clean
    assert "let a new one take its place" in run(disk).refusals[0]


def test_a_replica_that_lost_its_end_is_not_told_to_go_on_without_it() -> None:
    disk = plain_log()
    HardStateFile(disk, f"{DIRECTORY}/hard-state").save(HardState(Term(1), NodeId("n1")))
    disk.remove(LAST)
    [refusal] = run(disk).refusals
    assert "let a new one take its place" in refusal
    assert "move that index away" not in refusal


@pytest.mark.parametrize("left_bytes", [0, 5_000, DATA_START])
def test_in_a_replica_that_lost_a_segment_nothing_is_done_over_and_over(left_bytes: int) -> None:
    disk = plain_log()
    HardStateFile(disk, f"{DIRECTORY}/hard-state").save(HardState(Term(1), NodeId("n1")))
    resize(disk, THIRD, left_bytes)
    report = run(disk)
    assert len(report.refusals) == 1
    assert len(report.actions) <= 1
    assert run(disk).actions == []


def test_a_full_disk_is_not_filled_by_halves_of_copies() -> None:
    disk = plain_log()
    disk.flip_bit(SECOND, DATA_START + 90, 1)
    free = disk.copy()
    run(free)
    used = sum(len(disk.content(f"{DIRECTORY}/{name}")) for name in disk.list_directory(DIRECTORY))
    disk.capacity_bytes = used + 5_000
    with pytest.raises(DiskFull, match="is kept in"):
        run(disk)
    [kept] = [name for name in disk.list_directory(DIRECTORY) if name.startswith("removed-")]
    assert disk.list_directory(f"{DIRECTORY}/{kept}") == ["manifest.jsonl"]
    disk.capacity_bytes = None
    run(disk)
    check_repaired(disk, plain_log())


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_to_the_files_no_record_that_can_be_read_is_lost(seed: int) -> None:
    rng = Random(seed)
    original = (plain_log, never_closed, with_compacted)[seed % 3]()
    disk = original.copy()
    for _ in range(rng.choice([1, 2, 3])):
        _mistreat(disk, rng)
    was_clean = verify_log(disk, DIRECTORY, ring=RING).report.is_clean
    readable = batches_on(disk)
    made = planned(disk)
    assert was_clean or made.actions or made.refusals
    report = run(disk)
    assert report.after is not None
    assert report.after.is_clean or report.refusals
    assert run(disk).actions == []
    if report.after.is_clean:
        assert readable.items() <= batches_on(disk).items()
        open_log(disk).close()


def _mistreat(disk: SimDisk, rng: Random) -> None:
    """What people, copies and disks do to files."""
    names = [name for name in disk.list_directory(DIRECTORY) if name != "lock"]
    one, other = (f"{DIRECTORY}/{rng.choice(names)}" for _ in range(2))
    size_bytes = len(disk.content(one))
    match rng.randrange(8):
        case 0 if size_bytes:
            disk.flip_bit(one, rng.randrange(size_bytes), rng.randrange(8))
        case 1:
            resize(disk, one, rng.randrange(size_bytes + 1))
        case 2:
            resize(disk, one, size_bytes + rng.randrange(1, 5_000))
        case 3 if size_bytes:
            overwrite(disk, one, rng.randrange(size_bytes), bytes(rng.randrange(1, 900)))
        case 4 if one != other:
            swap(disk, one, other)
        case 5:
            name = f"{rng.choice([2, 6, 7, 14, 22, 2**64]):020d}.log"
            disk.open(f"{DIRECTORY}/{name}", create=True).write_at(0, [disk.content(one)])
        case 6:
            disk.remove(one)
        case _:
            overwrite(disk, other, 0, disk.content(one))
    disk.sync_directory(DIRECTORY)


def test_a_foreign_segment_behind_costs_nothing_of_the_one_before() -> None:
    """That one knows its own end, though something was written behind it."""
    make = Drafter()
    make.index, make.offset = 5, 2
    foreign = store([[make.records(1)]])
    original = plain_log()
    disk = original.copy()
    overwrite(disk, FIRST, len(disk.content(FIRST)), b"more")
    overwrite(disk, SECOND, 0, foreign.content(SECOND))
    run(disk)
    kept = batches_on(disk).items()
    assert {each for each in batches_on(original).items() if each[0] < 5} <= kept


def refuse_to_read(
    monkeypatch: pytest.MonkeyPatch, disk: SimDisk, path: str, position: int
) -> None:
    """The byte at ``position`` of the file that is at ``path`` now, whatever its name later."""
    bad = disk.open_readonly(path)._inode
    read_at = SimFile.read_at

    def failing(file: SimFile, begin: int, size_bytes: int) -> bytes:
        if file._inode is bad and begin <= position < begin + size_bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_at(file, begin, size_bytes)

    monkeypatch.setattr(SimFile, "read_at", failing)


def test_a_segment_with_a_bad_sector_beside_its_batches_is_written_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = plain_log()
    disk = original.copy()
    refuse_to_read(monkeypatch, disk, SECOND, 4096 + 2000)
    made = planned(disk)
    assert (made.lost, [type(each) for each in made.actions]) == ([], [Rewrite])
    run(disk)
    check_repaired(disk, original)
    assert batches_on(disk) == batches_on(original)


def test_damage_that_nothing_mends_is_refused_and_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = plain_log()
    state = f"{DIRECTORY}/hard-state"
    HardStateFile(disk, state).save(HardState(Term(1), NodeId("n1")))
    refuse_to_read(monkeypatch, disk, state, 20)
    made = planned(disk)
    assert made.actions == []
    assert "nothing here mends that" in made.refusals[0]


def test_a_file_that_shrank_after_it_was_looked_at_is_an_error_and_no_endless_loop() -> None:
    disk = plain_log()
    [run_of_batches] = segments_of(disk)[0].runs
    resize(disk, FIRST, run_of_batches.end - 1)
    with pytest.raises(ProtocolError, match="no batch of"):
        list(batches_of(disk.open_readonly(FIRST), run_of_batches))
