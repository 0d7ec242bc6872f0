"""An embedded log in the hands of somebody who makes mistakes, and of whom nobody hears."""

import subprocess
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog.testing

import quorumlog
from quorumlog.embedded import EmbeddedLog
from quorumlog.embedded import log as embedded_log
from quorumlog.embedded.background import HousekeepingThread, Stop, Syncer
from quorumlog.embedded.options import Options
from quorumlog.errors import (
    Closed,
    ConfigError,
    DiskFull,
    InvalidArgument,
    InvariantViolation,
    LogFenced,
    StorageError,
    UnusableDirectory,
)
from quorumlog.log.cleaning.housekeeping import Housekeeper, HousekeepingReport
from quorumlog.log.cleaning.retention import Retention
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from quorumlog.types import Offset
from sim.disk import SimDisk
from stored.batches import FixedClock

DIRECTORY = "data"


def opened(
    disk: SimDisk, options: Options | None = None, config: LogConfig | None = None
) -> EmbeddedLog:
    return EmbeddedLog(disk, DIRECTORY, config or LogConfig(), FixedClock(), options)


WRONG_SETTINGS: list[dict[str, Any]] = [
    {"segment_bytes": "x"},
    {"segment_bytes": None},
    {"segment_bytes": 1500.5},
    {"fsync": None},
    {"compression": []},
    {"compression": ""},
    {"compression": "zstd", "compression_level": 99},
    {"compression_level": "x"},
    {"retention": 5},
    {"retention": {"records": 5}},
    {"compaction": True},
    {"housekeeping_interval_s": "x"},
    {"housekeeping_interval_s": None},
    {"scrub_bytes_s": "x"},
    {"scrub_bytes_s": 5000.5},
    {"scrub_bytes_s": float("nan")},
    {"keys": 5},
    {"keys": b"x"},
]


@pytest.mark.parametrize("settings", WRONG_SETTINGS, ids=str)
def test_a_setting_of_a_wrong_kind_is_refused_before_anything_is_made(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=list(settings)[-1].split("_bytes_s")[0]):
        quorumlog.open(tmp_path / "log", **settings)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("path", ["", "a\0b", None, 5, b"", b"\0"])
def test_what_names_no_directory_is_refused(path: Any) -> None:
    for use in (quorumlog.open, quorumlog.follow, quorumlog.open_async):
        with pytest.raises(ConfigError, match="path"):
            use(path)


def test_a_name_that_no_directory_can_have_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("x" * 300, "loop", "loop/below"):
        with pytest.raises(UnusableDirectory):
            quorumlog.open(tmp_path / name)


def test_a_path_of_bytes_is_that_directory(tmp_path: Path) -> None:
    with quorumlog.open(bytes(tmp_path / "log")) as log:  # type: ignore[arg-type]
        log.append(b"x")
    with quorumlog.follow(tmp_path / "log") as follower:
        assert follower.end_offset == 1


@pytest.mark.parametrize("wrong", [1.0, 1.5, float("nan"), "1", b"1", [1]])
def test_an_offset_or_time_that_is_no_whole_number_is_refused_at_once(
    wrong: Any, tmp_path: Path
) -> None:
    with quorumlog.open(tmp_path / "log") as log:
        log.append_batch([b"0", b"1", b"2"])
        with quorumlog.follow(tmp_path / "log") as follower:
            for reader in (log, follower):
                uses: list[Callable[[], object]] = [
                    lambda reader=reader: reader.read(wrong),  # type: ignore[misc]
                    lambda reader=reader: reader.read(end=wrong),  # type: ignore[misc]
                    lambda reader=reader: reader.read(end=wrong, reverse=True),  # type: ignore[misc]
                    lambda reader=reader: reader.offset_for_time(wrong),  # type: ignore[misc]
                ]
                for use in uses:
                    with pytest.raises(InvalidArgument, match="whole number"):
                        use()
        with pytest.raises(InvalidArgument, match="offset is a whole number"):
            log.delete_before(wrong)
        assert log.start_offset == 0
        assert log.append(b"goes on") == 3


def test_what_only_looks_like_bytes_harms_no_batch() -> None:
    log = opened(SimDisk(Random(1)))
    numbers: Any = array("I", [1, 2, 3])
    for use in (
        lambda: log.append(numbers),
        lambda: log.append(b"", key=numbers),
        lambda: log.append(b"", headers={"h": numbers}),
        lambda: log.append_batch([(numbers, b"")]),
        lambda: log.append_batch(None),  # type: ignore[arg-type]
        lambda: log.append_batch(5),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidArgument):
            use()  # type: ignore[no-untyped-call]
    log.append(memoryview(numbers))
    assert [record.value for record in log.read()] == [numbers.tobytes()]
    log.close()


def test_a_batch_without_an_end_is_given_up_at_the_limit() -> None:
    log = opened(SimDisk(Random(1)))
    taken = 0

    def endless(value: bytes) -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield value

    for value, limit in ((b"", 1_001_000), (bytes(4096), 2000), (bytes(1024 * 1024), 600)):
        taken = 0
        with pytest.raises(InvalidArgument, match="split it"):
            log.append_batch(endless(value))
        assert taken <= limit
    log.close()


def test_a_closed_log_or_follower_cannot_be_entered(tmp_path: Path) -> None:
    with quorumlog.open(tmp_path / "log") as log, log:
        follower = quorumlog.follow(tmp_path / "log")
        with follower, follower:
            pass
    for closed in (log, follower):
        with pytest.raises(Closed):
            closed.__enter__()


def test_a_full_disk_at_open_is_a_typed_error_and_the_next_open_works() -> None:
    disk = SimDisk(Random(1))
    disk.capacity_bytes = 0
    with pytest.raises(DiskFull, match=DIRECTORY):
        opened(disk)
    disk.capacity_bytes = None
    log = opened(disk)
    assert log.append(b"x") == 0
    log.close()


def test_an_error_of_the_disk_at_every_call_of_an_open_is_typed() -> None:
    for number in range(1, 100):
        disk = SimDisk(Random(1))
        disk.fail_at(number)
        try:
            log = opened(disk)
        except StorageError:
            assert disk.locked == set()
            opened(disk).close()
            continue
        log.close()
        return
    pytest.fail("an open has more calls than this test looks at")


@contextmanager
def failing(target: Any, name: str, error: BaseException) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise error

        patch.setattr(target, name, fail)
        yield


@pytest.mark.parametrize("where", ["housekeeper_of", "HousekeepingThread", "GroupCommit"])
def test_an_open_that_fails_at_its_end_leaves_no_thread_and_no_lock(where: str) -> None:
    disk = SimDisk(Random(1))
    config = LogConfig(fsync="interval")
    before = threading.active_count()
    error = RuntimeError("can't start new thread")
    with (
        failing(embedded_log, where, error),
        pytest.raises(RuntimeError, match="new thread"),
    ):
        opened(disk, Options(retention=Retention(records=1)), config)
    assert (disk.locked, threading.active_count()) == (set(), before)
    opened(disk).close()


def test_who_waits_at_the_end_of_the_log_hears_that_it_is_fenced() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    log.append(b"x")
    heard: list[BaseException] = []

    def follow() -> None:
        try:
            list(log.read(follow=True))
        except LogFenced as error:
            heard.append(error)

    for call in ("append", "flush"):
        readers = [threading.Thread(target=follow) for _ in range(2)]
        for reader in readers:
            reader.start()
        while log.commits.followers < 2:
            threading.Event().wait(0.001)
        with failing(SimDisk, "count", OSError(5, "I/O error")), pytest.raises(LogFenced):
            log.append(b"y") if call == "append" else log.flush()
        for reader in readers:
            reader.join(10)
            assert not reader.is_alive()
        assert len(heard) == 2
        heard.clear()
        log.close()
        disk = SimDisk(Random(1))
        log = opened(disk, config=LogConfig(fsync="never"))
        log.append(b"x")
    log.close()


def report(*errors: StorageError) -> HousekeepingReport:
    return HousekeepingReport(Offset(0), 0, False, None, errors)


class Turns(Stop):
    """Lets a thread go on as often as there is something to do."""

    def __init__(self, outcomes: list[HousekeepingReport | BaseException]) -> None:
        super().__init__()
        self.outcomes = outcomes

    def wait(self, timeout: float) -> bool:
        return not self.outcomes

    def turn(self) -> HousekeepingReport:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def turns(*outcomes: HousekeepingReport | BaseException) -> tuple[HousekeepingThread, list[str]]:
    """A thread whose turns go like that, when it is over, and the events it logged."""
    steps = Turns(list(outcomes))
    with structlog.testing.capture_logs() as events:
        thread = HousekeepingThread(steps.turn, 1.0, steps)
        thread.join()
    return thread, [f"{each['event']} {each['error']}" for each in events]


def test_what_keeps_failing_in_the_background_is_logged_once_and_again_when_it_changes() -> None:
    bad, worse = StorageError("bad"), StorageError("worse")
    thread, events = turns(
        report(bad), report(bad), report(bad, worse), report(), report(bad), report()
    )
    assert events == [
        "housekeeping_failed bad",
        "housekeeping_failed bad",
        "housekeeping_failed worse",
        "housekeeping_failed bad",
    ]
    assert thread.failure is None


def test_housekeeping_goes_on_after_a_turn_that_broke_off() -> None:
    error = MemoryError("no memory")
    thread, events = turns(error, error)
    assert thread.failure is error
    assert events == ["housekeeping_failed no memory"]
    thread, events = turns(error, report())
    assert thread.failure is None


@pytest.mark.parametrize("error", [InvariantViolation("a bug"), LogFenced("fenced")])
def test_housekeeping_that_ends_for_good_says_so(error: Exception) -> None:
    thread, events = turns(error, report())
    assert thread.failure is error
    assert events == [f"housekeeping_ended {error}"]


def test_the_closing_of_the_log_is_no_failure() -> None:
    thread, events = turns(Closed("closed"))
    assert (thread.failure, events) == (None, [])


def test_an_open_log_tells_what_its_housekeeping_met(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail(self: Housekeeper) -> HousekeepingReport:
        failed.set()
        raise MemoryError("no memory")

    monkeypatch.setattr(Housekeeper, "run_once", fail)
    with structlog.testing.capture_logs() as events:
        options = Options(retention=Retention(records=1), housekeeping_interval_s=0.01)
        log = opened(SimDisk(Random(1)), options)
        assert failed.wait(10)
        log.close()
    assert isinstance(log.housekeeping_failure, MemoryError)
    assert [each["event"] for each in events] == ["housekeeping_failed"]
    plain = opened(SimDisk(Random(1)))
    assert plain.housekeeping_failure is None
    plain.close()


def test_the_interval_is_kept_after_an_error_that_nobody_foresaw() -> None:
    synced = threading.Event()
    errors = [MemoryError("no memory")]

    def sync() -> None:
        if errors:
            raise errors.pop()
        synced.set()

    with structlog.testing.capture_logs() as events:
        syncer = Syncer(sync, 0.001)
        syncer.written()
        assert synced.wait(10)
        syncer.stop()
    assert [each["event"] for each in events] == ["interval_sync_failed"]


def test_a_close_that_is_interrupted_while_others_work_keeps_the_directory_until_they_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimDisk(Random(1))
    log = opened(disk, Options(retention=Retention(records=1)))
    log.append(b"kept")
    with failing(HousekeepingThread, "join", KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        log.close()
    assert disk.locked
    with pytest.raises(Closed):
        log.append(b"x")
    log.close()
    assert not disk.locked
    again = opened(disk)
    assert [record.value for record in again.read()] == [b"kept"]
    again.close()


def test_a_second_close_returns_when_the_first_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(SimDisk(Random(1)))
    begun, go_on, second_is_over = (threading.Event() for _ in range(3))
    close = Log.close

    def slow(self: Log) -> None:
        begun.set()
        assert go_on.wait(10)
        close(self)

    monkeypatch.setattr(Log, "close", slow)

    def again() -> None:
        log.close()
        second_is_over.set()

    first = threading.Thread(target=log.close)
    first.start()
    assert begun.wait(10)
    second = threading.Thread(target=again)
    second.start()
    assert not second_is_over.wait(0.05)
    go_on.set()
    for thread in (first, second):
        thread.join(10)
    assert second_is_over.is_set()


def test_a_following_read_does_not_hang_in_a_forked_process(tmp_path: Path) -> None:
    script = """
import os, sys, quorumlog
log = quorumlog.open(sys.argv[1])
log.append(b"x")
reader = log.read(follow=True)
next(reader)
child = os.fork()
if not child:
    try:
        next(reader)
    except quorumlog.QuorumlogError as error:
        os._exit(0 if "fork" in str(error) else 1)
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
log.append(b"y")
assert next(reader).value == b"y"
log.close()
"""
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr


def test_a_fenced_log_that_is_closed_gives_the_directory_free() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk)
    disk.fail_at(2)
    with pytest.raises(LogFenced):
        log.append(b"x")
    log.close()
    assert not disk.locked


def test_a_close_waits_for_a_deletion_that_another_thread_is_in() -> None:
    disk = SimDisk(Random(1))
    log = opened(disk, config=LogConfig(segment_bytes=1024))
    for _ in range(20):
        log.append(b"x" * 300)
    begun, go_on = threading.Event(), threading.Event()
    remove = disk.remove

    def slow(path: str) -> None:
        begun.set()
        assert go_on.wait(10)
        remove(path)

    disk.remove = slow  # type: ignore[method-assign]
    deletion = threading.Thread(target=log.delete_before, args=(18,))
    deletion.start()
    assert begun.wait(10)
    closing = threading.Thread(target=log.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    assert disk.locked
    go_on.set()
    for thread in (deletion, closing):
        thread.join(10)
    assert not disk.locked
