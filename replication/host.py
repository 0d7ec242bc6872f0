"""All Raft groups of one node: opens, closes and removes replicas and hands messages to them."""

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import structlog

from quorumlog.errors import Closed, InvariantViolation, StorageError
from quorumlog.log.batch import Kind
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.log import Log, LogConfig
from quorumlog.log.state_snapshot import StateSnapshot
from quorumlog.ports import Clock, Disk, PeerTransport, Worker
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.ready import Event
from quorumlog.replication.replica import Replica
from quorumlog.replication.saved_state import StateSaver, restore_state
from quorumlog.replication.state_machine import StateMachine
from quorumlog.types import GroupId, Index, NodeId

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Opened:
    """What the disk had of a group."""

    log: Log
    hard_state_file: HardStateFile
    hard_state: HardState


_Configurations = tuple[tuple[Index, Members], ...]


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
        self._directory = directory
        self._disk = disk
        self._clock = clock
        self._worker = worker
        self._transport = transport
        self._rng = rng
        self._config = config or ReplicationConfig()
        self._events = events
        self._closed = False
        transport.on_message(self._receive)

    def path_of(self, group: GroupId) -> str:
        return f"{self._directory}/{group}"

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

        Raises:
            Corrupt: the log or the hard state is damaged; nothing was changed.
            DiskFull, UnusableDirectory, OSError.
        """
        if group in self.replicas:
            raise InvariantViolation(f"group {group} is open already")
        opened = await self._worker.run(lambda: self._open_files(group, log_config))
        try:
            restored = await restore_state(
                group=group,
                disk=self._disk,
                directory=self.path_of(group),
                log=opened.log,
                worker=self._worker,
                state_machine=state_machine,
            )
            configurations = await self._worker.run(partial(_configurations, opened.log, restored))
            if self._closed or group in self.replicas:
                raise Closed("this node is closing")
        except (Exception, asyncio.CancelledError):
            opened.log.close()
            opened.hard_state_file.close()
            raise
        replica = self._make_replica(
            group, members, state_machine, opened, restored, configurations
        )
        self.replicas[group] = replica
        _log.info("group_opened", group=group, last_index=opened.log.last_index)
        recovery = opened.log.recovery
        if recovery.reason:
            _log.warning(
                "torn_tail_cut",
                group=group,
                cut_bytes=recovery.cut_bytes,
                cut_batches=recovery.cut_batches,
                reason=recovery.reason,
            )
        return replica

    def _make_replica(
        self,
        group: GroupId,
        members: Members,
        state_machine: StateMachine,
        opened: _Opened,
        restored: StateSnapshot | None,
        configurations: _Configurations,
    ) -> Replica:
        if restored is not None:
            # It was made of committed batches only.
            opened.log.advance_commit_floor(restored.index)
            if restored.configuration:
                members = Members.decode(restored.configuration)
        core = RaftCore(
            node_id=self.node_id,
            config=self._config.raft,
            log=opened.log,
            hard_state=opened.hard_state,
            members=members,
            commit_index=opened.log.commit_floor,
            config_entries=configurations,
            rng=self._rng,
            now=self._clock.monotonic_s(),
        )
        saver = StateSaver(
            group=group,
            disk=self._disk,
            directory=self.path_of(group),
            worker=self._worker,
            state_machine=state_machine,
            interval_bytes=self._config.state_interval_bytes,
            restored=restored,
        )
        return Replica(
            group=group,
            core=core,
            log=opened.log,
            hard_state_file=opened.hard_state_file,
            state_machine=state_machine,
            restored=restored,
            saver=saver,
            config=self._config,
            clock=self._clock,
            worker=self._worker,
            send=self._transport.send,
            on_event=self._events,
        )

    def _open_files(self, group: GroupId, log_config: LogConfig) -> _Opened:
        directory = self.path_of(group)
        self._disk.make_directory(directory)
        # The hard state first: with a damaged one this node must not even look as if it had a log.
        hard_state_file = HardStateFile(self._disk, f"{directory}/hard-state")
        with ExitStack() as undo:
            undo.callback(hard_state_file.close)
            hard_state = hard_state_file.load()
            log = Log.open(self._disk, directory, log_config, self._clock)
            undo.pop_all()
        return _Opened(log, hard_state_file, hard_state)

    async def close_group(self, group: GroupId) -> None:
        """Raises what the log's last flush raises; the group is closed all the same."""
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
        """The groups that this node has data of, open or not, sorted."""
        return await self._worker.run(self._stored_groups)

    def _stored_groups(self) -> list[GroupId]:
        if not self._disk.exists(self._directory):
            return []
        names = self._disk.list_directory(self._directory)
        return sorted(GroupId(int(name)) for name in names if name.isascii() and name.isdigit())

    async def remove_group(self, group: GroupId) -> None:
        """Close the group and delete its data: only for a group whose deletion was committed."""
        await self.close_group(group)
        path = self.path_of(group)
        await self._worker.run(lambda: self._remove(path))

    def _remove(self, path: str) -> None:
        if self._disk.exists(path):
            self._disk.remove_directory(path)
            self._disk.sync_directory(self._directory)

    async def close(self) -> None:
        """Close every group. One that cannot write any more loses what was never acknowledged."""
        self._closed = True
        for group in sorted(self.replicas):
            try:
                await self.close_group(group)
            except StorageError as error:
                _log.warning("group_closed_unflushed", group=group, error=str(error))

    def _receive(self, sender: NodeId, group: GroupId, payload: memoryview) -> None:
        replica = self.replicas.get(group)
        if replica is not None:
            replica.receive(sender, payload)


def _configurations(log: Log, restored: StateSnapshot | None) -> _Configurations:
    """Those in the log behind what was restored, with their indexes. Blocks."""
    first_index = log.start_index if restored is None else restored.index + 1
    return tuple(
        (header.index, Members.decode(log.slice(header.index, 1)[0].body))
        for header in log.headers(first_index)
        if header.kind is Kind.CONFIG
    )
