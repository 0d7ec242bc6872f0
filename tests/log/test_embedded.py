"""``quorumlog.open``: the log in one's own process."""

import errno
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path
from random import Random

import pytest

import quorumlog
from quorumlog.embedded import EmbeddedLog
from quorumlog.errors import (
    Closed,
    ConfigError,
    Corrupt,
    DiskFull,
    InvalidArgument,
    LogFenced,
    LogLocked,
    OffsetOutOfRange,
    RecordTooLarge,
    UnusableDirectory,
    WrongExpectedOffset,
)
from quorumlog.log.config import LogConfig
from quorumlog.types import RecordData
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import FixedClock

DIRECTORY = "data"
FIRST = f"{DIRECTORY}/{1:020d}.log"


def simulated(seed: int = 1) -> tuple[SimDisk, EmbeddedLog]:
    disk = SimDisk(Random(seed))
    return disk, reopened(disk)


def reopened(disk: SimDisk) -> EmbeddedLog:
    config = LogConfig(segment_bytes=4096, tail_cache_bytes=2000)
    return EmbeddedLog(disk, DIRECTORY, config, FixedClock())


def values(log: EmbeddedLog, start: int = 0) -> list[bytes | None]:
    return [record.value for record in log.read(start)]


def test_records_come_back_with_all_they_had(tmp_path: Path) -> None:
    with quorumlog.open(tmp_path / "log") as log:
        assert log.append(b"value", key=b"k", headers={"trace": b"1"}) == 0
        assert log.append_batch([b"plain", (b"key", b"paired"), RecordData(None, b"gone")]) == 1
        assert log.append(b"last") == 4
    with quorumlog.open(tmp_path / "log") as log:
        records = list(log.read())
        assert [record.offset for record in records] == [0, 1, 2, 3, 4]
        assert [(record.key, record.value) for record in records] == [
            (b"k", b"value"),
            (None, b"plain"),
            (b"key", b"paired"),
            (b"gone", None),
            (None, b"last"),
        ]
        assert records[0].headers == {"trace": b"1"}
        assert records[0].timestamp_ms > 1_600_000_000_000
        assert [record.offset for record in log.read(1, end=3)] == [1, 2]
        assert list(log.read(5)) == []
        assert (log.start_offset, log.end_offset) == (0, 5)
        assert log.offset_for_time(records[4].timestamp_ms + 1) == 5
        assert log.offset_for_time(0) == 0


def test_an_append_on_a_condition_changes_nothing_where_the_log_ends_elsewhere() -> None:
    _, log = simulated()
    assert log.append(b"a", expected_end=0) == 0
    assert log.append_batch([b"b", b"c"], expected_end=1) == 1
    for expected in (0, 2, 4):
        with pytest.raises(WrongExpectedOffset) as caught:
            log.append(b"late", expected_end=expected)
        assert (caught.value.expected, caught.value.end) == (expected, 3)
    assert values(log) == [b"a", b"b", b"c"]
    log.close()


def test_an_append_that_returned_survives_a_power_cut() -> None:
    for seed in range(20):
        disk, log = simulated(seed)
        for number in range(30):
            log.append(b"%d" % number * 100)
        disk.crash()
        assert values(reopened(disk)) == [b"%d" % number * 100 for number in range(30)]


def test_eight_threads_get_eight_sets_of_offsets_and_share_flushes() -> None:
    disk, log = simulated()
    offsets: dict[int, list[int]] = {}
    barrier = threading.Barrier(8)

    def append(number: int) -> None:
        barrier.wait()
        offsets[number] = [log.append(b"%d:%d" % (number, count)) for count in range(50)]

    threads = [threading.Thread(target=append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = values(log)
    assert sorted(chain.from_iterable(offsets.values())) == list(range(400))
    for number, taken in offsets.items():
        assert taken == sorted(taken)
        assert [read[offset] for offset in taken] == [b"%d:%d" % (number, n) for n in range(50)]
    log.close()
    disk.crash()
    assert values(reopened(disk)) == read


def test_appends_that_wait_for_a_flush_share_the_next_one() -> None:
    disk, log = simulated()
    log.commits.flush_mutex.acquire()
    threads = [threading.Thread(target=log.append, args=(b"x",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    while log.commits.waiting < 8:
        threading.Event().wait(0.001)
    before = disk.calls["sync"]
    log.commits.flush_mutex.release()
    for thread in threads:
        thread.join()
    assert disk.calls["sync"] == before + 1
    assert log.end_offset == 8


def test_a_batch_is_there_whole_or_not_at_all() -> None:
    sizes = set()
    for seed in range(60):
        disk, log = simulated(seed)
        log.append(b"before")
        disk.crash_before(2)
        with pytest.raises(SimulatedCrash):
            log.append_batch([b"x" * 200] * 10)
        disk.crash()
        sizes.add(len(values(reopened(disk))))
    assert sizes == {1, 11}


def test_a_following_reader_gets_what_is_appended_and_ends_when_the_log_is_closed(
    tmp_path: Path,
) -> None:
    log = quorumlog.open(tmp_path / "log")
    log.append(b"0")
    seen: list[bytes | None] = []
    five = threading.Event()

    def follow() -> None:
        for record in log.read(follow=True):
            seen.append(record.value)
            if len(seen) == 5:
                five.set()

    reader = threading.Thread(target=follow)
    reader.start()
    for number in range(1, 5):
        log.append(b"%d" % number)
    assert five.wait(10)
    log.close()
    reader.join(10)
    assert not reader.is_alive()
    assert seen == [b"0", b"1", b"2", b"3", b"4"]


def test_following_ends_at_the_end_given(tmp_path: Path) -> None:
    with quorumlog.open(tmp_path / "log") as log:
        log.append_batch([b"a", b"b", b"c"])
        assert [record.value for record in log.read(1, end=2, follow=True)] == [b"b"]


def test_a_start_outside_the_log_is_refused_at_once() -> None:
    _, log = simulated()
    log.append(b"x")
    for start in (-1, 2):
        with pytest.raises(OffsetOutOfRange, match=r"\[0, 1\)"):
            log.read(start)


def test_bad_input_is_refused_and_changes_nothing() -> None:
    _, log = simulated()
    refused: list[object] = [
        lambda: log.append("text"),  # type: ignore[arg-type]
        lambda: log.append(b"x", key=3),  # type: ignore[arg-type]
        lambda: log.append(b"x", headers={"h": "text"}),  # type: ignore[dict-item]
        lambda: log.append_batch([]),
        lambda: log.append_batch([b"x", 3]),  # type: ignore[list-item]
        lambda: log.append_batch([b"x" * 1_000_000] * 5),
    ]
    for call in refused:
        with pytest.raises(InvalidArgument):
            call()  # type: ignore[operator]
    with pytest.raises(RecordTooLarge, match="1048576"):
        log.append(b"x" * (1024 * 1024 + 1))
    with pytest.raises(InvalidArgument, match="4194304"):
        log.append_batch([b"x" * 1_000_000] * 5)
    assert log.append(b"good") == 0


def test_a_full_disk_takes_the_append_back_and_the_log_goes_on() -> None:
    disk, log = simulated()
    log.append(b"before")
    disk.capacity_bytes = sum(
        len(disk.content(f"{DIRECTORY}/{name}")) for name in disk.list_directory(DIRECTORY)
    )
    for _ in range(3):
        with pytest.raises(DiskFull, match="taken back"):
            log.append(b"x" * 200_000)
    assert log.append(b"small fits") == 1
    disk.capacity_bytes = None
    assert log.append(b"x" * 200_000) == 2
    expected = [b"before", b"small fits", b"x" * 200_000]
    assert values(log) == expected
    disk.crash()
    assert values(reopened(disk)) == expected


class DiskThatIsFullFromASecondSegmentOn(SimDisk):
    """Once armed: then it refuses also what only cuts, as copy-on-write file systems may."""

    is_armed = False
    is_full = False

    def count(self, kind: str, path: str) -> None:
        super().count(kind, path)
        if self.is_armed and path != FIRST and kind != "read":
            self.is_full, self.is_armed = True, False
        if self.is_full and kind in ("write", "truncate", "allocate"):
            raise OSError(errno.ENOSPC, "full", path)


def test_where_even_the_cut_needs_space_the_next_append_is_tried_once_there_is_some() -> None:
    disk = DiskThatIsFullFromASecondSegmentOn(Random(1))
    log = EmbeddedLog(disk, DIRECTORY, LogConfig(segment_bytes=2048), FixedClock())
    log.append(b"before")
    tickets = [log.commits.submit(log.drafter.of_values([b"x" * 900])) for _ in range(3)]
    disk.is_armed = True
    with pytest.raises(DiskFull, match="taken back"):
        log.commits.commit(tickets[2])
    disk.is_full = False
    assert log.append(b"after") == 1
    log.close()
    assert values(reopened(disk)) == [b"before", b"after"]


def test_on_a_full_disk_every_waiting_thread_is_told() -> None:
    disk, log = simulated()
    log.append(b"before")
    disk.capacity_bytes = 0
    outcomes: list[str] = []

    def append() -> None:
        try:
            log.append(b"x" * 100_000)
            outcomes.append("appended")
        except DiskFull:
            outcomes.append("full")

    log.commits.flush_mutex.acquire()
    threads = [threading.Thread(target=append) for _ in range(6)]
    for thread in threads:
        thread.start()
    while log.commits.waiting < 6:
        threading.Event().wait(0.001)
    log.commits.flush_mutex.release()
    for thread in threads:
        thread.join()
    assert outcomes == ["full"] * 6
    assert log.end_offset == 1
    disk.capacity_bytes = None
    assert log.append(b"after") == 1


def test_after_a_failed_fdatasync_everything_is_refused() -> None:
    disk, log = simulated()
    log.append(b"x")
    disk.fail_at(2)
    with pytest.raises(LogFenced, match="open the log again"):
        log.append(b"y")
    with pytest.raises(LogFenced):
        log.append(b"z")
    with pytest.raises(LogFenced):
        list(log.read())
    log.close()
    disk.crash()
    assert values(reopened(disk))[:1] == [b"x"]


def test_rot_is_reported_to_the_reader_with_file_and_position() -> None:
    disk, log = simulated()
    for _ in range(20):
        log.append(b"x" * 500)
    log.close()
    disk.flip_bit(FIRST, 12288 + 300, 1)
    with pytest.raises(Corrupt) as caught:
        values(reopened(disk))
    assert (caught.value.file, caught.value.position) == (FIRST, 12288)


def test_an_open_log_cannot_be_opened_again_by_this_or_another_process(tmp_path: Path) -> None:
    path = tmp_path / "log"
    script = (
        "import quorumlog, sys\n"
        "try:\n    quorumlog.open(sys.argv[1])\n"
        "except quorumlog.QuorumlogError as error:\n    print(type(error).__name__)\n"
    )
    with quorumlog.open(path):
        with pytest.raises(LogLocked, match="close it there"):
            quorumlog.open(path)
        other = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
        )
        assert other.stdout.strip() == "LogLocked"
    quorumlog.open(path).close()


def test_a_directory_that_cannot_be_used_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UnusableDirectory, match="can write to"):
            quorumlog.open(path)


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fsync"):
        quorumlog.open(tmp_path / "log", fsync="sometimes")
    with pytest.raises(ConfigError, match="segment_bytes"):
        quorumlog.open(tmp_path / "log", segment_bytes=1)
    assert not (tmp_path / "log").exists()


def test_a_closed_log_says_so() -> None:
    _, log = simulated()
    log.append(b"x")
    log.close()
    log.close()
    for call in (lambda: log.append(b"y"), lambda: log.read(), lambda: log.flush()):
        with pytest.raises(Closed):
            call()


@pytest.mark.parametrize("fsync", ["interval", "never"])
def test_without_fsync_always_flush_and_close_make_it_durable(fsync: str) -> None:
    disk = SimDisk(Random(1))
    config = LogConfig(fsync=fsync, fsync_interval_s=60)
    log = EmbeddedLog(disk, DIRECTORY, config, FixedClock())
    before = disk.calls["sync"]
    log.append(b"a")
    assert disk.calls["sync"] == before
    log.flush()
    assert disk.calls["sync"] == before + 1
    log.append(b"b")
    log.close()
    disk.crash()
    assert values(reopened(disk)) == [b"a", b"b"]


def test_the_interval_is_kept_without_another_call(tmp_path: Path) -> None:
    synced = threading.Event()

    class WatchedDisk(SimDisk):
        def count(self, kind: str, path: str) -> None:
            super().count(kind, path)
            if kind == "sync" and self.calls["write"] > 4:
                synced.set()

    disk = WatchedDisk(Random(1))
    config = LogConfig(fsync="interval", fsync_interval_s=0.01)
    log = EmbeddedLog(disk, DIRECTORY, config, FixedClock())
    for _ in range(5):
        log.append(b"x")
    assert synced.wait(10)
    log.close()


def test_the_interval_is_kept_after_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    flush = EmbeddedLog.flush
    errors = [DiskFull("no space"), DiskFull("no space")]

    def full_at_first(log: EmbeddedLog) -> None:
        if errors:
            raise errors.pop()
        flush(log)
        synced.set()

    monkeypatch.setattr(EmbeddedLog, "flush", full_at_first)
    config = LogConfig(fsync="interval", fsync_interval_s=0.01)
    log = EmbeddedLog(SimDisk(Random(1)), DIRECTORY, config, FixedClock())
    log.append(b"x")
    assert synced.wait(10)
    log.close()


def test_importing_the_package_loads_no_grpc() -> None:
    script = "import quorumlog, sys; quorumlog.open; print('grpc' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
