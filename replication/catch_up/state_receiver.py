"""The follower's side of being given a leader's state."""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from quorumlog.errors import StorageError
from quorumlog.log.install import DRAFT_NAME
from quorumlog.log.log import Log
from quorumlog.log.state_snapshot import LogOrigin, StateSnapshot, read_snapshot
from quorumlog.ports import Disk, Worker
from quorumlog.replication.catch_up.messages import ChunkAnswer, StateChunk, StateId
from quorumlog.types import GroupId, NodeId

_log = structlog.get_logger()


def is_needed(log: Log, start: LogOrigin) -> bool:
    """Whether ``log`` has to be emptied for a state whose log begins at ``start``.

    What stands before ``start`` is committed. A log that ends before it has nothing else, and one
    that has another batch in its place has nothing from there on that was ever committed: what is
    thrown away is either in the state or was never promised. A log that reaches ``start`` with the
    right batch only needs what follows, and what it acknowledged must stay: a late copy of a state
    is refused here.
    """
    index = start.start_index - 1
    if index > log.last_index:
        return True
    return index >= log.start_index and log.term_at(index) != start.prev_term


class StateReceiver:
    """Writes the chunks of one state to its draft; one write at a time. Called in the event loop.

    Nothing of it is synced before it is complete: what a crash leaves is begun anew.
    """

    def __init__(
        self,
        *,
        group: GroupId,
        disk: Disk,
        directory: str,
        worker: Worker,
        send: Callable[[NodeId, ChunkAnswer], None],
        complete: Callable[[StateSnapshot], None],
    ) -> None:
        """``complete`` is told of a state that is whole in the draft, to be installed or not."""
        self._group = group
        self._disk = disk
        self._draft = f"{directory}/{DRAFT_NAME}"
        self._worker = worker
        self._send = send
        self._complete = complete
        self._state: StateId | None = None
        self._received_bytes = 0
        self._busy: asyncio.Task[None] | None = None
        self._closed = False

    def take(self, leader: NodeId, chunk: StateChunk) -> None:
        """A chunk from the leader. One that comes while another is written is sent again later."""
        if self._busy is not None or self._closed:
            return
        if chunk.state != self._state:
            self._state, self._received_bytes = chunk.state, 0
        if chunk.position != self._received_bytes:
            self._answer(leader, chunk)
            return
        self._busy = asyncio.create_task(self._write(leader, chunk))
        self._busy.add_done_callback(self._idle)

    async def close(self) -> None:
        """Wait for the write under way; nothing is written any more."""
        self._closed = True
        if self._busy is not None:
            await asyncio.wait([self._busy])

    def _idle(self, done: "asyncio.Task[None]") -> None:
        self._busy = None

    def _answer(self, leader: NodeId, chunk: StateChunk) -> None:
        self._send(leader, ChunkAnswer(chunk.term, chunk.state, self._received_bytes))

    async def _write(self, leader: NodeId, chunk: StateChunk) -> None:
        data = bytes(chunk.data)
        try:
            await self._worker.run(partial(self._write_draft, chunk.position, data))
            self._received_bytes = chunk.position + len(data)
            snapshot = None
            if self._received_bytes == chunk.state.size_bytes:
                snapshot = await self._worker.run(partial(read_snapshot, self._disk, self._draft))
        except (StorageError, OSError) as error:
            # The disk is full, most likely: the leader asks again, and it begins anew.
            self._state = None
            _log.warning("state_not_received", group=self._group, error=str(error))
            return
        if self._closed:
            return
        self._answer(leader, chunk)
        if snapshot is not None:
            self._state = None
            self._complete(snapshot)

    def _write_draft(self, position: int, data: bytes) -> None:
        file = self._disk.open(self._draft, create=True)
        try:
            if position == 0:
                file.truncate(0)
            file.write_at(position, [data])
        finally:
            file.close()
