"""The simulated disk does the harm it promises."""

import errno
from random import Random

import pytest

from sim.disk import SimDisk, SimulatedCrash


def disk_with(seed: int, data: bytes = b"") -> SimDisk:
    disk = SimDisk(Random(seed))
    disk.make_directory("d")
    file = disk.open("d/f", create=True)
    file.write_at(0, [data])
    file.sync()
    file.close()
    disk.sync_directory("d")
    return disk


def test_what_was_synced_survives_every_crash() -> None:
    for seed in range(50):
        disk = disk_with(seed, b"x" * 5000)
        disk.crash()
        assert disk.content("d/f") == b"x" * 5000


def test_an_unsynced_sector_is_kept_lost_or_garbled() -> None:
    fates = set()
    for seed in range(200):
        disk = disk_with(seed, b"o" * 2048)
        disk.open("d/f").write_at(512, [b"n" * 1024])
        disk.crash()
        content = disk.content("d/f")
        assert content[:512] == b"o" * 512
        assert content[1536:] == b"o" * 512
        for begin in (512, 1024):
            sector = content[begin : begin + 512]
            kinds = {b"n" * 512: "kept", b"o" * 512: "lost"}
            fates.add((begin, kinds.get(sector, "garbled")))
    assert len(fates) == 6


def test_an_unsynced_end_of_file_may_be_lost_or_stay() -> None:
    sizes = set()
    for seed in range(50):
        disk = disk_with(seed, b"x" * 700)
        file = disk.open("d/f")
        file.write_at(700, [b"y" * 900])
        disk.crash()
        sizes.add(len(disk.content("d/f")))
    assert sizes == {700, 1600}


def test_an_unsynced_truncation_may_come_back() -> None:
    contents = set()
    for seed in range(50):
        disk = disk_with(seed, b"x" * 1024)
        disk.open("d/f").truncate(512)
        disk.crash()
        contents.add(disk.content("d/f"))
    assert b"x" * 512 in contents
    assert b"x" * 1024 in contents


def test_of_unsynced_names_a_prefix_survives() -> None:
    seen = set()
    for seed in range(100):
        disk = disk_with(seed)
        disk.open("d/g", create=True)
        disk.rename("d/g", "d/h")
        disk.remove("d/f")
        disk.crash()
        seen.add(tuple(disk.list_directory("d")))
    assert seen == {("f",), ("f", "g"), ("f", "h"), ("h",)}


def test_a_failed_sync_drops_the_pages_for_good() -> None:
    lost = 0
    for seed in range(50):
        disk = disk_with(seed, b"o" * 512)
        file = disk.open("d/f")
        file.write_at(0, [b"n" * 512])
        disk.fail_at(1)
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        assert file.read_at(0, 512) == b"n" * 512
        file.sync()
        disk.crash()
        lost += disk.content("d/f") == b"o" * 512
    assert lost == 50


def test_a_failed_write_has_written_a_prefix() -> None:
    lengths = set()
    for seed in range(50):
        disk = disk_with(seed)
        file = disk.open("d/f")
        disk.fail_at(1, errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            file.write_at(0, [b"abcdef"])
        content = disk.content("d/f")
        assert b"abcdef".startswith(content)
        lengths.add(len(content))
    assert len(lengths) > 3


def test_a_full_disk_takes_what_fits_and_goes_on_when_there_is_space() -> None:
    disk = disk_with(1)
    disk.capacity_bytes = 100
    file = disk.open("d/f")
    with pytest.raises(OSError, match="No space") as caught:
        file.write_at(0, [b"x" * 150])
    assert caught.value.errno == errno.ENOSPC
    assert disk.content("d/f") == b"x" * 100
    with pytest.raises(OSError, match="No space"):
        file.allocate(101)
    disk.capacity_bytes = 200
    file.write_at(0, [b"y" * 150])
    assert disk.content("d/f") == b"y" * 150


def test_after_a_crash_nothing_of_before_can_be_used() -> None:
    disk = disk_with(1)
    file = disk.open("d/f")
    lock = disk.lock("d/lock")
    disk.crash_before(1)
    with pytest.raises(SimulatedCrash):
        file.write_at(0, [b"x"])
    with pytest.raises(SimulatedCrash):
        disk.list_directory("d")
    disk.crash()
    with pytest.raises(SimulatedCrash):
        file.read_at(0, 1)
    again = disk.lock("d/lock")
    lock.release()
    with pytest.raises(BlockingIOError):
        disk.lock("d/lock")
    again.release()


def test_a_killed_process_loses_no_byte() -> None:
    disk = disk_with(1)
    disk.open("d/f").write_at(0, [b"x" * 5000])
    disk.open("d/g", create=True)
    disk.kill()
    assert disk.content("d/f") == b"x" * 5000
    assert disk.exists("d/g")


def test_the_same_seed_gives_the_same_disk() -> None:
    def run() -> bytes:
        disk = disk_with(7, b"o" * 10_000)
        disk.open("d/f").write_at(100, [b"n" * 8_000])
        disk.crash()
        return disk.content("d/f")

    assert run() == run()
