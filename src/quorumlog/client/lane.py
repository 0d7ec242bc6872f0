"""One partition's way from a producer to its leader: finds the leader, sends, tries again.

What is sent when, and what a failure means for a batch, is decided in
``quorumlog.client.batch_queue``.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.accumulator import OpenBatch, ProducerIdentity, SealedBatch
from quorumlog.client.batch_queue import BatchQueue
from quorumlog.client.leader_calls import LeaderCalls
from quorumlog.client.link import Answer, ProduceLink, ProduceLinks
from quorumlog.client.models import RecordMetadata, RunMetadata
from quorumlog.client.retry import Backoff, surely_not_done, worth_another_attempt
from quorumlog.client.routes import Routes
from quorumlog.client.tasks import Tasks
from quorumlog.errors import (
    Closed,
    DuplicateSequence,
    NotFound,
    NotLeader,
    OutcomeUnknown,
    OutOfOrderSequence,
    QuorumlogError,
    Unavailable,
)
from quorumlog.rpc_status import error_from

STALL_CHECK_S: Final = 2.0
"""Without an answer for so long a lane asks whether another node leads by now."""


@dataclass(frozen=True, slots=True)
class LaneServices:
    """What the lanes of one client share."""

    links: ProduceLinks
    routes: Routes
    leader_calls: LeaderCalls
    tasks: Tasks
    rng: random.Random
    new_identity: Callable[[], Awaitable[ProducerIdentity]]
    request_timeout_s: float


class LaneOwner(Protocol):
    """What a lane tells its producer, always from the event loop."""

    def released(self, size_bytes: int) -> None:
        """A batch has left the buffer, acknowledged or not."""
        ...

    def sealed(self, partition: int) -> None:
        """A batch takes no more records."""
        ...

    def failed(self, error: QuorumlogError) -> None:
        """A batch was given up."""
        ...


class Lane:
    def __init__(
        self,
        topic: str,
        partition: int,
        services: LaneServices,
        owner: LaneOwner,
        batch_bytes: int,
        delivery_timeout_s: float,
        compression_level: int | None,
        fencing_token: int,
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._services = services
        self._owner = owner
        self._delivery_timeout_s = delivery_timeout_s
        self._fencing_token = fencing_token
        self._loop = asyncio.get_running_loop()
        self._queue = BatchQueue(batch_bytes, compression_level)
        self._link: ProduceLink | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._backoff = Backoff(services.rng)
        self._drain_due = False
        self._progress_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._last_error: QuorumlogError | None = None

    @property
    def empty(self) -> bool:
        return self._queue.empty

    def add_record(self, encoded: bytes) -> "asyncio.Future[RecordMetadata]":
        future: asyncio.Future[RecordMetadata] = self._loop.create_future()
        self._batch_for(len(encoded), 1).add_record(encoded, future)
        return future

    def add_run(self, encoded: bytes, record_count: int) -> "asyncio.Future[RunMetadata]":
        future: asyncio.Future[RunMetadata] = self._loop.create_future()
        self._batch_for(len(encoded), record_count).add_run(encoded, record_count, future)
        return future

    def abort(self) -> None:
        """Give up everything, at once."""
        closed = Closed("the producer was closed before it was acknowledged")
        self._lose(self._queue.give_up_all(closed))
        for task in (self._connecting, self._looking):
            if task is not None:
                task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _batch_for(self, size_bytes: int, record_count: int) -> OpenBatch:
        """The open batch, closed before and opened anew when it has no room for so much."""
        queue = self._queue
        if queue.open is not None and not queue.has_room(size_bytes, record_count):
            queue.seal()
            self._owner.sealed(self._partition)
        if queue.open is None:
            queue.open = OpenBatch(self._loop.time() + self._delivery_timeout_s)
        # Not at once: what the caller adds in the same turn of the loop shares the batch.
        if not self._drain_due:
            self._drain_due = True
            self._loop.call_soon(self._drain)
        return queue.open

    def _drain(self) -> None:
        """Send what may go now; find the leader first where there is no link."""
        self._drain_due = False
        if self._queue.empty:
            return
        self._watch()
        link = self._link
        if link is None or link.broken is not None:
            self._connect(delay_s=0.0)
            return
        while self._queue.may_send():
            if not self._queue.in_flight:
                self._progress_s = self._loop.time()
            sealing = not self._queue.waiting
            batch = self._queue.take()
            if sealing:
                self._owner.sealed(self._partition)
            self._transmit(link, batch)

    def _transmit(self, link: ProduceLink, batch: SealedBatch) -> None:
        attempt = self._queue.attempt

        def on_answer(answer: Answer) -> None:
            if attempt == self._queue.attempt:
                self._answered(batch, answer)

        message = batch.message()
        message.fencing_token = self._fencing_token
        link.submit(self._topic, self._partition, message, on_answer)

    def _connect(
        self, delay_s: float, avoid: str | None = None, missing: tuple[str, NotFound] | None = None
    ) -> None:
        """Find the leader in the background, unless that is under way.

        Args:
            avoid: an address that did not serve just now.
            missing: who said that the topic or partition does not exist; the cluster is asked
                first.
        """
        self._link = None
        if self._connecting is None or self._connecting.done():
            self._connecting = self._services.tasks.start(
                self._find_link(delay_s, avoid, missing), f"lane-{self._topic}-{self._partition}"
            )

    async def _find_link(
        self, delay_s: float, avoid: str | None, missing: tuple[str, NotFound] | None
    ) -> None:
        services = self._services
        while not self._queue.empty:
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            try:
                if missing is not None:
                    address, error = missing
                    missing = None
                    await services.leader_calls.note_failure(
                        self._topic, self._partition, address, error
                    )
                leader = await services.routes.leader(self._topic, self._partition, avoid)
                # Last: giving batches up drops the identity, also while the leader is looked for.
                if self._queue.identity is None:
                    self._queue.adopt(await services.new_identity())
                self._link = services.links.to(leader)
            except QuorumlogError as failure:
                self._last_error = failure
                if not worth_another_attempt(failure):
                    self._lose(self._queue.give_up_all(failure))
                delay_s = self._backoff.next_s()
            else:
                self._connecting = None
                self._drain()
                return

    def _answered(self, batch: SealedBatch, answer: Answer) -> None:
        if isinstance(answer, QuorumlogError):
            batch.in_doubt = True
        elif answer.HasField("error"):
            failed = answer.error
            answer = error_from(failed.reason, failed.message, failed.metadata, failed.retryable)
            # An answer settles this attempt, not what became of earlier ones.
            batch.in_doubt = batch.in_doubt or not surely_not_done(answer)
        batch.answer = answer
        in_flight = self._queue.in_flight
        while in_flight and (first_answer := in_flight[0].answer) is not None:
            if isinstance(first_answer, pb.ProduceResponse):
                self._acknowledge(first_answer.base_offset, first_answer.timestamp_ms)
            elif isinstance(first_answer, DuplicateSequence):
                self._acknowledge(None, 0)
            else:
                self._first_failed(in_flight[0], first_answer)
                return
        self._drain()

    def _acknowledge(self, base_offset: int | None, timestamp_ms: int) -> None:
        batch = self._queue.in_flight.popleft()
        self._progress_s = self._loop.time()
        self._backoff.reset()
        self._last_error = None
        self._owner.released(batch.size_bytes)
        batch.acknowledge(self._topic, self._partition, base_offset, timestamp_ms)

    def _first_failed(self, batch: SealedBatch, error: QuorumlogError) -> None:
        """Decide how to go on after the first unacknowledged batch was not accepted."""
        address = self._link.address if self._link is not None else ""
        self._queue.rewind()
        self._last_error = error
        self._services.routes.failed(self._topic, self._partition, address, error)
        if isinstance(error, NotFound):
            self._connect(self._backoff.next_s(), missing=(address, error))
        elif isinstance(error, OutOfOrderSequence):
            # All before it are acknowledged and yet the log misses them: it has forgotten this
            # producer. What was never in doubt may start anew.
            if batch.in_doubt:
                self._lose(self._queue.give_up_first(error))
            else:
                self._queue.start_anew()
            self._connect(self._backoff.next_s())
        elif not worth_another_attempt(error):
            self._lose(self._queue.give_up_first(error))
            self._connect(0.0)
        elif isinstance(error, NotLeader) and error.leader and self._backoff.fresh:
            # The first hint is followed at once, later ones with growing patience: two nodes may
            # each believe that the other one leads.
            self._backoff.next_s()
            self._connect(0.0, avoid=address)
        else:
            unreachable = type(error) is Unavailable or isinstance(error, NotLeader)
            self._connect(self._backoff.next_s(), avoid=address if unreachable else None)

    def _lose(self, lost: list[tuple[SealedBatch, QuorumlogError]]) -> None:
        for batch, error in lost:
            self._owner.released(batch.size_bytes)
            self._owner.failed(error)
            batch.fail(error)

    def _watch(self) -> None:
        """Have a timer run while there is something to wait for."""
        first = self._queue.first
        if self._timer is None and first is not None:
            now_s = self._loop.time()
            # Not before half of the time: a stall that is looked into already is not news.
            stalled_s = max(self._progress_s + STALL_CHECK_S, now_s + STALL_CHECK_S / 2)
            due_s = min(first.deadline_s, stalled_s)
            self._timer = self._loop.call_at(due_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        while (first := self._queue.first) is not None and first.deadline_s <= now_s:
            self._queue.rewind()
            reason = f"not acknowledged within {self._delivery_timeout_s:g} s"
            if self._last_error is not None:
                reason = f"{reason}; last: {self._last_error}"
            self._lose(self._queue.give_up_first(Unavailable(reason)))
            self._link = None
        stalled = bool(self._queue.in_flight) and now_s - self._progress_s >= STALL_CHECK_S
        if stalled and (self._looking is None or self._looking.done()):
            self._looking = self._services.tasks.start(
                self._look_elsewhere(), f"stalled-{self._topic}-{self._partition}"
            )
        self._watch()
        self._drain()

    async def _look_elsewhere(self) -> None:
        """Leave a leader that does not answer: for its successor, or because it takes too long."""
        link = self._link
        try:
            await self._services.routes.refresh(self._topic, link.address if link else None)
        except QuorumlogError as error:
            self._last_error = error
        if link is None or self._link is not link or not self._queue.in_flight:
            return
        silent_s = self._loop.time() - self._progress_s
        leader = self._services.routes.known_leader(self._topic, self._partition)
        if leader is not None and leader != link.address and silent_s >= STALL_CHECK_S:
            self._queue.rewind()
            self._connect(0.0)
        elif silent_s >= self._services.request_timeout_s:
            link.break_off(OutcomeUnknown(f"{link.address} has not answered for {silent_s:.0f} s"))
