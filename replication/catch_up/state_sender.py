"""The leader's side of giving its state to followers that need what its log has no more."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import structlog
from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import StorageError
from quorumlog.log.state_snapshot import StateSnapshot, encode_snapshot
from quorumlog.replication.catch_up.messages import (
    MAX_CHUNK_BYTES,
    ChunkAnswer,
    StateChunk,
    StateId,
)
from quorumlog.types import GroupId, NodeId, Term

RETRY_S: Final = 1.0
"""A chunk without an answer is sent again after this time; so is a whole state that changed
nothing."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Copy:
    """A state as it is sent; transfers that begin at about the same time share it."""

    state: StateId
    encoded: bytes


@dataclass(slots=True)
class _Transfer:
    """``position``: where the chunk on its way begins; at the end the follower has all."""

    copy: _Copy
    position: int
    sent_at_s: float

    @property
    def is_all_there(self) -> bool:
        return self.position == len(self.copy.encoded)


class StateSender:
    """One transfer per follower, one chunk of it on its way. Called in the event loop.

    Transfers that go on at the same time share one copy of the state; a new one is taken when the
    first begins, and for a follower that one did not help: the log may begin later by now. The
    follower says where it is, so what a break cut short goes on from there.
    """

    def __init__(
        self,
        group: GroupId,
        take: Callable[[], StateSnapshot | None],
        send: Callable[[NodeId, StateChunk], float],
    ) -> None:
        """``take`` gives the present state, with where the log begins; None: there is none.
        ``send`` sends a chunk when it is its turn and returns in how many seconds that is."""
        self._group = group
        self._take = take
        self._send = send
        self._transfers: dict[NodeId, _Transfer] = {}
        self._newest: _Copy | None = None

    def look(self, behind: Collection[NodeId], term: Term, now_s: float) -> None:
        """``behind`` are the followers that need a state; called whenever one of them was heard."""
        for peer in [peer for peer in self._transfers if peer not in behind]:
            del self._transfers[peer]
        if not self._transfers:
            self._newest = None
        for peer in behind:
            transfer = self._transfers.get(peer)
            if transfer is None:
                self._begin(peer, term, now_s)
            elif now_s - transfer.sent_at_s >= RETRY_S:
                if transfer.is_all_there:
                    # It has had all of it and is behind still: it was not able to use that.
                    del self._transfers[peer]
                    if transfer.copy is self._newest:
                        self._newest = None
                else:
                    self._send_next(peer, transfer, term, now_s)

    def answered(self, peer: NodeId, answer: ChunkAnswer, term: Term, now_s: float) -> None:
        transfer = self._transfers.get(peer)
        if transfer is None or answer.state != transfer.copy.state:
            return
        if answer.position == transfer.position:
            return
        transfer.position = answer.position
        if transfer.is_all_there:
            transfer.sent_at_s = now_s
        else:
            self._send_next(peer, transfer, term, now_s)

    def _begin(self, peer: NodeId, term: Term, now_s: float) -> None:
        copy = self._newest = self._newest or self._take_copy(peer)
        if copy is None:
            return
        _log.info(
            "state_transfer_began",
            group=self._group,
            peer=peer,
            index=copy.state.index,
            size_bytes=len(copy.encoded),
        )
        self._transfers[peer] = transfer = _Transfer(copy, 0, now_s)
        self._send_next(peer, transfer, term, now_s)

    def _take_copy(self, peer: NodeId) -> _Copy | None:
        snapshot = self._take()
        if snapshot is None:
            return None
        try:
            encoded = encode_snapshot(snapshot, f"group {self._group}")
        except StorageError as error:
            _log.error("state_not_sent", group=self._group, peer=peer, error=str(error))
            return None
        return _Copy(StateId(snapshot.index, len(encoded), crc32c(encoded)), encoded)

    def _send_next(self, peer: NodeId, transfer: _Transfer, term: Term, now_s: float) -> None:
        copy, position = transfer.copy, transfer.position
        data = memoryview(copy.encoded)[position : position + MAX_CHUNK_BYTES]
        delay_s = self._send(peer, StateChunk(term, copy.state, position, data))
        transfer.sent_at_s = now_s + delay_s
