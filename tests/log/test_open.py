"""Opening a log: what it costs, and what it takes from the mark."""

from random import Random

import pytest

from quorumlog.errors import Corrupt
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from sim.disk import SimDisk
from stored.batches import DIRECTORY, FixedClock, append, content, next_batch, open_log, plain


def closed_log(batches: int) -> SimDisk:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, batches, values=[b"x" * 900])
    log.advance_commit_floor(batches // 2)
    log.close()
    return disk


def reads_of_open(disk: SimDisk) -> int:
    before = disk.calls["read"]
    open_log(disk).close()
    return disk.calls["read"] - before


def last_segment(disk: SimDisk) -> str:
    names = [name for name in disk.list_directory(DIRECTORY) if name.endswith(".log")]
    return f"{DIRECTORY}/{names[-1]}"


def test_opening_a_long_log_reads_no_more_than_opening_a_short_one() -> None:
    short, long = closed_log(6), closed_log(600)
    assert len(long.list_directory(DIRECTORY)) > 40 * len(short.list_directory(DIRECTORY))
    assert reads_of_open(long) == reads_of_open(short)


def test_after_a_clean_stop_nothing_is_scanned_and_everything_is_known() -> None:
    disk = closed_log(41)
    log = open_log(disk)
    assert log.recovery.was_closed
    assert log.recovery.scanned_bytes == 0
    assert (log.last_index, log.end_offset, log.last_term) == (41, 41, 1)
    assert log.last_timestamp_ms == 1041
    assert log.commit_floor == 20
    found = content(log)
    assert len(found) == 41
    found += plain(append(log, 3, term=2))
    log.flush()
    disk.kill()
    again = open_log(disk)
    assert not again.recovery.was_closed
    assert content(again) == found


def test_an_empty_log_that_was_closed_is_not_scanned_either() -> None:
    disk = SimDisk(Random(1))
    open_log(disk).close()
    log = open_log(disk)
    assert log.recovery.was_closed
    append(log, 2)
    log.flush()
    assert len(content(log)) == 2


def test_a_log_that_was_written_to_after_a_clean_stop_is_scanned() -> None:
    disk = closed_log(5)
    log = open_log(disk)
    append(log, 1)
    log.flush()
    disk.crash()
    again = open_log(disk)
    assert not again.recovery.was_closed
    assert again.last_index == 6


def test_a_clean_stop_without_its_index_file_walks_the_headers() -> None:
    disk = closed_log(7)
    expected = content(open_log(disk.copy()))
    disk.remove(last_segment(disk).replace(".log", ".index"))
    log = open_log(disk)
    assert log.recovery.was_closed
    assert content(log) == expected
    assert next(log.headers(7)).index == 7


def test_a_file_cut_behind_a_clean_stop_is_corruption() -> None:
    disk = closed_log(5)
    path = last_segment(disk)
    file = disk.open(path)
    file.truncate(file.size_bytes() - 1)
    file.sync()
    with pytest.raises(Corrupt):
        open_log(disk)


def test_a_segment_is_read_for_the_first_time_when_it_is_needed() -> None:
    disk = closed_log(60)
    log = open_log(disk)
    expected = [f"{index}-1-".encode() for index in range(1, 61)]
    for index in (31, 2, 60, 17):
        (batch,) = log.slice(index, 1)
        assert expected[index - 1] in bytes(batch.body)
    assert log.index_of_offset(44) == 45
    assert log.term_at(13) == 1
    assert log.offset_for_time(1_000 + 23, 60) == 22


class MovingClock(FixedClock):
    def wall_ms(self) -> int:
        return int(self.now_s * 1000)


def test_a_segment_of_a_certain_age_is_sealed() -> None:
    clock = MovingClock()
    log = Log.open(SimDisk(Random(1)), DIRECTORY, LogConfig(segment_age_s=60), clock)
    log.append([next_batch(log)])
    clock.now_s = 59.0
    log.append([next_batch(log)])
    assert len(log.segments()) == 1
    clock.now_s = 60.0
    log.append([next_batch(log)])
    log.flush()
    assert [info.first_index for info in log.segments()] == [1, 3]
