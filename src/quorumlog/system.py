"""The machine as it is: the real implementations of the clock, disk and worker ports."""

import asyncio
import contextlib
import errno
import fcntl
import os
import resource
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from quorumlog.types import Buffer

T = TypeVar("T")

_MAX_BUFFERS = min(os.sysconf("SC_IOV_MAX"), 1024)
_ZEROS = bytes(1024 * 1024)
_FILE_MODE = 0o644
_LOCK_ATTEMPTS = 1000
_COARSEST_TIME_NS = 3_000_000_000
"""Above what file systems take for the same time: 4 ms where it is ext4, 2 s where it is FAT."""

_CLOCK = int(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""Goes on while the machine is suspended. Linux's CLOCK_MONOTONIC does not; that of macOS does."""


class SystemClock:
    def monotonic_s(self) -> float:
        return time.clock_gettime(_CLOCK)

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class SystemFile:
    """A file descriptor. Positional calls only, so that threads may share it."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read_at(self, position: int, size_bytes: int) -> bytes:
        data = os.pread(self._descriptor, size_bytes, position)
        if len(data) == size_bytes or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size_bytes:
            data = os.pread(self._descriptor, size_bytes - got, position + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        for begin in range(0, len(buffers), _MAX_BUFFERS):
            position = self._write_some(position, buffers[begin : begin + _MAX_BUFFERS])

    def _write_some(self, position: int, buffers: Sequence[Buffer]) -> int:
        """Write at most ``_MAX_BUFFERS`` buffers; returns the position behind them."""
        end = position + sum(map(len, buffers))
        position += os.pwritev(self._descriptor, buffers, position)
        if position == end:
            return end
        rest = memoryview(b"".join(buffers))[position - end :]
        while rest:
            written = os.pwrite(self._descriptor, rest, position)
            position += written
            rest = rest[written:]
        return end

    def allocate(self, size_bytes: int) -> None:
        current = os.fstat(self._descriptor).st_size
        if size_bytes <= current:
            return
        try:
            os.posix_fallocate(self._descriptor, current, size_bytes - current)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            for position in range(current, size_bytes, len(_ZEROS)):
                self.write_at(position, [_ZEROS[: size_bytes - position]])

    def truncate(self, size_bytes: int) -> None:
        os.ftruncate(self._descriptor, size_bytes)

    def size_bytes(self) -> int:
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class SystemLock:
    """An ``flock``; the kernel releases it when the process dies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class SystemDisk:
    """The file system of this machine (POSIX; tried on ext4)."""

    _newest_descriptor = 0

    def open(self, path: str, *, create: bool = False) -> SystemFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return SystemFile(os.open(path, flags, _FILE_MODE))

    def open_readonly(self, path: str) -> SystemFile:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._newest_descriptor = descriptor
        return SystemFile(descriptor)

    def has_spare_handles(self) -> bool:
        """Whether less than half of the descriptors that the process may have were in use lately.

        The kernel gives out the lowest free number: so many are in use, sockets too.
        """
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return limit == resource.RLIM_INFINITY or self._newest_descriptor < limit // 2

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def directory_stamp(self, path: str) -> int | None:
        """The time of its last change. Not believed for a while: it is as coarse as the file
        system's clock, and two changes may have the same one."""
        changed_ns = os.stat(path).st_mtime_ns
        return changed_ns if time.time_ns() - changed_ns > _COARSEST_TIME_NS else None

    def make_directory(self, path: str) -> None:
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path) or "."
        if parent != path:
            self.make_directory(parent)
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        self.sync_directory(parent)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_directory(self, path: str) -> None:
        shutil.rmtree(path)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: str) -> SystemLock:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            _lock_exclusively(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return SystemLock(descriptor)

    def is_locked(self, path: str) -> bool:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as it may: the usual 1,024 are a few hundred
    partitions. For programs, not for libraries: who uses ``select`` cannot have more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS allows less than the unlimited number it names.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _lock_exclusively(descriptor: int) -> None:
    """Take the lock, or raise BlockingIOError where somebody holds it.

    Who only looks whether it is held shares it for a moment (``is_locked``): what can be shared is
    tried again.
    """
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        else:
            return
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class ThreadWorker:
    """Runs blocking work on ``threads`` threads of its own."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="quorumlog-disk")

    def run(self, function: Callable[[], T]) -> Awaitable[T]:
        """Start ``function`` on a thread; to cancel the await does not stop what has begun."""
        return asyncio.wrap_future(self._pool.submit(function))

    def close(self) -> None:
        """Wait for what was started and end the threads; ``run`` raises RuntimeError afterwards."""
        self._pool.shutdown()
