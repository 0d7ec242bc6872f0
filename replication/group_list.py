"""Which groups a node has had: a file beside the directory that holds them.

A group's directory that is gone as a whole, or emptied, looks like one that never was, and a
replica that begins as if it had never voted may vote twice, or for who lacks what it acknowledged.
So a group is in the list before its replica saves its first term: what the list has, and the
directory has not, is lost and starts over
(:mod:`quorumlog.replication.catch_up.starting_over`).

Term and vote are lost with the directory. The list says in which terms that may have been: below
``term_bound``, which is moved ahead of the term by ``TERMS_AHEAD`` now and then. A replica that
goes on in that term repeats no vote, and follows no leader that it may have turned away before.

``<groups>.list``, little-endian, replaced atomically:

======  ====  ==========  ======================================================================
offset  size  field       meaning
======  ====  ==========  ======================================================================
0       4     magic       ``QLG``, 1
4       4     crc         CRC-32C of everything from byte 8 on
8       8     known_from  of the groups below this number the list may lack some: an older list
                          was lost; 0: it lacks none
16      4     count       of the entries that follow, in the order of ``group``
0       8     group       of each entry: its number
8       8     term_bound  the replica neither voted nor acknowledged in this term, or a later one
======  ====  ==========  ======================================================================
"""

import struct
from threading import Lock
from typing import Final

import structlog
from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import Corrupt, DiskFull, ProtocolError, StorageError
from quorumlog.log.disk_errors import is_full
from quorumlog.log.hard_state import read_hard_state
from quorumlog.log.paths import parent_of
from quorumlog.ports import Disk
from quorumlog.replication.catch_up.starting_over import HARD_STATE_NAME
from quorumlog.types import GroupId, Term

TERMS_AHEAD: Final = 64
"""So many elections of a group share one write of the list."""

MAX_GROUPS: Final = 1 << 20

UNKNOWN: Final = GroupId((1 << 64) - 1)
"""``known_from`` of a list that may lack any group."""

_MAGIC = b"QLG\x01"
_START = struct.Struct("<4sI")
_HEAD = struct.Struct("<QI")
_ENTRY = struct.Struct("<QQ")

_log = structlog.get_logger()


class GroupList:
    """The list of one directory of groups; any thread may call. Every call blocks.

    A list that is damaged, or missing where there are groups, is made anew of the directories that
    are there: it lacks those that were lost with it, and says so by ``known_from``.
    """

    def __init__(self, disk: Disk, groups_directory: str) -> None:
        """Nothing is read or written before the first call."""
        self._disk = disk
        self._groups_directory = groups_directory
        self._path = list_path_of(groups_directory)
        self._writing = Lock()
        self._lock = Lock()
        """Taken for moments, also while ``_writing`` is held: who looks waits for no write."""
        self._waiting: dict[GroupId, Term] = {}
        """Bounds that the next write takes along, whoever makes it."""
        self._loaded = False
        self._known_from = GroupId(0)
        self._bounds: dict[GroupId, Term] = {}
        self._is_saved = True

    def term_bound(self, group: GroupId) -> Term | None:
        """The first term in which this node's replica of ``group`` surely did nothing; None: the
        list does not have the group."""
        with self._lock:
            self._load()
            return self._bounds.get(group)

    def may_lack(self, group: GroupId) -> bool:
        """Whether ``group``, which is not listed, may have been here all the same."""
        with self._lock:
            self._load()
            return group < self._known_from

    @property
    def is_whole(self) -> bool:
        """Whether a group that is not listed was never here."""
        with self._lock:
            self._load()
            return self._known_from == 0

    def groups(self) -> list[GroupId]:
        """Those that are listed, sorted."""
        with self._lock:
            self._load()
            return sorted(self._bounds)

    def cover(self, group: GroupId, term: Term) -> None:
        """Before anything is promised in ``term``: durable when it returns.

        Threads that wait for one another share a write: a thousand groups begin together.

        Raises:
            DiskFull, OSError: what was durable stands; to be called again.
        """
        bound = Term(term + TERMS_AHEAD)
        with self._lock:
            self._load()
            if self._covers(group, term):
                return
            self._waiting[group] = bound
        with self._writing:
            with self._lock:
                waiting, self._waiting = self._waiting, {}
                if self._covers(group, term) and not waiting:
                    return
                bounds = {**self._bounds, **waiting, group: bound}
            self._change(bounds, self._known_from)

    def _covers(self, group: GroupId, term: Term) -> bool:
        """With ``_lock`` held: whether nothing has to be written for ``term``."""
        return self._is_saved and self._bounds.get(group, 0) > term

    def forget(self, group: GroupId) -> None:
        """``group`` was deleted by command, and so was its directory. Raises as :meth:`cover`."""
        with self._writing:
            with self._lock:
                self._load()
                if group not in self._bounds:
                    return
                left = {each: bound for each, bound in self._bounds.items() if each != group}
            self._change(left, self._known_from)

    def know_from(self, group: GroupId) -> None:
        """No replica of a group from this number on was here before the list was lost.

        Nothing where the list is whole, or knows better. Raises as :meth:`cover`.
        """
        with self._writing:
            with self._lock:
                self._load()
                if group >= self._known_from:
                    return
            self._change(self._bounds, group)

    def begin(self, *, is_whole: bool) -> None:
        """Make the list of the directories that are there, in the place of what there is.

        Args:
            is_whole: no other group was ever here. Raises as :meth:`cover`.
        """
        with self._writing:
            self._change(self._found(), GroupId(0) if is_whole else UNKNOWN)

    def _load(self) -> None:
        """With the lock held."""
        if self._loaded:
            return
        try:
            self._known_from, self._bounds = self._read()
        except (StorageError, OSError) as error:
            self._bounds = self._found()
            # Without a list and without a group nothing ever was here.
            is_new = isinstance(error, FileNotFoundError) and not self._bounds
            self._known_from = GroupId(0) if is_new else UNKNOWN
            if not is_new:
                _log.error("group_list_lost", path=self._path, error=str(error))
            self._is_saved = is_new
        self._loaded = True

    def _read(self) -> tuple[GroupId, dict[GroupId, Term]]:
        file = self._disk.open_readonly(self._path)
        try:
            size_bytes = min(file.size_bytes(), _START.size + _HEAD.size + MAX_GROUPS * _ENTRY.size)
            raw = file.read_at(0, size_bytes)
        finally:
            file.close()
        try:
            return decode_list(raw)
        except ProtocolError as error:
            raise Corrupt(self._path, 0, "a list of groups", str(error)) from error

    def _found(self) -> dict[GroupId, Term]:
        """The groups that have a directory, as far beyond their terms as can be read.

        Where term and vote are damaged the bound is not known, and the group not listed.
        """
        found = {}
        for group in groups_in(self._disk, self._groups_directory):
            path = f"{self._groups_directory}/{group}/{HARD_STATE_NAME}"
            try:
                state, _ = read_hard_state(self._disk, path)
            except (StorageError, OSError):
                continue
            found[group] = Term(state.term + TERMS_AHEAD)
        return found

    def _change(self, bounds: dict[GroupId, Term], known_from: GroupId) -> None:
        """With ``_writing`` held: write the list. It counts once it is durable."""
        draft = f"{self._path}.new"
        try:
            file = self._disk.open(draft, create=True)
            try:
                file.truncate(0)
                file.write_at(0, [encode_list(known_from, bounds)])
                file.sync()
            finally:
                file.close()
            self._disk.rename(draft, self._path)
            self._disk.sync_directory(parent_of(self._path))
        except OSError as error:
            if is_full(error):
                raise DiskFull(f"{self._path}: no space left for the list of groups") from error
            raise
        with self._lock:
            self._bounds, self._known_from = bounds, known_from
            self._is_saved = self._loaded = True


def list_path_of(groups_directory: str) -> str:
    return f"{groups_directory}.list"


def groups_in(disk: Disk, groups_directory: str) -> list[GroupId]:
    """The groups that have a directory in ``groups_directory``, sorted."""
    if not disk.exists(groups_directory):
        return []
    names = disk.list_directory(groups_directory)
    return sorted(GroupId(int(name)) for name in names if name.isascii() and name.isdigit())


def encode_list(known_from: GroupId, bounds: dict[GroupId, Term]) -> bytes:
    entries = (_ENTRY.pack(group, bounds[group]) for group in sorted(bounds))
    checked = b"".join((_HEAD.pack(known_from, len(bounds)), *entries))
    return _START.pack(_MAGIC, crc32c(checked)) + checked


def decode_list(raw: bytes) -> tuple[GroupId, dict[GroupId, Term]]:
    """``known_from`` and the bounds of the terms.

    Raises:
        ProtocolError: anything that :func:`encode_list` does not make.
    """
    if len(raw) < _START.size + _HEAD.size:
        raise ProtocolError(f"{len(raw)} bytes")
    magic, crc = _START.unpack_from(raw)
    checked = memoryview(raw)[_START.size :]
    if magic != _MAGIC or crc != crc32c(bytes(checked)):
        raise ProtocolError(f"{magic!r}, checksum {crc:08x}")
    known_from, count = _HEAD.unpack_from(checked)
    entries = checked[_HEAD.size :]
    if len(entries) != count * _ENTRY.size:
        raise ProtocolError(f"{count} groups in {len(entries)} bytes")
    return GroupId(known_from), {
        GroupId(group): Term(bound) for group, bound in _ENTRY.iter_unpack(entries)
    }
