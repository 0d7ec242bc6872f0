"""What the tests of the log do in full, in pieces that find a bug in a second.

Each piece is a function that raises when it finds one.
"""

import errno
from collections.abc import Callable
from contextlib import suppress
from random import Random
from unittest.mock import patch

from quorumlog.errors import Corrupt, DiskFull
from quorumlog.log import writer
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import append, content, open_log
from stored.disasters import io_error, places_of, power_cut
from stored.keyed import KeyedLog
from stored.scenarios import SCENARIOS, Scenario


def _named(name: str) -> Scenario:
    (scenario,) = [each for each in SCENARIOS if each.name == name]
    return scenario


def power_cuts(name: str, seeds: int = 3) -> Callable[[], None]:
    def run() -> None:
        scenario = _named(name)
        for place in places_of(scenario):
            for seed in range(seeds):
                power_cut(scenario, place, seed)

    return run


def unfilled(evidence: Callable[[], None]) -> Callable[[], None]:
    """``evidence`` with all writes treated as large ones: no zeros are written ahead of them."""

    def run() -> None:
        with patch.object(writer, "_SMALL_WRITE_BYTES", 0):
            evidence()

    return run


def errors(name: str) -> Callable[[], None]:
    def run() -> None:
        scenario = _named(name)
        for place in places_of(scenario):
            io_error(scenario, place, 0, cut=True)
            io_error(scenario, place, 0, cut=False)

    return run


def rot() -> None:
    """A bit of every tenth byte of a small log flips: it is found or harmless."""
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 9, values=[b"x" * 300])
    log.flush()
    expected = content(log)
    disk.kill()
    for name in disk.list_directory("data"):
        path = f"data/{name}"
        raw = disk.content(path)
        for position in [at for at in range(len(raw)) if raw[at]][::10]:
            disk.flip_bit(path, position, position % 8)
            copy = disk.copy()
            disk.flip_bit(path, position, position % 8)
            with suppress(Corrupt):
                found = content(open_log(copy))
                assert found == expected, f"bit {position % 8} of byte {position} of {path}"


def torn_marks() -> None:
    """The power is cut while a second start of the log is being written."""
    for seed in range(60):
        disk = SimDisk(Random(seed))
        log = open_log(disk)
        append(log, 3)
        log.flush()
        log.advance_commit_floor(3)
        log.advance_start(1)
        log.flush()
        log.advance_start(2)
        disk.crash_before(3)
        with suppress(SimulatedCrash):
            log.flush()
        disk.crash()
        assert open_log(disk).start_offset >= 1


def half_writes() -> None:
    """What a full disk kept waiting is taken back, and less comes in its place."""
    for seed in range(40):
        disk = SimDisk(Random(seed))
        log = open_log(disk)
        append(log, 5, values=[b"same size"])
        disk.fail_at(1, errno.ENOSPC)
        with suppress(DiskFull):
            log.flush()
        log.truncate(2)
        append(log, 1, values=[b"same size"])
        log.flush()
        expected = content(log)
        disk.kill()
        assert content(open_log(disk)) == expected


def stale_index() -> None:
    """An index file that is there from before a truncation is not taken."""
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 9, values=[b"x" * 300])
    log.close()
    before = disk.copy()
    log = open_log(disk)
    log.truncate(2)
    append(log, 9, term=2, values=[b"y" * 350])
    log.close()
    for name in before.list_directory("data"):
        if name.endswith(".index") and disk.exists(f"data/{name}"):
            file = disk.open(f"data/{name}")
            file.truncate(0)
            file.write_at(0, [before.content(f"data/{name}")])
    log = open_log(disk)
    for index in range(log.last_index, 0, -1):
        assert log.slice(index, 1)[0].header.index == index


def compaction_cuts() -> None:
    """The power is cut at every call of a compaction."""
    start = SimDisk(Random(1))
    keyed = KeyedLog(start)
    for number in range(36):
        keyed.append((b"k%d" % (number % 3), b"%d" % number * 60))
    keyed.seal()
    keyed.log.close()
    place, is_done = 0, False
    while not is_done:
        place += 1
        for seed in range(3):
            disk = start.copy()
            disk.rng.seed(place * 1009 + seed)
            again = _keyed_on(disk, keyed)
            disk.crash_before(place)
            try:
                again.compact()
                is_done = True
            except SimulatedCrash:
                pass
            disk.crash()
            again = _keyed_on(disk, keyed)
            again.check()
            again.compact()


def _keyed_on(disk: SimDisk, like: KeyedLog) -> KeyedLog:
    keyed = KeyedLog(disk)
    keyed.model = like.model.copy()
    keyed.log.advance_commit_floor(keyed.log.last_index)
    return keyed
