"""One group member as a driver runs it: a core, a disk that takes its time, crashes.

Follows the contract of ``Ready`` to the letter and no further. One flush at a time: it saves the
term and vote it was given when it began, then whatever the log holds at some later moment; only
then does what relied on it leave, and only then is it reported.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from quorumlog.log.batch import Batch, Kind
from quorumlog.log.hard_state import HardState
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.log_port import Rng
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import Message
from quorumlog.replication.core.ready import Ready
from quorumlog.types import NodeId
from raft.memory_log import MemoryLog


@dataclass(slots=True)
class Flush:
    hard_state: HardState | None
    messages: list[tuple[NodeId, Message]]
    batches: list[Batch] | None = None
    """What the log held when this flush came to it; None before."""
    changes: int = 0


class RaftMember:
    """``send`` gets what leaves, ``observe`` every Ready right after it was taken."""

    def __init__(
        self,
        node_id: NodeId,
        members: Members,
        config: RaftConfig,
        rng: Rng,
        send: Callable[[NodeId, NodeId, Message], None],
        observe: Callable[["RaftMember", Ready], None],
        now: float = 0.0,
        batches: list[Batch] | None = None,
        hard_state: HardState | None = None,
    ) -> None:
        self.node_id = node_id
        self.hard_state = hard_state or HardState()
        """As the disk has it."""
        self.durable: list[Batch] = list(batches or [])
        """As the disk has it."""
        self.alive = True
        self.incarnation = 0
        self.flush: Flush | None = None
        self._members = members
        self._config = config
        self._rng = rng
        self._send = send
        self._observe = observe
        self._start(now)
        self.core._votes_from = float("-inf")  # at first it has been up for long

    def _start(self, now: float) -> None:
        self.log = MemoryLog(self.durable)
        self._flushed_changes = self.log.changes
        self._unsaved: HardState | None = None
        self._waiting: list[tuple[NodeId, Message]] = []
        self.flush = None
        self.core = RaftCore(
            node_id=self.node_id,
            config=self._config,
            log=self.log,
            hard_state=self.hard_state,
            members=self._members,
            rng=self._rng,
            now=now,
            config_entries=[
                (batch.header.index, Members.decode(batch.body))
                for batch in self.durable
                if batch.header.kind is Kind.CONFIG
            ],
        )

    @property
    def has_work_for_disk(self) -> bool:
        return self._unsaved is not None or self.log.changes != self._flushed_changes

    def drain(self) -> bool:
        """Take what is ready. Returns whether a flush should begin."""
        while self.core.has_ready:
            ready = self.core.take_ready()
            self._observe(self, ready)
            for peer, message in ready.messages:
                self._send(self.node_id, peer, message)
            if ready.hard_state is not None:
                self._unsaved = ready.hard_state
            self._waiting += ready.durable_messages
        if self.flush is not None:
            return False
        if self.has_work_for_disk:
            return True
        waiting, self._waiting = self._waiting, []
        self._send_all(waiting)
        return False

    def begin_flush(self) -> None:
        self.flush = Flush(self._unsaved, self._waiting)
        self._unsaved, self._waiting = None, []

    def write_flush(self) -> None:
        """Term and vote are on disk; the log's part of the flush begins."""
        if self.flush is None:
            raise AssertionError("no flush is under way")
        if self.flush.hard_state is not None:
            self.hard_state = self.flush.hard_state
        self.flush.batches = list(self.log.batches)
        self.flush.changes = self.log.changes

    def end_flush(self, now: float) -> None:
        flush = self.flush
        if flush is None or flush.batches is None:
            raise AssertionError("the flush has written nothing")
        self.flush = None
        self.durable = flush.batches
        self._flushed_changes = flush.changes
        self._send_all(flush.messages)
        if flush.batches:
            last = flush.batches[-1].header
            self.core.persisted(last.index, last.term, now)

    def flush_now(self, now: float) -> None:
        self.begin_flush()
        self.write_flush()
        self.end_flush(now)

    def crash(self, rng: random.Random) -> None:
        """Lose what was not flushed; of a flush under way some of the work is done, in order."""
        self.alive = False
        self.incarnation += 1
        flush = self.flush
        if flush is not None:
            if flush.batches is None:
                if flush.hard_state is not None and rng.random() < 0.5:
                    self.hard_state = flush.hard_state
            elif rng.random() < 0.7:
                self.durable = self._half_done(flush.batches, rng)
        self.flush = None
        self._waiting = []

    def _half_done(self, target: list[Batch], rng: random.Random) -> list[Batch]:
        common = 0
        for mine, new in zip(self.durable, target, strict=False):
            if mine is not new:
                break
            common += 1
        return target[: rng.randint(common, len(target))]

    def restart(self, now: float) -> None:
        self.alive = True
        self._start(now)

    def _send_all(self, messages: list[tuple[NodeId, Message]]) -> None:
        for peer, message in messages:
            self._send(self.node_id, peer, message)

    def has_durably(self, batch: Batch) -> bool:
        at = batch.header.index - 1
        return at < len(self.durable) and self.durable[at].head == batch.head
