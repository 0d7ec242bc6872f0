"""The directory of a replica that was moved to another node: its data deleted, its votes kept.

A replica that leaves its group may be asked to come back, even before all have heard that it left.
What it voted must not be forgotten then, and it must not vote as one that knows nothing
(:mod:`quorumlog.replication.catch_up.returning`). So term and vote stay, beside the note that says
so; the rest is renamed to ``<group>.left`` and removed.
"""

from typing import Final

from quorumlog.log.paths import first_indexes_of, parent_of
from quorumlog.ports import Disk
from quorumlog.replication.catch_up.starting_over import (
    NOTE_NAME,
    Note,
    begin_anew,
    is_recovering,
    read_note,
    settle,
)
from quorumlog.types import Index

_LEFT_SUFFIX: Final = ".left"
_REASON: Final = "the replica was moved to another node"


def leave(disk: Disk, directory: str, settled_index: Index, now_ms: int) -> None:
    """Delete the data in ``directory``, which nobody may have open. Durable when it returns.

    The group was settled without this replica through ``settled_index``.

    Raises:
        Corrupt: term and vote are lost; nothing was changed.
        OSError: of the disk. What is decided of it is carried out by :func:`finish_leaving`.
    """
    left = directory + _LEFT_SUFFIX
    _remove(disk, left)
    begin_anew(disk, directory, left, Note(now_ms, 0, _REASON, settled_index))
    _remove(disk, left)


def left_at(disk: Disk, directory: str) -> Index | None:
    """The settled index of a replica that left and is not known to have come back; else None.

    Also for one whose note is damaged, or whose log was damaged since: it has to recover.
    """
    if not is_recovering(disk, directory):
        return None
    note = read_note(disk, directory)
    return Index(note.settled_index) if note is not None and note.settled_index else None


def has_left(disk: Disk, directory: str) -> bool:
    """Whether all that is in ``directory`` is what :func:`leave` keeps."""
    names = disk.list_directory(directory)
    return NOTE_NAME in names and not first_indexes_of(names)


def finish_leaving(disk: Disk, parent: str) -> None:
    """Finish what a crash left of :func:`leave`, for all groups in ``parent``; none is open."""
    for name in disk.list_directory(parent):
        directory, suffix = (
            f"{parent}/{name.removesuffix(_LEFT_SUFFIX)}",
            name[-len(_LEFT_SUFFIX) :],
        )
        if suffix == _LEFT_SUFFIX:
            settle(disk, directory)
            _remove(disk, f"{parent}/{name}")


def _remove(disk: Disk, path: str) -> None:
    if disk.exists(path):
        disk.remove_directory(path)
        disk.sync_directory(parent_of(path))
