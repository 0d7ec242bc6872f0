"""Bits that flip on disk: found, or harmless; never a wrong record, never a log cut short."""

from random import Random

import pytest

from quorumlog.errors import Corrupt, ProtocolError
from quorumlog.log.batch import iterate_batches
from quorumlog.log.segment import DATA_START
from sim.disk import SimDisk
from stored.batches import DIRECTORY, append, content, open_log, plain

FIRST = f"{DIRECTORY}/{1:020d}.log"


def two_segments(*, closed: bool) -> tuple[SimDisk, list[tuple[bytes, bytes]], list[str]]:
    """A disk, the log on it, its files. A log not closed keeps its preallocated zeros."""
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 3, values=[b"x" * 500])
    log.flush()
    append(log, 3, term=2, values=[b"y" * 300])
    append(log, 2, term=2, values=[])
    log.flush()
    expected = content(log)
    if closed:
        log.close()
    disk.kill()
    files = [f"{DIRECTORY}/{name}" for name in disk.list_directory(DIRECTORY)]
    return disk, expected, files


def used_positions(disk: SimDisk, path: str) -> list[int]:
    """The bytes that mean something: pages of zeros are left out but for a few samples."""
    raw = disk.content(path)
    used = [at for at in range(len(raw)) if raw[at]]
    zeros = [at for at in range(0, len(raw), 509) if not raw[at]]
    return sorted(set(used) | set(zeros) | set(range(min(64, len(raw)))))


def read_all(disk: SimDisk) -> list[tuple[bytes, bytes]] | None:
    """Everything a reader gets, by both ways; None when the damage was reported."""
    try:
        log = open_log(disk)
    except Corrupt:
        return None
    try:
        batches = content(log)
        offset = log.start_offset
        while offset < log.end_offset:
            fetched = log.fetch(offset, 1000, log.end_offset)
            fetched_batches = list(iterate_batches(fetched.data))
            assert all(pair in batches for pair in plain(fetched_batches))
            assert fetched.next_offset > offset
            offset = fetched.next_offset
        for header in log.headers(1):
            assert log.term_at(header.index) == header.term
    except (Corrupt, ProtocolError):
        return None
    return batches


@pytest.mark.parametrize("closed", [True, False])
def test_every_flipped_bit_is_found_or_harmless(closed: bool) -> None:
    original, expected, files = two_segments(closed=closed)
    assert len([path for path in files if path.endswith(".log")]) == 2
    rng = Random(5)
    found = tried = 0
    for path in files:
        for position in used_positions(original, path):
            for bit in range(8) if closed else (rng.randrange(8),):
                original.flip_bit(path, position, bit)
                disk = original.copy()
                original.flip_bit(path, position, bit)
                batches = read_all(disk)
                tried += 1
                found += batches is None
                assert batches is None or batches == expected, (path, position, bit)
    assert tried > (20_000 if closed else 2_500)
    assert found > tried * 0.8


def test_rot_in_a_sealed_segment_is_named_with_file_and_position() -> None:
    disk, _, _ = two_segments(closed=True)
    disk.flip_bit(FIRST, DATA_START + 100, 3)
    log = open_log(disk)
    with pytest.raises(Corrupt, match="batch 1") as caught:
        log.slice(1, 10_000)
    assert caught.value.file == FIRST
    assert caught.value.position == DATA_START


def test_rot_before_the_mark_is_not_cut_and_nothing_is_changed() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 3)
    log.flush()
    disk.kill()
    disk.flip_bit(FIRST, DATA_START + 90, 0)
    before = disk.content(FIRST)
    with pytest.raises(Corrupt) as caught:
        open_log(disk)
    assert caught.value.position == DATA_START
    assert disk.content(FIRST) == before


def test_rot_of_the_last_synced_batch_is_not_a_torn_tail() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 3)
    log.flush()
    end = DATA_START + sum(batch.size_bytes for batch in log.batches(1))
    disk.kill()
    disk.flip_bit(FIRST, end - 1, 0)
    with pytest.raises(Corrupt, match="on stable storage"):
        open_log(disk)


def test_a_tail_that_was_never_synced_is_cut_and_reported() -> None:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 3)
    log.flush()
    end = DATA_START + sum(batch.size_bytes for batch in log.batches(1))
    disk.kill()
    file = disk.open(FIRST)
    file.write_at(end + 10, [b"half a batch"])
    file.close()
    log = open_log(disk)
    assert log.last_index == 3
    assert log.recovery.cut_bytes == 22
    assert str(end) in log.recovery.reason


def test_a_good_batch_behind_a_torn_one_does_not_make_it_rot() -> None:
    """One flush of several batches, of which a power cut kept the later ones only."""
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 1)
    log.flush()
    disk.kill()
    disk_copy = disk.copy()
    log = open_log(disk)
    first = append(log, 3)
    log.flush()
    position = DATA_START + log.slice(1, 1)[0].size_bytes
    raw = bytearray(disk.content(FIRST))
    raw[position : position + 20] = bytes(20)
    file = disk_copy.open(FIRST)
    file.write_at(position, [raw[position : position + 1000]])
    file.close()
    log = open_log(disk_copy)
    assert log.last_index == 1
    assert log.recovery.cut_batches == 2
    assert len(first) == 3


def many_segments() -> tuple[SimDisk, list[str]]:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 30, values=[b"x" * 200])
    log.close()
    names = [name for name in disk.list_directory(DIRECTORY) if name.endswith(".log")]
    assert len(names) > 3
    return disk, names


def test_a_missing_segment_before_the_last_is_corruption() -> None:
    disk, names = many_segments()
    disk.remove(f"{DIRECTORY}/{names[-2]}")
    with pytest.raises(Corrupt, match="missing or foreign"):
        open_log(disk)


def test_a_missing_segment_in_the_middle_is_found_by_who_reads_there() -> None:
    disk, names = many_segments()
    disk.remove(f"{DIRECTORY}/{names[1]}")
    log = open_log(disk)
    with pytest.raises(Corrupt):
        content(log)
    log.close()


def test_a_segment_under_a_wrong_name_is_corruption() -> None:
    disk, _, _ = two_segments(closed=True)
    disk.rename(FIRST, f"{DIRECTORY}/{2:020d}.log")
    with pytest.raises(Corrupt, match="first index 2"):
        open_log(disk)


def test_unknown_files_are_left_alone() -> None:
    disk, expected, _ = two_segments(closed=True)
    for name in ("README", "1.log", f"{7:020d}.log.bak", "lock", "x" * 20 + ".log"):
        disk.open(f"{DIRECTORY}/{name}", create=True).close()
    before = disk.list_directory(DIRECTORY)
    log = open_log(disk)
    assert content(log) == expected
    log.close()
    assert disk.list_directory(DIRECTORY) == before


@pytest.mark.parametrize("damage", ["missing", "empty", "garbage", "flipped"])
def test_a_damaged_index_is_made_again(damage: str) -> None:
    disk, expected, _ = two_segments(closed=True)
    path = f"{DIRECTORY}/{1:020d}.index"
    good = disk.content(path)
    file = disk.open(path)
    if damage == "missing":
        disk.remove(path)
    elif damage == "empty":
        file.truncate(0)
    elif damage == "garbage":
        file.write_at(0, [b"garbage" * 100])
    else:
        disk.flip_bit(path, 60, 1)
    log = open_log(disk)
    assert log.recovery.indexes_missing == (damage == "missing")
    assert content(log) == expected
    assert log.indexes_rebuilt == 1
    assert disk.content(path) == good
    log.close()


def test_a_last_segment_without_its_first_pages_is_corruption() -> None:
    disk, _, files = two_segments(closed=True)
    last = [path for path in files if path.endswith(".log")][-1]
    disk.open(last).truncate(4096)
    calls = disk.calls["read"]
    real_count = disk.count

    def count(kind: str, path: str) -> None:
        real_count(kind, path)
        assert disk.calls["read"] < calls + 1000

    disk.count = count  # type: ignore[method-assign]
    with pytest.raises(Corrupt):
        open_log(disk)
