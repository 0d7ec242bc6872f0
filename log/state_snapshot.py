"""The state of a log's owner as of one batch, saved beside the segments.

A snapshot saves the replay of what is before it and nothing else: it can always be made again from
the log, and one that is damaged, or of another log, is passed over. The file
``<20 digits of index>.state``, little-endian:

======  ====  ====================  ============================================================
offset  size  field                 meaning
======  ====  ====================  ============================================================
0       4     magic                 ``QLP``, 1; 2: installed, see below
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

A state that was *installed* came from another replica, whose log begins later than this one ended
(:mod:`quorumlog.log.install`). Version 2 has where that log begins before the configuration:

======  ====  ====================  ============================================================
48      8     start_index           index of its first batch, at most index + 1
56      8     base_offset           offset of the first record from there on
64      8     prev_term             term of the batch before
72      8     prev_timestamp_ms     timestamp of the batch before
80      8     start_offset          every record before this offset is deleted there
88      c     configuration
88+c    s     state
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

_MADE_HERE = b"QLP\x01"
_INSTALLED = b"QLP\x02"
_START = struct.Struct("<4sI")
_HEAD = struct.Struct("<QQQQII")
_ORIGIN = struct.Struct("<5Q")
_PREFIX_BYTES = _START.size + _HEAD.size

MAX_SNAPSHOT_BYTES: Final = _PREFIX_BYTES + _ORIGIN.size + MAX_BODY_BYTES + MAX_STATE_BYTES
"""Of a whole file."""

_SUFFIX = ".state"
_DRAFT_NAME = "state.new"
_DIGITS = 20
_EVERYTHING: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class LogOrigin:
    """Where a log begins, and what its first batch continues; fields as in the module's table."""

    start_index: Index
    base_offset: Offset
    prev_term: Term
    prev_timestamp_ms: int
    start_offset: Offset


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """What the committed batches through ``index`` come to; fields as in the module's table.

    ``origin`` is that of the log it came from; None: it was made of the log it lies beside.
    """

    index: Index
    term: Term
    next_offset: Offset
    timestamp_ms: int
    configuration: bytes
    state: bytes
    origin: LogOrigin | None = None


@dataclass(frozen=True, slots=True)
class FoundSnapshot:
    """The newest valid snapshot that was asked for, and what is wrong with newer ones."""

    snapshot: StateSnapshot | None
    damage: tuple[StorageError, ...]


def save_snapshot(
    disk: Disk, directory: str, snapshot: StateSnapshot, durable_index: int = _EVERYTHING
) -> None:
    """Returns when ``snapshot`` is durable and all but the newest ``KEPT_SNAPSHOTS`` are removed.

    A crash in between leaves what was there before. Snapshots of a higher index are removed too:
    they are damaged, or of an end of the log that a power cut has taken.

    Blocks. One at a time per directory.

    Args:
        durable_index: of the log. A crash leaves no log for a snapshot beyond it, so the newest
            ones up to there are kept besides.

    Raises:
        StorageError: the state is larger than ``MAX_STATE_BYTES``, its configuration than a batch.
        OSError: of the disk; what was saved before stands.
    """
    encoded = encode_snapshot(snapshot, directory)
    draft = f"{directory}/{_DRAFT_NAME}"
    try:
        _write(disk, draft, encoded)
        disk.rename(draft, f"{directory}/{snapshot_name(snapshot.index)}")
    except OSError:
        # Most likely the disk is full: what is left of it helps nobody.
        with suppress(OSError):
            disk.remove(draft)
        raise
    disk.sync_directory(directory)
    # Only now: until here a power cut could take the new name back.
    indexes = _indexes_in(disk, directory)
    usable = [index for index in indexes if index <= min(snapshot.index, durable_index)]
    kept = {snapshot.index, *usable[-KEPT_SNAPSHOTS:]}
    for index in indexes:
        if index not in kept:
            disk.remove(f"{directory}/{snapshot_name(index)}")


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
        path = f"{directory}/{snapshot_name(index)}"
        try:
            return FoundSnapshot(read_snapshot(disk, path, index), tuple(damage))
        except StorageError as error:
            damage.append(error)
        except OSError as error:
            damage.append(_unreadable(path, error))
    return FoundSnapshot(None, tuple(damage))


def encode_snapshot(snapshot: StateSnapshot, directory: str) -> bytes:
    """The content of a file that holds ``snapshot``, which is for ``directory``.

    Raises:
        StorageError: the state is larger than ``MAX_STATE_BYTES``, its configuration than a batch.
    """
    configuration, state, start = snapshot.configuration, snapshot.state, snapshot.origin
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
    magic, origin = _MADE_HERE, b""
    if start is not None:
        magic = _INSTALLED
        origin = _ORIGIN.pack(
            start.start_index,
            start.base_offset,
            start.prev_term,
            start.prev_timestamp_ms,
            start.start_offset,
        )
    checked = b"".join((head, origin, configuration, state))
    return _START.pack(magic, crc32c(checked)) + checked


def read_snapshot(disk: Disk, path: str, index: int | None = None) -> StateSnapshot:
    """The snapshot in the file at ``path``; with ``index`` it has to be the state of that batch.

    Raises:
        StorageError: it is damaged, or another one.
        OSError
    """
    file = disk.open_readonly(path)
    try:
        size_bytes = file.size_bytes()
        limit = _PREFIX_BYTES + _ORIGIN.size + MAX_BODY_BYTES + MAX_STATE_BYTES
        if not _PREFIX_BYTES <= size_bytes <= limit:
            raise _damaged(path, f"{_PREFIX_BYTES} to {limit} bytes", f"{size_bytes}")
        raw = file.read_at(0, size_bytes)
    finally:
        file.close()
    return _decode(raw, path, index)


def _decode(raw: bytes, path: str, index: int | None) -> StateSnapshot:
    magic, crc = _START.unpack_from(raw)
    if magic not in (_MADE_HERE, _INSTALLED):
        raise _damaged(path, f"{_MADE_HERE!r} or {_INSTALLED!r} at its start", f"{magic!r}")
    checked = memoryview(raw)[_START.size :]
    computed = crc32c(checked)
    if crc != computed:
        raise _damaged(path, f"checksum {crc:#010x}", f"{computed:#010x}")
    head = _HEAD.unpack_from(checked)
    *numbers, configuration_bytes, state_bytes = head
    configuration_at = _HEAD.size + (_ORIGIN.size if magic == _INSTALLED else 0)
    state_at = configuration_at + configuration_bytes
    if index not in (None, numbers[0]) or state_at + state_bytes != len(checked):
        raise _damaged(path, f"the state of {index}, {len(checked)} bytes", f"fields {head}")
    return StateSnapshot(
        Index(numbers[0]),
        Term(numbers[1]),
        Offset(numbers[2]),
        numbers[3],
        bytes(checked[configuration_at:state_at]),
        bytes(checked[state_at:]),
        _decode_start(checked, path, numbers) if magic == _INSTALLED else None,
    )


def _decode_start(checked: memoryview, path: str, numbers: list[int]) -> LogOrigin:
    """Where the log began from which the state with ``numbers`` at its head came."""
    start = _ORIGIN.unpack_from(checked, _HEAD.size)
    start_index, base_offset, prev_term, prev_timestamp_ms, start_offset = start
    index, term, next_offset, timestamp_ms = numbers
    if not (
        1 <= start_index <= index + 1
        and base_offset <= start_offset <= next_offset
        and prev_term <= term
        and prev_timestamp_ms <= timestamp_ms
    ):
        raise _damaged(path, f"a log that begins before {numbers} ends", f"one from {start}")
    return LogOrigin(
        Index(start_index),
        Offset(base_offset),
        Term(prev_term),
        prev_timestamp_ms,
        Offset(start_offset),
    )


def _write(disk: Disk, path: str, encoded: bytes) -> None:
    file = disk.open(path, create=True)
    try:
        file.truncate(0)
        file.write_at(0, [encoded])
        file.sync()
    finally:
        file.close()


def _damaged(path: str, expected: str, got: str) -> StorageError:
    return StorageError(
        f"{path} is damaged (expected {expected}, got {got}) and passed over: nothing is lost"
    )


def _unreadable(path: str, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be read ({error.strerror or error}): check the disk")


def _indexes_in(disk: Disk, directory: str) -> list[int]:
    """Of all snapshots in ``directory``, oldest first."""
    names = disk.list_directory(directory)
    return sorted(index for name in names if (index := snapshot_index_of(name)) is not None)


def snapshot_name(index: int) -> str:
    """Of the file that holds the state of batch ``index``."""
    return f"{index:0{_DIGITS}d}{_SUFFIX}"


def snapshot_index_of(name: str) -> int | None:
    """The index a snapshot's name says; None when ``name`` is not that of a snapshot."""
    stem = name.removesuffix(_SUFFIX)
    if stem == name or len(stem) != _DIGITS or not (stem.isascii() and stem.isdigit()):
        return None
    return int(stem)
