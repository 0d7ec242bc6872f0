"""The directory of a replica whose log is damaged: set aside, with an empty one in its place.

``<group>`` is renamed to ``<group>.damaged-<n>`` and kept. The new directory is made whole under
the name ``<group>.new`` first, with term and vote as they were and a note, ``recovering``: the
replica has forgotten what it acknowledged, so it grants no vote and stands for nothing until it has
all of it again (:mod:`quorumlog.replication.catch_up.recovery`). As long as ``<group>`` is there
nothing is decided; once it is renamed the next open finishes the rest. Where ``<group>`` is gone as
a whole, the new directory is made under the name ``<group>.begun``.

The note, little-endian. Whatever it says, that the file is there counts:

======  ====  ========  ========================================================================
offset  size  field     meaning
======  ====  ========  ========================================================================
0       4     magic     ``QLR``, 1
4       4     crc       CRC-32C of everything from byte 8 on
8       8     began_ms  when the damaged log was set aside, milliseconds since the Unix epoch
16      4     number    n, of the directory that was set aside; 0: none, it was gone
20      4     length    bytes of the reason
24      8     settled   0, or: nothing was damaged, the replica left its group
                        (:mod:`~quorumlog.replication.catch_up.leaving`), which was settled without
                        it through this index
32      l     reason    what was damaged, UTF-8
======  ====  ========  ========================================================================
"""

import struct
from dataclasses import dataclass
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import Corrupt, StorageError
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.install import install_index_of
from quorumlog.log.paths import SET_ASIDE_INFIX, first_indexes_of, parent_of, segment_name
from quorumlog.log.segment import DATA_START
from quorumlog.log.segment_header import decode_segment_header
from quorumlog.ports import Disk

HARD_STATE_NAME: Final = "hard-state"
NOTE_NAME: Final = "recovering"

MAX_SET_ASIDE: Final = 3
"""Damaged directories that are kept of a group; with so many it stays closed. Nothing is deleted
for another one: who looks after the disk has to look at them, and to remove them."""

WAY_OUT_ALONE: Final = (
    "this is the only copy: stop the node and run `quorumlog log repair` on the directory; what it "
    "cannot mend is lost"
)

_BEGUN_SUFFIX: Final = ".begun"
_MAX_REASON_BYTES: Final = 1000
_MAGIC = b"QLR\x01"
_START = struct.Struct("<4sI")
_HEAD = struct.Struct("<QIIQ")


@dataclass(frozen=True, slots=True)
class Note:
    """Why a replica is recovering; fields as in the module's table."""

    began_ms: int
    number: int
    reason: str
    settled_index: int = 0


def start_over(
    disk: Disk, directory: str, reason: str, now_ms: int, beyond: HardState | None = None
) -> str | None:
    """Put an empty directory in the place of ``directory``, which nobody may have open.

    Args:
        beyond: what to go on with where term and vote are lost: of a term in which the replica
            surely did not vote (:mod:`quorumlog.replication.group_list`). None: not known.

    Returns:
        The path of what was set aside; None: there was nothing. Durable. Blocks.

    Raises:
        Corrupt: term and vote are lost too, so the replica could vote twice: it cannot go on.
        StorageError: so much is set aside already.
        OSError: of the disk. What is decided of it is carried out by the next :func:`settle`.
    """
    hard_state = _hard_state_for(disk, directory, beyond)
    if not disk.exists(directory):
        # Not by way of the name that decides by itself where the directory is gone.
        begun = directory + _BEGUN_SUFFIX
        _make_new(disk, begun, hard_state, Note(now_ms, 0, reason))
        _put_in_place(disk, begun, directory)
        return None
    kept = set_aside_of(disk, directory)
    if len(kept) >= MAX_SET_ASIDE:
        raise StorageError(
            f"{directory} is damaged, and so were {', '.join(kept)}: look at the disk, remove "
            "those, and start the node again"
        )
    number = 1 + max((_number_of(path) for path in kept), default=0)
    target = f"{directory}{SET_ASIDE_INFIX}{number}"
    begin_anew(disk, directory, target, Note(now_ms, number, reason), hard_state)
    return target


def begin_anew(
    disk: Disk, directory: str, target: str, note: Note, hard_state: HardState | None = None
) -> None:
    """Rename ``directory`` to ``target``, which is not there, and put one in its place that has
    term and vote only, and ``note``. Raises as :func:`start_over`.

    ``hard_state``: term and vote; None: as they are in ``directory``.
    """
    if hard_state is None:
        hard_state = _load_hard_state(disk, directory)
    new = f"{directory}.new"
    _make_new(disk, new, hard_state, note)
    disk.rename(directory, target)
    disk.sync_directory(parent_of(directory))
    _put_in_place(disk, new, directory)


def _make_new(disk: Disk, new: str, hard_state: HardState, note: Note) -> None:
    if disk.exists(new):
        disk.remove_directory(new)
        disk.sync_directory(parent_of(new))
    disk.make_directory(new)
    hard_state_file = HardStateFile(disk, f"{new}/{HARD_STATE_NAME}")
    try:
        hard_state_file.save(hard_state)
    finally:
        hard_state_file.close()
    write_note(disk, new, note)


def _put_in_place(disk: Disk, new: str, directory: str) -> None:
    disk.rename(new, directory)
    disk.sync_directory(parent_of(directory))


def settle(disk: Disk, directory: str) -> None:
    """Finish what a crash left of :func:`start_over`, or take it back; before ``directory`` is
    made or opened."""
    new = f"{directory}.new"
    if not disk.exists(new):
        return
    if disk.exists(directory):
        disk.remove_directory(new)
    else:
        disk.rename(new, directory)
    disk.sync_directory(parent_of(directory))


def has_replica(disk: Disk, directory: str) -> bool:
    """Whether ``directory`` has anything by which it is known to be a replica's.

    The first segment is there before the group is listed (:mod:`quorumlog.replication.group_list`):
    where it is listed and this is False all of it was taken away, or the directory itself.
    """
    if not disk.exists(directory):
        return False
    names = disk.list_directory(directory)
    return HARD_STATE_NAME in names or NOTE_NAME in names or bool(first_indexes_of(names))


def check_kept(disk: Disk, directory: str) -> None:
    """Raise Corrupt where a replica that voted once has lost its log altogether.

    The log is made before the first vote is saved: without a segment it was taken away, and an only
    one without a header was not left so by a crash. Raised too where one that is recovering has no
    term and vote.
    """
    names = disk.list_directory(directory)
    if NOTE_NAME in names:
        check_has_voted(disk, directory)
        return
    if HARD_STATE_NAME not in names or any(install_index_of(name) is not None for name in names):
        return
    firsts = first_indexes_of(names)
    if not firsts:
        raise Corrupt(directory, 0, "the segments of a replica that has voted", "none")
    if len(firsts) == 1:
        _check_is_made(disk, f"{directory}/{segment_name(firsts[0])}")


def check_has_voted(disk: Disk, directory: str) -> None:
    """Raise Corrupt without the file of term and vote, which was saved before the first batch."""
    path = f"{directory}/{HARD_STATE_NAME}"
    if not disk.exists(path):
        raise Corrupt(path, 0, "term and vote", "no file")


def is_recovering(disk: Disk, directory: str) -> bool:
    return disk.exists(f"{directory}/{NOTE_NAME}")


def recovered(disk: Disk, directory: str) -> None:
    """Forget that the replica was recovering. Durable when it returns. Blocks."""
    disk.remove(f"{directory}/{NOTE_NAME}")
    disk.sync_directory(directory)


def leftovers_of(disk: Disk, directory: str) -> list[str]:
    """The directories beside ``directory`` that were made for or of it."""
    made = (f"{directory}.new", directory + _BEGUN_SUFFIX)
    return [*set_aside_of(disk, directory), *(path for path in made if disk.exists(path))]


def set_aside_of(disk: Disk, directory: str) -> list[str]:
    """The directories that were set aside of ``directory``, the oldest first."""
    parent = parent_of(directory)
    prefix = directory.rsplit("/", 1)[-1] + SET_ASIDE_INFIX
    found = [
        f"{parent}/{name}"
        for name in disk.list_directory(parent)
        if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
    ]
    return sorted(found, key=_number_of)


def write_note(disk: Disk, directory: str, note: Note) -> None:
    """Write the note into ``directory``. Durable when it returns."""
    raw = note.reason.encode()[:_MAX_REASON_BYTES]
    checked = _HEAD.pack(note.began_ms, note.number, len(raw), note.settled_index) + raw
    file = disk.open(f"{directory}/{NOTE_NAME}", create=True)
    try:
        file.truncate(0)
        file.write_at(0, [_START.pack(_MAGIC, crc32c(checked)), checked])
        file.sync()
    finally:
        file.close()
    disk.sync_directory(directory)


def read_note(disk: Disk, directory: str) -> Note | None:
    """What the note says; None when it is damaged, which changes nothing of what it means.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    file = disk.open_readonly(f"{directory}/{NOTE_NAME}")
    try:
        raw = file.read_at(0, _START.size + _HEAD.size + _MAX_REASON_BYTES)
    finally:
        file.close()
    if len(raw) < _START.size + _HEAD.size:
        return None
    magic, crc = _START.unpack_from(raw)
    checked = raw[_START.size :]
    if magic != _MAGIC or crc != crc32c(checked):
        return None
    began_ms, number, length, settled_index = _HEAD.unpack_from(checked)
    reason = checked[_HEAD.size : _HEAD.size + length].decode(errors="replace")
    return Note(began_ms, number, reason, settled_index)


def _check_is_made(disk: Disk, path: str) -> None:
    """Raise Corrupt where the segment at ``path`` has no header."""
    file = disk.open_readonly(path)
    try:
        decode_segment_header(file.read_at(0, DATA_START), path)
    finally:
        file.close()


def _hard_state_for(disk: Disk, directory: str, beyond: HardState | None) -> HardState:
    """Term and vote in ``directory``, ``beyond`` where they are lost; Corrupt without either."""
    try:
        check_has_voted(disk, directory)
        return _load_hard_state(disk, directory)
    except Corrupt:
        if beyond is None:
            raise
        return beyond


def _load_hard_state(disk: Disk, directory: str) -> HardState:
    file = HardStateFile(disk, f"{directory}/{HARD_STATE_NAME}")
    try:
        return file.load()
    finally:
        file.close()


def _number_of(path: str) -> int:
    return int(path.rsplit("-", 1)[-1])
