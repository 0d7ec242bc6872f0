"""Power cuts, dead processes and disk errors at every call of compaction and deletion."""

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import pytest

from quorumlog.errors import DiskFull, LogFenced, QuorumlogError, StorageError
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.cleaning.housekeeping import Housekeeper
from quorumlog.log.cleaning.retention import Retention
from sim.disk import SimDisk, SimulatedCrash
from stored.keyed import KeyedLog, Model

SETTINGS = Compaction(min_dirty_ratio=0.0, tombstone_delay_s=100.0, map_bytes=4096)
OUTCOMES = 2
"""How many different power cuts are tried at each place."""


def first_pass(keyed: KeyedLog) -> None:
    """Whole segments emptied, others thinned, some that stay, and a lot that is joined."""
    for number in range(3):
        keyed.append(*[(b"only-%d-%d" % (number, each), b"x" * 60) for each in range(3)])
        keyed.append((None, b"y" * 500))
    for number in range(28):
        keyed.append((b"k%d" % (number % 5), b"%d" % number), producer_id=number % 3)
    keyed.append(term=2)
    keyed.append((b"k1", None), (b"only-1-1", None))
    keyed.seal()


def second_pass(keyed: KeyedLog) -> None:
    """A segment that was cleaned before is thinned again and joined with newer ones."""
    first_pass(keyed)
    keyed.compact()
    for number in range(16):
        keyed.append((b"k%d" % (number % 7), b"again %d" % number))
    keyed.seal()
    keyed.clock.now_s += 10


def due_tombstones(keyed: KeyedLog) -> None:
    second_pass(keyed)
    keyed.compact()
    keyed.clock.now_s += 200


def full_map(keyed: KeyedLog) -> None:
    """More keys than the map holds: the pass ends in the middle of a segment."""
    for turn in range(2):
        for first in range(0, 130, 13):
            keyed.append(*[(b"k%d" % number, b"%d" % turn) for number in range(first, first + 13)])
            keyed.append(*[(b"hot %d" % number, b"%d" % turn) for number in range(4)])
    keyed.seal()


PHASES = [first_pass, second_pass, due_tombstones, full_map]
Prepare = Callable[[KeyedLog], None]


@dataclass
class Prepared:
    """A log at rest, of which any number of copies can be opened."""

    disk: SimDisk
    model: Model
    now_s: float
    retention: Retention

    def opened(self, seed: int) -> KeyedLog:
        self.disk.rng.seed(seed)
        return reopened(self.disk.copy(), self.model, self.now_s)


def reopened(disk: SimDisk, model: Model, now_s: float) -> KeyedLog:
    keyed = KeyedLog(disk, SETTINGS)
    keyed.model = model.copy()
    keyed.clock.now_s = now_s
    # What a replica learns again from its leader after a restart.
    keyed.log.advance_commit_floor(keyed.log.last_index)
    return keyed


def prepared(prepare: Prepare, retention: Retention) -> Prepared:
    disk = SimDisk(Random(1))
    keyed = KeyedLog(disk, SETTINGS)
    prepare(keyed)
    keyed.log.close()
    return Prepared(disk, keyed.model, keyed.clock.now_s, retention)


def keeper_of(keyed: KeyedLog, retention: Retention) -> Housekeeper:
    return Housekeeper(keyed.log, retention, keyed.compactor, keyed.clock)


def places(start: Prepared) -> int:
    """How many changing calls one turn makes."""
    keyed = start.opened(0)
    assert isinstance(keyed.disk, SimDisk)
    before = keyed.disk.changes
    report = keeper_of(keyed, start.retention).run_once()
    assert report.errors == ()
    assert report.compaction is not None
    assert report.compaction.is_complete
    return keyed.disk.changes - before


def finish(keyed: KeyedLog, retention: Retention) -> None:
    """The turn can be made again, and brings the log where it has to get."""
    keyed.check()
    for _ in range(8):
        report = keeper_of(keyed, retention).run_once()
        assert report.errors == ()
        keyed.check()
        if report.compaction is None:
            break
    names = keyed.disk.list_directory("data")
    assert not [name for name in names if name.endswith(".compacted")]
    found = keyed.records()
    keys = [record.key for record in found.values() if record.key is not None]
    assert len(keys) == len(set(keys))


CASES = [
    pytest.param(phase, retention, id=f"{phase.__name__}-{name}")
    for phase in PHASES
    for name, retention in (("compact", Retention()), ("both", Retention(records=25)))
]


def crashes(start: Prepared, seeds: int) -> Iterator[tuple[int, int, KeyedLog, SimDisk]]:
    for place in range(1, places(start) + 1):
        for seed in range(seeds):
            keyed = start.opened(seed)
            disk = keyed.disk
            assert isinstance(disk, SimDisk)
            disk.rng.seed(place * 1009 + seed)
            yield place, seed, keyed, disk


@pytest.mark.parametrize(("prepare", "retention"), CASES)
def test_a_power_cut_at_every_call_loses_nothing(prepare: Prepare, retention: Retention) -> None:
    start = prepared(prepare, retention)
    for place, _, keyed, disk in crashes(start, OUTCOMES):
        disk.crash_before(place)
        with pytest.raises(SimulatedCrash):
            keeper_of(keyed, retention).run_once()
        disk.crash()
        finish(reopened(disk, keyed.model, keyed.clock.now_s), retention)


@pytest.mark.parametrize(("prepare", "retention"), CASES)
def test_a_process_that_dies_at_any_call_loses_nothing_and_what_is_found_then_is_durable(
    prepare: Prepare, retention: Retention
) -> None:
    start = prepared(prepare, retention)
    for place, _, keyed, disk in crashes(start, 1):
        disk.crash_before(place)
        with pytest.raises(SimulatedCrash):
            keeper_of(keyed, retention).run_once()
        disk.kill()
        found = reopened(disk, keyed.model, keyed.clock.now_s)
        found.check()
        keyed.model = found.model
        disk.crash()
        finish(reopened(disk, keyed.model, keyed.clock.now_s), retention)


def test_a_power_cut_while_the_next_open_finishes_loses_nothing_either() -> None:
    start = prepared(second_pass, Retention())
    for place in range(1, places(start) + 1, 2):
        for second in range(1, 9):
            keyed = start.opened(second)
            disk = keyed.disk
            assert isinstance(disk, SimDisk)
            disk.crash_before(place)
            with pytest.raises(SimulatedCrash):
                keyed.compactor.run()
            disk.crash()
            disk.crash_before(second)
            with suppress(SimulatedCrash):
                KeyedLog(disk, SETTINGS).log.close()
            disk.crash()
            finish(reopened(disk, keyed.model, keyed.clock.now_s), Retention())


def test_a_mark_survives_a_dead_process_and_a_power_cut_in_a_row() -> None:
    for seed in range(120):
        keyed = KeyedLog(SimDisk(Random(seed)), SETTINGS)
        disk = keyed.disk
        assert isinstance(disk, SimDisk)
        keyed.append((b"k", b"v"))
        keyed.seal()
        for after_store, die in ((3, disk.kill), (3, disk.crash)):
            disk.crash_before(after_store)
            with pytest.raises(SimulatedCrash):
                keyed.log.upkeep.set_cleaned(keyed.log.segments()[0], 1, 0, 0)
            die()
            keyed.open()
        with_mark = keyed.log.segments()[0].segment.mark
        assert with_mark is not None


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(("prepare", "retention"), CASES)
def test_an_error_at_every_call_is_reported_and_loses_nothing(
    prepare: Prepare, retention: Retention, code: int
) -> None:
    start = prepared(prepare, retention)
    told = 0
    for place, _, keyed, disk in crashes(start, 1):
        disk.fail_at(place, code)
        try:
            report = keeper_of(keyed, retention).run_once()
        except LogFenced:
            told += 1
        else:
            told += bool(report.errors)
            assert all(isinstance(error, StorageError) for error in report.errors)
            keyed.check()
            # The log goes on, whatever became of its housekeeping.
            keyed.append((b"later", b"later"))
            keyed.flush()
            keyed.check()
        disk.crash()
        finish(reopened(disk, keyed.model, keyed.clock.now_s), retention)
    # Index files and the removal of an attempt may fail unnoticed, nothing else.
    assert told > places(start) * 2 // 3


def test_a_disk_without_space_for_a_pass_leaves_everything_as_it_was() -> None:
    start = prepared(first_pass, Retention())
    keyed = start.opened(0)
    disk = keyed.disk
    assert isinstance(disk, SimDisk)
    before = keyed.stored()
    disk.capacity_bytes = 0
    report = keeper_of(keyed, Retention()).run_once()
    assert [type(error) for error in report.errors] == [DiskFull]
    assert "make some space" in str(report.errors[0])
    assert report.compaction is None
    assert [bytes(batch.head) for batch in keyed.stored()] == [bytes(each.head) for each in before]
    assert not [name for name in disk.list_directory("data") if name.endswith(".compacted")]
    disk.capacity_bytes = None
    finish(keyed, Retention())


def test_deletion_makes_space_on_a_disk_that_is_full() -> None:
    keyed = KeyedLog(SimDisk(Random(1)), SETTINGS)
    disk = keyed.disk
    assert isinstance(disk, SimDisk)
    for number in range(120):
        keyed.append((b"%d" % number, b"x" * 60))
    keyed.flush()
    used_bytes = used_on(disk)
    disk.capacity_bytes = 0
    with suppress(DiskFull):
        for _ in range(80):
            keyed.append((b"more", b"x" * 60))
            keyed.log.flush()
    assert keyed.log.dirty
    report = keeper_of(keyed, Retention(records=20)).run_once()
    assert report.segments_removed > 8
    disk.capacity_bytes = used_bytes
    keyed.flush()
    keyed.check()


def used_on(disk: SimDisk) -> int:
    return sum(len(disk.content(f"data/{name}")) for name in disk.list_directory("data"))


def test_a_result_that_could_not_take_its_place_waits_for_the_next_open() -> None:
    """It may be the only copy of what it holds: no further pass may write over it."""
    start = prepared(first_pass, Retention())
    blocked = 0
    for place, _, keyed, disk in crashes(start, 1):
        disk.fail_at(place, errno.EIO)
        try:
            keyed.compactor.run()
        except QuorumlogError:
            names = disk.list_directory("data")
            if any(name.endswith(".compacted") for name in names):
                try:
                    keyed.compactor.run()
                except StorageError as error:
                    blocked += "open it again" in str(error)
                    assert disk.list_directory("data") == names
                keyed.check()
        disk.kill()
        finish(reopened(disk, keyed.model, keyed.clock.now_s), Retention())
    assert blocked > 5
