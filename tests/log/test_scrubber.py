"""The scrubber finds rot in cold segments at its rate, and takes no change for rot."""

from collections.abc import Callable
from random import Random

import pytest

from quorumlog.errors import ConfigError
from quorumlog.log.inspection.damage import Finding, Flaw, Severity, Span
from quorumlog.log.inspection.examine import examine
from quorumlog.log.inspection.examined import Examined, Progress, Task
from quorumlog.log.inspection.scrubber import Scrubber
from quorumlog.log.log import Log
from quorumlog.log.pacer import Stopped
from quorumlog.log.segment import DATA_START
from sim.disk import SimDisk
from stored.batches import DIRECTORY, FixedClock, append, content, open_log
from support.events import logged

BYTES_S = 10_000


class Stop:
    """A signal that waits by moving the clock; ``on_wait`` sees each wait."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.is_stopped = False
        self.waited: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None

    def is_set(self) -> bool:
        return self.is_stopped

    def wait(self, timeout: float) -> bool:
        self.waited.append(timeout)
        self.clock.now_s += timeout
        self.on_wait()
        return self.is_stopped


class Setting:
    """A log of several segments, and a scrubber on it."""

    def __init__(self, bytes_s: int = BYTES_S) -> None:
        self.disk = SimDisk(Random(1))
        self.clock = FixedClock()
        self.log: Log = open_log(self.disk, clock=self.clock)
        append(self.log, 40, values=[b"x" * 200])
        self.log.advance_commit_floor(40)
        self.log.flush()
        self.stop = Stop(self.clock)
        self.found: list[Finding] = []
        self.scrubber = Scrubber(
            self.log,
            self.disk,
            self.clock,
            self.stop,
            bytes_s=bytes_s,
            pause_s=60.0,
            on_finding=self.found.append,
        )
        self.paths = [info.path for info in self.log.segments()]

    def round(self) -> list[str]:
        """One round; the files that were checked."""
        paths = []
        while (checked := self.scrubber.check_next()) is not None:
            paths.append(checked.path)
        return paths


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_every_sealed_segment_is_checked_in_a_round_and_never_the_active_one(
    setting: Setting,
) -> None:
    assert len(setting.paths) > 3
    assert setting.round() == setting.paths[:-1]
    assert setting.round() == setting.paths[:-1]
    assert setting.found == []


def test_rot_is_reported_once_with_file_position_and_offsets(setting: Setting) -> None:
    setting.disk.flip_bit(setting.paths[1], DATA_START + 90, 3)
    setting.round()
    setting.round()
    [finding] = setting.found
    assert (finding.severity, finding.flaw) == (Severity.DAMAGE, Flaw.BATCHES)
    assert (finding.file, finding.position) == (setting.paths[1], DATA_START)
    first = setting.log.segments()[1].base_offset
    assert finding.offsets == Span(first, first + 1)


@pytest.mark.parametrize("position", [9, 4096 + 8, 8192 + 8])
def test_headers_and_marks_are_checked_too(setting: Setting, position: int) -> None:
    setting.disk.flip_bit(setting.paths[2], position, 1)
    setting.round()
    assert [finding.file for finding in setting.found] == [setting.paths[2]]


def test_with_a_header_that_cannot_be_read_the_other_segments_are_checked_all_the_same() -> None:
    setting = Setting()
    setting.log.close()
    setting.disk.flip_bit(setting.paths[0], DATA_START + 90, 1)
    setting.disk.flip_bit(setting.paths[1], 9, 1)
    log = open_log(setting.disk, clock=setting.clock)
    scrubber = Scrubber(
        log,
        setting.disk,
        setting.clock,
        setting.stop,
        bytes_s=BYTES_S,
        on_finding=setting.found.append,
    )
    while scrubber.check_next() is not None:
        pass
    assert {finding.file for finding in setting.found} >= {setting.paths[0], setting.paths[1]}
    log.close()


def test_it_reads_at_its_rate(setting: Setting) -> None:
    setting.round()
    setting.round()
    assert setting.scrubber.bytes_read > 4 * BYTES_S
    assert setting.clock.now_s == pytest.approx(setting.scrubber.bytes_read / BYTES_S, rel=0.05)


def test_a_round_is_followed_by_a_pause_and_stopping_ends_it_at_once(setting: Setting) -> None:
    def stop_at_pause() -> None:
        setting.stop.is_stopped = setting.stop.waited[-1] == 60.0

    setting.stop.on_wait = stop_at_pause
    setting.scrubber.run()
    assert setting.scrubber.segments_checked == len(setting.paths) - 1
    setting.stop.is_stopped = True
    with pytest.raises(Stopped):
        setting.scrubber.check_next()


@pytest.mark.parametrize("now_ms", [0, 1, 2, 7])
def test_the_first_round_begins_where_the_clock_says_and_goes_round(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, now_ms: int
) -> None:
    """So that lives shorter than a round do not all read the same segments."""
    monkeypatch.setattr(setting.clock, "wall_ms", lambda: now_ms)
    sealed = setting.paths[:-1]
    begin = now_ms % len(sealed)
    assert setting.round() == sealed[begin:] + sealed[:begin]
    assert setting.round() == sealed


def test_what_fails_is_logged_and_the_other_segments_are_read(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug, or no memory, in one segment ends neither the thread nor the round."""
    looked_at: list[str] = []

    def failing(disk: SimDisk, task: Task, progress: Progress) -> Examined:
        looked_at.append(task.source.path)
        if task.source.path == setting.paths[1]:
            raise MemoryError
        return examine(disk, task, progress)

    monkeypatch.setattr("quorumlog.log.inspection.scrubber.examine", failing)

    def stop_at_second_pause() -> None:
        setting.stop.is_stopped = setting.stop.waited.count(60.0) == 2

    setting.stop.on_wait = stop_at_second_pause
    with logged("scrub_failed") as events:
        setting.scrubber.run()
        assert events.get_nowait()["level"] == "error"
    assert looked_at == setting.paths[:-1]


def test_segments_that_are_deleted_under_it_are_no_rot() -> None:
    setting = Setting(bytes_s=4096)
    log = setting.log
    end = log.segments()[2].base_offset

    def delete() -> None:
        log.advance_start(end)
        log.flush()
        log.remove_deleted()

    setting.stop.on_wait = delete
    paths = setting.round()
    assert setting.found == []
    assert paths[-1] == setting.paths[-2]
    assert not setting.disk.exists(setting.paths[0])


def test_a_segment_that_is_written_meanwhile_is_looked_at_again(setting: Setting) -> None:
    """A torn write of a mark is there at the first look and gone at the second."""
    path = setting.paths[0]
    setting.disk.flip_bit(path, 4096 + 8, 1)
    looks = 0

    def mend() -> None:
        nonlocal looks
        looks += 1
        if looks == 4:
            setting.disk.flip_bit(path, 4096 + 8, 1)

    slow = Scrubber(
        setting.log,
        setting.disk,
        setting.clock,
        setting.stop,
        bytes_s=4096,
        on_finding=setting.found.append,
    )
    setting.stop.on_wait = mend
    # A wait comes behind each of the first three pages; at the next one the mark was looked at.
    slow.check_next()
    assert looks > 5
    assert setting.found == []


def test_appends_and_rolls_go_on_while_it_runs(setting: Setting) -> None:
    left = iter(range(20))
    setting.stop.on_wait = lambda: _append(setting.log) if next(left, None) is not None else None
    assert len(setting.round()) > len(setting.paths)
    assert setting.found == []
    assert len(content(setting.log)) > 40
    setting.log.close()
    before = len(setting.found)
    setting.scrubber.run()
    assert len(setting.found) == before


def _append(log: Log) -> None:
    append(log, 1, values=[b"x" * 400])
    log.flush()


def test_impossible_settings_are_refused(setting: Setting) -> None:
    with pytest.raises(ConfigError, match="not 1 and"):
        Scrubber(setting.log, setting.disk, setting.clock, setting.stop, bytes_s=1)
    assert DIRECTORY in setting.paths[0]
