"""Raft's term and vote on disk (Raft §5.1, figure 2: persistent state on all servers).

The file holds two slots and a copy of each (:mod:`quorumlog.log.slots`, magic ``QLH`` and version
1), with the payload, little-endian:

======  ====  ========  ========================================================================
offset  size  field     meaning
======  ====  ========  ========================================================================
0       8     term
8       1     length    bytes of the vote; 255: this node has not voted in the term
9       64    vote      the node id, UTF-8, filled with zeros
======  ====  ========  ========================================================================
"""

import struct
from dataclasses import dataclass
from typing import Final

from quorumlog.errors import Corrupt, DiskFull, InvalidArgument, LogFenced
from quorumlog.log.disk_errors import is_full
from quorumlog.log.paths import parent_of
from quorumlog.log.slots import SlotPair
from quorumlog.ports import Disk, File
from quorumlog.types import NodeId, Term

MAX_NODE_ID_BYTES: Final = 64

_PAYLOAD = struct.Struct(f"<QB{MAX_NODE_ID_BYTES}s")
_MAGIC = b"QLH\x01"
_COPIES = 2
_NO_VOTE = 255
_NO_TERM = Term(0)


@dataclass(frozen=True, slots=True)
class HardState:
    """The newest term this node has seen, and whom it voted for in that term."""

    term: Term = _NO_TERM
    vote: NodeId | None = None


def read_hard_state(disk: Disk, path: str) -> tuple[HardState, list[int]]:
    """What the file at ``path`` says, and where a slot of it is damaged. Changes nothing.

    Raises:
        Corrupt: it holds no valid state.
        OSError: it cannot be read.
    """
    slots = SlotPair(_MAGIC, 0, _PAYLOAD.size, _COPIES)
    file = disk.open_readonly(path)
    try:
        payload = slots.load(file)
        damaged = slots.damaged(file)
    finally:
        file.close()
    if payload is None:
        raise Corrupt(path, 0, "a valid term and vote", "damaged slots only")
    return _decode(payload, path), damaged


def _decode(payload: bytes, path: str) -> HardState:
    term, length, vote = _PAYLOAD.unpack(payload)
    if length == _NO_VOTE:
        return HardState(Term(term))
    try:
        return HardState(Term(term), NodeId(vote[:length].decode()))
    except UnicodeDecodeError as error:
        raise Corrupt(path, 0, "a vote in UTF-8", repr(vote[:length])) from error


class HardStateFile:
    """Keeps one :class:`HardState` at ``path``. One thread at a time."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._slots = SlotPair(_MAGIC, 0, _PAYLOAD.size, _COPIES)
        self._file: File | None = None
        self._is_fenced = False

    def load(self) -> HardState:
        """What was saved last; term 0 and no vote when nothing ever was.

        Raises:
            Corrupt: the file is there and holds no valid state. To start at term 0 instead could
                vote twice in one term.
        """
        if not self._disk.exists(self._path):
            return HardState()
        file = self._open()
        payload = self._slots.load(file)
        if payload is None:
            raise Corrupt(self._path, 0, "a valid term and vote", "damaged slots only")
        # A process that died may have left its last save in the page cache only, and what is
        # loaded here will be relied upon. Stored again, for a page that an fdatasync failed on
        # may pass for clean.
        self._slots.store_again(file, payload)
        self._sync(file)
        self._sync_directory()
        return _decode(payload, self._path)

    def save(self, state: HardState) -> None:
        """Returns after fdatasync. A crash in between leaves this state or the one before.

        Raises:
            InvalidArgument: the vote is longer than ``MAX_NODE_ID_BYTES``.
            LogFenced: an fdatasync failed, now or before.
            DiskFull: the state saved before stands; save again when there is space.
            OSError: another error of the disk; the state saved before stands.
        """
        if self._is_fenced:
            raise LogFenced(f"{self._path}: an fdatasync failed, term and vote cannot be kept")
        vote = b"" if state.vote is None else state.vote.encode()
        if len(vote) > MAX_NODE_ID_BYTES:
            raise InvalidArgument(f"a node id has at most {MAX_NODE_ID_BYTES} bytes: {state.vote}")
        length = _NO_VOTE if state.vote is None else len(vote)
        payload = _PAYLOAD.pack(state.term, length, vote)
        try:
            self._write(payload)
        except OSError as error:
            if not is_full(error):
                raise
            raise DiskFull(f"{self._path}: no space left on the disk for term and vote") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, payload: bytes) -> None:
        if self._file is None and not self._disk.exists(self._path):
            self._create(payload)
            return
        file = self._open()
        self._slots.store(file, payload)
        self._sync(file)

    def _create(self, payload: bytes) -> None:
        """Make the file under another name first: where it exists it holds a valid slot."""
        draft = self._path + ".new"
        file = self._disk.open(draft, create=True)
        try:
            file.truncate(0)
            self._slots.store(file, payload)
            self._sync(file)
            self._disk.rename(draft, self._path)
            self._sync_directory()
        except BaseException:
            file.close()
            raise
        self._file = file

    def _open(self) -> File:
        """The file, with the number of its newest slot known."""
        if self._file is None:
            file = self._disk.open(self._path)
            self._slots.load(file)
            self._file = file
        return self._file

    def _sync(self, file: File) -> None:
        try:
            file.sync()
        except OSError as error:
            self._is_fenced = True
            raise LogFenced(f"{self._path}: fdatasync failed: {error}") from error

    def _sync_directory(self) -> None:
        try:
            self._disk.sync_directory(parent_of(self._path))
        except OSError as error:
            self._is_fenced = True
            raise LogFenced(f"{self._path}: fsync of its directory failed: {error}") from error
