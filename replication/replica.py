"""One Raft group on this node: drives a :class:`RaftCore`, its log and its state machine.

Everything here runs in the event loop, by plain calls. Inputs (a message, a timer, a proposal,
the end of a flush) go to the core at once; what comes out is taken once per turn of the loop
(``_drain``), so that whatever arrived in that turn shares one message per follower and one flush.
Flushes run on the worker, one at a time: what promises something about the disk leaves only after
the flush that covers it.
"""

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import structlog

from quorumlog.errors import (
    Closed,
    Corrupt,
    DiskFull,
    InvalidArgument,
    InvariantViolation,
    LogFenced,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Unavailable,
)
from quorumlog.log.batch import Batch, Draft, Kind
from quorumlog.log.flusher import Flushed
from quorumlog.log.hard_state import HardStateFile
from quorumlog.log.log import Log
from quorumlog.log.state_snapshot import LogOrigin, StateSnapshot
from quorumlog.ports import Clock, Worker
from quorumlog.replication.barriers import Barriers
from quorumlog.replication.catch_up.catch_up import CatchUp
from quorumlog.replication.catch_up.messages import FIRST_TYPE
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.core import RaftCore, Role
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.ready import (
    Awoke,
    Event,
    LeaderChanged,
    ReadAllowed,
    SteppedDown,
)
from quorumlog.replication.persister import Outgoing, Persister
from quorumlog.replication.proposals import Proposals
from quorumlog.replication.saved_state import StateSaver
from quorumlog.replication.state_machine import StateMachine
from quorumlog.replication.trimmer import Trimmer
from quorumlog.replication.watermark import Watermark
from quorumlog.replication.wire import decode, encode
from quorumlog.types import GroupId, Index, NodeId

_log = structlog.get_logger()


class Replica:
    """Made by :class:`~quorumlog.replication.host.GroupHost`."""

    def __init__(
        self,
        *,
        group: GroupId,
        core: RaftCore,
        log: Log,
        hard_state_file: HardStateFile,
        state_machine: StateMachine,
        restored: StateSnapshot | None,
        awaited: StateSnapshot | None,
        saver: StateSaver,
        config: ReplicationConfig,
        clock: Clock,
        worker: Worker,
        send: Callable[[NodeId, GroupId, bytes], None],
        on_event: Callable[["Replica", Event], None],
        heard_at: Callable[[NodeId | None], float | None],
        catch_up: Callable[["Replica"], CatchUp],
        on_damage: Callable[["Replica", Corrupt], None],
    ) -> None:
        """``state_machine`` holds the state of ``restored``, or none yet.

        ``awaited`` is a state of a later batch: nothing is applied before the log has passed it.
        ``heard_at`` says when a node was last known to live; None: never.
        ``on_damage`` hears why this replica is fenced when that is rot in its log.
        """
        self.group = group
        self.core = core
        self.log = log
        self.state_machine = state_machine
        self.applied_index = Index(log.start_index - 1)
        self.high_watermark = Watermark(log.start_offset)
        self.restored_index = Index(0) if restored is None else restored.index
        """Of the saved state that it was opened with; configurations through it have no index."""
        if restored is not None:
            self.applied_index = restored.index
            # What is before the log's start was committed, perhaps after the state was saved.
            self.high_watermark.advance(restored.next_offset)
        self.awaited = awaited
        """The state that takes effect when the log passes its index; None: nothing is waited for.

        Until then this replica has neither a state nor records that anybody may read."""
        self.failure: Exception | None = None
        self._config = config
        self._clock = clock
        self._saver = saver
        self._send = send
        self._on_event = on_event
        self._heard_at = heard_at
        self._on_damage = on_damage
        self._loop = asyncio.get_running_loop()
        self._proposals = Proposals()
        self._barriers = Barriers()
        self._persister = Persister(
            log=log,
            hard_state_file=hard_state_file,
            worker=worker,
            config=config,
            clock=clock,
            owner=self,
        )
        self.trimmer = Trimmer(
            log=log,
            core=core,
            state_machine=state_machine,
            saver=saver,
            worker=worker,
            wake=self._schedule_drain,
            failed=self._fence,
        )
        self._serving_term = -1
        self._drain_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._excused = 0.0
        """A deadline of a follower's that was met too late, and not taken for its leader's."""
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._catch_up = catch_up(self)
        if awaited is None:
            self._guarded(self.trimmer.follow)
        self._schedule_drain()

    # -- what is known here --------------------------------------------------------------------

    @property
    def serving(self) -> bool:
        """This node leads, and everything committed before its term has been applied."""
        return (
            self.core.role is Role.LEADER
            and self._serving_term == self.core.term
            and self.failure is None
            and not self._closed
        )

    @property
    def takes_part(self) -> bool:
        """It answers, votes and may lead: it is neither fenced nor closed."""
        return self.failure is None and not self._closed

    @property
    def transferring(self) -> bool:
        """This node leads and is handing leadership over."""
        leadership = self.core.leadership
        return leadership is not None and leadership.is_handing_over

    def present_state(self, origin: LogOrigin | None = None) -> StateSnapshot | None:
        """What was applied so far, as bytes; see :meth:`StateSaver.present`."""
        return self.awaited or self._saver.present(origin)

    # -- inputs --------------------------------------------------------------------------------

    def propose(self, draft: Draft) -> "asyncio.Future[Any]":
        """Append ``draft`` to the group's log. The future gives what the state machine returned.

        The order of calls is the order in the log. Cancelling the future changes nothing.

        Raises (here, nothing was appended):
            NotLeader: without a hint; the caller knows the addresses.
            Overloaded, DiskFull, LogFenced, Closed.
        The future raises:
            OutcomeUnknown: this node was deposed or closed; the batch may or may not survive.
            NotLeader: another batch was committed in its place; it will never appear.
        """
        self._check_accepts()
        size_bytes = len(draft.body)
        pending_bytes = self._proposals.pending_bytes
        if pending_bytes and pending_bytes + size_bytes > self._config.max_pending_bytes:
            raise Overloaded(
                f"{pending_bytes} bytes wait to be committed here and the limit is "
                f"{self._config.max_pending_bytes}: try again in a moment"
            )
        return self._append(lambda wall_ms, now: self.core.propose([draft], wall_ms, now)[0])

    def propose_members(self, members: Members) -> "asyncio.Future[Any]":
        """Change the group's configuration; raises as :meth:`propose` and ``InvalidArgument``."""
        self._check_accepts()
        return self._append(lambda wall_ms, now: self.core.propose_members(members, wall_ms, now))

    def read_barrier(self) -> "asyncio.Future[Index]":
        """Done once this node has applied all that was committed anywhere before this call.

        It is done already under the lease, where it costs no message; else a majority is asked
        (dissertation §6.4). The future gives an index that is applied. Cancelling it changes
        nothing.

        Raises (here):
            NotLeader: without a hint; the caller knows the addresses.
            Overloaded, LogFenced, Closed.
        The future raises:
            NotLeader: this node was deposed before it was confirmed. LogFenced, Closed.
        """
        self._check_usable()
        barrier = self._barriers.ask(self.core, self.applied_index, self._clock.monotonic_s())
        if not barrier.done():
            self._schedule_drain()
        return barrier

    def campaign(self) -> None:
        if self.failure is None and not self._closed:
            self.core.campaign(self._clock.monotonic_s())
            self._schedule_drain()

    def transfer_leadership(self, target: NodeId) -> None:
        self._check_accepts()
        self.core.transfer_leadership(target, self._clock.monotonic_s())
        self._schedule_drain()

    def receive(self, sender: NodeId, payload: memoryview) -> None:
        if self.failure is not None or self._closed:
            return
        if len(payload) and payload[0] >= FIRST_TYPE:
            self._guarded(self._catch_up.receive, sender, payload)
            self._schedule_drain()
            return
        try:
            message = decode(payload)
        except ProtocolError as error:
            _log.warning("peer_message_refused", group=self.group, peer=sender, error=str(error))
            return
        now = self._clock.monotonic_s()
        if self.core.is_woken_by(message):
            # A sleeping leader is as alive as its node.
            self._guarded(self.core.wake, now, self._heard_at(self.core.leader_id))
        self._guarded(self.core.receive, sender, message, now)
        self._schedule_drain()

    def wake(self, heard_at: float | None) -> None:
        """Set timers again; ``heard_at``: :meth:`~.core.sleep.Sleeper.wake`."""
        if self.takes_part:
            self._guarded(self.core.wake, self._clock.monotonic_s(), heard_at)
            self._schedule_drain()

    def feed(self, peer: NodeId, batches: Sequence[Batch]) -> None:
        """See :class:`CatchingUp`."""
        if self.failure is None and not self._closed:
            self._guarded(self.core.feed, peer, batches)
            self._schedule_drain()

    def fail(self, error: Exception) -> None:
        """Something that works for this replica found that it must not go on."""
        self._fence(error)

    async def close(self) -> None:
        """Stop, flush what is pending, close the log, save the state.

        Idempotent; a caller that is cancelled does not stop it, the next one waits for the rest.
        """
        await asyncio.shield(self.stop())

    def stop(self) -> "asyncio.Task[None]":
        """Take no further part from this moment on; the task is that of :meth:`close`."""
        if self._closing is None:
            self._closed = True
            self._rouse()
            self._closing = asyncio.create_task(self._close())
        return self._closing

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._proposals.fail(OutcomeUnknown("this node closed before the batch was committed"))
        self._barriers.fail(Closed("this replica is closed"))
        self.high_watermark.close(Closed("this replica is closed"))
        await self._catch_up.close()
        await self.trimmer.close()
        await self._saver.settle()
        await self._persister.close(usable=self.failure is None)
        if self.failure is None:
            await self._saver.save_last()

    def _check_usable(self) -> None:
        if self._closed:
            raise Closed("this replica is closed")
        if self.failure is not None:
            raise LogFenced(f"this replica is fenced: {self.failure}") from self.failure

    def _check_accepts(self) -> None:
        self._check_usable()
        full = self._persister.full
        if full is not None:
            raise DiskFull(str(full)) from full
        if not self.serving:
            raise NotLeader()

    def _append(self, propose: Callable[[int, float], Batch]) -> "asyncio.Future[Any]":
        try:
            batch = propose(self._clock.wall_ms(), self._clock.monotonic_s())
        except (Unavailable, InvalidArgument):
            raise
        except Exception as error:
            self._fence(error)
            raise LogFenced(f"this replica is fenced: {error}") from error
        outcome = self._proposals.add(batch)
        self.state_machine.appended(batch.header)
        self._schedule_drain()
        return outcome

    # -- outputs -------------------------------------------------------------------------------

    def _schedule_drain(self) -> None:
        if not self._drain_scheduled:
            self._drain_scheduled = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._drain_scheduled = False
        if self.failure is not None or self._closed:
            return
        self._guarded(self._take_ready)
        self._persister.start()
        self._arm_timer()

    def _take_ready(self) -> None:
        core = self.core
        while core.has_ready:
            ready = core.take_ready()
            self._send_all(ready.messages)
            self._persister.keep(ready.hard_state, ready.durable_messages)
            for event in ready.events:
                self._handle(event)
        if self.awaited is not None:
            self._take_awaited(self.awaited)
        if core.commit_index > self.applied_index:
            self._apply()
        self._catch_up.look()

    def _handle(self, event: Event) -> None:
        if isinstance(event, ReadAllowed):
            self._barriers.allowed(event.number, event.index)
            self._barriers.applied(self.applied_index)
            return  # of nobody's interest elsewhere
        if isinstance(event, SteppedDown):
            # What was committed in the same moment has an outcome.
            self._apply()
            self._proposals.fail(
                OutcomeUnknown("the leader was deposed before the batch was committed")
            )
            self._barriers.deposed(NotLeader())
            self.state_machine.leadership_lost()
            _log.info("leadership_lost", group=self.group, term=event.term)
        elif isinstance(event, LeaderChanged):
            _log.debug("leader_changed", group=self.group, leader=event.leader, term=event.term)
        self._on_event(self, event)

    def _apply(self) -> None:
        commit_index = self.core.commit_index
        self.log.advance_commit_floor(commit_index)
        if self.awaited is not None:
            return
        applied_bytes = 0
        while self.applied_index < commit_index:
            first = Index(self.applied_index + 1)
            for batch in self.log.slice(first, self._config.apply_chunk_bytes):
                if batch.header.index > commit_index:
                    break
                self._apply_batch(batch)
                applied_bytes += batch.size_bytes
            if applied_bytes >= self._config.apply_chunk_bytes:
                self._schedule_drain()
                break
        self._barriers.applied(self.applied_index)

    def _take_awaited(self, awaited: StateSnapshot) -> None:
        """Go on from ``awaited`` if all that is in it is committed here."""
        if self.core.commit_index < awaited.index:
            return
        self.log.advance_commit_floor(self.core.commit_index)
        term = self.log.term_at(awaited.index)
        if term != awaited.term:
            # Not of this log. What the log says is built up by the next start, from its beginning.
            raise InvariantViolation(
                f"group {self.group}: the state of batch {awaited.index} of term {awaited.term} "
                f"came from another replica; here that batch is of term {term}"
            )
        self.state_machine.restore(awaited.state)
        self._saver.restored(awaited)
        self.applied_index, self.awaited = awaited.index, None
        self.restored_index = max(self.restored_index, awaited.index)
        self.high_watermark.advance(awaited.next_offset)
        self.trimmer.follow()
        _log.info("state_taken", group=self.group, index=awaited.index)

    def _apply_batch(self, batch: Batch) -> None:
        header = batch.header
        result = self.state_machine.apply(batch)
        self.applied_index = Index(header.next_index - 1)
        own_noop = header.kind is Kind.NOOP and header.term == self.core.term
        if own_noop and self.core.role is Role.LEADER:
            self._serving_term = header.term
            _log.info("leadership_won", group=self.group, term=header.term)
        self.high_watermark.advance(header.next_offset)
        self._proposals.committed(header, result)
        self._saver.applied(batch, self._fence)
        if header.kind is Kind.COMMAND:
            # Last, for it may find rot: what is known to be applied has to be what was.
            self.trimmer.follow()

    # -- the disk ------------------------------------------------------------------------------

    def durable(self, messages: Sequence[Outgoing], flushed: Flushed | None) -> None:
        """See :class:`PersisterOwner`."""
        if self.failure is not None:
            return
        self._guarded(self._send_all, messages)
        if flushed is not None and not self._closed:
            self._guarded(
                self.core.persisted,
                flushed.last_index,
                flushed.last_term,
                self._clock.monotonic_s(),
            )

    def disk_full(self, error: DiskFull) -> None:
        """See :class:`PersisterOwner`. A leader lets somebody lead who can write."""
        _log.error("disk_full", group=self.group, error=str(error))
        self._hand_over(beyond=Index(0))

    def disk_idle(self) -> None:
        """See :class:`PersisterOwner`."""
        # Not in a later turn: a flush's end is what acknowledgements wait for.
        self._drain()

    def disk_failed(self, error: Exception) -> None:
        """See :class:`PersisterOwner`."""
        self._fence(error)

    def _disk_slow(self) -> None:
        """A flush takes too long: who has on its disk what this one does not can lead better."""
        _log.warning("disk_slow", group=self.group, after_s=self._config.slow_disk_s)
        self._hand_over(beyond=self.core.durable_index)

    def _hand_over(self, *, beyond: Index) -> None:
        """Let the voter with the most of this leader's log lead, if that is more than ``beyond``.

        Not a leader that could not even begin: with all disks bad, leadership would go round.
        """
        leadership = self.core.leadership
        if leadership is None or not self.serving or self.transferring:
            return
        successor = leadership.most_advanced_voter()
        progress = None if successor is None else leadership.progress_of(successor)
        if successor is not None and progress is not None and progress.match_index > beyond:
            self._guarded(self.core.transfer_leadership, successor, self._clock.monotonic_s())
            self._schedule_drain()

    def _send_all(self, messages: Sequence[Outgoing]) -> None:
        encoded: dict[int, bytes] = {}
        for peer, message in messages:
            # Followers at the same place share one request, and so its bytes.
            payload = encoded.get(id(message))
            if payload is None:
                payload = encoded[id(message)] = encode(message)
            self._send(peer, self.group, payload)

    # -- timers and failures -------------------------------------------------------------------

    def _arm_timer(self) -> None:
        if self.failure is not None:
            return
        due_s = self.core.deadline
        sync_due_s = self._persister.sync_due_s
        if sync_due_s is not None:
            due_s = min(due_s, sync_due_s)
        if due_s == inf:
            return
        delay_s = max(0.0, due_s - self._clock.monotonic_s())
        fires_at = self._loop.time() + delay_s
        if self._timer is not None:
            if self._timer_at <= fires_at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(fires_at, self._timer_fired)
        self._timer_at = fires_at

    def _timer_fired(self) -> None:
        # The deadline mostly moved on since the timer was set: setting it again now is cheaper than
        # doing so at every message.
        self._timer = None
        if self.failure is not None or self._closed:
            return
        now = self._clock.monotonic_s()
        deadline = self.core.deadline
        if now >= deadline:
            late_s = now - deadline
            heartbeat_s = self._config.raft.heartbeat_s
            if (
                late_s > heartbeat_s
                and self.core.role is not Role.LEADER
                and deadline != self._excused
            ):
                # This process stood still: what a leader said meanwhile is still to be read.
                self._excused = deadline
                self._timer_at = self._loop.time() + heartbeat_s
                self._timer = self._loop.call_at(self._timer_at, self._timer_fired)
                return
            self._guarded(self.core.tick, now)
        # A leader's timer fires at each heartbeat; a follower's slow disk is its leader's to judge.
        if self.core.role is Role.LEADER and self._persister.take_slow():
            self._disk_slow()
        self._drain()

    def _guarded(self, function: Callable[..., object], *arguments: object) -> None:
        """Call into the core, the log or the state machine: what they raise fences the replica."""
        try:
            function(*arguments)
        except Exception as error:
            self._fence(error)

    def _fence(self, error: BaseException) -> None:
        """Stop taking part: after this nothing here may vote, acknowledge or be read as current."""
        if self.failure is not None:
            return
        self.failure = error if isinstance(error, Exception) else LogFenced(repr(error))
        _log.error("replica_fenced", group=self.group, error=str(error), exc_info=error)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._proposals.fail(OutcomeUnknown(f"this replica is fenced: {error}"))
        self._barriers.fail(LogFenced(f"this replica is fenced: {error}"))
        self.state_machine.leadership_lost()
        self._rouse()
        if isinstance(error, Corrupt):
            self._on_damage(self, error)

    def _rouse(self) -> None:
        """This replica takes part no more: nobody may take its group to sleep under it."""
        if self.core.asleep:
            self.core.wake(self._clock.monotonic_s())
            self._on_event(self, Awoke())
