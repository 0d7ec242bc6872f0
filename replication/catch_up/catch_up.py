"""What one replica does so that itself or its followers catch up, beside the Raft core."""

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import structlog

from quorumlog.errors import ProtocolError
from quorumlog.log.batch import Batch
from quorumlog.log.log import Log
from quorumlog.log.state_snapshot import LogOrigin, StateSnapshot
from quorumlog.ports import Clock, Disk, Worker
from quorumlog.replication.catch_up.feeder import Feeder
from quorumlog.replication.catch_up.messages import (
    CatchUpMessage,
    ChunkAnswer,
    EndAnswer,
    StateChunk,
    decode,
    encode,
)
from quorumlog.replication.catch_up.pacing import CatchUpPacer
from quorumlog.replication.catch_up.recovery import Recovery
from quorumlog.replication.catch_up.returning import Returning
from quorumlog.replication.catch_up.starting_over import recovered
from quorumlog.replication.catch_up.state_receiver import StateReceiver
from quorumlog.replication.catch_up.state_sender import StateSender
from quorumlog.replication.core.core import RaftCore
from quorumlog.types import GroupId, Index, NodeId

_log = structlog.get_logger()


class CatchingUp(Protocol):
    """The replica, as this needs it."""

    group: GroupId
    core: RaftCore
    log: Log

    @property
    def awaited(self) -> StateSnapshot | None: ...

    @property
    def restored_index(self) -> Index: ...

    @property
    def serving(self) -> bool: ...

    def feed(self, peer: NodeId, batches: Sequence[Batch]) -> None:
        """Let the core send what was read for a follower."""
        ...

    def fail(self, error: Exception) -> None:
        """The log cannot be read."""
        ...

    def present_state(self, origin: LogOrigin | None = None) -> StateSnapshot | None: ...


class CatchUp:
    """Made with its replica, closed with it. Called in the event loop."""

    def __init__(
        self,
        replica: CatchingUp,
        *,
        node_id: NodeId,
        disk: Disk,
        directory: str,
        clock: Clock,
        worker: Worker,
        pacer: CatchUpPacer,
        rng: random.Random,
        send: Callable[[NodeId, GroupId, bytes], None],
        install: Callable[[StateSnapshot], None],
        left_at: Index | None = None,
    ) -> None:
        """``install`` is told of a state that is complete in the draft in ``directory``;
        ``left_at``: the replica is recovering because it left, and its group was settled without
        it through there."""
        self._replica = replica
        self._clock = clock
        self._pacer = pacer
        self._send_bytes = send
        self._loop = asyncio.get_running_loop()
        self._disk = disk
        self._directory = directory
        self._worker = worker
        self._forgetting: asyncio.Future[None] | None = None
        self._closed = False
        self._sender = StateSender(replica.group, self._take_state, self._send_chunk)
        self._recovery: Recovery | Returning
        if left_at is not None:
            self._recovery = Returning(node_id, replica, left_at, self._whole)
        else:
            self._recovery = Recovery(
                node_id,
                replica,
                clock.monotonic_s(),
                partial(rng.getrandbits, 64),
                self._send,
                self._whole,
            )
        self._feeder = Feeder(replica, worker, pacer)
        self._receiver = StateReceiver(
            group=replica.group,
            disk=disk,
            directory=directory,
            worker=worker,
            send=self._send,
            complete=install,
        )

    def receive(self, sender: NodeId, payload: memoryview) -> None:
        """Take a message of one of our types; one that is not of the present leader is nothing."""
        try:
            message = decode(payload)
        except ProtocolError as error:
            group = self._replica.group
            _log.warning("peer_message_refused", group=group, peer=sender, error=str(error))
            return
        core = self._replica.core
        if message.term != core.term:
            return
        if isinstance(message, StateChunk):
            if core.leader_id == sender:
                self._receiver.take(sender, message)
        elif isinstance(message, EndAnswer):
            self._recovery.answered(message)
        elif isinstance(message, ChunkAnswer):
            if core.leadership is not None:
                self._sender.answered(sender, message, core.term, self._clock.monotonic_s())
        elif self._replica.serving:
            last_index = self._replica.log.last_index
            self._send(sender, EndAnswer(core.term, message.nonce, last_index))

    def look(self) -> None:
        """Do what the core's last outputs ask for; called whenever they were taken."""
        self._feeder.look()
        leadership = self._replica.core.leadership
        # Also before this leader serves: what it has applied is committed whoever leads, and what
        # is before its log's start too. Its first batch may wait for just the one that is behind.
        behind = leadership.behind_start if leadership is not None else ()
        now_s = self._clock.monotonic_s()
        self._sender.look(behind, self._replica.core.term, now_s)
        self._recovery.look(now_s)

    async def close(self) -> None:
        self._closed = True
        await self._feeder.close()
        await self._receiver.close()
        if self._forgetting is not None:
            await asyncio.wait([self._forgetting])

    def _whole(self) -> None:
        """Vote again, once no restart can bring the note back."""
        forget = self._worker.run(partial(recovered, self._disk, self._directory))
        self._forgetting = asyncio.ensure_future(forget)
        self._forgetting.add_done_callback(self._forgot)

    def _forgot(self, done: "asyncio.Future[None]") -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, Exception):
            self._replica.fail(error)
        elif not self._closed:
            self._replica.core.recovered()

    def _take_state(self) -> StateSnapshot | None:
        return self._replica.present_state(self._replica.log.origin)

    def _send(self, peer: NodeId, message: CatchUpMessage) -> None:
        if not self._closed:
            self._send_bytes(peer, self._replica.group, encode(message))

    def _send_chunk(self, peer: NodeId, chunk: StateChunk) -> float:
        delay_s = self._pacer.reserve(len(chunk.data))
        if delay_s > 0:
            self._loop.call_later(delay_s, partial(self._send, peer, chunk))
        else:
            self._send(peer, chunk)
        return delay_s
