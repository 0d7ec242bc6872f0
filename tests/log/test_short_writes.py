"""Calls of the system that do less than they were asked for, as they may."""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from quorumlog.errors import DiskFull, LogFenced
from quorumlog.log.log import Log
from quorumlog.system import SystemDisk
from quorumlog.types import Buffer
from stored.batches import SMALL, FixedClock, append, content


def scenario(directory: Path) -> Log:
    log = Log.open(SystemDisk(), str(directory), SMALL, FixedClock())
    append(log, 4, values=[b"x" * 300])
    log.flush()
    append(log, 1, values=[b"%d" % number for number in range(100)])
    append(log, 6, values=[b"y" * 700])
    log.flush()
    log.truncate(8)
    append(log, 2, term=2)
    log.flush()
    return log


def files_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


class ShortSystem:
    """Reads and writes at most ``limit`` bytes at a time; the write ``failing`` fails, from 1."""

    def __init__(self, limit: int, failing: int = 0, code: int = errno.ENOSPC) -> None:
        self.limit = limit
        self.failing = failing
        self.code = code
        self.writes = 0
        self._pread, self._pwrite = os.pread, os.pwrite

    def pread(self, descriptor: int, size_bytes: int, position: int) -> bytes:
        return self._pread(descriptor, min(size_bytes, self.limit), position)

    def pwrite(self, descriptor: int, data: Buffer, position: int) -> int:
        self.writes += 1
        if self.writes == self.failing:
            raise OSError(self.code, os.strerror(self.code))
        return self._pwrite(descriptor, memoryview(data)[: self.limit], position)

    def pwritev(self, descriptor: int, buffers: Sequence[Buffer], position: int) -> int:
        return self.pwrite(descriptor, b"".join(buffers), position)


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as context:
        yield context


def install(patched: pytest.MonkeyPatch, system: ShortSystem) -> None:
    for name in ("pread", "pwrite", "pwritev"):
        patched.setattr(os, name, getattr(system, name))


@pytest.mark.parametrize("limit", [1, 7, 79, 500, 4096])
def test_short_reads_and_writes_change_nothing(
    limit: int, tmp_path: Path, patched: pytest.MonkeyPatch
) -> None:
    log = scenario(tmp_path / "whole")
    expected = content(log)
    log.close()
    install(patched, ShortSystem(limit))
    log = scenario(tmp_path / "short")
    assert content(log) == expected
    log.close()
    assert files_in(tmp_path / "short") == files_in(tmp_path / "whole")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_behind_a_short_write_leaves_what_was_flushed(
    code: int, tmp_path: Path, patched: pytest.MonkeyPatch
) -> None:
    limit = 400
    counting = ShortSystem(limit)
    install(patched, counting)
    assert not not_done(tmp_path / "counted", [])
    failed = 0
    for failing in range(1, counting.writes + 1):
        system = ShortSystem(limit, failing, code)
        patched.undo()
        install(patched, system)
        directory = tmp_path / f"{failing}"
        flushed: list[int] = []
        failed += not_done(directory, flushed)
        patched.undo()
        log = Log.open(SystemDisk(), str(directory), SMALL, FixedClock())
        assert log.last_index >= max(flushed, default=0)
        assert [header.index for header in log.headers(1)] == list(range(1, log.last_index + 1))
        content(log)
        log.close()
    assert failed > counting.writes * 0.9


def not_done(directory: Path, flushed: list[int]) -> bool:
    """Append and flush; whether an error of the disk ended it. ``flushed`` gets what was kept."""
    try:
        log = Log.open(SystemDisk(), str(directory), SMALL, FixedClock())
        for _ in range(5):
            append(log, 3, values=[b"x" * 500])
            flushed.append(log.flush().last_index)
        log.close()
    except (DiskFull, LogFenced, OSError):
        return True
    return False
