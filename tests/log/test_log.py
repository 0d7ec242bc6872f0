"""What the log promises, one promise a test."""

import errno
import threading
from pathlib import Path
from random import Random

import pytest

from quorumlog.errors import (
    Closed,
    ConfigError,
    IndexOutOfRange,
    InvariantViolation,
    OffsetOutOfRange,
    StorageError,
    UnusableDirectory,
)
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from quorumlog.system import SystemClock, SystemDisk
from sim.disk import SimDisk, SimFile
from stored.batches import (
    DIRECTORY,
    SMALL,
    FixedClock,
    append,
    content,
    next_batch,
    open_log,
    plain,
)


def fresh(seed: int = 1) -> tuple[SimDisk, Log]:
    disk = SimDisk(Random(seed))
    return disk, open_log(disk)


def test_an_empty_log_is_ready() -> None:
    _, log = fresh()
    assert (log.start_index, log.next_index, log.last_index) == (1, 1, 0)
    assert (log.start_offset, log.end_offset, log.last_term) == (0, 0, 0)
    assert (log.durable_index, log.unflushed_bytes, log.dirty) == (0, 0, False)
    assert log.term_at(0) == 0
    assert log.slice(1, 100) == []
    assert log.fetch(0, 100, 0).data == b""
    assert log.offset_for_time(5, 0) == 0
    assert list(log.headers(1)) == []
    assert log.flush().last_index == 0


def test_an_append_is_visible_at_once_and_durable_after_the_flush() -> None:
    disk, log = fresh()
    appended = append(log, 3)
    assert (log.last_index, log.durable_index, log.dirty) == (3, 0, True)
    assert log.unflushed_bytes == sum(batch.size_bytes for batch in appended)
    assert log.slice(1, 10_000) == appended
    flushed = log.flush()
    assert (flushed.last_index, flushed.last_term) == (3, 1)
    assert (log.durable_index, log.unflushed_bytes, log.dirty) == (3, 0, False)
    disk.crash()
    assert content(open_log(disk)) == plain(appended)


def test_one_flush_of_many_batches_takes_one_fdatasync() -> None:
    disk, log = fresh()
    append(log, 9)
    before = disk.calls["sync"]
    log.flush()
    assert disk.calls["sync"] == before + 1


def test_a_flush_without_work_touches_nothing() -> None:
    disk, log = fresh()
    append(log, 1)
    log.flush()
    before = disk.changes
    log.flush()
    assert disk.changes == before


@pytest.mark.parametrize(
    ("index", "term", "offset", "timestamp_ms"),
    [(4, 2, 2, 9_000), (3, 1, 2, 9_000), (3, 2, 1, 9_000), (3, 2, 2, 10)],
    ids=["index", "term", "offset", "timestamp"],
)
def test_a_batch_that_does_not_continue_the_log_is_refused_and_changes_nothing(
    index: int, term: int, offset: int, timestamp_ms: int
) -> None:
    _, log = fresh()
    append(log, 2, term=2)
    before = content(log)
    good = next_batch(log, 2)
    bad = next_batch(log, 2).header
    draft_like = type(good)(
        type(bad)(bad.body_crc, bad.body_length, 1, index, term, offset, timestamp_ms),  # type: ignore[arg-type]
        good.head,
        good.body,
    )
    with pytest.raises(InvariantViolation, match="cannot follow"):
        log.append([draft_like])
    assert content(log) == before
    log.append([good])


def test_nothing_committed_can_be_truncated() -> None:
    _, log = fresh()
    append(log, 5)
    log.advance_commit_floor(3)
    log.advance_commit_floor(2)
    assert log.commit_floor == 3
    with pytest.raises(InvariantViolation, match="committed"):
        log.truncate(3)
    assert log.last_index == 5
    log.truncate(4)
    assert log.last_index == 3
    with pytest.raises(InvariantViolation, match="committed"):
        log.advance_commit_floor(4)


def test_the_commit_floor_survives_a_restart() -> None:
    disk, log = fresh()
    append(log, 5)
    log.advance_commit_floor(4)
    log.flush()
    disk.kill()
    log = open_log(disk)
    assert log.commit_floor == 4
    log.close()
    disk.crash()
    assert open_log(disk).commit_floor == 4


def test_what_is_truncated_before_it_was_written_never_reaches_the_disk() -> None:
    disk, log = fresh()
    append(log, 2)
    log.flush()
    before = disk.calls["write"]
    append(log, 30, values=[b"x" * 200])
    log.truncate(3)
    assert not log.dirty
    assert log.unflushed_bytes == 0
    log.flush()
    assert disk.calls["write"] == before


def test_a_truncation_while_a_flush_is_under_way_limits_what_it_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, log = fresh()
    append(log, 5, term=1)
    real_sync = SimFile.sync
    calls: list[int] = []

    def sync_and_truncate(self: SimFile) -> None:
        real_sync(self)
        if not calls:
            calls.append(1)
            log.truncate(3)
            append(log, 4, term=2)

    monkeypatch.setattr(SimFile, "sync", sync_and_truncate)
    flushed = log.flush()
    assert (flushed.last_index, flushed.last_term) == (2, 1)
    assert log.durable_index == 2
    expected = content(log)
    flushed = log.flush()
    assert (flushed.last_index, flushed.last_term) == (6, 2)
    disk.crash()
    assert content(open_log(disk)) == expected


def test_reads_after_a_truncation_use_no_place_remembered_from_before() -> None:
    log = open_log(SimDisk(Random(1)), LogConfig(tail_cache_bytes=0))
    append(log, 6, values=[b"x" * 100])
    log.flush()
    for first in range(1, 6):
        log.slice(first, 1)
    log.truncate(2)
    append(log, 6, term=2, values=[b"y" * 30])
    log.flush()
    for first in range(1, 8):
        assert log.slice(first, 1)[0].header.index == first


def test_a_segment_that_is_cut_loses_its_index_file() -> None:
    disk, log = fresh()
    append(log, 30, values=[b"x" * 100])
    log.flush()
    path = f"{DIRECTORY}/{1:020d}.index"
    assert disk.exists(path)
    log.truncate(4)
    log.flush()
    assert not disk.exists(path)
    assert disk.list_directory(DIRECTORY) == [f"{1:020d}.log"]


def test_terms_are_known_for_every_index_of_sealed_segments_too() -> None:
    disk, log = fresh()
    terms = [1 + number // 4 for number in range(60)]
    for term in terms:
        append(log, 1, term=term, values=[b"x" * 90])
    log.close()
    log = open_log(disk)
    assert [log.term_at(index) for index in range(61)] == [0, *terms]
    for index in (-1, 61):
        with pytest.raises(IndexOutOfRange):
            log.term_at(index)


def test_fetch_leaves_out_what_is_no_record_and_stops_at_the_end_given() -> None:
    disk, log = fresh()
    for _ in range(6):
        append(log, 1, values=[b"a", b"b"])
        append(log, 2, values=[])
    log.flush()
    for reopened in (False, True):
        if reopened:
            log.close()
            log = open_log(disk)
        fetched = log.fetch(3, 100_000, 8)
        assert fetched.next_offset == 8
        with pytest.raises(OffsetOutOfRange) as caught:
            log.fetch(9, 100, 8)
        assert (caught.value.start, caught.value.end) == (0, 8)
        with pytest.raises(OffsetOutOfRange):
            log.fetch(-1, 100, 8)


def test_open_read_handles_are_bounded() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk, LogConfig(segment_bytes=1024, tail_cache_bytes=0, max_open_segments=2))
    append(log, 60, values=[b"x" * 200])
    log.flush()
    readers = [log.headers(index) for index in range(1, 60, 4)]
    for reader in readers:
        next(reader)
    assert all(len(list(reader)) > 0 for reader in readers[:-1])
    assert len(log._view._files._opened) <= 2
    log.close()


def test_with_interval_the_fdatasync_waits_for_its_time() -> None:
    disk, clock = SimDisk(Random(1)), FixedClock()
    config = LogConfig(fsync="interval", fsync_interval_s=1.0)
    log = open_log(disk, config, clock)
    append(log, 1)
    before = disk.calls["sync"]
    assert log.flush().last_index == 1
    assert (disk.calls["sync"], log.sync_due_s, log.dirty) == (before, 1.0, False)
    clock.now_s = 1.5
    assert log.dirty
    log.flush()
    assert (disk.calls["sync"], log.sync_due_s, log.dirty) == (before + 1, None, False)


@pytest.mark.parametrize("fsync", ["interval", "never"])
def test_without_an_fdatasync_a_power_cut_may_lose_the_tail_and_is_no_corruption(
    fsync: str,
) -> None:
    lengths = set()
    for seed in range(60):
        disk = SimDisk(Random(seed))
        log = open_log(disk, LogConfig(fsync=fsync, fsync_interval_s=100, segment_bytes=4096))
        append(log, 12, values=[b"x" * 700])
        log.flush()
        expected = content(log)
        disk.crash()
        found = content(open_log(disk))
        assert found == expected[: len(found)]
        lengths.add(len(found))
    assert len(lengths) > 2


def test_a_closed_log_says_so_and_closes_again() -> None:
    _, log = fresh()
    log.close()
    log.close()
    for call in (log.flush, lambda: log.slice(1, 1), lambda: append(log)):
        with pytest.raises(Closed):
            call()


def test_closing_flushes_and_gives_back_preallocated_space() -> None:
    disk, log = fresh()
    appended = append(log, 2)
    path = f"{DIRECTORY}/{1:020d}.log"
    before = len(disk.content(path))
    log.close()
    assert len(disk.content(path)) < before
    disk.crash()
    assert content(open_log(disk)) == plain(appended)


def test_a_file_in_the_way_is_an_unusable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnusableDirectory, match="directory"):
        Log.open(SystemDisk(), str(tmp_path / "file"), SMALL, SystemClock())


@pytest.mark.parametrize(
    "settings",
    [
        {"segment_bytes": 10},
        {"index_interval_bytes": 0},
        {"tail_cache_bytes": -1},
        {"fsync": "sometimes"},
        {"fsync_interval_s": 0},
        {"max_open_segments": 0},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LogConfig(**settings)  # type: ignore[arg-type]


def test_threads_may_read_what_is_durable_while_the_owner_appends_and_another_flushes(
    tmp_path: Path,
) -> None:
    config = LogConfig(segment_bytes=8192, tail_cache_bytes=1000, max_open_segments=2)
    log = Log.open(SystemDisk(), str(tmp_path / "log"), config, SystemClock())
    done = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: "object") -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    def flush() -> None:
        while not done.is_set():
            log.flush()

    def read() -> None:
        rng = Random(threading.get_ident())
        while not done.is_set():
            durable = log.durable_index
            if durable:
                first = rng.randrange(1, durable + 1)
                for batch in log.slice(first, 3000):
                    assert bytes(batch.body).find(b"%d-1-" % batch.header.index) >= 0
                assert log.term_at(first) == 1

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (flush, read, read)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        append(log, 3, values=[b"x" * 100])
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    log.close()


def test_a_disk_that_cannot_be_read_is_a_typed_error_and_fences_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, log = fresh()
    appended = append(log, 3)
    log.close()
    log = open_log(disk)

    def unreadable(file: SimFile, position: int, size_bytes: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(SimFile, "read_at", unreadable)
        for read in (
            lambda: log.slice(1, 10_000),
            lambda: log.fetch(0, 10_000, log.end_offset),
            lambda: list(log.headers(1)),
        ):
            with pytest.raises(StorageError, match=r"cannot be read \(Input/output error\)"):
                read()
    assert plain(log.slice(1, 10_000)) == plain(appended)
    append(log, 1)
    assert log.flush().last_index == 4


def test_a_read_that_ended_before_a_no_op_leads_no_fetch_to_nothing() -> None:
    disk, log = fresh()
    append(log, 2, values=[])
    append(log, 1)
    append(log, 1, values=[])
    append(log, 1)
    log.close()
    log = open_log(disk, LogConfig(tail_cache_bytes=0))
    for read in (1, 3):
        log.slice(read, 0)
    assert log.index_of_offset(0) == 3
    assert log.index_of_offset(1) == 5
    assert log.fetch(0, 0, 2).next_offset == 1
    assert log.fetch(1, 0, 2).next_offset == 2
