"""What every disk does: the real one and the simulated one."""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from quorumlog.ports import Disk
from quorumlog.system import SystemDisk
from sim.disk import SimDisk


@pytest.fixture(params=["system", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Disk, str]]:
    """A disk and an empty directory on it."""
    if request.param == "system":
        yield SystemDisk(), str(tmp_path)
    else:
        disk = SimDisk(Random(1))
        disk.make_directory("base")
        yield disk, "base"


def test_what_is_written_is_read_at_its_position(place: tuple[Disk, str]) -> None:
    disk, base = place
    file = disk.open(f"{base}/f", create=True)
    file.write_at(3, [b"abc", bytearray(b"def"), memoryview(b"ghi")])
    assert file.read_at(0, 100) == b"\0\0\0abcdefghi"
    assert file.read_at(4, 2) == b"bc"
    assert file.read_at(50, 10) == b""
    assert file.size_bytes() == 12
    file.close()


def test_more_buffers_than_one_system_call_takes_are_all_written(place: tuple[Disk, str]) -> None:
    disk, base = place
    buffers = [b"%05d" % number for number in range(5000)]
    file = disk.open(f"{base}/f", create=True)
    file.write_at(7, buffers)
    assert file.read_at(7, 50_000) == b"".join(buffers)
    file.close()


def test_a_write_into_the_middle_leaves_the_rest(place: tuple[Disk, str]) -> None:
    disk, base = place
    file = disk.open(f"{base}/f", create=True)
    file.write_at(0, [b"0123456789"])
    file.write_at(2, [b"xy"])
    assert file.read_at(0, 10) == b"01xy456789"
    file.close()


def test_allocate_makes_a_file_longer_and_never_shorter(place: tuple[Disk, str]) -> None:
    disk, base = place
    file = disk.open(f"{base}/f", create=True)
    file.write_at(0, [b"abc"])
    file.allocate(10_000)
    file.allocate(5)
    assert file.size_bytes() == 10_000
    assert file.read_at(0, 10_000) == b"abc" + bytes(9_997)
    file.close()


def test_truncate_shortens_and_what_comes_back_is_zeros(place: tuple[Disk, str]) -> None:
    disk, base = place
    file = disk.open(f"{base}/f", create=True)
    file.write_at(0, [b"abcdef"])
    file.truncate(2)
    file.truncate(4)
    assert file.read_at(0, 10) == b"ab\0\0"
    file.sync()
    file.close()


def test_open_needs_the_file_unless_it_may_create_it(place: tuple[Disk, str]) -> None:
    disk, base = place
    with pytest.raises(FileNotFoundError):
        disk.open(f"{base}/f")
    with pytest.raises(FileNotFoundError):
        disk.open_readonly(f"{base}/f")
    assert not disk.exists(f"{base}/f")
    disk.open(f"{base}/f", create=True).close()
    disk.open(f"{base}/f").close()
    assert disk.exists(f"{base}/f")


def test_a_read_only_handle_refuses_to_write(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.open(f"{base}/f", create=True).close()
    file = disk.open_readonly(f"{base}/f")
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        file.write_at(0, [b"x"])
    assert caught.value.errno == errno.EBADF
    file.close()


def test_a_closed_handle_is_of_no_use_and_closes_again(place: tuple[Disk, str]) -> None:
    disk, base = place
    file = disk.open(f"{base}/f", create=True)
    file.close()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.read_at(0, 1)


def test_rename_replaces_the_target(place: tuple[Disk, str]) -> None:
    disk, base = place
    for name in ("a", "b"):
        file = disk.open(f"{base}/{name}", create=True)
        file.write_at(0, [name.encode()])
        file.close()
    disk.rename(f"{base}/a", f"{base}/b")
    disk.sync_directory(base)
    assert disk.list_directory(base) == ["b"]
    file = disk.open_readonly(f"{base}/b")
    assert file.read_at(0, 10) == b"a"
    file.close()


def test_a_directory_is_renamed_with_all_in_it(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.make_directory(f"{base}/a")
    disk.open(f"{base}/a/file", create=True).close()
    disk.rename(f"{base}/a", f"{base}/b")
    disk.sync_directory(base)
    assert disk.list_directory(base) == ["b"]
    assert disk.list_directory(f"{base}/b") == ["file"]
    disk.make_directory(f"{base}/c")
    with pytest.raises(OSError, match="not empty"):
        disk.rename(f"{base}/c", f"{base}/b")
    with pytest.raises(OSError, match="No such file"):
        disk.rename(f"{base}/x", f"{base}/y")


def test_a_removed_file_stays_readable_for_who_has_it_open(place: tuple[Disk, str]) -> None:
    disk, base = place
    file = disk.open(f"{base}/f", create=True)
    file.write_at(0, [b"abc"])
    disk.remove(f"{base}/f")
    assert not disk.exists(f"{base}/f")
    assert file.read_at(0, 3) == b"abc"
    file.close()
    with pytest.raises(FileNotFoundError):
        disk.remove(f"{base}/f")


def test_directories_are_made_with_their_parents_and_removed_whole(
    place: tuple[Disk, str],
) -> None:
    disk, base = place
    disk.make_directory(f"{base}/x/y/z")
    disk.make_directory(f"{base}/x/y")
    disk.open(f"{base}/x/y/f", create=True).close()
    assert disk.list_directory(f"{base}/x/y") == ["f", "z"]
    disk.remove_directory(f"{base}/x")
    assert disk.list_directory(base) == []
    with pytest.raises(FileNotFoundError):
        disk.list_directory(f"{base}/x")


def test_a_file_in_the_way_of_a_directory_is_an_error(place: tuple[Disk, str]) -> None:
    disk, base = place
    disk.open(f"{base}/f", create=True).close()
    with pytest.raises((NotADirectoryError, FileExistsError)):
        disk.make_directory(f"{base}/f/x")


def test_a_lock_is_held_by_one_until_it_is_released(place: tuple[Disk, str]) -> None:
    disk, base = place
    lock = disk.lock(f"{base}/lock")
    with pytest.raises(BlockingIOError):
        disk.lock(f"{base}/lock")
    lock.release()
    lock.release()
    disk.lock(f"{base}/lock").release()


def test_whether_a_lock_is_held_is_seen_without_taking_it(place: tuple[Disk, str]) -> None:
    disk, base = place
    assert not disk.is_locked(f"{base}/lock")
    assert not disk.exists(f"{base}/lock")
    lock = disk.lock(f"{base}/lock")
    assert disk.is_locked(f"{base}/lock")
    lock.release()
    assert not disk.is_locked(f"{base}/lock")


def test_who_looks_whether_a_lock_is_held_keeps_nobody_from_taking_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who looks shares the lock at the very moment that another one wants it."""
    path = tmp_path / "lock"
    looking = os.open(path, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    flock = fcntl.flock
    operations: list[int] = []

    def noted(descriptor: int, operation: int) -> None:
        operations.append(operation)
        if len(operations) == 4:
            flock(looking, fcntl.LOCK_UN)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", noted)
    SystemDisk().lock(str(path)).release()
    assert len(operations) == 4
    os.close(looking)


def test_the_real_disk_continues_a_short_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_pwritev, real_pwrite = os.pwritev, os.pwrite
    monkeypatch.setattr(os, "pwritev", lambda fd, b, at: real_pwritev(fd, [bytes(b[0])[:2]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, b, at: real_pwrite(fd, b[:3], at))
    file = SystemDisk().open(str(tmp_path / "f"), create=True)
    file.write_at(1, [b"abcdef", b"ghijk", b"lm"])
    assert file.read_at(0, 100) == b"\0abcdefghijklm"
    file.close()


def test_the_stamp_of_a_directory_changes_with_its_names_alone(place: tuple[Disk, str]) -> None:
    disk, base = place
    stamps: set[int] = set()

    def stamp() -> int:
        """As it is once it tells something: of a real directory, when its last change is old."""
        if isinstance(disk, SystemDisk):
            assert disk.directory_stamp(base) is None
            changed_ns = os.stat(base).st_mtime_ns - 3_600_000_000_000 * (1 + len(stamps))
            os.utime(base, ns=(changed_ns, changed_ns))
        found = disk.directory_stamp(base)
        assert found is not None
        assert found == disk.directory_stamp(base)
        return found

    file = disk.open(f"{base}/one", create=True)
    stamps.add(stamp())
    before = disk.directory_stamp(base)
    file.write_at(0, [b"x" * 100])
    file.sync()
    assert disk.directory_stamp(base) == before
    file.close()
    disk.rename(f"{base}/one", f"{base}/two")
    stamps.add(stamp())
    disk.open(f"{base}/one", create=True).close()
    stamps.add(stamp())
    disk.rename(f"{base}/one", f"{base}/two")
    stamps.add(stamp())
    disk.remove(f"{base}/two")
    stamps.add(stamp())
    assert len(stamps) == 5
