"""Exceptions that a signal handler raises (Ctrl-C) in the middle of what the log does."""

import dis
import linecache
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count, pairwise
from random import Random
from threading import Event, Thread, get_ident
from types import CodeType, FrameType
from typing import Any

import pytest

from quorumlog.embedded import EmbeddedLog
from quorumlog.errors import LogFenced
from quorumlog.log.config import LogConfig
from sim.disk import SimDisk
from stored.batches import FixedClock

DIRECTORY = "data"
CONFIG = LogConfig(segment_bytes=1024, index_interval_bytes=128, tail_cache_bytes=300)
_FILES = ("/quorumlog/log/", "/quorumlog/embedded")


INTERRUPTED = [b"interrupted" * 15, b"too"]
"""What is appended, as one batch, when the interruption comes."""


class Interrupted(KeyboardInterrupt):
    """What the signal handler of these tests raises."""


class InterruptedDisk(SimDisk):
    """Raises ``error`` at the ``at``-th changing call, which is not done then."""

    def __init__(self) -> None:
        super().__init__(Random(1))
        self.at: int | None = None
        self.error: BaseException = Interrupted()

    def count(self, kind: str, path: str) -> None:
        super().count(kind, path)
        if self.at is not None and kind not in ("read", "open"):
            self.at -= 1
            if self.at == 0:
                self.at = None
                raise self.error


class Interruption:
    """Raises :class:`Interrupted` at the ``at``-th place in the block where a handler can run.

    The interpreter looks for signals behind calls, at the begin of functions and where it jumps
    back; so not between the taking of a lock by ``with`` and the first statement of the block.
    """

    def __init__(self, at: int) -> None:
        self._left = at
        self.has_come = False

    def __enter__(self) -> None:
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if not _is_ours(code.co_filename):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in _places(code):
            self._left -= 1
            if self._left == 0:
                self.has_come = True
                sys.settrace(None)
                line = linecache.getline(code.co_filename, frame.f_lineno)
                raise Interrupted(f"{code.co_filename}:{frame.f_lineno}: {line.strip()}")
        return self._trace


@cache
def _is_ours(file_name: str) -> bool:
    return "/tests/" not in file_name and any(part in file_name for part in _FILES)


@cache
def _places(code: CodeType) -> frozenset[int]:
    """The instructions before which a signal handler can run."""
    instructions = list(dis.get_instructions(code))
    behind = {
        after.offset
        for before, after in pairwise(instructions)
        if before.opname in ("CALL", "CALL_FUNCTION_EX", "RESUME")
    }
    return frozenset(behind | {each.offset for each in instructions if "BACKWARD" in each.opname})


def opened(disk: SimDisk, config: LogConfig = CONFIG) -> EmbeddedLog:
    return EmbeddedLog(disk, DIRECTORY, config, FixedClock())


def contents(log: EmbeddedLog) -> list[bytes | None]:
    records = list(log.read())
    assert [record.offset for record in records] == list(range(log.end_offset))
    return [record.value for record in records]


def check_goes_on(disk: SimDisk, log: EmbeddedLog, before: list[bytes | None]) -> None:
    """The interrupted append is there once or not at all, what comes after it always."""
    offset = log.append(b"after")
    content = contents(log)
    assert content in ([*before, b"after"], [*before, *INTERRUPTED, b"after"])
    assert content[offset] == b"after"
    more = [b"%d" % number * 100 for number in range(8)]
    for value in more:
        log.append(value)
    assert contents(log) == content + more
    disk.crash()
    assert contents(opened(disk)) == content + more


def at_every_place(action: Callable[[int], Interruption]) -> Iterator[int]:
    """Run ``action`` with an interruption at the first place, the second, until none comes."""
    for at in count(1):
        if not action(at).has_come:
            return
        yield at


@pytest.mark.parametrize("filling", range(4))
def test_an_append_interrupted_at_any_disk_call_is_done_by_the_next_one(filling: int) -> None:
    before: list[bytes | None] = [b"%d" % number * 200 for number in range(filling)]
    for at in count(1):
        disk = InterruptedDisk()
        log = opened(disk)
        for value in before:
            log.append(value)
        disk.at = at
        try:
            log.append_batch(INTERRUPTED)
        except Interrupted:
            check_goes_on(disk, log, before)
            continue
        assert at > 3
        return


@pytest.mark.parametrize("filling", [0, 3])
@pytest.mark.parametrize("fsync", ["always", "never"])
def test_an_append_interrupted_anywhere_is_there_once_or_not_at_all(
    filling: int, fsync: str
) -> None:
    config = LogConfig(
        segment_bytes=1024, index_interval_bytes=128, tail_cache_bytes=300, fsync=fsync
    )
    before: list[bytes | None] = [b"%d" % number * 200 for number in range(filling)]

    def interrupt(at: int) -> Interruption:
        disk = SimDisk(Random(1))
        log = opened(disk, config)
        for value in before:
            log.append(value)
        interruption = Interruption(at)
        try:
            with interruption:
                log.append_batch(INTERRUPTED)
        except Interrupted as error:
            try:
                if fsync == "never":
                    log.append(b"after")
                    log.flush()
                    content = contents(log)
                    assert content in (
                        [*before, b"after"],
                        [*before, *INTERRUPTED, b"after"],
                    )
                    disk.crash()
                    assert contents(opened(disk)) == content
                else:
                    check_goes_on(disk, log, before)
            except BaseException as failure:
                failure.add_note(f"interrupted at {error}")
                raise
        return interruption

    places = list(at_every_place(interrupt))
    assert len(places) > 50


def test_an_interrupted_close_gives_the_directory_free() -> None:
    for at in count(1):
        disk = InterruptedDisk()
        log = opened(disk)
        log.append(b"kept")
        disk.at = at
        try:
            log.close()
        except Interrupted:
            pass
        else:
            break
        again = opened(disk)
        assert contents(again) == [b"kept"]
        again.close()
    assert at > 3


def test_an_interruption_while_a_disk_error_is_handled_fences_the_log() -> None:
    disk = InterruptedDisk()
    log = opened(disk)
    log.append(b"before")
    # The write fails; the cutting of what it left is interrupted.
    disk.fail_at(1)
    disk.at = 1
    with pytest.raises(Interrupted):
        log.append(b"lost")
    with pytest.raises(LogFenced, match="after an error"):
        log.append(b"after")


def test_an_interruption_while_the_caller_handles_an_error_of_its_own_does_not_fence() -> None:
    disk = InterruptedDisk()
    log = opened(disk)
    disk.at = 1
    try:
        raise FileNotFoundError(2, "a file of the caller")
    except FileNotFoundError:
        with pytest.raises(Interrupted):
            log.append(b"interrupted")
    log.append(b"after")
    assert contents(log) == [b"interrupted", b"after"]


def test_a_timeout_that_a_signal_handler_raises_is_no_error_of_the_disk() -> None:
    # TimeoutError is an OSError.
    for at in count(1):
        disk = InterruptedDisk()
        disk.error = TimeoutError("the caller's alarm")
        log = opened(disk)
        disk.at = at
        try:
            log.append_batch(INTERRUPTED)
        except TimeoutError:
            check_goes_on(disk, log, [])
        else:
            break
    assert at > 3


@contextmanager
def signal_when(is_time: Callable[[], bool]) -> Iterator[None]:
    """Send this thread a signal, whose handler raises Interrupted, as soon as ``is_time``."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    def send() -> None:
        while not is_time():
            Event().wait(0.001)
        signal.pthread_kill(main, signal.SIGUSR1)

    main = get_ident()
    before = signal.signal(signal.SIGUSR1, handler)
    sender = Thread(target=send)
    sender.start()
    try:
        with pytest.raises(Interrupted):
            yield
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)


def test_who_waits_for_the_flush_of_others_can_be_interrupted() -> None:
    log = opened(SimDisk(Random(1)))
    with log.commits.flush_mutex, signal_when(lambda: log.commits.waiting == 1):
        log.append(b"interrupted")
    assert log.append(b"after") == 1
    assert contents(log) == [b"interrupted", b"after"]
    log.close()


def test_who_sleeps_until_others_have_flushed_can_be_interrupted() -> None:
    log = opened(SimDisk(Random(1)))
    offsets: list[int] = []
    with log.commits.flush_mutex:
        leader = Thread(target=lambda: offsets.append(log.append(b"leader")))
        leader.start()
        while not log.commits.waiting:
            Event().wait(0.001)
        with signal_when(lambda: log.commits.waiting == 2):
            log.append(b"interrupted")
    leader.join()
    assert offsets == [0]
    assert log.append(b"after") == 2
    assert contents(log) == [b"leader", b"interrupted", b"after"]
    log.close()


def test_when_who_is_to_flush_is_interrupted_another_one_that_waits_flushes() -> None:
    log = opened(SimDisk(Random(1)))
    offsets: list[int] = []

    def append_behind() -> None:
        while log.commits.waiting < 1:
            Event().wait(0.001)
        offsets.append(log.append(b"behind"))

    behind = Thread(target=append_behind)
    behind.start()
    with log.commits.flush_mutex, signal_when(lambda: log.commits.waiting == 2):
        log.append(b"interrupted")
    behind.join()
    assert offsets == [1]
    assert contents(log) == [b"interrupted", b"behind"]
    log.close()


def test_who_waits_at_the_end_of_the_log_can_be_interrupted() -> None:
    log = opened(SimDisk(Random(1)))
    with signal_when(lambda: log.commits.followers == 1):
        next(log.read(follow=True))
    assert log.append(b"after") == 0
    assert contents(log) == [b"after"]
    log.close()
