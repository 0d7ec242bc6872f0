"""Turns of the event loop for one Raft core: its outputs, its disk, its timer.

Inputs go to the core at once; what comes out is taken once per turn of the loop (``_drain``), so
that whatever arrived in that turn shares one message per follower and one flush. There is one flush
at a time: what promises something about the disk leaves only after the flush that covers it.
"""

import asyncio
from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

import structlog

from quorumlog.errors import DiskFull
from quorumlog.log.flusher import Flushed
from quorumlog.log.hard_state import HardStateFile
from quorumlog.log.log import Log
from quorumlog.ports import Clock, Worker
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.core import RaftCore, Role
from quorumlog.replication.core.ready import Event
from quorumlog.replication.flush_place import FlushPlace
from quorumlog.replication.persister import Outgoing, Persister
from quorumlog.replication.wire import encode
from quorumlog.types import GroupId, Index, NodeId

_log = structlog.get_logger()


class DrivenReplica(Protocol):
    """The replica, as its driver needs it. Called in the event loop."""

    group: GroupId
    core: RaftCore
    log: Log
    failure: Exception | None

    @property
    def takes_part(self) -> bool: ...

    @property
    def serving(self) -> bool: ...

    @property
    def transferring(self) -> bool: ...

    def handle(self, event: Event) -> None:
        """The core reports ``event``."""
        ...

    def outputs_taken(self) -> None:
        """The core has nothing more to send or save: what is committed may be applied."""
        ...

    def fail(self, error: Exception) -> None:
        """Stop taking part."""
        ...


class CoreDriver:
    """Made with its replica, closed with it. Called in the event loop.

    ``persister`` has term, vote and log on their way to the disk.
    """

    def __init__(
        self,
        replica: DrivenReplica,
        *,
        hard_state_file: HardStateFile,
        config: ReplicationConfig,
        clock: Clock,
        worker: Worker,
        place: FlushPlace,
        send: Callable[[NodeId, GroupId, bytes], None],
        patience_s: Callable[[], float],
    ) -> None:
        """``replica`` has its group, core and log already. ``patience_s``: see the core's."""
        self._replica = replica
        self._core = replica.core
        self._config = config
        self._clock = clock
        self._send = send
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self.persister = Persister(
            log=replica.log,
            hard_state_file=hard_state_file,
            worker=worker,
            place=place,
            config=config,
            clock=clock,
            owner=self,
        )
        self._drain_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        """When it is to fire, on the monotonic clock."""
        self._excused = 0.0
        """A deadline of a follower's that was met too late, and not taken for its leader's."""

    def schedule_drain(self) -> None:
        """Take what the core has to say when this turn of the loop is over."""
        if not self._drain_scheduled:
            self._drain_scheduled = True
            self._loop.call_soon(self._drain)

    def guarded(self, function: Callable[..., object], *arguments: object) -> None:
        """Call into the core, the log or the state machine: what they raise fences the replica."""
        try:
            function(*arguments)
        except Exception as error:
            self._replica.fail(error)

    def transfer_leadership(self, target: NodeId) -> None:
        """Raises as the core's."""
        # A group that sleeps has no timer that would have told it.
        self._core.patience_s = self._patience_s()
        self._core.transfer_leadership(target, self._clock.monotonic_s())
        self.schedule_drain()

    def cancel_timer(self) -> None:
        """The core's deadlines are of no interest any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- outputs -------------------------------------------------------------------------------

    def _drain(self) -> None:
        self._drain_scheduled = False
        if not self._replica.takes_part:
            return
        self.guarded(self._take_ready)
        self.persister.start()
        self._arm_timer()

    def _take_ready(self) -> None:
        core = self._core
        while core.has_ready:
            ready = core.take_ready()
            self._send_all(ready.messages)
            self.persister.keep(ready.hard_state, ready.durable_messages)
            for event in ready.events:
                self._replica.handle(event)
        self._replica.outputs_taken()

    def _send_all(self, messages: Sequence[Outgoing]) -> None:
        encoded: dict[int, bytes] = {}
        for peer, message in messages:
            # Followers at the same place share one request, and so its bytes.
            payload = encoded.get(id(message))
            if payload is None:
                payload = encoded[id(message)] = encode(message)
            self._send(peer, self._replica.group, payload)

    # -- the disk ------------------------------------------------------------------------------

    def durable(self, messages: Sequence[Outgoing], flushed: Flushed | None) -> None:
        """See :class:`PersisterOwner`."""
        if self._replica.failure is not None:
            return
        self.guarded(self._send_all, messages)
        if flushed is not None and self._replica.takes_part:
            self.guarded(
                self._core.persisted,
                flushed.last_index,
                flushed.last_term,
                self._clock.monotonic_s(),
            )

    def disk_full(self, error: DiskFull) -> None:
        """See :class:`PersisterOwner`. A leader lets somebody lead who can write."""
        _log.error("disk_full", group=self._replica.group, error=str(error))
        self._hand_over(beyond=Index(0))

    def disk_idle(self) -> None:
        """See :class:`PersisterOwner`."""
        # Not in a later turn: a flush's end is what acknowledgements wait for.
        self._drain()

    def disk_failed(self, error: Exception) -> None:
        """See :class:`PersisterOwner`."""
        self._replica.fail(error)

    def _disk_slow(self) -> None:
        """A flush takes too long: who has on its disk what this one does not can lead better."""
        _log.warning("disk_slow", group=self._replica.group, after_s=self._config.slow_disk_s)
        self._hand_over(beyond=self._core.durable_index)

    def _hand_over(self, *, beyond: Index) -> None:
        """Let the voter with the most of this leader's log lead, if that is more than ``beyond``.

        Not a leader that could not even begin: with all disks bad, leadership would go round.
        """
        leadership = self._core.leadership
        if leadership is None or not self._replica.serving or self._replica.transferring:
            return
        successor = leadership.most_advanced_voter()
        progress = None if successor is None else leadership.progress_of(successor)
        if successor is not None and progress is not None and progress.match_index > beyond:
            self.guarded(self.transfer_leadership, successor)

    # -- the timer -----------------------------------------------------------------------------

    def _arm_timer(self) -> None:
        if self._replica.failure is not None:
            return
        due_s = self._core.deadline
        sync_due_s = self.persister.sync_due_s
        if sync_due_s is not None:
            due_s = min(due_s, sync_due_s)
        if due_s == inf:
            return
        now = self._clock.monotonic_s()
        if self._core.patience_s > 0:
            # By then it may have less of it.
            due_s = min(due_s, now + self._config.raft.election_timeout_s)
        fires_at = max(now, due_s)
        if self._timer is not None:
            if self._timer_at <= fires_at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(fires_at - now, self._timer_fired)
        self._timer_at = fires_at

    def _timer_fired(self) -> None:
        # The deadline mostly moved on since the timer was set: setting it again now is cheaper than
        # doing so at every message.
        self._timer = None
        if not self._replica.takes_part:
            return
        now = self._clock.monotonic_s()
        self._core.patience_s = self._patience_s()
        deadline = self._core.deadline
        if now >= deadline:
            late_s = now - max(deadline, self._timer_at)
            heartbeat_s = self._config.raft.heartbeat_s
            if self._core.role is Role.LEADER:
                # Nor was anybody silent meanwhile: their answers are still to be read.
                self._core.patience_s += late_s
            elif late_s > heartbeat_s and deadline != self._excused:
                # This process stood still: what a leader said meanwhile is still to be read.
                self._excused = deadline
                self._timer_at = now + heartbeat_s
                self._timer = self._loop.call_later(heartbeat_s, self._timer_fired)
                return
            self.guarded(self._core.tick, now)
        # A leader's timer fires at each heartbeat; a follower's slow disk is its leader's to judge.
        if self._core.role is Role.LEADER and self.persister.take_slow():
            self._disk_slow()
        self._drain()
