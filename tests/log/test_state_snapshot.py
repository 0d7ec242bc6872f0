"""A state beside the segments: found whole or not at all, and never in the way."""

import errno
import struct
from random import Random

import pytest
from fastcrc.crc32 import iscsi as crc32c
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import StorageError
from quorumlog.log import state_snapshot
from quorumlog.log.batch import MAX_BODY_BYTES
from quorumlog.log.state_snapshot import (
    MAX_STATE_BYTES,
    FoundSnapshot,
    StateSnapshot,
    load_newest,
    save_snapshot,
)
from quorumlog.types import Index, Offset, Term
from sim.disk import SimDisk, SimFile, SimulatedCrash

DIRECTORY = "group/1"
END = 10**6
NUMBERS = st.integers(0, 2**64 - 1)


def empty_disk(seed: int = 1) -> SimDisk:
    disk = SimDisk(Random(seed))
    disk.make_directory(DIRECTORY)
    return disk


def snapshot_of(index: int, state: bytes | None = None) -> StateSnapshot:
    if state is None:
        state = b"state of %d" % index * 100
    return StateSnapshot(Index(index), Term(3), Offset(10 * index), 1_000 + index, b"who", state)


def disk_with(*indexes: int, seed: int = 1) -> SimDisk:
    disk = empty_disk(seed)
    for index in indexes:
        save_snapshot(disk, DIRECTORY, snapshot_of(index))
    return disk


def path_of(index: int) -> str:
    return f"{DIRECTORY}/{index:020}.state"


def names_in(disk: SimDisk) -> list[str]:
    return disk.list_directory(DIRECTORY)


def test_without_a_snapshot_nothing_is_found_and_nothing_is_wrong() -> None:
    assert load_newest(empty_disk(), DIRECTORY, END) == FoundSnapshot(None, ())


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=50), st.binary(max_size=50))
def test_what_is_saved_is_loaded(
    index: int, term: int, offset: int, timestamp_ms: int, configuration: bytes, state: bytes
) -> None:
    disk = empty_disk()
    saved = StateSnapshot(
        Index(index), Term(term), Offset(offset), timestamp_ms, configuration, state
    )
    save_snapshot(disk, DIRECTORY, saved)
    assert load_newest(disk, DIRECTORY, index) == FoundSnapshot(saved, ())
    if index:
        assert load_newest(disk, DIRECTORY, index - 1).snapshot is None


def test_the_bytes_on_disk_are_those_of_format_version_1() -> None:
    disk = empty_disk()
    saved = StateSnapshot(Index(7), Term(2), Offset(40), 1_000, b"cc", b"state")
    save_snapshot(disk, DIRECTORY, saved)
    assert names_in(disk) == ["00000000000000000007.state"]
    assert disk.content(path_of(7)).hex() == (
        "514c5001" + "4ca5d691"
        "0700000000000000" + "0200000000000000" + "2800000000000000" + "e803000000000000"
        "02000000" + "05000000" + "6363" + "7374617465"
    )


def test_the_newest_two_are_kept() -> None:
    assert names_in(disk_with(5)) == ["00000000000000000005.state"]
    assert names_in(disk_with(5, 8, 13)) == [
        "00000000000000000008.state",
        "00000000000000000013.state",
    ]


def test_a_snapshot_above_the_one_saved_is_of_a_log_that_is_gone() -> None:
    disk = disk_with(90, 100)
    save_snapshot(disk, DIRECTORY, snapshot_of(50))
    assert load_newest(disk, DIRECTORY, END).snapshot == snapshot_of(50)
    save_snapshot(disk, DIRECTORY, snapshot_of(60))
    assert load_newest(disk, DIRECTORY, 55).snapshot == snapshot_of(50)


def test_saved_again_at_the_same_index_it_replaces_the_one_before() -> None:
    disk = disk_with(5, 8)
    save_snapshot(disk, DIRECTORY, snapshot_of(8, b"new"))
    assert load_newest(disk, DIRECTORY, END).snapshot == snapshot_of(8, b"new")
    assert len(names_in(disk)) == 2


def test_one_beyond_the_index_asked_for_is_passed_over() -> None:
    disk = disk_with(5, 8)
    assert load_newest(disk, DIRECTORY, 8).snapshot == snapshot_of(8)
    assert load_newest(disk, DIRECTORY, 7).snapshot == snapshot_of(5)
    assert load_newest(disk, DIRECTORY, 4).snapshot is None


def test_files_of_other_names_are_left_alone() -> None:
    disk = empty_disk()
    others = ["1.state", "00000000000000000001.log", f"{'x' * 20}.state", "hard-state"]
    for name in others:
        disk.open(f"{DIRECTORY}/{name}", create=True).close()
    for index in (1, 2, 3):
        save_snapshot(disk, DIRECTORY, snapshot_of(index))
    assert set(others) < set(names_in(disk))
    assert load_newest(disk, DIRECTORY, END) == FoundSnapshot(snapshot_of(3), ())


def test_every_flipped_bit_is_noticed_and_the_one_before_is_taken() -> None:
    disk = disk_with(5)
    save_snapshot(disk, DIRECTORY, snapshot_of(8, b"s"))
    for position in range(len(disk.content(path_of(8)))):
        for bit in range(8):
            disk.flip_bit(path_of(8), position, bit)
            found = load_newest(disk, DIRECTORY, END)
            assert found.snapshot == snapshot_of(5)
            assert [str(error).split(" (")[0] for error in found.damage] == [
                f"{path_of(8)} is damaged"
            ]
            disk.flip_bit(path_of(8), position, bit)


def test_a_cut_or_longer_file_is_noticed() -> None:
    whole = disk_with(8).content(path_of(8))
    for size_bytes in (*range(len(whole)), len(whole) + 1):
        disk = disk_with(5, 8)
        disk.open(path_of(8)).truncate(size_bytes)
        assert load_newest(disk, DIRECTORY, END).snapshot == snapshot_of(5), size_bytes


def test_a_snapshot_under_the_name_of_another_index_is_not_taken() -> None:
    disk = disk_with(5, 8)
    disk.rename(path_of(8), path_of(9))
    found = load_newest(disk, DIRECTORY, END)
    assert found.snapshot == snapshot_of(5)
    assert "the state of 9" in str(found.damage[0])


def test_a_file_that_cannot_be_read_is_passed_over() -> None:
    class BadDisk(SimDisk):
        bad = ""

        def open_readonly(self, path: str) -> SimFile:
            if path == self.bad:
                raise OSError(errno.EIO, "Input/output error", path)
            return super().open_readonly(path)

    disk = BadDisk(Random(1))
    disk.make_directory(DIRECTORY)
    save_snapshot(disk, DIRECTORY, snapshot_of(5))
    save_snapshot(disk, DIRECTORY, snapshot_of(8))
    disk.bad = path_of(8)
    found = load_newest(disk, DIRECTORY, END)
    assert found.snapshot == snapshot_of(5)
    assert "Input/output error" in str(found.damage[0])
    assert load_newest(disk, "nowhere", END).snapshot is None


def test_a_file_over_the_bound_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = disk_with(5)
    disk.open(path_of(8), create=True).allocate(3_000)
    monkeypatch.setattr(state_snapshot, "MAX_STATE_BYTES", 2_000)
    monkeypatch.setattr(state_snapshot, "MAX_BODY_BYTES", 50)
    reads = disk.calls["read"]
    found = load_newest(disk, DIRECTORY, END)
    assert found.snapshot == snapshot_of(5)
    assert "3000" in str(found.damage[0])
    assert disk.calls["read"] == reads + 1


@pytest.mark.parametrize(
    ("state_bytes", "configuration_bytes"), [(MAX_STATE_BYTES + 1, 0), (0, MAX_BODY_BYTES + 1)]
)
def test_a_state_over_the_bound_is_refused_and_changes_nothing(
    state_bytes: int, configuration_bytes: int
) -> None:
    disk = disk_with(5)
    large = StateSnapshot(
        Index(9), Term(1), Offset(0), 0, bytes(configuration_bytes), bytes(state_bytes)
    )
    with pytest.raises(StorageError, match="limits"):
        save_snapshot(disk, DIRECTORY, large)
    assert names_in(disk) == ["00000000000000000005.state"]


def test_a_power_cut_at_every_call_leaves_the_one_before_or_the_new_one() -> None:
    for change in range(1, 30):
        for seed in range(20):
            disk = disk_with(5, 8, seed=seed * 100 + change)
            disk.crash_before(change)
            try:
                save_snapshot(disk, DIRECTORY, snapshot_of(13))
                saved = True
            except SimulatedCrash:
                saved = False
            disk.crash()
            found = load_newest(disk, DIRECTORY, END)
            # Never damage either: where the name is, the content is.
            assert found.damage == ()
            assert found.snapshot in ((snapshot_of(8), snapshot_of(13))[saved:])
            save_snapshot(disk, DIRECTORY, snapshot_of(20))
            assert load_newest(disk, DIRECTORY, END).snapshot == snapshot_of(20)
            assert len(names_in(disk)) == 2


def test_any_call_that_fails_leaves_the_one_before_or_the_new_one() -> None:
    change = 0
    while True:
        change += 1
        disk = disk_with(5, 8, seed=change)
        disk.fail_at(change)
        try:
            save_snapshot(disk, DIRECTORY, snapshot_of(13))
        except OSError:
            found = load_newest(disk, DIRECTORY, END)
            assert found.snapshot in (snapshot_of(8), snapshot_of(13))
            assert found.damage == ()
            assert f"{DIRECTORY}/state.new" not in names_in(disk)
        else:
            break
    assert change > 6


def test_a_full_disk_keeps_the_one_before_and_gets_its_space_back() -> None:
    disk = disk_with(5, 8)
    used_bytes = sum(len(disk.content(f"{DIRECTORY}/{name}")) for name in names_in(disk))
    disk.capacity_bytes = used_bytes + 300
    with pytest.raises(OSError, match="No space"):
        save_snapshot(disk, DIRECTORY, snapshot_of(13))
    assert disk.free_bytes() == 300
    assert load_newest(disk, DIRECTORY, END) == FoundSnapshot(snapshot_of(8), ())


def test_a_longer_draft_that_a_crash_has_left_is_written_over() -> None:
    disk = disk_with(5)
    disk.open(f"{DIRECTORY}/state.new", create=True).write_at(0, [bytes(5_000)])
    save_snapshot(disk, DIRECTORY, snapshot_of(8))
    assert load_newest(disk, DIRECTORY, END) == FoundSnapshot(snapshot_of(8), ())


def test_lengths_that_do_not_add_up_are_refused_whatever_the_checksum_says() -> None:
    disk = disk_with(5, 8)
    checked = struct.pack("<QQQQII", 8, 3, 80, 1_008, 2, 6) + b"whose" + b"st"
    file = disk.open(path_of(8))
    file.truncate(0)
    file.write_at(0, [b"QLP\x01", struct.pack("<I", crc32c(checked)), checked])
    found = load_newest(disk, DIRECTORY, END)
    assert found.snapshot == snapshot_of(5)
    assert "the state of 8" in str(found.damage[0])


def test_states_beyond_what_is_durable_take_the_place_of_none_that_is_before_it() -> None:
    disk = disk_with(10, 20)
    for index in (30, 40, 50):
        save_snapshot(disk, DIRECTORY, snapshot_of(index), durable_index=25)
    assert names_in(disk) == [f"{index:020}.state" for index in (10, 20, 50)]
    save_snapshot(disk, DIRECTORY, snapshot_of(60), durable_index=55)
    assert names_in(disk) == [f"{index:020}.state" for index in (20, 50, 60)]
    save_snapshot(disk, DIRECTORY, snapshot_of(70), durable_index=70)
    assert names_in(disk) == [f"{index:020}.state" for index in (60, 70)]
