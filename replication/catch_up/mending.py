"""Mending one damaged segment with the batches of another replica.

The replica is closed and takes no part meanwhile: it serves nothing and promises nothing, and the
others are the majority. What it writes anew is what stood there: batches that another replica knows
to be committed, the last of them of the same index and term as the first one behind the damage
here, so all before it agrees (Raft §5.3, Log Matching). When its group is opened again it has
every batch that it ever acknowledged, its term and its vote, and votes as after any restart.

Where that cannot be had, nothing was changed, and it starts over
(:mod:`quorumlog.replication.catch_up.starting_over`): rot in the last segment or in a segment's
header, no other replica that answers, a batch behind the damage that is not the committed one.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from threading import Event
from typing import Final

import structlog

from quorumlog.errors import (
    Closed,
    Corrupt,
    IndexOutOfRange,
    LogFenced,
    ProtocolError,
    StorageError,
)
from quorumlog.log.batch import Batch, iterate_batches, join_batches
from quorumlog.log.config import LogConfig
from quorumlog.log.pacer import Stopped
from quorumlog.log.segment_mending import DamagedSegment, SegmentMending, find_damaged
from quorumlog.ports import Clock, Disk, Worker
from quorumlog.replication.catch_up.feeder import MAX_READ_BYTES
from quorumlog.replication.catch_up.messages import (
    BatchAnswer,
    BatchQuestion,
    MendingMessage,
    decode_mending,
    encode_mending,
)
from quorumlog.replication.catch_up.pacing import CatchUpPacer
from quorumlog.replication.replica import Replica
from quorumlog.types import Buffer, GroupId, NodeId

ANSWER_TIMEOUT_S: Final = 5.0
"""Who has not answered by then is not asked any more; and later, by what the answers before have to
wait for at the rate of this node, which is that of the others, too."""

MAX_ANSWERS: Final = 16
"""Answers of a node that are read for at a time; a question beyond that gets none."""

_log = structlog.get_logger()


class Mender:
    """Asks for a host's damaged replicas, and answers for its whole ones. In the event loop."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        replicas: Mapping[GroupId, Replica],
        disk: Disk,
        clock: Clock,
        worker: Worker,
        pacer: CatchUpPacer,
        rng: random.Random,
        send: Callable[[NodeId, GroupId, bytes], None],
    ) -> None:
        self._node_id = node_id
        self._replicas = replicas
        self._disk = disk
        self._clock = clock
        self._worker = worker
        self._pacer = pacer
        self._rng = rng
        self._send_bytes = send
        self._asked: dict[tuple[NodeId, int], asyncio.Future[Buffer]] = {}
        self._answers: set[asyncio.Task[None]] = set()
        self._stop = Event()
        self._closing = asyncio.Event()

    async def close(self) -> None:
        """Nobody is asked or answered any more: what is being mended is given up."""
        self._stop.set()
        self._closing.set()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(b"")
        if self._answers:
            await asyncio.wait(tuple(self._answers))

    def receive(self, sender: NodeId, group: GroupId, payload: memoryview) -> None:
        try:
            message = decode_mending(payload)
        except ProtocolError as error:
            _log.warning("peer_message_refused", group=group, peer=sender, error=str(error))
            return
        if isinstance(message, BatchAnswer):
            asked = self._asked.get((sender, message.nonce))
            if asked is not None and not asked.done():
                asked.set_result(message.batches)
        elif len(self._answers) < MAX_ANSWERS and not self._stop.is_set():
            task = asyncio.create_task(self._answer(sender, group, message))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    # -- the damaged one -----------------------------------------------------------------------

    async def mend(
        self, replica: Replica, directory: str, error: Corrupt, config: LogConfig
    ) -> bool:
        """Write what ``error`` found damaged in the closed log of ``replica`` anew.

        Returns:
            Whether the next open has it. If not, nothing was changed.
        """
        find = partial(find_damaged, self._disk, directory, error.file)
        try:
            damaged = await self._worker.run(find)
        except OSError as failure:
            _log.warning("segment_not_mended", group=replica.group, error=str(failure))
            return False
        if damaged is None:
            return False
        for peer in replica.core.members.everybody:
            if peer == self._node_id or self._stop.is_set():
                continue
            try:
                kept = await self._mend_from(peer, replica.group, damaged, config)
            except (ProtocolError, TimeoutError, Stopped, OSError) as failure:
                _log.warning(
                    "segment_not_mended", group=replica.group, peer=peer, error=repr(failure)
                )
                continue
            _log.error(
                "damaged_segment_mended",
                group=replica.group,
                peer=peer,
                first_index=damaged.header.first_index,
                next_index=damaged.next_index,
                kept=kept,
                error=str(error),
            )
            return True
        return False

    async def _mend_from(
        self, peer: NodeId, group: GroupId, damaged: DamagedSegment, config: LogConfig
    ) -> str | None:
        """Where the damaged file is kept, None where it is not.

        Raises:
            ProtocolError, TimeoutError: ``peer`` does not have what is needed, or does not say so.
            OSError: of the disk. Stopped: this node closes.
        """
        begin = partial(SegmentMending, self._disk, damaged, config, self._clock, self._stop)
        mending = await self._worker.run(begin)
        try:
            is_all, before = False, 0
            while not is_all:
                question = BatchQuestion(
                    self._rng.getrandbits(64), mending.next_index, damaged.next_index
                )
                answer = await self._ask(peer, group, question, before)
                before = len(answer)
                batches = list(iterate_batches(answer))
                if not batches:
                    raise ProtocolError(f"{peer} has no committed batch {question.first_index}")
                is_all = await self._worker.run(partial(mending.append, batches))
            return await self._worker.run(mending.finish)
        except BaseException:
            await self._worker.run(mending.abandon)
            raise

    async def _ask(
        self, peer: NodeId, group: GroupId, question: BatchQuestion, before: int
    ) -> Buffer:
        """``before``: bytes of the answer before, which may still have to be made up for."""
        if self._stop.is_set():
            raise Stopped
        asked: asyncio.Future[Buffer] = asyncio.get_running_loop().create_future()
        key = (peer, question.nonce)
        self._asked[key] = asked
        try:
            self._send(peer, group, question)
            others = MAX_ANSWERS * MAX_READ_BYTES
            async with asyncio.timeout(ANSWER_TIMEOUT_S + self._pacer.longest_s(others + before)):
                return await asked
        finally:
            del self._asked[key]

    # -- the others ----------------------------------------------------------------------------

    async def _answer(self, sender: NodeId, group: GroupId, question: BatchQuestion) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pacer.reserve(MAX_READ_BYTES)):
                await self._closing.wait()
        batches = await self._read(group, question)
        if not self._stop.is_set():
            self._send(sender, group, BatchAnswer(question.nonce, join_batches(batches)))

    async def _read(self, group: GroupId, question: BatchQuestion) -> list[Batch]:
        replica = self._replicas.get(group)
        if replica is None or not replica.takes_part:
            return []
        # Also where its group wrote it later: a committed batch is never another one.
        last_index = min(replica.core.commit_index, question.through_index)
        if not replica.log.start_index <= question.first_index <= last_index:
            return []
        try:
            read = partial(replica.log.slice, question.first_index, MAX_READ_BYTES)
            batches = await self._worker.run(read)
        except (Closed, LogFenced, IndexOutOfRange):
            return []
        except (StorageError, OSError) as error:
            replica.fail(error)
            return []
        # One batch is read whole, however large: what is asked for next waits for it as well.
        size_bytes = sum([batch.size_bytes for batch in batches])
        self._pacer.reserve(max(0, size_bytes - MAX_READ_BYTES))
        return [batch for batch in batches if batch.header.next_index - 1 <= last_index]

    def _send(self, peer: NodeId, group: GroupId, message: MendingMessage) -> None:
        self._send_bytes(peer, group, encode_mending(message))
