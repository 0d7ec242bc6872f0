"""A disk on which large logs take no room: one body of zeros is left out, as a hole."""

import os
from collections.abc import Sequence

from quorumlog.system import SystemDisk, SystemFile
from quorumlog.types import Buffer


class SparseFile(SystemFile):
    __slots__ = ("_hole",)

    def __init__(self, descriptor: int, hole: Buffer) -> None:
        super().__init__(descriptor)
        self._hole = hole

    def write_at(self, position: int, buffers: Sequence[Buffer]) -> None:
        for buffer in buffers:
            if buffer is not self._hole:
                super().write_at(position, [buffer])
            position += len(buffer)
        if position > self.size_bytes():
            self.truncate(position)

    def allocate(self, size_bytes: int) -> None:
        if size_bytes > self.size_bytes():
            self.truncate(size_bytes)


class SparseDisk(SystemDisk):
    """Reads as the real disk does; writes of ``hole``, which is all zeros, leave holes."""

    def __init__(self, hole: Buffer) -> None:
        self._hole = hole

    def open(self, path: str, *, create: bool = False) -> SparseFile:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return SparseFile(os.open(path, flags, 0o644), self._hole)
