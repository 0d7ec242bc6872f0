"""Lets the groups of one node sleep and wakes them; sends and takes the beats."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from quorumlog.errors import ProtocolError
from quorumlog.ports import Clock
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.ready import Awoke, Event, MembersChanged
from quorumlog.replication.core.role import Role
from quorumlog.replication.replica import Replica
from quorumlog.replication.sleep.beat import BEAT_GROUP, decode, encode
from quorumlog.replication.sleep.delays import Delays
from quorumlog.replication.sleep.ledger import Ledger
from quorumlog.types import GroupId, Index, NodeId, Term

_log = structlog.get_logger()

MAX_FALLING: Final = 1024
"""Groups that fall asleep between one beat and the next; the others a beat later."""

MOST_PATIENCE: Final = 8
"""Election timeouts that are added to one at most, however long beats take."""


@dataclass(slots=True)
class _Awake:
    """A group that does not sleep here, and since when nothing was proposed in it."""

    replica: Replica
    term: int
    last_index: int
    since: float


class SleepKeeper:
    """Costs a beat per node that shares groups with this one, and a look at each awake group, per
    heartbeat. Called in the event loop."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        incarnation: int,
        replicas: Mapping[GroupId, Replica],
        config: ReplicationConfig,
        clock: Clock,
        send: Callable[[NodeId, GroupId, bytes], None],
    ) -> None:
        """``incarnation`` is of this process alone, 64 bits. ``replicas`` are those open now."""
        self._node_id = node_id
        self._replicas = replicas
        self._config = config
        self._clock = clock
        self._send = send
        raft = config.raft
        self._ledger = Ledger(incarnation, raft.election_timeout_s, self)
        self._delays = Delays(raft.heartbeat_s, MOST_PATIENCE * raft.election_timeout_s)
        self._awake: dict[GroupId, _Awake] = {}
        self._neighbours: tuple[NodeId, ...] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # -- what happens here ---------------------------------------------------------------------

    def opened(self, replica: Replica) -> None:
        """``replica`` stands in ``replicas`` from now on, and is awake."""
        self._neighbours = None
        self._note_awake(replica)
        if self._timer is None and not self._closed:
            self._arm()

    def heard(self, replica: Replica, event: Event) -> None:
        """Take what a replica reports."""
        if isinstance(event, MembersChanged):
            self._neighbours = None
        elif isinstance(event, Awoke) and not replica.core.asleep:
            self._ledger.woke(replica.group)
            if replica.takes_part:
                self._note_awake(replica, -self._config.sleep_after_s)

    def close(self) -> None:
        """Say what is awake by now, so that the others need not wait for it, and no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._send_beats()

    def is_silent(self, node: NodeId) -> bool:
        """Whether no beat of ``node`` came within an election timeout."""
        return self._ledger.is_silent(node)

    def heard_at(self, node: NodeId | None) -> float | None:
        """When ``node`` last beat; None: never."""
        return self._ledger.heard_at(node)

    def patience_s(self) -> float:
        """See :class:`~quorumlog.replication.sleep.delays.Delays`."""
        return self._delays.patience_s

    def patience_with(self, node: NodeId) -> float:
        """See :meth:`Delays.patience_with`."""
        return self._delays.patience_with(node)

    def receive(self, sender: NodeId, payload: memoryview) -> None:
        """Take a beat."""
        try:
            beat = decode(payload)
        except ProtocolError as error:
            _log.warning("peer_beat_refused", peer=sender, error=str(error))
            return
        now = self._clock.monotonic_s()
        self._delays.received(sender, beat.incarnation, beat.sequence, beat.echo, now)
        self._ledger.receive(sender, beat, now)

    # -- Sleepers ------------------------------------------------------------------------------

    def sleep_following(
        self, group: GroupId, leader: NodeId, term: Term, last_index: Index
    ) -> bool:
        """See :class:`~quorumlog.replication.sleep.ledger.Sleepers`."""
        replica = self._replicas.get(group)
        if replica is None or not replica.takes_part:
            return False
        sleeps = replica.core.sleep_following(leader, term, last_index)
        if sleeps:
            self._awake.pop(group, None)
        return sleeps

    def sleep_on_without(self, group: GroupId, peer: NodeId) -> bool:
        """See :class:`~quorumlog.replication.sleep.ledger.Sleepers`."""
        replica = self._replicas.get(group)
        return replica is not None and replica.core.sleep_on_without(peer)

    def wake(self, group: GroupId, heard_at: float | None) -> None:
        """See :class:`~quorumlog.replication.sleep.ledger.Sleepers`."""
        replica = self._replicas.get(group)
        if replica is not None and replica.core.asleep:
            replica.wake(heard_at)

    # -- once a heartbeat ----------------------------------------------------------------------

    def _arm(self) -> None:
        delay_s = self._config.raft.heartbeat_s
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._beat)

    def _beat(self) -> None:
        self._arm()
        now = self._clock.monotonic_s()
        self._delays.beaten()
        self._ledger.check(now, self._config.raft.heartbeat_s, self._delays.patience_s)
        leaderless = self._leaderless()
        self._ledger.call(leaderless)
        self._put_to_sleep(now)
        # Whoever beats has this node for a member. The members that are known here may be of the
        # past, and none of them lead any more.
        self._send_beats(self._ledger.heard() if leaderless else ())

    def _send_beats(self, others: Iterable[NodeId] = ()) -> None:
        for peer in dict.fromkeys((*self._find_neighbours(), *others)):
            beat = self._ledger.beat_for(peer)
            echo = self._delays.sending(peer, beat.sequence, self._clock.monotonic_s())
            self._send(peer, BEAT_GROUP, encode(replace(beat, echo=echo)))

    def _leaderless(self) -> list[GroupId]:
        return [
            group
            for group, awake in self._awake.items()
            if awake.replica.core.leader_id is None and awake.replica.takes_part
        ]

    def _put_to_sleep(self, now: float) -> None:
        falling = 0
        for group, awake in tuple(self._awake.items()):
            replica = awake.replica
            core = replica.core
            if self._replicas.get(group) is not replica:
                del self._awake[group]
            elif core.role is not Role.LEADER or falling == MAX_FALLING:
                continue
            elif core.leadership is not None and awake.term != core.term:
                self._note_awake(replica, -self._config.sleep_after_s)
                self._awake[group].last_index = core.leadership.first_index
            elif awake.last_index != replica.log.last_index:
                self._note_awake(replica)
            elif now - awake.since >= self._config.sleep_after_s and replica.takes_part:
                falling += self._put_leader_to_sleep(replica, now)

    def _put_leader_to_sleep(self, replica: Replica, now: float) -> bool:
        core, group = replica.core, replica.group
        others = [peer for peer in core.members.everybody if peer != self._node_id]
        silent = [peer for peer in others if self._ledger.is_silent(peer)]
        sleeping = core.sleep_leading(silent, now)
        if sleeping is None:
            return False
        self._awake.pop(group, None)
        self._ledger.fell_asleep(group, core.term, replica.log.last_index, others, sleeping)
        return True

    def _note_awake(self, replica: Replica, since_s: float = 0.0) -> None:
        """``since_s``: relative to now. An election, or that it woke, does not show that the group
        is in use, only a proposal does."""
        now = self._clock.monotonic_s()
        self._awake[replica.group] = _Awake(
            replica, replica.core.term, replica.log.last_index, now + since_s
        )

    def _find_neighbours(self) -> tuple[NodeId, ...]:
        """The nodes that share a group with this one, sorted; looked for when that may change."""
        if self._neighbours is None:
            everybody: set[NodeId] = set()
            for replica in self._replicas.values():
                everybody.update(replica.core.members.everybody)
            self._neighbours = tuple(sorted(everybody - {self._node_id}))
        return self._neighbours
