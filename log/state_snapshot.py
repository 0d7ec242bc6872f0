"""The state of a log's owner as of one batch, saved beside the segments.

A snapshot saves the replay of what is before it and nothing else: it can always be made again from
the log, and one that is damaged, or of another log, is passed over. The file
``<20 digits of index>.state``, little-endian:

======  ====  ====================  ============================================================
offset  size  field                 meaning
======  ====  ====================  ============================================================
0       4     magic                 ``QLP``, 1
4       4     crc                   CRC-32C of everything from byte 8 on
8       8     index                 the last batch that is in the state
16      8     term                  of that batch
24      8     next_offset           offset of the first record that is not in it
32      8     timestamp_ms          of that batch
40      4     configuration_length
44      4     state_length
48      c     configuration         body of the newest CONFIG batch through index; empty without one
48+c    s     state                 the owner's; says its own kind and version
======  ====  ====================  ============================================================
"""

import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import StorageError
from quorumlog.log.batch import MAX_BODY_BYTES
from quorumlog.ports import Disk
from quorumlog.types import Index, Offset, Term

MAX_STATE_BYTES: Final = 64 * 1024 * 1024
"""A larger state is not saved, and a larger file not read."""

KEPT_SNAPSHOTS: Final = 2
"""The newest, and one more for when that is damaged or the log lost its end to a power cut."""

_MAGIC = b"QLP\x01"
_START = struct.Struct("<4sI")
_HEAD = struct.Struct("<QQQQII")
_PREFIX_BYTES = _START.size + _HEAD.size
_SUFFIX = ".state"
_DRAFT_NAME = "state.new"
_DIGITS = 20


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """What the committed batches through ``index`` come to; fields as in the module's table."""

    index: Index
    term: Term
    next_offset: Offset
    timestamp_ms: int
    configuration: bytes
    state: bytes


@dataclass(frozen=True, slots=True)
class FoundSnapshot:
    """The newest valid snapshot that was asked for, and what is wrong with newer ones."""

    snapshot: StateSnapshot | None
    damage: tuple[StorageError, ...]


def save_snapshot(disk: Disk, directory: str, snapshot: StateSnapshot) -> None:
    """Returns when ``snapshot`` is durable and all but the newest ``KEPT_SNAPSHOTS`` are removed.

    A crash in between leaves what was there before. Snapshots of a higher index are removed too:
    they are damaged, or of an end of the log that a power cut has taken.

    Blocks. One at a time per directory.

    Raises:
        StorageError: the state is larger than ``MAX_STATE_BYTES``, its configuration than a batch.
        OSError: of the disk; what was saved before stands.
    """
    encoded = _encode(snapshot, directory)
    draft = f"{directory}/{_DRAFT_NAME}"
    try:
        _write(disk, draft, encoded)
        disk.rename(draft, f"{directory}/{_name_of(snapshot.index)}")
    except OSError:
        # Most likely the disk is full: what is left of it helps nobody.
        with suppress(OSError):
            disk.remove(draft)
        raise
    disk.sync_directory(directory)
    # Only now: until here a power cut could take the new name back.
    indexes = _indexes_in(disk, directory)
    at = indexes.index(snapshot.index) + 1
    for index in (*indexes[: max(at - KEPT_SNAPSHOTS, 0)], *indexes[at:]):
        disk.remove(f"{directory}/{_name_of(index)}")


def load_newest(disk: Disk, directory: str, at_most_index: int) -> FoundSnapshot:
    """The newest valid snapshot of an index up to ``at_most_index``. Blocks; changes nothing.

    Never raises for what is on the disk: without a snapshot the log is replayed from its start.
    """
    damage: list[StorageError] = []
    try:
        indexes = _indexes_in(disk, directory)
    except OSError as error:
        return FoundSnapshot(None, (_unreadable(directory, error),))
    for index in reversed(indexes):
        if index > at_most_index:
            continue
        path = f"{directory}/{_name_of(index)}"
        try:
            return FoundSnapshot(_read(disk, path, index), tuple(damage))
        except StorageError as error:
            damage.append(error)
        except OSError as error:
            damage.append(_unreadable(path, error))
    return FoundSnapshot(None, tuple(damage))


def _encode(snapshot: StateSnapshot, directory: str) -> bytes:
    configuration, state = snapshot.configuration, snapshot.state
    if len(state) > MAX_STATE_BYTES or len(configuration) > MAX_BODY_BYTES:
        raise StorageError(
            f"{directory}: a state of {len(state)} bytes with a configuration of "
            f"{len(configuration)} is not saved: the limits are {MAX_STATE_BYTES} and "
            f"{MAX_BODY_BYTES}"
        )
    head = _HEAD.pack(
        snapshot.index,
        snapshot.term,
        snapshot.next_offset,
        snapshot.timestamp_ms,
        len(configuration),
        len(state),
    )
    checked = b"".join((head, configuration, state))
    return _START.pack(_MAGIC, crc32c(checked)) + checked


def _write(disk: Disk, path: str, encoded: bytes) -> None:
    file = disk.open(path, create=True)
    try:
        file.truncate(0)
        file.write_at(0, [encoded])
        file.sync()
    finally:
        file.close()


def _read(disk: Disk, path: str, index: int) -> StateSnapshot:
    """Raises StorageError when it is damaged, OSError."""
    file = disk.open_readonly(path)
    try:
        size_bytes = file.size_bytes()
        limit = _PREFIX_BYTES + MAX_BODY_BYTES + MAX_STATE_BYTES
        if not _PREFIX_BYTES <= size_bytes <= limit:
            raise _damaged(path, f"{_PREFIX_BYTES} to {limit} bytes", f"{size_bytes}")
        raw = file.read_at(0, size_bytes)
    finally:
        file.close()
    magic, crc = _START.unpack_from(raw)
    if magic != _MAGIC:
        raise _damaged(path, f"{_MAGIC!r} at its start", f"{magic!r}")
    checked = memoryview(raw)[_START.size :]
    computed = crc32c(checked)
    if crc != computed:
        raise _damaged(path, f"checksum {crc:#010x}", f"{computed:#010x}")
    head = _HEAD.unpack_from(checked)
    *numbers, configuration_bytes, state_bytes = head
    state_at = _HEAD.size + configuration_bytes
    if numbers[0] != index or state_at + state_bytes != len(checked):
        raise _damaged(path, f"the state of {index}, {len(checked)} bytes", f"fields {head}")
    return StateSnapshot(
        Index(numbers[0]),
        Term(numbers[1]),
        Offset(numbers[2]),
        numbers[3],
        bytes(checked[_HEAD.size : state_at]),
        bytes(checked[state_at:]),
    )


def _damaged(path: str, expected: str, got: str) -> StorageError:
    return StorageError(
        f"{path} is damaged (expected {expected}, got {got}) and passed over: nothing is lost"
    )


def _unreadable(path: str, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be read ({error.strerror or error}): check the disk")


def _indexes_in(disk: Disk, directory: str) -> list[int]:
    """Of all snapshots in ``directory``, oldest first."""
    names = disk.list_directory(directory)
    return sorted(index for name in names if (index := _index_of(name)) is not None)


def _name_of(index: int) -> str:
    return f"{index:0{_DIGITS}d}{_SUFFIX}"


def _index_of(name: str) -> int | None:
    """None when ``name`` is not that of a snapshot."""
    stem = name.removesuffix(_SUFFIX)
    if stem == name or len(stem) != _DIGITS or not (stem.isascii() and stem.isdigit()):
        return None
    return int(stem)
