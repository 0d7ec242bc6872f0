"""Verify finds every kind of damage, says where it is, and changes nothing."""

import errno
import json
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import Corrupt, UnusableDirectory
from quorumlog.log.batch import HEADER_SIZE, Batch, Draft
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.inspection.damage import Finding, Flaw, Severity, Span
from quorumlog.log.inspection.find_logs import find_logs
from quorumlog.log.inspection.log_report import LogReport
from quorumlog.log.inspection.verify import verify, verify_log
from quorumlog.log.leftovers import take_place
from quorumlog.log.mark import MarkPages
from quorumlog.log.paths import segment_name
from quorumlog.log.records import encode_body
from quorumlog.log.segment import DATA_START
from quorumlog.log.state_snapshot import StateSnapshot, save_snapshot
from quorumlog.replication.catch_up.starting_over import Note, check_kept, write_note
from quorumlog.types import Index, NodeId, Offset, RecordData, Term
from sim.disk import SimDisk, SimFile
from stored.batches import DIRECTORY, append, open_log
from stored.shapes import RING, SHAPES, Drafter, Shape, encrypted, plain_log, store

FIRST = f"{DIRECTORY}/{1:020d}.log"
SECOND = f"{DIRECTORY}/{5:020d}.log"


def report_of(disk: SimDisk, **options: Any) -> LogReport:
    """Verified with the keys, and without a change to the disk."""
    before = everything(disk)
    changes = disk.changes
    report = verify_log(disk, DIRECTORY, **{"ring": RING, **options}).report
    assert disk.changes == changes
    assert everything(disk) == before
    return report


def everything(disk: SimDisk) -> dict[str, bytes]:
    paths = [f"{DIRECTORY}/{name}" for name in disk.list_directory(DIRECTORY)]
    return {path: disk.content(path) for path in paths}


def only(report: LogReport) -> Finding:
    """What was found, notes about files without a meaning aside."""
    [finding] = [each for each in report.findings if each.flaw != Flaw.UNKNOWN_FILE]
    return finding


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


def sizes(disk: SimDisk, path: str) -> list[int]:
    """Of the batches of an undamaged segment."""
    found = [each for each in verify_log(disk, DIRECTORY).segments if each.source.path == path]
    run = found[0].survey.runs[0]
    result, position = [], run.position
    raw = disk.content(path)
    while position < run.end:
        size_bytes = HEADER_SIZE + int.from_bytes(raw[position + 8 : position + 12], "little")
        result.append(size_bytes)
        position += size_bytes
    return result


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_an_undamaged_log_is_clean(shape: Shape) -> None:
    report = report_of(shape())
    assert report.is_clean
    assert report.findings == []


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_flipped_bit_is_reported(shape: Shape) -> None:
    """No byte is left out that means something; of pages of zeros some samples are taken."""
    original = shape()
    rng = Random(3)
    found = 0
    for name in original.list_directory(DIRECTORY):
        path = f"{DIRECTORY}/{name}"
        raw = original.content(path)
        used = [at for at in range(len(raw)) if raw[at]]
        places = {*used[:: max(len(used) // 150, 1)], *range(0, len(raw), 1021)}
        places |= set(range(min(len(raw), 144)))
        if name.endswith(".log"):
            places |= set(range(DATA_START, min(DATA_START + HEADER_SIZE, len(raw))))
        if name.endswith(".index") and shape is not SHAPES["never closed"]:
            places |= set(range(min(56, len(raw))))
        for position in sorted(places):
            bit = rng.randrange(8)
            original.flip_bit(path, position, bit)
            report = verify_log(original, DIRECTORY, ring=RING).report
            original.flip_bit(path, position, bit)
            found += 1
            assert report.findings, (path, position, bit)
            # What nobody reads may be only noted; all else keeps a log from being clean.
            flaws = {finding.flaw for finding in report.findings}
            if flaws == {Flaw.PADDING}:
                assert is_padding(position, path)
            elif flaws == {Flaw.UNFINISHED}:
                # The header of an empty log: the next open makes a new one.
                assert shape is SHAPES["empty"]
            else:
                assert not report.is_clean, (path, position, bit)
    assert found > 150


def is_padding(position: int, path: str) -> bool:
    """Whether the byte is of the first three pages of a segment, behind what stands in them."""
    used = (140, 104, 104)
    page, at = divmod(position, 4096)
    return path.endswith(".log") and page < 3 and at >= used[page]


def test_a_bad_body_is_named_with_file_position_and_offsets() -> None:
    disk = plain_log()
    disk.flip_bit(FIRST, DATA_START + sizes(disk, FIRST)[0] + HEADER_SIZE + 5, 2)
    report = report_of(disk)
    finding = only(report)
    assert (finding.severity, finding.flaw) == (Severity.DAMAGE, Flaw.BATCHES)
    assert (finding.file, finding.position) == (FIRST, DATA_START + sizes(plain_log(), FIRST)[0])
    assert (finding.indexes, finding.offsets) == (Span(2, 3), Span(2, 4))
    assert "checksum" in finding.found
    assert report.counts.batches == 15
    assert report.end_offset == 32


def test_what_is_behind_a_bad_header_is_found_again() -> None:
    disk = plain_log()
    disk.flip_bit(FIRST, DATA_START + sizes(disk, FIRST)[0] + 20, 2)
    report = report_of(disk)
    assert (only(report).indexes, only(report).offsets) == (Span(2, 3), Span(2, 4))
    assert report.counts.batches == 15


def test_several_damaged_places_of_a_segment_are_told_apart() -> None:
    disk = plain_log()
    size_bytes = sizes(disk, FIRST)[0]
    disk.flip_bit(FIRST, DATA_START + 20, 2)
    disk.flip_bit(FIRST, DATA_START + 2 * size_bytes + 100, 2)
    report = report_of(disk)
    assert [finding.offsets for finding in report.findings] == [Span(0, 2), Span(4, 6)]


@pytest.mark.parametrize(
    ("skipped", "size_bytes"),
    [(3, 20), (3, 3000), (2, 20), (2, 3000)],
    ids=["later", "later and larger", "the same", "the same and larger"],
)
def test_a_batch_inside_of_a_record_is_not_taken_for_one(skipped: int, size_bytes: int) -> None:
    """The header of a batch rots whose record holds batches that would fit behind it."""
    later = Drafter()
    for _ in range(skipped):
        later.records(1)
    later.offset += skipped - 2
    inner = [later.records(1, size_bytes), later.records(1, size_bytes)]
    make = Drafter()
    batches = [make.records(1), make.records(1)]
    trap = b"".join(bytes(each.head) + bytes(each.body) for each in inner[: skipped - 1])
    batches += [carrying(make, trap), *(make.records(1) for _ in range(12))]
    disk = store([batches, [make.records(1)]])
    assert report_of(disk).is_clean
    position = DATA_START + batches[0].size_bytes + batches[1].size_bytes
    disk.flip_bit(FIRST, position + 20, 2)
    report = report_of(disk)
    assert (only(report).indexes, only(report).offsets) == (Span(3, 4), Span(2, 3))


def test_an_index_whose_entries_are_not_so_is_found() -> None:
    disk = plain_log()
    path = FIRST.replace(".log", ".index")
    raw = bytearray(disk.content(path))
    # The position of the second entry: the second column, behind a head of 56 bytes.
    count = int.from_bytes(raw[48:56], "little")
    at = 56 + 8 * count + 8
    for change in (1, -1):
        wrong = raw.copy()
        position = int.from_bytes(raw[at : at + 8], "little") + change
        wrong[at : at + 8] = position.to_bytes(8, "little")
        wrong[4:8] = crc32c(bytes(wrong[8:])).to_bytes(4, "little")
        overwrite(disk, path, 0, bytes(wrong))
        assert (only(report_of(disk)).flaw, only(report_of(disk)).file) == (Flaw.INDEX, path)
    wrong = raw.copy()
    # Its term: the last column.
    wrong[56 + 32 * count + 8] ^= 1
    wrong[4:8] = crc32c(bytes(wrong[8:])).to_bytes(4, "little")
    overwrite(disk, path, 0, bytes(wrong))
    assert only(report_of(disk)).flaw == Flaw.INDEX


@pytest.mark.parametrize("path", [FIRST, f"{DIRECTORY}/{13:020d}.log"])
@pytest.mark.parametrize("field", ["next_offset", "term", "timestamp_ms"])
def test_a_mark_that_the_batches_contradict_is_found(path: str, field: str) -> None:
    disk = plain_log()
    file, marks = disk.open(path), MarkPages()
    mark = marks.load(file)
    assert mark is not None
    marks.store(file, replace(mark, **{field: getattr(mark, field) + 1}))
    file.sync()
    file.close()
    finding = only(report_of(disk))
    assert (finding.flaw, finding.file, finding.severity) == (Flaw.MARK, path, "repairable")


def test_a_batch_with_another_number_of_records_is_damage() -> None:
    body = encode_body([RecordData(b"one"), RecordData(b"two")])
    wrong = Draft.of(body, 3).stamp(1, 1, 0, 1_000)
    assert "2 records, not 3" in only(report_of(store([[wrong]]))).found


def carrying(make: Drafter, value: bytes) -> Batch:
    """The next batch, with one record of that value."""
    draft = Draft.of(encode_body([RecordData(value)]), 1)
    batch = draft.stamp(make.index, make.term, make.offset, make.timestamp_ms)
    make.index, make.offset = make.index + 1, make.offset + 1
    return batch


def test_a_body_that_does_not_hold_what_its_header_says_is_damage() -> None:
    wrong = Draft.of(b"no protobuf", 3).stamp(1, 1, 0, 1_000)
    report = report_of(store([[wrong]]))
    assert only(report).flaw == Flaw.BATCHES
    assert "RecordBatch" in only(report).found
    assert report_of(store([[wrong]]), with_records=False).is_clean


def test_a_segment_that_lost_its_end_says_how_far_it_went() -> None:
    disk = plain_log()
    size_bytes = sizes(disk, FIRST)[0]
    resize(disk, FIRST, DATA_START + 2 * size_bytes + 30)
    report = report_of(disk)
    finding = next(each for each in report.findings if each.flaw == Flaw.BATCHES)
    assert (finding.indexes, finding.offsets) == (Span(3, 5), Span(4, 8))
    resize(disk, FIRST, DATA_START + 2 * size_bytes)
    finding = next(each for each in report_of(disk).findings if each.flaw == Flaw.BATCHES)
    assert (finding.offsets, finding.found) == (Span(4, 8), "the end of the file")


def test_a_last_segment_that_lost_what_its_mark_vouches_for_is_damaged() -> None:
    disk = plain_log()
    last = f"{DIRECTORY}/{13:020d}.log"
    resize(disk, last, DATA_START + 10)
    finding = only(report_of(disk))
    assert (finding.severity, finding.offsets) == (Severity.DAMAGE, Span(24, 32))


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_missing_segment_is_found(number: int) -> None:
    disk = plain_log()
    name = f"{1 + 4 * number:020d}"
    disk.remove(f"{DIRECTORY}/{name}.log")
    disk.remove(f"{DIRECTORY}/{name}.index")
    report = report_of(disk)
    if number == 3:
        # The end of the log is not known from elsewhere: this is a log that was not closed.
        assert report.end_offset == 24
        return
    finding = only(report)
    assert finding.severity == Severity.DAMAGE
    assert finding.flaw == (Flaw.MISSING_SEGMENT if number else Flaw.MISSING_START)
    assert finding.offsets == Span(8 * number, 8 * number + 8)


def test_swapped_segments_are_misplaced_and_nothing_is_lost() -> None:
    disk = plain_log()
    disk.rename(FIRST, "swap")
    disk.rename(SECOND, FIRST)
    disk.rename("swap", SECOND)
    report = report_of(disk)
    assert {each.flaw for each in report.findings} == {Flaw.MISPLACED}
    assert {each.severity for each in report.findings} == {Severity.REPAIRABLE}
    assert report.counts.batches == 16


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_segment_of_zeros_is_found(number: int) -> None:
    disk = plain_log()
    path = f"{DIRECTORY}/{1 + 4 * number:020d}.log"
    overwrite(disk, path, 0, bytes(len(disk.content(path))))
    if number == 3:
        # Its index says that it held batches.
        assert [each.flaw for each in report_of(disk).findings] == [Flaw.HEADER, Flaw.MARK]
        assert report_of(disk).findings[1].severity == Severity.DAMAGE
        disk.remove(path.replace(".log", ".index"))
    report = report_of(disk)
    assert not report.is_clean or number == 3
    if number < 3:
        assert Span(8 * number, 8 * number + 8) in [each.offsets for each in report.findings]
    else:
        assert only(report).flaw == Flaw.UNFINISHED


def test_a_torn_tail_is_not_damage_and_rot_below_the_mark_is() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 3)
    log.flush()
    disk.kill()
    end = verify_log(disk, DIRECTORY).segments[-1].end
    overwrite(disk, FIRST, end + 7, b"torn")
    report = report_of(disk)
    assert (only(report).severity, only(report).flaw) == (Severity.REPAIRABLE, Flaw.TORN_TAIL)
    assert only(report).position == end
    disk.flip_bit(FIRST, end - 1, 0)
    assert {each.severity for each in report_of(disk).findings} == {
        Severity.DAMAGE,
        Severity.REPAIRABLE,
    }


def test_an_open_log_is_read_as_far_as_it_is_synced() -> None:
    disk = SimDisk(Random(1))
    lock = disk.lock(f"{DIRECTORY}/lock") if disk.make_directory(DIRECTORY) is None else None
    log = open_log(disk)
    append(log, 25, values=[b"x" * 200])
    log.flush()
    end = log.end_offset
    append(log, 1)
    # As if a write were under way: behind the mark anything may stand.
    last = f"{DIRECTORY}/{disk.list_directory(DIRECTORY)[-2]}"
    report = verify_log(disk, DIRECTORY).report
    assert (report.is_open, report.is_clean, report.end_offset) == (True, True, end)
    overwrite(disk, last, len(disk.content(last)) - 3, b"x")
    assert verify_log(disk, DIRECTORY).report.is_clean
    assert lock is not None
    lock.release()
    assert not verify_log(disk, DIRECTORY).report.is_clean


def test_deletion_and_compaction_of_an_open_log_are_no_damage() -> None:
    """Whatever is done to the segments at whatever read: files vanish and are joined."""
    for moment in range(1, 16):
        for joins in (True, False):
            disk = plain_log()
            lock = disk.lock(f"{DIRECTORY}/lock")
            calls = 0

            def change(_: int, disk: SimDisk = disk, at: int = moment, joins: bool = joins) -> None:
                nonlocal calls
                calls += 1
                if calls == at:
                    join_first_three(disk) if joins else remove_first_two(disk)

            report = verify_log(disk, DIRECTORY, progress=change).report
            assert report.is_clean, [str(each) for each in report.findings]
            assert report.end_offset == 32
            lock.release()


def join_first_three(disk: SimDisk) -> None:
    make = Drafter()
    make.timestamp_ms += 110
    gap = store([[make.gap(12, 24)]])
    name = f"{DIRECTORY}/{1:020d}.{13:020d}.compacted"
    disk.open(name, create=True).write_at(0, [gap.content(FIRST)])
    take_place(disk, DIRECTORY, Index(1), Index(13), [Index(5), Index(9)])


def remove_first_two(disk: SimDisk) -> None:
    for path in (FIRST, SECOND):
        disk.remove(path.replace(".log", ".index"))
        disk.remove(path)


def test_a_segment_that_an_open_log_lacks_is_damage() -> None:
    disk = plain_log()
    disk.remove(SECOND)
    lock = disk.lock(f"{DIRECTORY}/lock")
    report = verify_log(disk, DIRECTORY).report
    assert only(report).flaw == Flaw.MISSING_SEGMENT
    assert only(report).offsets == Span(8, 16)
    lock.release()


def test_without_keys_an_encrypted_log_is_checked_as_it_is_stored() -> None:
    report = report_of(encrypted(), ring=None)
    assert report.is_clean
    assert (only(report).severity, only(report).flaw) == (Severity.NOTE, Flaw.NOT_CHECKED)
    assert "4 batches" in only(report).found
    disk = encrypted()
    disk.flip_bit(FIRST, DATA_START + HEADER_SIZE + 20, 1)
    assert not report_of(disk, ring=None).is_clean


def test_what_a_crash_left_of_a_compaction_is_looked_at_as_the_next_open_sees_it() -> None:
    disk = plain_log()
    make = Drafter()
    make.timestamp_ms += 70
    gap = store([[make.gap(8, 16)]])
    name = f"{DIRECTORY}/{1:020d}.{9:020d}.compacted"
    disk.open(name, create=True).write_at(0, [gap.content(FIRST)])
    report = report_of(disk)
    assert report.is_clean
    assert (report.segments, report.counts.batches) == (3, 9)
    # Without a valid header it is an attempt that came to nothing.
    disk.flip_bit(name, 8, 0)
    report = report_of(disk)
    assert (report.segments, report.counts.batches, report.is_clean) == (4, 16, True)


def test_unknown_files_are_noted_and_what_was_kept_aside_is_not_a_log() -> None:
    disk = plain_log()
    for name in ("README", f"{99:020d}.index", "state.new"):
        disk.open(f"{DIRECTORY}/{name}", create=True)
    disk.make_directory(f"{DIRECTORY}/removed-2026")
    report = report_of_files(disk)
    assert [each.flaw for each in report.findings] == [
        Flaw.UNKNOWN_FILE,
        Flaw.UNFINISHED,
        Flaw.UNKNOWN_FILE,
    ]
    assert report.is_clean
    assert find_logs(disk, ".") == [f"./{DIRECTORY}"]


def report_of_files(disk: SimDisk) -> LogReport:
    return verify_log(disk, DIRECTORY, ring=RING).report


def replica() -> SimDisk:
    disk = plain_log()
    state = HardStateFile(disk, f"{DIRECTORY}/hard-state")
    state.save(HardState(Term(1), NodeId("n1")))
    state.save(HardState(Term(2), None))
    state.close()
    snapshot = StateSnapshot(Index(4), Term(1), Offset(8), 1_000, b"", b"state")
    save_snapshot(disk, DIRECTORY, snapshot)
    return disk


def test_hard_states_and_snapshots_are_verified_too() -> None:
    disk = replica()
    report = report_of(disk)
    assert report.is_clean
    assert report.is_replica
    disk.flip_bit(f"{DIRECTORY}/{4:020d}.state", 50, 1)
    disk.flip_bit(f"{DIRECTORY}/hard-state", 4096 + 5, 1)
    assert [each.flaw for each in report_of(disk).findings] == [
        Flaw.HARD_STATE,
        Flaw.STATE_SNAPSHOT,
    ]
    for slot in (0, 2, 3):
        disk.flip_bit(f"{DIRECTORY}/hard-state", slot * 4096 + 5, 1)
    assert report_of(disk).findings[0].severity == Severity.DAMAGE


@pytest.mark.parametrize("segments", ["none", "unborn", "empty"])
@pytest.mark.parametrize("is_recovering", [False, True])
def test_a_replica_without_a_log_is_damaged_where_it_does_not_open(
    segments: str, is_recovering: bool
) -> None:
    disk = SimDisk(Random(1))
    disk.make_directory(DIRECTORY)
    if segments != "none":
        open_log(disk).close()
    if segments == "unborn":
        disk.open(f"{DIRECTORY}/{segment_name(1)}").truncate(0)
    HardStateFile(disk, f"{DIRECTORY}/hard-state").save(HardState(Term(3), NodeId("n1")))
    if is_recovering:
        write_note(disk, DIRECTORY, Note(0, 0, ""))
    try:
        check_kept(disk, DIRECTORY)
        opens = True
    except Corrupt:
        opens = False
    assert opens == (segments == "empty" or is_recovering)
    findings = report_of(disk).findings
    assert opens == all(each.severity is not Severity.DAMAGE for each in findings)


def test_all_logs_of_a_cluster_are_found_below_its_directory() -> None:
    disk = SimDisk(Random(1))
    for node in ("node1", "node2"):
        for group in ("0", "1"):
            twin = store([[Drafter().records(1)]])
            path = f"dev/{node}/groups/{group}"
            disk.make_directory(path)
            for name in twin.list_directory(DIRECTORY):
                file = disk.open(f"{path}/{name}", create=True)
                file.write_at(0, [twin.content(f"{DIRECTORY}/{name}")])
        disk.open(f"dev/{node}/node.json", create=True)
    reports = verify(disk, "dev/")
    assert [each.directory for each in reports] == [
        f"dev/{node}/groups/{group}" for node in ("node1", "node2") for group in ("0", "1")
    ]
    assert all(each.is_clean for each in reports)
    lock = disk.lock("dev/node1/node.lock")
    assert [each.is_open for each in verify(disk, "dev")] == [True, True, False, False]
    lock.release()


def test_a_directory_without_a_log_is_refused_with_the_way_out() -> None:
    disk = SimDisk(Random(1))
    with pytest.raises(UnusableDirectory, match="cannot be read"):
        verify(disk, "nosuch")
    disk.make_directory("bare")
    with pytest.raises(UnusableDirectory, match="there is no log in bare"):
        verify(disk, "bare")


def test_a_sector_that_the_disk_refuses_is_one_finding_and_the_rest_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = plain_log()
    bad = DATA_START + sizes(disk, FIRST)[0]
    read_at: Callable[[SimFile, int, int], bytes] = SimFile.read_at

    def failing(file: SimFile, position: int, size_bytes: int) -> bytes:
        is_hit = position <= bad < position + size_bytes
        if is_hit and file._path == FIRST:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_at(file, position, size_bytes)

    monkeypatch.setattr(SimFile, "read_at", failing)
    report = verify_log(disk, DIRECTORY).report
    refused = [each.position for each in report.findings if each.flaw == Flaw.UNREADABLE]
    assert refused == [bad - bad % 4096]
    assert report.counts.batches == 12


def test_progress_counts_every_byte_once() -> None:
    disk = plain_log()
    told: list[int] = []
    report = verify_log(disk, DIRECTORY, progress=told.append).report
    assert sum(told) == report.size_bytes
    assert json.dumps(told)


def test_a_bad_sector_behind_the_end_or_in_a_mark_hides_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mark that can be read counts, and all batches are read."""
    disk = SHAPES["never closed"]()
    segments = verify_log(disk, DIRECTORY).segments
    last = segments[-1]
    bad = {4096, 8192} - {4096 + 4096 * (_newest_slot(disk, last.source.path))}
    bad.add(last.size_bytes - 10_000)
    read_at: Callable[[SimFile, int, int], bytes] = SimFile.read_at

    def failing(file: SimFile, position: int, size_bytes: int) -> bytes:
        if file._path == last.source.path and any(
            position <= each < position + size_bytes for each in bad
        ):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_at(file, position, size_bytes)

    clean = verify_log(disk, DIRECTORY).report
    monkeypatch.setattr(SimFile, "read_at", failing)
    report = verify_log(disk, DIRECTORY).report
    assert [each.flaw for each in report.findings] == [Flaw.UNREADABLE] * 2
    assert report.end_offset == clean.end_offset
    assert report.counts.batches == clean.counts.batches


def _newest_slot(disk: SimDisk, path: str) -> int:
    numbers = [disk.content(path)[at + 4 : at + 12] for at in (4096, 8192)]
    return max((0, 1), key=lambda slot: int.from_bytes(numbers[slot], "little"))


def test_adjoining_bad_sectors_are_one_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SHAPES["never closed"]()
    path = verify_log(disk, DIRECTORY).segments[-1].source.path
    read_at: Callable[[SimFile, int, int], bytes] = SimFile.read_at

    def failing(file: SimFile, position: int, size_bytes: int) -> bytes:
        if file._path == path and position < 65_536 and position + size_bytes > 24_576:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_at(file, position, size_bytes)

    monkeypatch.setattr(SimFile, "read_at", failing)
    [finding] = verify_log(disk, DIRECTORY).report.findings
    assert (finding.position, finding.expected) == (24_576, "40960 readable bytes")


def test_an_index_file_that_claims_more_than_it_is_takes_no_memory() -> None:
    disk = plain_log()
    path = FIRST.replace(".log", ".index")
    disk.open(path).allocate(50_000_000)
    tracemalloc.start()
    assert only(report_of_files(disk)).flaw == Flaw.INDEX
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_an_open_log_is_listed_a_few_times_however_many_segments_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 300, values=[b"x" * 200])
    log.flush()
    lock = disk.lock(f"{DIRECTORY}/lock")
    listed: list[str] = []
    list_directory = disk.list_directory
    monkeypatch.setattr(
        disk, "list_directory", lambda path: listed.append(path) or list_directory(path)
    )
    report = verify_log(disk, DIRECTORY).report
    assert (report.is_clean, report.is_open, report.counts.batches) == (True, True, 300)
    assert report.segments > 30
    assert len(listed) <= 3
    lock.release()
    log.close()


@pytest.mark.parametrize("name", ["²²².state", "7.state", "foo.index", "99.log", "lock.log"])
def test_names_that_only_look_like_those_of_a_log_are_noted(name: str) -> None:
    disk = plain_log()
    disk.open(f"{DIRECTORY}/{name}", create=True)
    report = report_of(disk)
    assert report.is_clean
    assert [each.flaw for each in report.findings] == [Flaw.UNKNOWN_FILE]


def test_a_group_that_cannot_be_read_is_damage_and_one_that_is_gone_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimDisk(Random(1))
    twin = store([[Drafter().records(1)]])
    for group in ("0", "1", "2"):
        path = f"node/groups/{group}"
        disk.make_directory(path)
        for name in twin.list_directory(DIRECTORY):
            file = disk.open(f"{path}/{name}", create=True)
            file.write_at(0, [twin.content(f"{DIRECTORY}/{name}")])
    list_directory = disk.list_directory
    listed: list[str] = []

    def failing(path: str) -> list[str]:
        listed.append(path)
        if path.endswith("/1"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        if path.endswith("/2") and listed.count(path) == 2:
            disk.remove_directory(path)
        return list_directory(path)

    monkeypatch.setattr(disk, "list_directory", failing)
    reports = verify(disk, "node")
    assert [(each.directory, each.is_clean) for each in reports] == [
        ("node/groups/0", True),
        ("node/groups/1", False),
    ]


def test_a_log_that_is_opened_and_closed_meanwhile_is_read_again() -> None:
    """What was half written when it was read is no damage."""
    disk = plain_log()
    last = f"{DIRECTORY}/{13:020d}.log"
    disk.flip_bit(last, DATA_START + 90, 1)
    told: list[int] = []

    def mend(size_bytes: int) -> None:
        told.append(size_bytes)
        if sum(told) > 50_000 and len(told) < 100:
            told.extend([0] * 100)
            disk.flip_bit(last, DATA_START + 90, 1)
            open_log(disk).close()

    report = verify_log(disk, DIRECTORY, progress=mend).report
    assert report.is_clean


def test_a_hard_state_that_is_being_written_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = replica()
    path = f"{DIRECTORY}/hard-state"
    lock = disk.lock(f"{DIRECTORY}/lock")
    disk.flip_bit(path, 5, 1)
    read_at = SimFile.read_at
    reads = 0

    def written(file: SimFile, position: int, size_bytes: int) -> bytes:
        nonlocal reads
        reads += file._path == path
        if reads == 5:
            reads = 100
            disk.flip_bit(path, 5, 1)
        return read_at(file, position, size_bytes)

    monkeypatch.setattr(SimFile, "read_at", written)
    assert verify_log(disk, DIRECTORY).report.is_clean
    lock.release()
