"""A disk in memory that can crash: ``quorumlog.ports.Disk`` with the worst a power cut may do.

What the model says:

- Bytes written and not synced are, after ``crash()``, per sector of 512 bytes: kept, lost, or
  garbled. The length of the file is the one at the last sync or the one now.
- Of creates, renames and removes in a directory not synced since, a prefix survives.
- A failed sync drops what it should have written, and a later sync does not bring it back, though
  it can be read until the crash: what Linux does with the pages.
- Directories made by ``make_directory`` are durable; locks die with the process.

All chance comes from ``rng``; the same calls give the same disk.
"""

import errno
import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from quorumlog.types import Buffer
from sim.disk_model import Directory, Inode


class SimulatedCrash(BaseException):
    """The machine lost power before this call. Not an Exception: nothing may handle it."""


class SimFile:
    """A handle; after a crash every call on it raises SimulatedCrash."""

    __slots__ = ("_disk", "_epoch", "_inode", "_is_closed", "_is_writable", "_path")

    def __init__(self, disk: "SimDisk", inode: Inode, path: str, *, is_writable: bool) -> None:
        self._disk = disk
        self._inode = inode
        self._path = path
        self._is_writable = is_writable
        self._is_closed = False
        self._epoch = disk.epoch

    def read_at(self, position: int, size_bytes: int) -> bytes:
        self._before("read")
        return bytes(memoryview(self._inode.data)[position : position + size_bytes])

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        try:
            self._before("write")
        except OSError:
            self._write_prefix(position, data, self._disk.rng.randrange(len(data) + 1))
            raise
        grown = position + len(data) - len(self._inode.data)
        free = self._disk.free_bytes()
        if free is not None and grown > free:
            self._write_prefix(position, data, max(len(data) - grown + free, 0))
            raise _error(errno.ENOSPC, self._path)
        self._inode.write(position, data)

    def allocate(self, size_bytes: int) -> None:
        self._before("allocate")
        free = self._disk.free_bytes()
        grown = size_bytes - len(self._inode.data)
        if free is not None and grown > free:
            raise _error(errno.ENOSPC, self._path)
        if grown > 0:
            self._inode.resize(size_bytes)

    def truncate(self, size_bytes: int) -> None:
        self._before("truncate")
        self._inode.resize(size_bytes)

    def size_bytes(self) -> int:
        self._check_open()
        return len(self._inode.data)

    def sync(self) -> None:
        try:
            self._before("sync")
        except OSError:
            self._inode.drop_sync()
            raise
        self._inode.sync()

    def close(self) -> None:
        self._is_closed = True

    def _write_prefix(self, position: int, data: bytes, size_bytes: int) -> None:
        if size_bytes and self._is_writable and not self._is_closed:
            self._inode.write(position, data[:size_bytes])

    def _before(self, kind: str) -> None:
        self._check_open()
        if kind != "read" and not self._is_writable:
            raise _error(errno.EBADF, self._path)
        self._disk.count(kind, self._path)

    def _check_open(self) -> None:
        if self._epoch != self._disk.epoch:
            raise SimulatedCrash(f"{self._path} was open when the power was cut")
        if self._is_closed:
            raise _error(errno.EBADF, self._path)


class SimLock:
    def __init__(self, disk: "SimDisk", path: str) -> None:
        self._disk = disk
        self._path = path
        self._epoch = disk.epoch

    def release(self) -> None:
        if self._epoch == self._disk.epoch:
            self._disk.locked.discard(self._path)


class SimDisk:
    """See the module. ``capacity_bytes`` bounds the sum of file lengths; None: no bound.

    ``calls`` counts calls by kind: open, read, write, allocate, truncate, sync, create, rename,
    remove, sync_directory. All but open and read are *changing*: ``changes`` counts those, and
    the hooks below count along.
    """

    def __init__(self, rng: Random, capacity_bytes: int | None = None) -> None:
        self.rng = rng
        self.capacity_bytes = capacity_bytes
        self.epoch = 0
        self.calls: Counter[str] = Counter()
        self.changes = 0
        self.locked: set[str] = set()
        self.spare_handles = True
        """What ``has_spare_handles`` says."""
        self.is_settled = True
        """Whether ``directory_stamp`` can tell."""
        self._root = Directory()
        self._crash_before: int | None = None
        self._failures: dict[int, OSError] = {}
        self._is_down = False

    # What tests do to it.

    def crash(self) -> None:
        """Cut the power and start again: handles and locks are gone, hooks are cleared."""
        self.epoch += 1
        self._is_down = False
        self.clear_hooks()
        self.locked.clear()
        self._root.crash(self.rng)

    def crash_before(self, change: int) -> None:
        """Raise SimulatedCrash at the ``change``-th changing call from now on (1: the next).

        Every later call raises it too, until ``crash()``.
        """
        self._crash_before = self.changes + change

    def fail_at(self, change: int, code: int = errno.EIO) -> None:
        """Let the ``change``-th changing call from now on (1: the next) fail with ``code``.

        A write that fails has written some prefix; a sync that fails has dropped the pages.
        """
        self._failures[self.changes + change] = OSError(code, os.strerror(code))

    def clear_hooks(self) -> None:
        """No crash and no failure that was asked for comes any more."""
        self._crash_before = None
        self._failures.clear()

    def flip_bit(self, path: str, position: int, bit: int) -> None:
        """Rot: flip a bit of the durable and of the current content."""
        inode = self._inode(path)
        inode.data[position] ^= 1 << bit

    def kill(self) -> None:
        """The process dies, the machine lives: handles and locks are gone, no byte is."""
        self.epoch += 1
        self._is_down = False
        self.clear_hooks()
        self.locked.clear()

    def copy(self) -> "SimDisk":
        """Another disk with the same content, all of it durable; no handle, lock or hook."""
        twin = SimDisk(Random(self.rng.getrandbits(64)), self.capacity_bytes)
        twin._root = self._root.copy()
        return twin

    def inode(self, path: str) -> Inode:
        """What the name stands for now."""
        return self._inode(path)

    def content(self, path: str) -> bytes:
        """What a read of the whole file would give now."""
        return bytes(self._inode(path).data)

    # The port.

    def open(self, path: str, *, create: bool = False) -> SimFile:
        parent, name = self._parent_of(path)
        if create and name not in parent.names:
            self.count("create", path)
            parent.change({name: Inode()})
        else:
            self.count("open", path)
        return SimFile(self, self._inode(path), path, is_writable=True)

    def open_readonly(self, path: str) -> SimFile:
        self.count("open", path)
        return SimFile(self, self._inode(path), path, is_writable=False)

    def has_spare_handles(self) -> bool:
        return self.spare_handles

    def exists(self, path: str) -> bool:
        self._check_up()
        try:
            parent, name = self._parent_of(path)
        except OSError:
            return False
        return name == "" or name in parent.names

    def list_directory(self, path: str) -> list[str]:
        self._check_up()
        return sorted(self._directory(path).names)

    def directory_stamp(self, path: str) -> int | None:
        self._check_up()
        return self._directory(path).version if self.is_settled else None

    def make_directory(self, path: str) -> None:
        self._check_up()
        directory = self._root
        for name in _parts(path):
            entry = directory.names.get(name)
            if entry is None:
                entry = Directory()
                directory.names[name] = entry
                directory.durable[name] = entry
                directory.version += 1
            if not isinstance(entry, Directory):
                raise _error(errno.ENOTDIR, path)
            directory = entry

    def rename(self, source: str, target: str) -> None:
        self.count("rename", target)
        from_directory, from_name = self._parent_of(source)
        to_directory, to_name = self._parent_of(target)
        moved = from_directory.names.get(from_name)
        if moved is None:
            raise _error(errno.ENOENT, source)
        replaced = to_directory.names.get(to_name)
        if isinstance(replaced, Directory) and (replaced.names or not isinstance(moved, Directory)):
            raise _error(errno.ENOTEMPTY if replaced.names else errno.EISDIR, target)
        if from_directory is to_directory:
            from_directory.change({from_name: None, to_name: moved})
        else:
            to_directory.change({to_name: moved})
            from_directory.change({from_name: None})

    def remove(self, path: str) -> None:
        parent, name = self._parent_of(path)
        self._inode(path)
        self.count("remove", path)
        parent.change({name: None})

    def remove_directory(self, path: str) -> None:
        self._directory(path)
        self.count("remove", path)
        parent, name = self._parent_of(path)
        parent.change({name: None})

    def sync_directory(self, path: str) -> None:
        directory = self._directory(path)
        self.count("sync_directory", path)
        directory.sync()

    def lock(self, path: str) -> SimLock:
        if path in self.locked:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
        self.open(path, create=True).close()
        self.locked.add(path)
        return SimLock(self, path)

    def is_locked(self, path: str) -> bool:
        return path in self.locked

    # Inner workings.

    def count(self, kind: str, path: str) -> None:
        """Note one call; raise what a hook asks for."""
        self._check_up()
        self.calls[kind] += 1
        if kind in ("read", "open"):
            return
        self.changes += 1
        if self._crash_before is not None and self.changes >= self._crash_before:
            self._is_down = True
            raise SimulatedCrash(f"power cut before {kind} of {path}")
        failure = self._failures.pop(self.changes, None)
        if failure is not None:
            raise failure

    def free_bytes(self) -> int | None:
        if self.capacity_bytes is None:
            return None
        return max(self.capacity_bytes - _used_bytes(self._root), 0)

    def _check_up(self) -> None:
        if self._is_down:
            raise SimulatedCrash("the power is off")

    def _parent_of(self, path: str) -> tuple[Directory, str]:
        parts = _parts(path)
        if not parts:
            return self._root, ""
        directory = self._root
        for name in parts[:-1]:
            entry = directory.names.get(name)
            if entry is None:
                raise _error(errno.ENOENT, path)
            if not isinstance(entry, Directory):
                raise _error(errno.ENOTDIR, path)
            directory = entry
        return directory, parts[-1]

    def _directory(self, path: str) -> Directory:
        parent, name = self._parent_of(path)
        entry = parent.names.get(name) if name else parent
        if entry is None:
            raise _error(errno.ENOENT, path)
        if not isinstance(entry, Directory):
            raise _error(errno.ENOTDIR, path)
        return entry

    def _inode(self, path: str) -> Inode:
        parent, name = self._parent_of(path)
        entry = parent.names.get(name)
        if entry is None:
            raise _error(errno.ENOENT, path)
        if not isinstance(entry, Inode):
            raise _error(errno.EISDIR, path)
        return entry


@lru_cache(maxsize=1024)
def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _used_bytes(directory: Directory) -> int:
    return sum(
        len(entry.data) if isinstance(entry, Inode) else _used_bytes(entry)
        for entry in directory.names.values()
    )


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)
