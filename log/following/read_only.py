"""A disk that nothing is written to, whoever is asked to."""

import errno
import os
from typing import NoReturn

from quorumlog.ports import Disk, File, Lock


class ReadOnlyDisk:
    """Another disk, of which only the reading calls work; the others raise EROFS."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def open(self, path: str, *, create: bool = False) -> File:
        _refuse(path)

    def open_readonly(self, path: str) -> File:
        return self._disk.open_readonly(path)

    def has_spare_handles(self) -> bool:
        return self._disk.has_spare_handles()

    def exists(self, path: str) -> bool:
        return self._disk.exists(path)

    def list_directory(self, path: str) -> list[str]:
        return self._disk.list_directory(path)

    def directory_stamp(self, path: str) -> int | None:
        return self._disk.directory_stamp(path)

    def make_directory(self, path: str) -> None:
        _refuse(path)

    def rename(self, source: str, target: str) -> None:
        _refuse(target)

    def remove(self, path: str) -> None:
        _refuse(path)

    def remove_directory(self, path: str) -> None:
        _refuse(path)

    def sync_directory(self, path: str) -> None:
        _refuse(path)

    def lock(self, path: str) -> Lock:
        _refuse(path)

    def is_locked(self, path: str) -> bool:
        return self._disk.is_locked(path)


def _refuse(path: str) -> NoReturn:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
