"""The bare machine: the same bytes with the system's calls alone."""

import os
import time
from pathlib import Path
from threading import Lock, Thread, local
from types import TracebackType


def write_rate(path: Path, block: bytes, blocks: int, sync_every_bytes: int) -> float:
    """Bytes a second of ``os.write``, with an ``fdatasync`` after every ``sync_every_bytes``."""
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    try:
        started = time.perf_counter()
        unsynced = 0
        for _ in range(blocks):
            os.write(descriptor, block)
            unsynced += len(block)
            if unsynced >= sync_every_bytes:
                os.fdatasync(descriptor)
                unsynced = 0
        return len(block) * blocks / (time.perf_counter() - started)
    finally:
        os.close(descriptor)
        path.unlink()


def synced_write_rate(path: Path, block: bytes, blocks: int) -> float:
    """Bytes a second of ``os.write`` + ``fdatasync`` of every block, one after the other."""
    return len(block) / synced_write_s(path, block, blocks)


def synced_write_s(path: Path, block: bytes, blocks: int) -> float:
    """Seconds of one ``os.write`` + ``fdatasync``, on average, into a preallocated file.

    Preallocated because quorumlog's segments are: a file that grows costs a journal entry a sync.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    try:
        os.posix_fallocate(descriptor, 0, len(block) * blocks)
        os.fsync(descriptor)
        started = time.perf_counter()
        for _ in range(blocks):
            os.write(descriptor, block)
            os.fdatasync(descriptor)
        return (time.perf_counter() - started) / blocks
    finally:
        os.close(descriptor)
        path.unlink()


class BareGroupCommit:
    """What threads that share an fdatasync cost in Python, without a log: each hands over its
    bytes, wakes the one thread that writes and syncs, and sleeps until that wakes it."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is written to, and stays open."""
        self._descriptor = descriptor
        self._mutex = Lock()
        self._handed: list[tuple[bytes, Lock]] = []
        self._has_work = _locked()
        self._own = local()
        self._is_closed = False
        self._writer = Thread(target=self._write)
        self._writer.start()

    def append(self, block: bytes) -> None:
        """Return when ``block`` is on stable storage."""
        synced: Lock | None = getattr(self._own, "synced", None)
        if synced is None:
            synced = self._own.synced = _locked()
        with self._mutex:
            is_first = not self._handed
            self._handed.append((block, synced))
        if is_first:
            self._has_work.release()
        synced.acquire()

    def __enter__(self) -> "BareGroupCommit":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_closed = True
        self._has_work.release()
        self._writer.join()

    def _write(self) -> None:
        while True:
            self._has_work.acquire()
            if self._is_closed:
                return
            with self._mutex:
                handed, self._handed = self._handed, []
            os.writev(self._descriptor, [block for block, _ in handed])
            os.fdatasync(self._descriptor)
            for _, synced in handed:
                synced.release()


def _locked() -> Lock:
    lock = Lock()
    lock.acquire()
    return lock
