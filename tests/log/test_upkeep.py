"""Sealing on request, deleting from the front, replacing segments, and who reads meanwhile."""

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from quorumlog.errors import IndexOutOfRange, InvariantViolation, OffsetOutOfRange, StorageError
from quorumlog.log.batch import HEADER_SIZE, Batch, BatchHeader, Kind
from quorumlog.log.log import Log, SegmentInfo
from quorumlog.log.mark import Mark, MarkPages
from quorumlog.log.paths import compacted_name
from quorumlog.log.segment import DATA_START
from quorumlog.types import Index
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import DIRECTORY, append, content, open_log

CUT = 12


def filled(disk: SimDisk | None = None) -> tuple[SimDisk, Log]:
    disk = disk or SimDisk(Random(1))
    log = open_log(disk)
    append(log, 40, values=[b"x" * 150])
    log.flush()
    log.advance_commit_floor(log.last_index)
    return disk, log


def gap(first: BatchHeader, last: BatchHeader) -> BatchHeader:
    return BatchHeader(
        body_crc=0,
        body_length=0,
        record_count=last.next_offset - first.base_offset,
        index=first.index,
        term=first.term,
        base_offset=first.base_offset,
        timestamp_ms=last.timestamp_ms,
        kind=Kind.GAP,
        index_count=last.next_index - first.index,
    )


def compact(disk: SimDisk, log: Log, old: list[SegmentInfo], keep: set[int]) -> None:
    """Write the compacted file of ``old`` with the batches in ``keep`` and gaps for the others."""
    batches = [
        batch
        for batch in log.batches(old[0].first_index)
        if batch.header.index < old[-1].next_index
    ]
    parts: list[bytes] = []
    run: list[Batch] = []
    for batch in batches:
        if batch.header.index not in keep:
            run.append(batch)
            continue
        if run:
            parts.append(gap(run[0].header, run[-1].header).encode())
            run = []
        parts.append(bytes(batch.head) + bytes(batch.body))
    if run:
        parts.append(gap(run[0].header, run[-1].header).encode())
    data = b"".join(parts)
    last = batches[-1].header
    file = disk.open(
        f"{DIRECTORY}/{compacted_name(old[0].first_index, old[-1].next_index)}", create=True
    )
    file.write_at(DATA_START, [data])
    file.sync()
    end = DATA_START + len(data)
    mark = Mark(
        last.index, end, last.next_offset, last.term, last.timestamp_ms, Index(0), log.start_offset
    )
    MarkPages().store(file, mark)
    header = old[0].segment.header
    file.write_at(0, [replace(header, generation=header.generation + 1).encode()])
    file.sync()
    disk.sync_directory(DIRECTORY)
    file.close()


def test_segments_are_told_with_their_bounds() -> None:
    _, log = filled()
    infos = log.segments()
    assert len(infos) > 3
    assert [info.is_active for info in infos] == [False] * (len(infos) - 1) + [True]
    assert (infos[0].first_index, infos[-1].next_index) == (1, 41)
    for before, info in pairwise(infos):
        assert before.next_index == info.first_index
        assert before.next_offset == info.base_offset
        assert before.last_timestamp_ms == 1_000 + info.first_index - 1
        assert info.first_timestamp_ms == 1_000 + info.first_index


def test_rolling_seals_what_is_there_and_an_empty_segment_not_again() -> None:
    disk, log = filled()
    count = len(log.segments())
    assert log.roll()
    assert not log.roll()
    log.flush()
    infos = log.segments()
    assert len(infos) == count + 1
    assert infos[-1].first_index == 41
    append(log, 1)
    log.flush()
    log.close()
    again = open_log(disk)
    assert len(content(again)) == 41
    assert [info.first_index for info in again.segments()][-1] == 41


def test_a_segment_that_was_rolled_can_be_truncated_away() -> None:
    log = open_log(SimDisk(Random(2)))
    append(log, 5)
    log.roll()
    log.truncate(4)
    append(log, 1, term=2)
    log.flush()
    assert [header.term for header in log.headers(1)] == [1, 1, 1, 2]
    append(log, 2, term=2)
    log.roll()
    log.flush()
    log.truncate(5)
    log.flush()
    assert len(log.segments()) == 1
    append(log, 1, term=3)
    log.flush()
    assert log.last_term == 3


def test_what_is_deleted_cannot_be_read_and_its_segments_go() -> None:
    disk, log = filled()
    before = disk.list_directory(DIRECTORY)
    log.advance_start(CUT)
    assert log.start_offset == CUT
    with pytest.raises(OffsetOutOfRange) as refused:
        log.fetch(CUT - 1, 1, 40)
    assert refused.value.start == CUT
    with pytest.raises(OffsetOutOfRange):
        log.index_of_offset(CUT - 1)
    assert log.fetch(CUT, 1, 40).next_offset == CUT + 1
    assert log.offset_for_time(0, 40) == CUT
    removed = log.remove_deleted()
    assert removed > 0
    assert len(disk.list_directory(DIRECTORY)) == len(before) - 2 * removed
    assert log.start_index <= CUT + 1
    assert log.segments()[0].next_offset > CUT
    with pytest.raises(IndexOutOfRange):
        log.slice(1, 1)
    log.advance_start(3)
    assert log.start_offset == CUT
    log.close()
    again = open_log(disk)
    assert again.start_offset == CUT
    assert again.term_at(again.start_index - 1) == 1


def test_a_start_that_was_flushed_survives_a_power_cut_and_costs_no_more_later() -> None:
    disk, log = filled()
    log.advance_start(CUT)
    assert log.dirty
    log.flush()
    assert not log.dirty
    disk.crash()
    assert open_log(disk).start_offset == CUT


def test_nothing_that_is_not_committed_can_be_deleted() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 10)
    log.flush()
    log.advance_commit_floor(4)
    with pytest.raises(InvariantViolation, match="committed"):
        log.advance_start(5)
    log.advance_start(4)
    assert log.start_offset == 4


def test_everything_committed_can_be_deleted_and_offsets_go_on() -> None:
    disk, log = filled()
    log.roll()
    log.flush()
    log.advance_start(40)
    log.remove_deleted()
    assert [info.first_index for info in log.segments()] == [41]
    log.close()
    log = open_log(disk)
    assert (log.start_offset, log.end_offset, log.next_index) == (40, 40, 41)
    assert log.term_at(40) == 1
    append(log, 1)
    log.flush()
    assert log.fetch(40, 1, 41).next_offset == 41


def test_a_power_cut_while_segments_are_removed_leaves_the_end_of_the_log() -> None:
    _, log = filled()
    expected = content(log)
    for change in range(1, 40):
        disk, log = filled(SimDisk(Random(change)))
        log.advance_start(33)
        log.flush()
        disk.crash_before(change)
        try:
            log.remove_deleted()
            finished = True
        except SimulatedCrash:
            finished = False
        disk.crash()
        again = open_log(disk)
        assert content(again) == expected[again.start_index - 1 :]
        assert again.start_offset == 33
        again.remove_deleted()
        assert again.segments()[0].next_offset > 33
        if finished:
            break
    else:
        pytest.fail("removing takes more calls than were tried")


def test_a_segment_that_cannot_be_removed_is_removed_by_the_next_call() -> None:
    disk, log = filled()
    log.advance_start(33)
    disk.fail_at(1)
    with pytest.raises(StorageError):
        log.remove_deleted()
    assert log.remove_deleted() > 0
    firsts = [name for name in disk.list_directory(DIRECTORY) if name.endswith(".log")]
    assert f"{DIRECTORY}/{firsts[0]}" == log.segments()[0].path


def test_a_reader_reads_the_segment_it_is_in_although_it_is_removed() -> None:
    _, log = filled()
    infos = log.segments()
    stream = log.stream(1)
    first = next(stream)
    headers = log.headers(1)
    next(headers)
    log.advance_start(infos[2].base_offset)
    log.remove_deleted()
    seen = [batch.header.index for batch in first]
    with pytest.raises(IndexOutOfRange):
        seen.extend(batch.header.index for batches in stream for batch in batches)
    assert seen == list(range(1, infos[0].next_index))
    rest = [1]
    with pytest.raises(IndexOutOfRange):
        rest.extend(header.index for header in headers)
    assert rest == seen


def test_compacted_segments_take_the_place_of_several() -> None:
    disk, log = filled()
    infos = log.segments()
    old = infos[1:3]
    keep = {old[0].first_index + 1, old[1].next_index - 1}
    compact(disk, log, old, keep)
    expected = [
        pair
        for number, pair in enumerate(content(log), 1)
        if not old[0].first_index <= number < old[1].next_index or number in keep
    ]
    stream = log.stream(old[0].first_index)
    next(stream)
    assert log.upkeep.replace(old)
    found = [batch for batch in log.batches(1) if batch.header.kind is Kind.RECORDS]
    assert [(bytes(batch.head), bytes(batch.body)) for batch in found] == expected
    assert len(log.segments()) == len(infos) - 1
    assert log.segments()[1].generation == 1
    assert next(stream)[-1].header.index >= old[1].first_index
    assert log.fetch(old[0].base_offset, 1, 40).next_offset == old[0].base_offset + 1
    assert log.index_of_offset(old[0].base_offset + 4) > old[0].first_index + 1
    log.close()
    again = open_log(disk)
    found = [batch for batch in again.batches(1) if batch.header.kind is Kind.RECORDS]
    assert [(bytes(batch.head), bytes(batch.body)) for batch in found] == expected
    for offset in range(40):
        assert again.fetch(offset, 1, 40).next_offset > offset


def test_every_index_in_a_gap_leads_to_the_gap() -> None:
    disk, log = filled()
    old = log.segments()[:1]
    compact(disk, log, old, set())
    log.upkeep.replace(old)
    for index in range(1, old[0].next_index):
        (batch,) = log.slice(index, HEADER_SIZE)
        assert (batch.header.kind, batch.header.index) == (Kind.GAP, 1)
        assert log.term_at(index) == 1
        assert next(log.headers(index)).index == 1
    assert log.batches_before(old[0].next_index, 1)[0].header.kind is Kind.GAP


def test_a_power_cut_at_every_call_of_a_replacement_leaves_the_old_or_the_new() -> None:
    _, log = filled()
    whole = content(log)
    finished = []
    for change in range(1, 60):
        disk, log = filled(SimDisk(Random(change)))
        old = log.segments()[:3]
        disk.crash_before(change)
        try:
            compact(disk, log, old, {2})
            log.upkeep.replace(old)
            is_done = True
        except SimulatedCrash:
            is_done = False
        disk.crash()
        again = open_log(disk)
        records = [batch for batch in again.batches(1) if batch.header.kind is Kind.RECORDS]
        kept = [(bytes(batch.head), bytes(batch.body)) for batch in records]
        is_new = kept == [whole[1], *whole[old[2].next_index - 1 :]]
        assert is_new or kept == whole
        assert is_new or not is_done
        finished.append(again.recovery.compactions_finished)
        assert not [name for name in disk.list_directory(DIRECTORY) if "compacted" in name]
        append(again, 1, term=2)
        again.flush()
        disk.kill()
        assert open_log(disk).last_index == 41
        if is_done:
            break
    assert sum(finished) > 2
    assert is_done


def test_a_compacted_file_of_segments_that_are_gone_is_thrown_away() -> None:
    disk, log = filled()
    old = log.segments()[:2]
    compact(disk, log, old, {1})
    log.advance_start(old[0].next_offset)
    log.remove_deleted()
    assert not log.upkeep.replace(old)
    assert not [name for name in disk.list_directory(DIRECTORY) if "compacted" in name]
    assert log.start_index == old[1].first_index
    assert next(log.headers(log.start_index)).index == old[1].first_index


def test_what_is_said_of_a_clean_segment_is_durable() -> None:
    disk, log = filled()
    info = log.segments()[1]
    log.upkeep.set_cleaned(info, 30, 20, 777)
    disk.crash()
    again = open_log(disk)
    found = again.segments()[1]
    assert (found.cleaned_to, found.horizon_offset, found.horizon_ms) == (30, 20, 777)
    assert content(again)


def test_reading_backwards_gives_every_batch_once() -> None:
    for tail_cache in ("warm", "cold"):
        disk, log = filled()
        if tail_cache == "cold":
            log.close()
            log = open_log(disk)
        for max_bytes in (1, 500, 3000, 10**6):
            seen: list[int] = []
            index = int(log.next_index)
            while batches := log.batches_before(index, max_bytes):
                numbers = [batch.header.index for batch in batches]
                assert numbers == sorted(numbers)
                seen = numbers + seen
                index = numbers[0]
            assert seen == list(range(1, 41))


def test_a_fetch_is_bounded_by_records() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 10, values=[b"a", b"b", b"c"])
    log.flush()
    for cold in (False, True):
        if cold:
            log.close()
            log = open_log(disk)
        assert log.fetch(0, 10**6, 30, max_records=7).next_offset == 6
        assert log.fetch(0, 10**6, 30, max_records=1).next_offset == 3
        assert log.fetch(0, 10**6, 30, max_records=30).next_offset == 30
