"""``quorumlog.open(..., scrub_bytes_s=…)``: rot in cold segments is found while the log is open."""

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread, current_thread, enumerate

import pytest

import quorumlog
from quorumlog.embedded import EmbeddedLog, scrubbing
from quorumlog.embedded.options import Options
from quorumlog.errors import ConfigError
from quorumlog.log.config import LogConfig
from quorumlog.log.inspection.damage import Flaw
from quorumlog.log.segment import DATA_START
from quorumlog.system import SystemClock, SystemDisk, SystemFile
from support.events import logged

NAME = "quorumlog-scrub"
TIMEOUT_S = 60
FAST = 1024**3


class GatedDisk(SystemDisk):
    """The scrubber gets no further than its first file until ``gate`` is set."""

    def __init__(self) -> None:
        self.reached = Event()
        self.gate = Event()

    def open_readonly(self, path: str) -> SystemFile:
        if current_thread().name == NAME:
            self.reached.set()
            assert self.gate.wait(TIMEOUT_S)
        return super().open_readonly(path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A closed log of some segments, sealed ones of almost a MiB."""
    path = tmp_path / "log"
    with quorumlog.open(path, fsync="never", segment_bytes=1024**2) as log:
        for _ in range(70):
            log.append(b"x" * 60_000)
    return path


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert NAME not in {thread.name for thread in enumerate()}


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 8
    path.write_bytes(content)


def opened(disk: SystemDisk, directory: Path, scrub_bytes_s: int) -> EmbeddedLog:
    config = LogConfig(segment_bytes=1024**2)
    options = Options(scrub_bytes_s=scrub_bytes_s)
    return EmbeddedLog(disk, str(directory), config, SystemClock(), options)


def test_a_bit_that_flips_under_an_open_log_is_found(directory: Path) -> None:
    damaged = segments(directory)[1]
    disk = GatedDisk()
    with logged("rot_found") as events, opened(disk, directory, FAST) as log:
        assert disk.reached.wait(TIMEOUT_S)
        assert log.scrub_findings == ()
        flip_bit(damaged, DATA_START + 500)
        disk.gate.set()
        event = events.get(timeout=TIMEOUT_S)
        [finding] = log.scrub_findings
        assert (finding.flaw, finding.file, finding.position) == (
            Flaw.BATCHES,
            str(damaged),
            DATA_START,
        )
        assert (event["level"], event["file"]) == ("error", str(damaged))
        assert log.append(b"the log goes on") == 70
    assert log.scrub_findings == (finding,)
    assert events.empty()


async def test_an_asynchronous_log_finds_it_too(directory: Path) -> None:
    damaged = segments(directory)[0]
    flip_bit(damaged, DATA_START + 500)
    with logged("rot_found") as events:
        async with quorumlog.open_async(directory, scrub_bytes_s=FAST) as log:
            events.get(timeout=TIMEOUT_S)
            assert [finding.file for finding in log.scrub_findings] == [str(damaged)]


def test_closing_ends_the_thread_in_the_middle_of_a_round(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[str] = []

    class WatchedThread(Thread):
        def join(self, timeout: float | None = None) -> None:
            super().join(timeout)
            joined.append(self.name)

    monkeypatch.setattr(scrubbing, "Thread", WatchedThread)
    disk = GatedDisk()
    log = opened(disk, directory, 4096)
    assert disk.reached.wait(TIMEOUT_S)
    disk.gate.set()
    begin_s = time.monotonic()
    log.close()
    # The first segment alone would take four minutes.
    assert time.monotonic() - begin_s < TIMEOUT_S
    assert joined == [NAME]


def test_without_a_rate_there_is_no_thread(directory: Path) -> None:
    with quorumlog.open(directory) as log:
        assert NAME not in {thread.name for thread in enumerate()}
        assert log.scrub_findings == ()


def test_the_newest_findings_are_kept_up_to_a_bound(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing, "MAX_FINDINGS", 2)
    damaged = segments(directory)[:4]
    for segment in damaged:
        flip_bit(segment, DATA_START + 500)
    with logged("rot_found") as events, quorumlog.open(directory, scrub_bytes_s=FAST) as log:
        found = [events.get(timeout=TIMEOUT_S)["file"] for _ in damaged]
        assert sorted(found) == list(map(str, damaged))
        assert [finding.file for finding in log.scrub_findings] == found[2:]


@pytest.mark.parametrize("rate", [0, -1, 4095])
def test_an_impossible_rate_is_refused_before_anything_is_made(tmp_path: Path, rate: int) -> None:
    with pytest.raises(ConfigError, match=f"scrub_bytes_s .* not {rate}"):
        quorumlog.open(tmp_path / "log", scrub_bytes_s=rate)
    assert not (tmp_path / "log").exists()
