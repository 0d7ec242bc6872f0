"""Ways for a log to die in the middle of a scenario, and what has to hold afterwards."""

import errno
from contextlib import suppress
from random import Random
from typing import Final

from quorumlog.errors import DiskFull, LogFenced
from sim.disk import SimDisk, SimulatedCrash
from stored.batches import append, open_log
from stored.scenarios import Scenario
from stored.tracked import TakenBack, TrackedLog, check_found, check_goes_on

_SEED_STEP: Final = 1009
_ENOUGH_BYTES: Final = 160 * 1024


def places_in(scenario: Scenario) -> int:
    """How many changing calls to the disk ``scenario`` makes after the log was opened."""
    disk = SimDisk(Random(0))
    tracked = TrackedLog(disk, scenario.config)
    before = disk.changes
    scenario.run(tracked)
    return disk.changes - before


def places_of(scenario: Scenario) -> range:
    """All of them; the last one is behind the end of the scenario."""
    return range(1, places_in(scenario) + 2)


def bytes_in(scenario: Scenario) -> tuple[int, int]:
    """Bytes on the disk when the log was opened, and what is surely enough for ``scenario``."""
    disk = SimDisk(Random(0))
    tracked = TrackedLog(disk, scenario.config)
    lowest = _used_bytes(disk)
    scenario.run(tracked)
    return lowest, lowest + _ENOUGH_BYTES


def power_cut(scenario: Scenario, place: int, seed: int) -> None:
    """The power is cut before the ``place``-th change, from 1."""
    disk, tracked = _crashed(scenario, place, seed)
    disk.crash()
    _check(disk, tracked, power_cut=True)


def power_cut_twice(scenario: Scenario, place: int, second: int, seed: int) -> None:
    """As ``power_cut``, and again before the ``second``-th change of the recovery."""
    disk, tracked = _crashed(scenario, place, seed)
    disk.crash()
    disk.crash_before(second)
    with suppress(SimulatedCrash):
        open_log(disk, scenario.config).close()
    disk.crash()
    _check(disk, tracked, power_cut=True)


def refused_at_open(scenario: Scenario, place: int, second: int, seed: int) -> None:
    """The power is cut, and the ``second``-th change of the recovery fails; the next one works."""
    disk, tracked = _crashed(scenario, place, seed)
    disk.crash()
    disk.fail_at(second, errno.EIO if seed % 2 else errno.ENOSPC)
    with suppress(OSError, LogFenced, DiskFull):
        open_log(disk, scenario.config).close()
    disk.kill()
    tracked.written = tracked.legal
    tracked.die()
    disk.crash()
    _check(disk, tracked, power_cut=True)


def killed(scenario: Scenario, place: int) -> None:
    """The process dies before the ``place``-th change; what the next one finds is durable."""
    disk, tracked = _crashed(scenario, place, 0)
    disk.kill()
    tracked.die()
    disk.crash()
    _check(disk, tracked, power_cut=True)


def io_error(scenario: Scenario, place: int, seed: int, *, cut: bool) -> bool:
    """The ``place``-th change fails; then the power is cut.

    Without ``cut`` the process dies first, and the next one opens the log before the power is cut.

    Returns:
        Whether the log was fenced; if so, it refused everything from then on.
    """
    disk = SimDisk(Random(seed * _SEED_STEP + place))
    tracked = TrackedLog(disk, scenario.config)
    disk.fail_at(place, errno.EIO)
    try:
        scenario.run(tracked)
    except LogFenced:
        _check_fenced(tracked)
    except OSError:
        # Of opening a log again, which fences nothing.
        pass
    fenced = tracked.log.is_fenced
    if not cut:
        disk.kill()
        tracked.die()
    disk.crash()
    _check(disk, tracked, power_cut=True)
    return fenced


def full_at_call(scenario: Scenario, place: int, seed: int) -> int:
    """The ``place``-th change finds the disk full, later ones do not; then the power is cut.

    With an odd seed, what waited for space is taken back.

    Returns:
        How often a call of the log said so.
    """
    disk = SimDisk(Random(seed * _SEED_STEP + place))
    tracked = TrackedLog(disk, scenario.config, takes_back=seed % 2 == 1)
    disk.fail_at(place, errno.ENOSPC)
    return _run_full(disk, tracked, scenario)


def full_at_byte(scenario: Scenario, capacity_bytes: int, seed: int) -> int:
    """The disk holds ``capacity_bytes`` until the log has met its end; then the power is cut."""
    disk = SimDisk(Random(seed * _SEED_STEP + capacity_bytes))
    tracked = TrackedLog(disk, scenario.config, takes_back=seed % 2 == 1)
    disk.capacity_bytes = capacity_bytes
    return _run_full(disk, tracked, scenario)


def _run_full(disk: SimDisk, tracked: TrackedLog, scenario: Scenario) -> int:
    try:
        scenario.run(tracked)
    except LogFenced:
        _check_fenced(tracked)
    except TakenBack:
        pass
    except (DiskFull, OSError):
        # Of what is not repeated here: opening a log, closing it.
        tracked.freed += 1
    disk.capacity_bytes = None
    disk.crash()
    _check(disk, tracked, power_cut=True)
    return tracked.freed


def _crashed(scenario: Scenario, place: int, seed: int) -> tuple[SimDisk, TrackedLog]:
    disk = SimDisk(Random(seed * _SEED_STEP + place))
    tracked = TrackedLog(disk, scenario.config)
    disk.crash_before(place)
    with suppress(SimulatedCrash):
        scenario.run(tracked)
    return disk, tracked


def _check(disk: SimDisk, tracked: TrackedLog, *, power_cut: bool) -> None:
    log = open_log(disk, tracked.config)
    check_found(log, tracked, power_cut=power_cut)
    check_goes_on(disk, log, tracked.config)


def _check_fenced(tracked: TrackedLog) -> None:
    for action in (tracked.log.flush, lambda: append(tracked.log), tracked.log.sync):
        try:
            action()
        except LogFenced:
            continue
        raise AssertionError("a fenced log took something")
    tracked.log.close()


def _used_bytes(disk: SimDisk) -> int:
    disk.capacity_bytes, before = 1 << 60, disk.capacity_bytes
    free_bytes = disk.free_bytes()
    disk.capacity_bytes = before
    return (1 << 60) - (free_bytes or 0)
