"""A compacted file that could not take its place: what the log does with it, and around it."""

import errno
from dataclasses import replace
from random import Random

import pytest

from quorumlog.errors import Closed, Corrupt, StorageError
from quorumlog.log.batch import Batch, BatchHeader, Kind
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log, SegmentInfo
from quorumlog.log.mark import Mark, MarkPages
from quorumlog.log.paths import compacted_name
from quorumlog.log.segment import DATA_START
from quorumlog.types import Index
from sim.disk import SimDisk, SimFile, SimulatedCrash
from stored.batches import DIRECTORY, FixedClock, append, content, open_log

CONFIG = LogConfig(
    segment_bytes=2048, index_interval_bytes=256, tail_cache_bytes=0, max_open_segments=3
)


class CountedDisk(SimDisk):
    """Knows how many files are open for reading."""

    def __init__(self, seed: int) -> None:
        super().__init__(Random(seed))
        self.opened: list[SimFile] = []
        self.refuses_to_open = False

    def open_readonly(self, path: str) -> SimFile:
        if self.refuses_to_open and path.endswith(".compacted"):
            raise OSError(errno.EMFILE, "too many open files", path)
        file = super().open_readonly(path)
        self.opened.append(file)
        return file

    @property
    def handles(self) -> int:
        return sum(not file._is_closed for file in self.opened)


def filled(seed: int = 1, batches: int = 40) -> tuple[CountedDisk, Log]:
    disk = CountedDisk(seed)
    log = open_log(disk, CONFIG)
    append(log, batches, values=[b"x" * 150])
    log.flush()
    log.advance_commit_floor(log.last_index)
    return disk, log


def write_compacted(disk: SimDisk, log: Log, old: list[SegmentInfo]) -> str:
    """Write the compacted file of ``old``: one gap and the last batch. Returns its path."""
    batches = [each for each in log.batches(old[0].first_index) if _is_before(each, old[-1])]
    first, last = batches[0].header, batches[-1].header
    gap = BatchHeader(
        body_crc=0,
        body_length=0,
        record_count=last.base_offset - first.base_offset,
        index=first.index,
        term=first.term,
        base_offset=first.base_offset,
        timestamp_ms=batches[-2].header.timestamp_ms,
        kind=Kind.GAP,
        index_count=last.index - first.index,
    )
    data = gap.encode() + bytes(batches[-1].head) + bytes(batches[-1].body)
    path = f"{DIRECTORY}/{compacted_name(old[0].first_index, old[-1].next_index)}"
    file = disk.open(path, create=True)
    file.write_at(DATA_START, [data])
    end = DATA_START + len(data)
    mark = Mark(
        last.index, end, last.next_offset, last.term, last.timestamp_ms, Index(0), log.start_offset
    )
    MarkPages().store(file, mark)
    file.sync()
    disk.sync_directory(DIRECTORY)
    header = old[0].segment.header
    file.write_at(0, [replace(header, generation=header.generation + 1).encode()])
    file.sync()
    file.close()
    return path


def _is_before(batch: Batch, info: SegmentInfo) -> bool:
    return batch.header.index < info.next_index


def records(log: Log) -> list[int]:
    """The indexes of the batches that hold records."""
    batches = log.batches(log.start_index)
    return [each.header.index for each in batches if each.header.kind is Kind.RECORDS]


@pytest.mark.parametrize("how", ["power cut", "killed", "closed"])
def test_retention_goes_on_behind_a_replacement_that_failed_at_any_call(how: str) -> None:
    """No crash later may put the compacted file in front of a log that has moved on."""
    whole = [each for each, _ in enumerate(content(filled()[1]), 1)]
    failed = 0
    for change in range(1, 60):
        disk, log = filled(change)
        old = log.segments()[:3]
        write_compacted(disk, log, old)
        before = disk.changes
        disk.fail_at(change)
        try:
            log.upkeep.replace(old)
        except StorageError:
            failed += 1
        is_over = disk.changes - before < change
        expected = [old[2].next_index - 1, *whole[old[2].next_index - 1 :]]
        assert records(log) == expected
        log.advance_start(log.segments()[2].base_offset)
        log.flush()
        assert log.remove_deleted() == 2
        assert not [name for name in disk.list_directory(DIRECTORY) if "compacted" in name]
        first = int(log.start_index)
        if how == "closed":
            log.close()
        elif how == "killed":
            disk.kill()
        else:
            disk.crash()
        again = open_log(disk, CONFIG)
        assert again.start_index == first
        assert records(again) == whole[first - 1 :]
        if is_over:
            break
    else:
        pytest.fail("a replacement takes more calls than were tried")
    assert failed > 5


def test_what_failed_once_is_brought_to_its_end_by_the_next_upkeep() -> None:
    for change in range(1, 8):
        for upkeep in range(3):
            disk, log = filled(change)
            old = log.segments()[:3]
            write_compacted(disk, log, old)
            disk.fail_at(change)
            with pytest.raises(StorageError):
                log.upkeep.replace(old)
            infos = log.segments()
            assert infos[0].generation == 1
            assert infos[0].next_index == old[2].next_index
            if upkeep == 0:
                assert log.remove_deleted() == 0
            elif upkeep == 1:
                log.upkeep.set_cleaned(infos[0], 7, 0, 0)
            else:
                write_compacted(disk, log, infos[1:2])
                assert log.upkeep.replace(infos[1:2])
            assert not [name for name in disk.list_directory(DIRECTORY) if "compacted" in name]
            expected = records(log)
            cleaned_to = log.segments()[0].cleaned_to
            disk.kill()
            again = open_log(disk, CONFIG)
            assert records(again) == expected
            assert again.segments()[0].cleaned_to == cleaned_to == (7 if upkeep == 1 else 0)


def test_nothing_is_removed_as_long_as_a_replacement_cannot_be_finished() -> None:
    disk, log = filled()
    infos = log.segments()
    write_compacted(disk, log, infos[:2])
    disk.refuses_to_open = True
    with pytest.raises(StorageError, match="too many open files"):
        log.upkeep.replace(infos[:2])
    log.advance_start(infos[3].base_offset)
    with pytest.raises(StorageError, match="too many open files"):
        log.remove_deleted()
    assert log.start_index == 1
    disk.refuses_to_open = False
    assert log.remove_deleted() == 2
    disk.kill()
    assert open_log(disk, CONFIG).start_index == infos[3].first_index


def test_a_damaged_compacted_file_is_thrown_away_and_nothing_else() -> None:
    disk, log = filled()
    expected = content(log)
    old = log.segments()[:2]
    path = write_compacted(disk, log, old)
    disk.flip_bit(path, DATA_START + 9, 3)
    before = disk.handles
    with pytest.raises(Corrupt):
        log.upkeep.replace(old)
    assert disk.handles == before
    assert not disk.exists(path)
    assert log.remove_deleted() == 0
    disk.crash()
    assert content(open_log(disk, CONFIG)) == expected


def test_a_compacted_file_of_what_was_deleted_meanwhile_is_no_hole_after_a_power_cut() -> None:
    """It is finished, and so decided, when its segments and some behind them are gone."""
    outcomes = set()
    for change in range(1, 6):
        disk, log = filled(change)
        infos = log.segments()
        path = write_compacted(disk, log, infos[:2])
        log.advance_start(infos[3].base_offset)
        log.flush()
        assert log.remove_deleted() == 3
        disk.crash_before(change)
        try:
            assert not log.upkeep.replace(infos[:2])
            outcomes.add("done")
        except SimulatedCrash:
            outcomes.add("crashed")
        disk.crash()
        again = open_log(disk, CONFIG)
        assert again.start_index == infos[3].first_index
        assert records(again) == list(range(infos[3].first_index, 41))
        assert not disk.exists(path)
    assert outcomes == {"done", "crashed"}


def test_replaced_segments_keep_no_more_files_open_than_the_limit() -> None:
    disk, log = filled(batches=200)
    number = 0
    while not (infos := log.segments())[number].is_active:
        write_compacted(disk, log, infos[number : number + 1])
        assert log.upkeep.replace(infos[number : number + 1])
        number += 1
        assert disk.handles <= CONFIG.max_open_segments
    assert number > 10
    log.close()
    assert disk.handles == 0


def test_a_replacement_that_never_succeeds_leaves_no_file_open_when_the_log_is_closed() -> None:
    for change in range(1, 6):
        disk, log = filled(change)
        old = log.segments()[:2]
        write_compacted(disk, log, old)
        disk.fail_at(change)
        with pytest.raises(StorageError):
            log.upkeep.replace(old)
        log.close()
        assert disk.handles == 0


def test_a_log_that_is_closed_takes_no_replacement() -> None:
    disk, log = filled()
    old = log.segments()[:2]
    write_compacted(disk, log, old)
    log.close()
    changes = disk.changes
    with pytest.raises(Closed):
        log.upkeep.replace(old)
    assert disk.changes == changes
    again = Log.open(disk, DIRECTORY, CONFIG, FixedClock())
    assert again.recovery.compactions_finished == 1
    assert again.segments()[0].generation == 1


def test_a_damaged_compacted_file_that_cannot_be_removed_is_not_forgotten() -> None:
    """Its header is valid: the next open would take it for what was decided."""
    disk, log = filled()
    whole = records(log)
    old = log.segments()[:3]
    path = write_compacted(disk, log, old)
    disk.flip_bit(path, DATA_START + 9, 3)
    disk.fail_at(1)
    with pytest.raises(StorageError) as caught:
        log.upkeep.replace(old)
    assert not isinstance(caught.value, Corrupt)
    assert disk.exists(path)
    log.advance_start(old[0].next_offset)
    with pytest.raises(Corrupt):
        log.remove_deleted()
    assert not disk.exists(path)
    assert log.start_index == 1
    assert log.remove_deleted() == 1
    log.close()
    again = Log.open(disk, DIRECTORY, CONFIG, FixedClock())
    assert records(again) == whole[old[0].next_index - 1 :]


def test_segments_that_were_replaced_take_no_space_once_nobody_reads_them() -> None:
    disk, log = filled()
    old = log.segments()[:3]
    write_compacted(disk, log, old)
    for info in old:
        assert log.slice(info.first_index, 1)
    assert log.upkeep.replace(old)
    # Of the new one.
    assert disk.handles == 1


class RecordedDisk(CountedDisk):
    """Notes the kinds of the changing calls to the directory."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.kinds: list[str] = []

    def count(self, kind: str, path: str) -> None:
        super().count(kind, path)
        if kind in ("remove", "rename", "sync_directory"):
            self.kinds.append(kind)


def test_the_segments_are_gone_for_good_before_the_file_takes_the_name_of_the_first() -> None:
    """The simulated disk keeps the order of what a directory is told; not every real one does."""
    disk = RecordedDisk(1)
    log = open_log(disk, CONFIG)
    append(log, 40, values=[b"x" * 150])
    log.flush()
    log.advance_commit_floor(log.last_index)
    old = log.segments()[:3]
    write_compacted(disk, log, old)
    disk.kinds.clear()
    assert log.upkeep.replace(old)
    # Two segments with their indexes, and the index of the first.
    assert disk.kinds == [*["remove"] * 5, "sync_directory", "rename", "sync_directory"]
