"""Term and vote survive what they must survive, and are never silently forgotten."""

import errno
import struct
from random import Random

import pytest

from quorumlog.errors import Corrupt, DiskFull, InvalidArgument, LogFenced
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.slots import SLOT_STRIDE, SlotPair
from quorumlog.types import NodeId, Term
from sim.disk import SimDisk, SimulatedCrash

PATH = "node/hard-state"


def empty_disk(seed: int = 1) -> SimDisk:
    disk = SimDisk(Random(seed))
    disk.make_directory("node")
    return disk


def state(term: int, vote: str | None = None) -> HardState:
    return HardState(Term(term), None if vote is None else NodeId(vote))


def written(disk: SimDisk) -> list[int]:
    """Positions in the file of all slots that were written."""
    content = disk.content(PATH)
    slots = range(0, len(content), SLOT_STRIDE)
    return [at + byte for at in slots if any(content[at : at + 89]) for byte in range(89)]


def test_nothing_saved_is_term_0_without_a_vote() -> None:
    assert HardStateFile(empty_disk(), PATH).load() == HardState(Term(0), None)


def test_what_was_saved_last_is_loaded() -> None:
    disk = empty_disk()
    file = HardStateFile(disk, PATH)
    for saved in (state(1), state(1, "a" * 32), state(2**63, "n"), state(2**63 + 1, "")):
        file.save(saved)
        assert HardStateFile(disk, PATH).load() == saved
    file.close()


def test_a_save_after_a_load_replaces_the_older_slot() -> None:
    disk = empty_disk()
    HardStateFile(disk, PATH).save(state(1, "x"))
    for term in range(2, 7):
        file = HardStateFile(disk, PATH)
        assert file.load().term == term - 1
        file.save(state(term))
        file.close()


def test_a_vote_too_long_is_refused_and_changes_nothing() -> None:
    disk = empty_disk()
    file = HardStateFile(disk, PATH)
    file.save(state(3))
    with pytest.raises(InvalidArgument, match="64 bytes"):
        file.save(state(4, "x" * 65))
    assert file.load() == state(3)


def test_a_power_cut_at_every_call_leaves_the_last_state_saved_or_the_one_under_way() -> None:
    for change in range(1, 30):
        for seed in range(20):
            disk = empty_disk(seed * 100 + change)
            file = HardStateFile(disk, PATH)
            saved, under_way = HardState(), HardState()
            disk.crash_before(change)
            try:
                for term in range(1, 8):
                    under_way = state(term, f"node{term}")
                    file.save(under_way)
                    saved = under_way
            except SimulatedCrash:
                pass
            disk.crash()
            assert HardStateFile(disk, PATH).load() in (saved, under_way)


def test_what_was_loaded_after_a_process_died_survives_a_power_cut() -> None:
    for change in range(1, 30):
        for seed in range(10):
            disk = empty_disk(seed * 100 + change)
            file = HardStateFile(disk, PATH)
            disk.crash_before(change)
            try:
                for term in range(1, 8):
                    file.save(state(term))
            except SimulatedCrash:
                pass
            disk.kill()
            loaded = HardStateFile(disk, PATH).load()
            disk.crash()
            assert HardStateFile(disk, PATH).load() == loaded


def test_a_power_cut_while_what_a_dead_process_left_is_loaded_damages_one_slot_at_most() -> None:
    for seed in range(200):
        disk = empty_disk(seed)
        file = HardStateFile(disk, PATH)
        file.save(state(1))
        disk.crash_before(2)
        with pytest.raises(SimulatedCrash):
            file.save(state(2))
        disk.kill()
        disk.crash_before(2)
        with pytest.raises(SimulatedCrash):
            HardStateFile(disk, PATH).load()
        disk.crash()
        assert HardStateFile(disk, PATH).load() in (state(1), state(2))


def test_a_flipped_bit_anywhere_forgets_nothing() -> None:
    disk = empty_disk()
    file = HardStateFile(disk, PATH)
    for saved in (state(1), state(2, "x"), state(2**64 - 1, "n" * 64)):
        file.save(saved)
        for position in written(disk):
            for bit in range(8):
                twin = disk.copy()
                twin.flip_bit(PATH, position, bit)
                assert HardStateFile(twin, PATH).load() == saved
                assert HardStateFile(twin, PATH).load() == saved, "and is mended"


def test_a_power_cut_at_every_call_and_a_flipped_bit_forget_nothing_that_was_saved() -> None:
    """The bit goes before the power cut, or behind it."""
    for change in range(1, 20):
        for seed in range(4):
            disk = empty_disk(seed * 100 + change)
            file = HardStateFile(disk, PATH)
            saved, under_way = HardState(), HardState()
            disk.crash_before(change)
            try:
                for term in range(1, 5):
                    under_way = state(term, "n" * 30)
                    file.save(under_way)
                    saved = under_way
            except SimulatedCrash:
                pass
            disk.crash()
            if not disk.exists(PATH):
                assert saved == HardState()
                continue
            for position in written(disk)[seed::4]:
                twin = disk.copy()
                twin.flip_bit(PATH, position, position % 8)
                assert HardStateFile(twin, PATH).load() in (saved, under_way)


def test_rot_of_what_was_saved_before_a_power_cut_forgets_nothing() -> None:
    for seed in range(40):
        for slot in range(4):
            disk = empty_disk(seed)
            file = HardStateFile(disk, PATH)
            file.save(state(1))
            file.save(state(2, "x"))
            disk.flip_bit(PATH, slot * SLOT_STRIDE + 12, 1)
            disk.crash_before(1 + seed % 3)
            with pytest.raises(SimulatedCrash):
                file.save(state(3, "y"))
            disk.crash()
            assert HardStateFile(disk, PATH).load() in (state(2, "x"), state(3, "y"))


def test_damage_of_every_slot_is_corruption() -> None:
    disk = empty_disk()
    file = HardStateFile(disk, PATH)
    file.save(state(1))
    file.save(state(2, "x"))
    for slot in range(4):
        disk.flip_bit(PATH, slot * SLOT_STRIDE + 12, 0)
    with pytest.raises(Corrupt, match="term and vote"):
        HardStateFile(disk, PATH).load()


def test_a_file_without_copies_gets_them_when_it_is_loaded() -> None:
    disk = empty_disk()
    slots = SlotPair(b"QLH\x01", 0, 73)
    file = disk.open(PATH, create=True)
    for term, vote in ((1, b"x"), (2, b"y")):
        slots.store(file, struct.pack("<QB64s", term, 1, vote))
        file.sync()
    assert HardStateFile(disk, PATH).load() == state(2, "y")
    disk.flip_bit(PATH, 12, 0)
    assert HardStateFile(disk, PATH).load() == state(2, "y")


def test_an_empty_file_is_corruption_and_not_term_0() -> None:
    disk = empty_disk()
    disk.open(PATH, create=True).close()
    with pytest.raises(Corrupt):
        HardStateFile(disk, PATH).load()


def test_a_failed_fdatasync_fences() -> None:
    disk = empty_disk()
    file = HardStateFile(disk, PATH)
    file.save(state(1))
    disk.fail_at(3)
    with pytest.raises(LogFenced):
        file.save(state(2))
    with pytest.raises(LogFenced):
        file.save(state(3))


def test_a_failed_write_leaves_the_state_before_and_the_next_save_works() -> None:
    for seed in range(20):
        disk = empty_disk(seed)
        file = HardStateFile(disk, PATH)
        file.save(state(1))
        file.save(state(2))
        for _ in range(3):
            disk.fail_at(1, errno.ENOSPC)
            with pytest.raises(DiskFull, match="no space"):
                file.save(state(3))
        assert HardStateFile(disk, PATH).load() in (state(2), state(3))
        file.save(state(4))
        disk.crash()
        assert HardStateFile(disk, PATH).load() == state(4)
