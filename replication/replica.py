"""One Raft group on this node, as the rest of the node sees it: what it can be asked and told.

Everything here runs in the event loop, by plain calls. Inputs (a message, a proposal) go to the
:class:`RaftCore` at once; :class:`CoreDriver` takes what comes out, and :class:`Applier` what is
committed. Whatever fails, here or there, ends in :meth:`Replica._fence`.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from quorumlog.errors import (
    Closed,
    Corrupt,
    DiskFull,
    InvalidArgument,
    LogFenced,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Unavailable,
)
from quorumlog.log.batch import Batch, Draft
from quorumlog.log.hard_state import HardStateFile
from quorumlog.log.log import Log
from quorumlog.log.state_snapshot import LogOrigin, StateSnapshot
from quorumlog.ports import Clock, Worker
from quorumlog.replication.applier import Applier
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
from quorumlog.replication.driver import CoreDriver
from quorumlog.replication.flush_place import FlushPlace
from quorumlog.replication.proposals import Proposals
from quorumlog.replication.saved_state import StateSaver
from quorumlog.replication.state_machine import StateMachine
from quorumlog.replication.trimmer import Trimmer
from quorumlog.replication.wire import decode
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
        place: FlushPlace,
        send: Callable[[NodeId, GroupId, bytes], None],
        on_event: Callable[["Replica", Event], None],
        heard_at: Callable[[NodeId | None], float | None],
        patience_s: Callable[[], float],
        catch_up: Callable[["Replica"], CatchUp],
        on_damage: Callable[["Replica", Corrupt], None],
    ) -> None:
        """``state_machine`` holds the state of ``restored``, or none yet.

        ``awaited`` is a state of a later batch: nothing is applied before the log has passed it.
        ``heard_at`` says when a node was last known to live; None: never. ``patience_s``: see
        :class:`~quorumlog.replication.sleep.delays.Delays`.
        ``on_damage`` hears why this replica is fenced when that is rot in its log.
        """
        self.group = group
        self.core = core
        self.log = log
        self.state_machine = state_machine
        self.failure: Exception | None = None
        self._config = config
        self._clock = clock
        self._saver = saver
        self._on_event = on_event
        self._heard_at = heard_at
        self._on_damage = on_damage
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._proposals = Proposals()
        self._barriers = Barriers()
        self._driver = CoreDriver(
            self,
            hard_state_file=hard_state_file,
            config=config,
            clock=clock,
            worker=worker,
            place=place,
            send=send,
            patience_s=patience_s,
        )
        self.trimmer = Trimmer(
            log=log,
            core=core,
            state_machine=state_machine,
            saver=saver,
            worker=worker,
            wake=self._driver.schedule_drain,
            failed=self._fence,
        )
        self._applier = Applier(
            group=group,
            core=core,
            log=log,
            state_machine=state_machine,
            restored=restored,
            awaited=awaited,
            saver=saver,
            trimmer=self.trimmer,
            proposals=self._proposals,
            barriers=self._barriers,
            chunk_bytes=config.apply_chunk_bytes,
            wake=self._driver.schedule_drain,
            failed=self._fence,
        )
        self.high_watermark = self._applier.high_watermark
        self._catch_up = catch_up(self)
        if awaited is None:
            self._driver.guarded(self.trimmer.follow)
        self._driver.schedule_drain()

    # -- what is known here --------------------------------------------------------------------

    @property
    def applied_index(self) -> Index:
        """Everything through here is in the state machine's state."""
        return self._applier.applied_index

    @property
    def awaited(self) -> StateSnapshot | None:
        """The state that takes effect when the log passes its index; None: nothing is waited for.

        Until then this replica has neither a state nor records that anybody may read."""
        return self._applier.awaited

    @property
    def restored_index(self) -> Index:
        """Of the saved state that it began with; configurations through it have no index."""
        return self._applier.restored_index

    @property
    def serving(self) -> bool:
        """This node leads, and everything committed before its term has been applied."""
        return (
            self.core.role is Role.LEADER
            and self._applier.serving_term == self.core.term
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

    def heard_at(self, peer: NodeId) -> float | None:
        """As the leader: when ``peer`` last answered in this term or beat, by the host's clock, at
        the earliest when the term began; None: this node does not lead, or knows no such member."""
        leadership = self.core.leadership
        progress = leadership.progress_of(peer) if leadership is not None else None
        if progress is None:
            return None
        return max(progress.heard_at, self._heard_at(peer) or progress.heard_at)

    def answers(self, peer: NodeId) -> bool:
        """As the leader: whether the replica of ``peer``, a member, answers or sleeps as this one
        does. False of this node."""
        leadership = self.core.leadership
        progress = leadership.progress_of(peer) if leadership is not None else None
        if progress is None or self.core.sleeps_with(peer):
            return progress is not None
        patience_s = self._config.raft.election_timeout_s + self.core.patience_s
        return progress.heard_at >= self._clock.monotonic_s() - patience_s

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
            self._driver.schedule_drain()
        return barrier

    def campaign(self) -> None:
        if self.failure is None and not self._closed:
            self.core.campaign(self._clock.monotonic_s())
            self._driver.schedule_drain()

    def transfer_leadership(self, target: NodeId) -> None:
        self._check_accepts()
        self._driver.transfer_leadership(target)

    def receive(self, sender: NodeId, payload: memoryview) -> None:
        if self.failure is not None or self._closed:
            return
        if len(payload) and payload[0] >= FIRST_TYPE:
            self._driver.guarded(self._catch_up.receive, sender, payload)
            self._driver.schedule_drain()
            return
        try:
            message = decode(payload)
        except ProtocolError as error:
            _log.warning("peer_message_refused", group=self.group, peer=sender, error=str(error))
            return
        now = self._clock.monotonic_s()
        if self.core.is_woken_by(message):
            # A sleeping leader is as alive as its node.
            self._driver.guarded(self.core.wake, now, self._heard_at(self.core.leader_id))
        self._driver.guarded(self.core.receive, sender, message, now)
        self._driver.schedule_drain()

    def wake(self, heard_at: float | None) -> None:
        """Set timers again; ``heard_at``: :meth:`~.core.sleep.Sleeper.wake`."""
        if self.takes_part:
            self._driver.guarded(self.core.wake, self._clock.monotonic_s(), heard_at)
            self._driver.schedule_drain()

    def feed(self, peer: NodeId, batches: Sequence[Batch]) -> None:
        """See :class:`CatchingUp`."""
        if self.failure is None and not self._closed:
            self._driver.guarded(self.core.feed, peer, batches)
            self._driver.schedule_drain()

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
        self._driver.cancel_timer()
        self._proposals.fail(OutcomeUnknown("this node closed before the batch was committed"))
        self._barriers.fail(Closed("this replica is closed"))
        self.high_watermark.close(Closed("this replica is closed"))
        await self._catch_up.close()
        await self.trimmer.close()
        await self._saver.settle()
        await self._driver.persister.close(usable=self.failure is None)
        if self.failure is None:
            await self._saver.save_last()

    def _check_usable(self) -> None:
        if self._closed:
            raise Closed("this replica is closed")
        if self.failure is not None:
            raise LogFenced(f"this replica is fenced: {self.failure}") from self.failure

    def _check_accepts(self) -> None:
        self._check_usable()
        full = self._driver.persister.full
        if full is not None:
            raise DiskFull(str(full)) from full
        if not self.serving:
            raise NotLeader()

    def _append(self, propose: Callable[[int, float], Batch]) -> "asyncio.Future[Any]":
        try:
            batch = propose(self._clock.wall_ms(), self._clock.monotonic_s())
        except (Unavailable, InvalidArgument):
            self._driver.schedule_drain()  # it woke
            raise
        except Exception as error:
            self._fence(error)
            raise LogFenced(f"this replica is fenced: {error}") from error
        outcome = self._proposals.add(batch)
        self.state_machine.appended(batch.header)
        self._driver.schedule_drain()
        return outcome

    # -- outputs, see :class:`DrivenReplica` ---------------------------------------------------

    def handle(self, event: Event) -> None:
        """See :class:`DrivenReplica`."""
        if isinstance(event, ReadAllowed):
            self._barriers.allowed(event.number, event.index)
            self._barriers.applied(self.applied_index)
            return  # of nobody's interest elsewhere
        if isinstance(event, SteppedDown):
            # What was committed in the same moment has an outcome.
            self._applier.apply()
            self._proposals.fail(
                OutcomeUnknown("the leader was deposed before the batch was committed")
            )
            self._barriers.deposed(NotLeader())
            self.state_machine.leadership_lost()
            _log.info("leadership_lost", group=self.group, term=event.term)
        elif isinstance(event, LeaderChanged):
            _log.debug("leader_changed", group=self.group, leader=event.leader, term=event.term)
        self._on_event(self, event)

    def outputs_taken(self) -> None:
        """See :class:`DrivenReplica`."""
        self._applier.advance()
        self._catch_up.look()

    # -- failures ------------------------------------------------------------------------------

    def _fence(self, error: BaseException) -> None:
        """Stop taking part: after this nothing here may vote, acknowledge or be read as current."""
        if self.failure is not None:
            return
        self.failure = error if isinstance(error, Exception) else LogFenced(repr(error))
        _log.error("replica_fenced", group=self.group, error=str(error), exc_info=error)
        self._driver.cancel_timer()
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
