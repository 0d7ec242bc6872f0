"""A replica that was moved away: its data go, its term and vote stay, whatever happens."""

from random import Random

from quorumlog.errors import StorageError
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.replication.catch_up.leaving import finish_leaving, has_left, leave, left_at
from quorumlog.replication.catch_up.starting_over import is_recovering, settle
from quorumlog.types import Index, NodeId, Term
from sim.disk import SimDisk, SimulatedCrash

DIRECTORY = "groups/7"
STATE = HardState(Term(12), NodeId("n3"))


def used_disk(seed: int = 1) -> SimDisk:
    disk = SimDisk(Random(seed))
    disk.make_directory(DIRECTORY)
    disk.open(f"{DIRECTORY}/{1:020}.log", create=True).close()
    file = HardStateFile(disk, f"{DIRECTORY}/hard-state")
    file.save(STATE)
    file.close()
    disk.sync_directory(DIRECTORY)
    return disk


def is_gone(disk: SimDisk) -> bool:
    """Whether nothing but term and vote is left; all of it has to be there otherwise."""
    assert disk.list_directory("groups") == ["7"]
    file = HardStateFile(disk, f"{DIRECTORY}/hard-state")
    assert file.load() == STATE
    file.close()
    gone = has_left(disk, DIRECTORY)
    assert is_recovering(disk, DIRECTORY) == gone
    assert left_at(disk, DIRECTORY) == (17 if gone else None)
    assert (f"{1:020}.log" in disk.list_directory(DIRECTORY)) != gone
    return gone


def test_term_and_vote_stay_and_whoever_comes_back_has_to_recover() -> None:
    disk = used_disk()
    assert not is_gone(disk)
    leave(disk, DIRECTORY, Index(17), 5_000)
    disk.crash()
    assert is_gone(disk)


def test_a_power_cut_at_every_call_leaves_all_or_nothing() -> None:
    outcomes = set()
    for change in range(1, 30):
        for seed in range(8):
            disk = used_disk(seed * 100 + change)
            disk.crash_before(change)
            decided = False
            try:
                leave(disk, DIRECTORY, Index(17), 5_000)
                decided = True
            except SimulatedCrash:
                pass
            disk.crash()
            settle(disk, DIRECTORY)
            finish_leaving(disk, "groups")
            disk.crash()
            gone = is_gone(disk)
            assert gone or not decided
            outcomes.add((decided, gone))
    assert outcomes == {(False, False), (False, True), (True, True)}


def test_a_call_that_fails_anywhere_can_be_tried_again() -> None:
    change = 0
    while True:
        change += 1
        disk = used_disk(change)
        disk.fail_at(change)
        try:
            leave(disk, DIRECTORY, Index(17), 5_000)
        except (OSError, StorageError):
            settle(disk, DIRECTORY)
            finish_leaving(disk, "groups")
            if not is_gone(disk):
                leave(disk, DIRECTORY, Index(17), 5_000)
            assert is_gone(disk)
        else:
            break
    assert change > 10
