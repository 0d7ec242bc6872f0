"""All Raft groups of one node: opens, closes and removes replicas and hands messages to them."""

import asyncio
import random
from collections.abc import Callable
from functools import partial

import structlog

from quorumlog.errors import Closed, Corrupt, InvariantViolation, StorageError
from quorumlog.log.log import LogConfig
from quorumlog.log.state_snapshot import StateSnapshot
from quorumlog.ports import Clock, Disk, PeerTransport, Worker
from quorumlog.replication.catch_up.mending import Mender
from quorumlog.replication.catch_up.messages import is_mending
from quorumlog.replication.catch_up.pacing import CatchUpPacer
from quorumlog.replication.catch_up.starting_over import WAY_OUT_ALONE
from quorumlog.replication.catch_up.state_receiver import is_needed
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.ready import Event
from quorumlog.replication.group_files import (
    GroupFiles,
)
from quorumlog.replication.opening import Opener, Order
from quorumlog.replication.reopening import Reopener
from quorumlog.replication.replica import Replica
from quorumlog.replication.saved_state import Held
from quorumlog.replication.sleep.beat import BEAT_GROUP
from quorumlog.replication.sleep.keeper import SleepKeeper
from quorumlog.replication.state_machine import StateMachine
from quorumlog.types import GroupId, Index, NodeId

_log = structlog.get_logger()


class GroupHost:
    """Replicas live in ``directory/<group>/``: segments, indexes, saved states, ``hard-state``.

    Every call is made in one event loop. ``events`` receives what a core reports: elections,
    leaders, configurations.
    """

    def __init__(
        self,
        *,
        node_id: NodeId,
        directory: str,
        disk: Disk,
        clock: Clock,
        worker: Worker,
        transport: PeerTransport,
        rng: random.Random,
        config: ReplicationConfig | None = None,
        events: Callable[[Replica, Event], None] = lambda replica, event: None,
    ) -> None:
        self.node_id = node_id
        self.replicas: dict[GroupId, Replica] = {}
        self._files = GroupFiles(disk, directory, clock)
        self._worker = worker
        self._config = config or ReplicationConfig()
        self._events = events
        self._closed = False
        self._orders: dict[GroupId, Order] = {}
        self._locks: dict[GroupId, asyncio.Lock] = {}
        self._reopener = Reopener(
            replicas=self.replicas,
            lock_of=self._lock_of,
            reopen=self._reopen,
            retry_s=self._config.disk_full_retry_s,
        )
        self._sleep = SleepKeeper(
            node_id=node_id,
            incarnation=rng.getrandbits(64),
            replicas=self.replicas,
            config=self._config,
            clock=clock,
            send=transport.send,
        )
        pacer = CatchUpPacer(self._config.catch_up_bytes_s, clock.monotonic_s)
        self._mender = Mender(
            node_id=node_id,
            replicas=self.replicas,
            disk=disk,
            clock=clock,
            worker=worker,
            pacer=pacer,
            rng=rng,
            send=transport.send,
        )
        self._opener = Opener(
            node_id=node_id,
            files=self._files,
            disk=disk,
            clock=clock,
            worker=worker,
            send=transport.send,
            rng=rng,
            config=self._config,
            pacer=pacer,
            heard_at=self._sleep.heard_at,
            patience_s=self._sleep.patience_s,
            is_closing=lambda: self._closed,
            on_event=self._report,
            on_damage=self._damaged,
            install=self._install,
        )
        transport.on_message(self._receive)

    def hears(self, node: NodeId) -> bool:
        """Whether a sign of life of ``node`` came within the last election timeout.

        Only of nodes that share a group with this one."""
        return not self._sleep.is_silent(node)

    @property
    def patience_s(self) -> float:
        """See :class:`~quorumlog.replication.sleep.delays.Delays`: above 0 where nodes are short of
        time."""
        return self._sleep.patience_s()

    def patience_with(self, node: NodeId) -> float:
        """By how many seconds longer than usual messages to ``node`` and back take at present."""
        return self._sleep.patience_with(node)

    def path_of(self, group: GroupId) -> str:
        return self._files.path_of(group)

    async def open_group(
        self,
        group: GroupId,
        members: Members,
        state_machine: StateMachine,
        log_config: LogConfig,
    ) -> Replica:
        """Open the group's log, creating it when there is none, and take part in the group.

        ``members`` is the configuration before any that stands in the log. ``state_machine`` is
        new: it gets the newest state that was saved, and the batches behind it, or all of them.
        A replica that is given another one's state is closed and opened again, with the same
        state machine: ``replicas`` has another object then.

        A damaged log is set aside and an empty one begun in its place, which votes for nobody
        before it is whole again (:mod:`quorumlog.replication.catch_up.starting_over`); so is one
        in the place of a directory that is gone (:mod:`quorumlog.replication.group_list`).

        Raises:
            Corrupt: the log is damaged or gone and this is the only voter, or so much was set aside
                before, or term and vote are lost and not known to be below any bound; nothing was
                changed.
            DiskFull, UnusableDirectory, OSError.
        """
        async with self._lock_of(group):
            if group in self.replicas:
                raise InvariantViolation(f"group {group} is open already")
            order = Order(members, state_machine, log_config)
            replica = await self._open_or_start_over(group, order, None)
            self._orders[group] = order
            return replica

    def _lock_of(self, group: GroupId) -> asyncio.Lock:
        return self._locks.setdefault(group, asyncio.Lock())

    async def _open(self, group: GroupId, order: Order, held: Held) -> Replica:
        replica = await self._opener.open(group, order, held)
        self.replicas[group] = replica
        self._sleep.opened(replica)
        _log.info("group_opened", group=group, last_index=replica.log.last_index)
        recovery = replica.log.recovery
        if recovery.reason:
            _log.warning(
                "torn_tail_cut",
                group=group,
                cut_bytes=recovery.cut_bytes,
                cut_batches=recovery.cut_batches,
                reason=recovery.reason,
            )
        return replica

    # -- opening again -------------------------------------------------------------------------

    def report_damage(self, group: GroupId, error: Corrupt) -> bool:
        """Somebody who read the log of ``group`` found rot. Whether the replica starts over.

        The only voter does not: what it has left is all there is, and goes on being served.
        """
        replica = self.replicas.get(group)
        if replica is None or replica.core.members.voting == (self.node_id,):
            _log.error("only_copy_damaged", group=group, error=str(error), way_out=WAY_OUT_ALONE)
            return False
        replica.fail(error)
        return True

    def _install(self, replica: Replica, state: StateSnapshot) -> None:
        """Let the state in the draft take the place of the log, unless it came too late."""
        group = replica.group
        if state.origin is None or not is_needed(replica.log, state.origin):
            _log.info("state_came_late", group=group, index=state.index)
            return
        _log.info(
            "log_emptied",
            group=group,
            last_index=replica.log.last_index,
            start_index=state.origin.start_index,
            state_index=state.index,
        )
        self._reopener.begin(replica, partial(self._decide_install, group))

    async def _decide_install(self, group: GroupId) -> None:
        try:
            await self._worker.run(partial(self._files.decide_install, group))
        except (StorageError, OSError) as error:
            # What became of it is seen at the open; the old log is good for another try.
            _log.warning("state_not_installed", group=group, error=str(error))

    def _damaged(self, replica: Replica, error: Corrupt) -> None:
        if replica.core.members.voting == (self.node_id,):
            _log.error("only_copy_damaged", group=replica.group, way_out=WAY_OUT_ALONE)
        else:
            self._reopener.begin(replica, partial(self._mend_or_start_over, replica, error))

    async def _mend_or_start_over(self, replica: Replica, error: Corrupt) -> None:
        """Mend the closed log of ``replica``, or set it aside; raises as :func:`start_over`."""
        group = replica.group
        config = self._orders[group].log_config
        if await self._mender.mend(replica, self.path_of(group), error, config):
            return
        if self._closed:
            raise Closed("this node is closing")
        await self._start_over(group, error)

    async def _start_over(self, group: GroupId, error: Corrupt) -> None:
        """Set the closed log of ``group`` aside; raises as :func:`start_over`."""
        set_aside = await self._worker.run(partial(self._files.start_over, group, str(error)))
        if set_aside is None:
            _log.error("lost_group_begun", group=group, error=str(error))
        else:
            _log.error("damaged_log_set_aside", group=group, path=set_aside, error=str(error))

    async def _reopen(self, group: GroupId, carried: StateSnapshot | None) -> None:
        await self._open_or_start_over(group, self._orders[group], carried)

    async def _open_or_start_over(
        self, group: GroupId, order: Order, carried: StateSnapshot | None
    ) -> Replica:
        held = Held(carried)
        try:
            return await self._open(group, order, held)
        except Corrupt as error:
            if order.members.voting == (self.node_id,):
                _log.error("only_copy_damaged", group=group, way_out=WAY_OUT_ALONE)
                raise
            try:
                await self._start_over(group, error)
            except StorageError as refusal:
                _log.error("damaged_log_not_set_aside", group=group, error=str(refusal))
                raise error from refusal
        return await self._open(group, order, held)

    # -- files ---------------------------------------------------------------------------------

    async def close_group(self, group: GroupId) -> None:
        """Raises what the log's last flush raises; the group is closed all the same."""
        async with self._lock_of(group):
            await self._close_group(group)

    async def _close_group(self, group: GroupId) -> None:
        replica = self.replicas.get(group)
        if replica is None:
            return
        try:
            await replica.close()
        except asyncio.CancelledError:
            # Not closed yet: whoever closes the host waits for the rest.
            raise
        except BaseException:
            self.replicas.pop(group, None)
            raise
        self.replicas.pop(group, None)

    async def stored_groups(self) -> list[GroupId]:
        """The groups that this node has data of, open or not, or had and lost; sorted."""
        return await self._worker.run(self._files.stored)

    async def lacks_groups(self) -> bool:
        """Whether the list of the groups that this node has had was lost: one without a directory
        may have been here then, and stays closed. See :meth:`know_groups_from`."""
        return await self._worker.run(lambda: not self._files.listed.is_whole)

    @property
    def list_is_whole(self) -> bool:
        """The opposite of :meth:`lacks_groups`, at once; once a group was opened."""
        return self._files.listed.is_whole

    async def may_have_had(self, group: GroupId) -> bool:
        """Whether nothing is here of ``group``, which may have been all the same: the list does not
        say it was not. Not to be asked of a group that is open."""
        return await self._worker.run(partial(self._files.may_have_had, group))

    async def know_groups_from(self, group: GroupId) -> None:
        """Groups from this number on were given out since the list was lost: they were not here.

        Raises DiskFull, OSError.
        """
        await self._worker.run(partial(self._files.listed.know_from, group))

    async def leave_group(
        self, group: GroupId, settled_without: Callable[[Replica], Index | None]
    ) -> bool:
        """Close the group and delete its data, for good, but for term and vote: it may come back.

        Only for a group that this node is committed not to be a member of any more.
        ``settled_without`` is asked in the moment from which on the replica takes no part, and
        gives the index through which the group is settled without it; None: it has to stay.
        Whether it is gone: not either where no replica is open.

        Raises:
            Corrupt: term and vote cannot be read. StorageError, OSError: of the disk. The group is
                closed then, and what was decided of it is finished by :meth:`stored_groups`.
        """
        async with self._lock_of(group):
            replica = self.replicas.get(group)
            settled_index = None if replica is None else settled_without(replica)
            if settled_index is None:
                return False
            try:
                await self._close_group(group)
            except StorageError as error:
                _log.warning("group_closed_unflushed", group=group, error=str(error))
            await self._worker.run(partial(self._files.leave, group, settled_index))
            self._orders.pop(group, None)
        _log.info("group_left", group=group)
        return True

    async def left_groups(self) -> list[GroupId]:
        """Those of :meth:`stored_groups` that only have term and vote on disk, sorted."""
        return await self._worker.run(self._files.left)

    async def remove_group(self, group: GroupId) -> None:
        """Close the group and delete its data: only for a group whose deletion was committed."""
        async with self._lock_of(group):
            await self._close_group(group)
            await self._worker.run(partial(self._files.remove, group))
            self._orders.pop(group, None)

    async def close(self) -> None:
        """Close every group. One that cannot write any more loses what was never acknowledged."""
        self._closed = True
        await self._mender.close()
        await self._reopener.close()
        for group in sorted(self.replicas):
            try:
                await self.close_group(group)
            except StorageError as error:
                _log.warning("group_closed_unflushed", group=group, error=str(error))
        self._sleep.close()

    def _receive(self, sender: NodeId, group: GroupId, payload: memoryview) -> None:
        replica = self.replicas.get(group)
        if replica is not None:
            if is_mending(payload):
                self._mender.receive(sender, group, payload)
            else:
                replica.receive(sender, payload)
        elif group == BEAT_GROUP:
            self._sleep.receive(sender, payload)

    def _report(self, replica: Replica, event: Event) -> None:
        self._sleep.heard(replica, event)
        self._events(replica, event)
