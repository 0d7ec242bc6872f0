"""Segments that go, move or change in the middle of what somebody else does.

Another thread is played by a hook: it runs in a chosen call to the disk, where no lock is held.
"""

from collections.abc import Callable
from itertools import count
from random import Random

import pytest

from quorumlog.errors import Closed, Corrupt, DiskFull, IndexOutOfRange
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from quorumlog.log.paths import index_path_of
from sim.disk import SimDisk, SimFile
from stored.batches import DIRECTORY, append, content, open_log, plain

COLD = LogConfig(segment_bytes=2048, index_interval_bytes=256, tail_cache_bytes=0)
"""Nothing that was flushed is read from memory."""


class HookedDisk(SimDisk):
    """Calls ``hook`` once, in the ``at``-th call of ``kind`` from now on, before that is done."""

    def __init__(self) -> None:
        super().__init__(Random(1))
        self.hook: tuple[Callable[[], object], str, int] | None = None
        self.has_come = False
        self.opened: list[SimFile] = []

    def call(self, hook: Callable[[], object], kind: str, at: int) -> None:
        self.hook = hook, kind, self.calls[kind] + at

    def count(self, kind: str, path: str) -> None:
        super().count(kind, path)
        if self.hook is not None and self.hook[1:] == (kind, self.calls[kind]):
            hook, self.hook = self.hook[0], None
            self.has_come = True
            hook()

    def open_readonly(self, path: str) -> SimFile:
        file = super().open_readonly(path)
        self.opened.append(file)
        return file

    @property
    def handles(self) -> int:
        """How many files are open for reading."""
        return sum(not file._is_closed for file in self.opened)


def filled(config: LogConfig = COLD) -> tuple[HookedDisk, Log]:
    disk = HookedDisk()
    log = open_log(disk, config)
    append(log, 40, values=[b"x" * 150])
    log.flush()
    return disk, log


def at_every_call(
    prepare: Callable[[], tuple[HookedDisk, Log]],
    hook: Callable[[Log], object],
    action: Callable[[HookedDisk, Log], None],
) -> int:
    """Run ``action`` with ``hook`` in each of its reads and opens; returns how many these were.

    ``action`` may take the hook away for what is not to be disturbed.
    """
    tried = 0
    for kind in ("read", "open"):
        for at in count(1):
            disk, log = prepare()
            disk.call(lambda log=log: hook(log), kind, at)  # type: ignore[misc]
            action(disk, log)
            if not disk.has_come:
                break
            tried += 1
    return tried


def deleted() -> tuple[HookedDisk, Log]:
    """A log of which some segments wait to be removed; what is not open is not known either."""
    disk, log = filled()
    log.advance_commit_floor(20)
    log.advance_start(15)
    log.close()
    return disk, open_log(disk, COLD)


def test_a_truncation_finds_its_segment_although_the_first_ones_are_removed_meanwhile() -> None:
    whole = content(filled()[1])

    def truncate(disk: HookedDisk, log: Log) -> None:
        log.truncate(27)
        disk.hook = None
        appended = plain(append(log, 3, term=2))
        log.flush()
        expected = whole[log.start_index - 1 : 26] + appended
        assert content(log) == expected
        disk.kill()
        assert content(open_log(disk, COLD)) == expected

    assert at_every_call(deleted, Log.remove_deleted, truncate) > 3


def test_reads_go_on_with_the_new_start_when_segments_are_removed_meanwhile() -> None:
    whole = content(filled()[1])

    def read(_: HookedDisk, log: Log) -> None:
        assert log.offset_for_time(0, 40) == 15
        assert log.offset_for_time(1_030, 40) == 29
        assert plain(log.batches_before(12, 1))[-1:] in ([], whole[10:11])
        assert log.fetch(15, 1, 40).next_offset == 16

    assert at_every_call(deleted, Log.remove_deleted, read) > 3


def test_a_term_before_the_start_is_found_when_the_start_comes_to_it() -> None:
    second = filled()[1].segments()[1]

    def prepare() -> tuple[HookedDisk, Log]:
        disk, log = filled()
        log.advance_commit_floor(20)
        log.advance_start(second.base_offset)
        log.close()
        return disk, open_log(disk, COLD)

    def read(disk: HookedDisk, log: Log) -> None:
        assert log.term_at(second.first_index - 1) == 1
        assert log.start_index == (second.first_index if disk.has_come else 1)

    assert at_every_call(prepare, Log.remove_deleted, read) > 0


def test_what_is_committed_is_read_although_the_segment_is_cut_behind_it_meanwhile() -> None:
    """Without its index file: that is made again from a segment that ends elsewhere by now."""

    def prepare() -> tuple[HookedDisk, Log]:
        disk, log = filled()
        segment = log.segments()[1]
        log.advance_commit_floor(segment.next_index - 4)
        log.close()
        disk.remove(index_path_of(segment.path))
        return disk, open_log(disk, COLD)

    def cut(log: Log) -> None:
        log.truncate(log.commit_floor + 1)
        append(log, 1, term=2)
        log.flush()

    def read(_: HookedDisk, log: Log) -> None:
        index = log.commit_floor
        assert log.slice(index - 1, 1)[0].header.index == index - 1
        assert log.fetch(index - 1, 1, index).next_offset == index
        assert log.term_at(index) == 1
        assert log.offset_for_time(1_000 + index, index) == index - 1
        assert log.batches_before(index + 1, 1)[-1].header.index == index

    assert at_every_call(prepare, cut, read) > 10


def test_a_segment_is_not_loaded_twice_when_it_is_cut_meanwhile() -> None:
    def prepare() -> tuple[HookedDisk, Log]:
        disk, log = filled()
        log.advance_commit_floor(22)
        log.close()
        return disk, open_log(disk, COLD)

    whole = content(filled()[1])

    def cut(log: Log) -> None:
        log.truncate(24)

    def read(disk: HookedDisk, log: Log) -> None:
        assert log.slice(22, 1)[0].header.index == 22
        disk.hook = None
        if not disk.has_come:
            log.truncate(24)
        appended = plain(append(log, 1, term=2, values=[b"y"]))
        log.flush()
        disk.kill()
        assert content(open_log(disk, COLD)) == whole[:23] + appended

    assert at_every_call(prepare, cut, read) > 3


def test_a_log_that_is_closed_while_somebody_reads_keeps_no_handle() -> None:
    def read(disk: HookedDisk, log: Log) -> None:
        try:
            for _ in log.batches(1):
                pass
        except Closed:
            pass
        disk.hook = None
        log.close()
        assert disk.handles == 0

    def prepare() -> tuple[HookedDisk, Log]:
        disk, log = filled()
        log.close()
        return disk, open_log(disk, COLD)

    assert at_every_call(prepare, Log.close, read) > 10


def test_a_segment_file_that_somebody_took_away_is_corruption_to_every_call() -> None:
    _, log = filled()
    middle = log.segments()[2]
    calls: list[Callable[[Log], object]] = [
        lambda log: log.truncate(middle.first_index + 2),
        lambda log: log.truncate(middle.first_index),
        lambda log: log.slice(middle.first_index, 1),
        lambda log: log.fetch(middle.base_offset, 1, 40),
        lambda log: log.term_at(middle.first_index),
        lambda log: log.offset_for_time(1_000 + middle.first_index + 1, 40),
        lambda log: log.batches_before(middle.next_index, 1),
        lambda log: next(log.headers(middle.first_index)),
        lambda log: log.segments(),
        lambda log: (
            log.advance_commit_floor(middle.first_index - 1),
            log.advance_start(middle.base_offset),
        ),
    ]
    for call in calls:
        disk, log = filled()
        log.close()
        log = open_log(disk, COLD)
        disk.remove(middle.path)
        with pytest.raises(Corrupt):
            call(log)


def test_a_log_that_was_closed_meanwhile_is_not_truncated() -> None:
    def truncate(disk: HookedDisk, log: Log) -> None:
        try:
            log.truncate(38)
        except Closed:
            assert log.last_index == 40
            again = open_log(disk, COLD)
            assert (again.last_index, again.recovery.was_closed) == (40, True)
        else:
            assert not disk.has_come
            assert log.last_index == 37

    assert at_every_call(filled, Log.close, truncate) > 1


def test_a_start_that_moves_twice_at_once_is_the_later_one() -> None:
    disk, log = filled()
    log.close()
    log = open_log(disk, COLD)
    log.advance_commit_floor(20)
    disk.call(lambda: log.advance_start(18), "read", 1)
    log.advance_start(5)
    assert disk.hook is None
    assert log.start_offset == 18


def test_batches_in_memory_that_were_deleted_cannot_be_read_either() -> None:
    _, log = filled(LogConfig(segment_bytes=2048))
    log.advance_commit_floor(40)
    log.advance_start(30)
    assert log.remove_deleted()
    with pytest.raises(IndexOutOfRange):
        log.slice(log.start_index - 1, 1)


def test_a_segment_of_no_ops_stays_until_they_are_committed() -> None:
    disk = HookedDisk()
    log = open_log(disk, COLD)
    append(log, 5)
    log.roll()
    append(log, 1, values=[])
    log.roll()
    log.flush()
    log.advance_commit_floor(5)
    log.advance_start(5)
    assert log.remove_deleted() == 1
    assert log.start_index == 6
    log.truncate(6)
    append(log, 1, term=2, values=[])
    log.flush()
    assert log.term_at(6) == 2
    log.advance_commit_floor(6)
    log.roll()
    log.flush()
    assert log.remove_deleted() == 1
    assert (log.start_index, log.start_offset, log.term_at(6)) == (7, 5, 2)


def test_a_segment_is_left_alone_while_the_flush_that_sealed_it_goes_on() -> None:
    """A leader may commit what others have, before its own disk has taken it."""
    disk = HookedDisk()
    log = open_log(disk, COLD)
    append(log, 8, values=[b"x" * 150])
    log.roll()
    append(log, 1, values=[b"y" * 200_000])
    log.advance_commit_floor(9)
    disk.capacity_bytes = 160_000
    with pytest.raises(DiskFull):
        log.flush()
    assert log.durable_index == 0
    assert len(disk.list_directory(DIRECTORY)) == 3  # The first is sealed: it has an index.
    assert [info.is_active for info in log.segments()] == [True, True]
    log.advance_start(8)
    assert log.remove_deleted() == 0
    assert len(list(log.batches(1))) == 9
    disk.capacity_bytes = None
    log.flush()
    assert [info.is_active for info in log.segments()] == [False, True]
    assert log.remove_deleted() == 1
