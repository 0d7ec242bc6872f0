"""The bare machine: the same bytes with the system's calls alone."""

import os
import time
from pathlib import Path


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
