"""Keeping what a repair takes away or writes over: a directory beside the segments, and a list.

``removed-<UTC time>/manifest.jsonl`` has a JSON object a line: ``file``, the name in the directory;
``from``, ``position`` and ``size_bytes``, the bytes it was; ``why``. It is on stable storage
before anything is changed.
"""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from quorumlog.log.inspection.inventory import KEPT_PREFIX
from quorumlog.log.inspection.survey import SafeReader
from quorumlog.ports import Disk, File

_COPY_BYTES: Final = 1024 * 1024
_MANIFEST: Final = "manifest.jsonl"


class Kept:
    """The directory is made when the first thing is kept.

    Attributes:
        path: of the directory.
    """

    def __init__(self, disk: Disk, directory: str, now_ms: int) -> None:
        """``now_ms`` names it: milliseconds since the Unix epoch."""
        when = datetime.fromtimestamp(now_ms / 1000, UTC)
        base = f"{directory}/{KEPT_PREFIX}{when:%Y%m%dT%H%M%SZ}"
        self.path = base
        number = 1
        while disk.exists(self.path):
            number += 1
            self.path = f"{base}-{number}"
        self._disk = disk
        self._directory = directory
        self._lines: list[str] = []

    @property
    def is_used(self) -> bool:
        return bool(self._lines)

    def copy(self, path: str, position: int, end: int | None, why: str) -> None:
        """Keep the bytes ``[position, end)`` of the file at ``path``; durable when it returns.

        What the disk refuses to read is kept as zeros. A file that is not there is passed over; one
        that could not be copied leaves nothing but its line in the list.

        Raises:
            OSError
        """
        try:
            source = self._disk.open_readonly(path)
        except FileNotFoundError:
            return
        try:
            size_bytes = source.size_bytes()
            end = size_bytes if end is None else min(end, size_bytes)
            is_whole = position == 0 and end == size_bytes
            name = _name_of(path) if is_whole else f"{_name_of(path)}.{position}"
            name = self._free_name(name)
            self._note(name, path, position, end - position, why)
            target_path = f"{self.path}/{name}"
            target = self._disk.open(target_path, create=True)
            try:
                _copy(SafeReader(source, lambda size_bytes: None), target, position, end)
                target.sync()
            except OSError:
                # Most likely the disk is full: half a copy only takes the space of the next one.
                with suppress(OSError):
                    self._disk.remove(target_path)
                raise
            finally:
                target.close()
            self._disk.sync_directory(self.path)
        finally:
            source.close()

    def move(self, path: str, why: str) -> None:
        """Take the whole file at ``path`` away, durably; one that is not there is passed over.

        Raises:
            OSError
        """
        if not self._disk.exists(path):
            return
        name = self._free_name(_name_of(path))
        self._note(name, path, 0, None, why)
        self._disk.rename(path, f"{self.path}/{name}")
        self._disk.sync_directory(self.path)
        self._disk.sync_directory(self._directory)

    def _free_name(self, name: str) -> str:
        number, free = 1, name
        while self._disk.exists(f"{self.path}/{free}"):
            number += 1
            free = f"{name}-{number}"
        return free

    def _note(self, name: str, path: str, position: int, size_bytes: int | None, why: str) -> None:
        """Say in the list what is about to be kept; durable when it returns."""
        self._disk.make_directory(self.path)
        line = {"file": name, "from": path, "position": position}
        self._lines.append(json.dumps({**line, "size_bytes": size_bytes, "why": why}) + "\n")
        file = self._disk.open(f"{self.path}/{_MANIFEST}", create=True)
        try:
            file.write_at(0, ["".join(self._lines).encode()])
            file.sync()
        finally:
            file.close()
        self._disk.sync_directory(self.path)


def _name_of(path: str) -> str:
    return path.rpartition("/")[2]


def _copy(reader: SafeReader, target: File, position: int, end: int) -> None:
    start = position
    while position < end:
        data = reader.read_at(position, min(_COPY_BYTES, end - position))
        if not data:
            return
        target.write_at(position - start, [data])
        position += len(data)
