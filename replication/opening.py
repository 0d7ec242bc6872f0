"""Opening one group: its files, its saved states, its core, its replica."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from quorumlog.errors import Closed, Corrupt, StorageError
from quorumlog.log.log import LogConfig
from quorumlog.log.state_snapshot import StateSnapshot
from quorumlog.ports import Clock, Disk, Worker
from quorumlog.replication.catch_up.catch_up import CatchUp
from quorumlog.replication.catch_up.pacing import CatchUpPacer
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.ready import Event
from quorumlog.replication.flush_place import FlushPlace
from quorumlog.replication.group_files import ConfigEntries, GroupFiles, OpenedFiles
from quorumlog.replication.replica import Replica
from quorumlog.replication.saved_state import FoundStates, Held, StateSaver, find_states
from quorumlog.replication.state_machine import StateMachine
from quorumlog.types import GroupId, Index, NodeId


@dataclass(frozen=True, slots=True)
class Order:
    """What a group was opened with: it may have to be opened again."""

    members: Members
    state_machine: StateMachine
    log_config: LogConfig


class Opener:
    """Makes replicas of what the disk has. Called in the event loop."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        files: GroupFiles,
        disk: Disk,
        clock: Clock,
        worker: Worker,
        send: Callable[[NodeId, GroupId, bytes], None],
        rng: random.Random,
        config: ReplicationConfig,
        pacer: CatchUpPacer,
        heard_at: Callable[[NodeId | None], float | None],
        patience_s: Callable[[], float],
        is_closing: Callable[[], bool],
        on_event: Callable[[Replica, Event], None],
        on_damage: Callable[[Replica, Corrupt], None],
        install: Callable[[Replica, StateSnapshot], None],
    ) -> None:
        """``install`` is told of a state that is complete in the draft of a replica; the others:
        see :class:`Replica`. Nothing is opened any more while ``is_closing``."""
        self._node_id = node_id
        self._files = files
        self._disk = disk
        self._clock = clock
        self._worker = worker
        self._send = send
        self._rng = rng
        self._config = config
        self._pacer = pacer
        self._place = FlushPlace(config.loop_flush_s)
        self._heard_at = heard_at
        self._patience_s = patience_s
        self._is_closing = is_closing
        self._on_event = on_event
        self._on_damage = on_damage
        self._install = install

    async def open(self, group: GroupId, order: Order, held: Held) -> Replica:
        """With whatever log there is; ``held`` notes what the state machine was given.

        Raises:
            Corrupt: of damage, or of what was taken away.
            Closed, DiskFull, UnusableDirectory, OSError.
        """
        opened = await self._worker.run(partial(self._files.open, group, order.log_config))
        try:
            found = await find_states(
                group=group,
                disk=self._disk,
                directory=self._files.path_of(group),
                log=opened.log,
                worker=self._worker,
                state_machine=order.state_machine,
                held=held,
            )
            members, configurations = await self._worker.run(
                partial(
                    self._files.find_members,
                    group,
                    opened.log,
                    found,
                    order.members,
                    self._node_id,
                    order.state_machine.needs_saved_state,
                )
            )
            if self._is_closing():
                raise Closed("this node is closing")
        except (Exception, asyncio.CancelledError):
            # What the disk says to that must not take the place of why this ends.
            with suppress(StorageError):
                opened.close()
            raise
        return self._make_replica(group, order, opened, found, members, configurations)

    def _make_replica(
        self,
        group: GroupId,
        order: Order,
        opened: OpenedFiles,
        found: FoundStates,
        members: Members,
        configurations: ConfigEntries,
    ) -> Replica:
        restored, state_machine = found.restored, order.state_machine
        if restored is not None:
            # It was made of committed batches only.
            opened.log.advance_commit_floor(restored.index)
        core = RaftCore(
            node_id=self._node_id,
            config=self._config.raft,
            log=opened.log,
            hard_state=opened.hard_state,
            members=members,
            commit_index=opened.log.commit_floor,
            config_entries=configurations,
            rng=self._rng,
            now=self._clock.monotonic_s(),
            recovering=opened.recovering,
        )
        saver = StateSaver(
            group=group,
            disk=self._disk,
            directory=self._files.path_of(group),
            worker=self._worker,
            state_machine=state_machine,
            interval_bytes=self._config.state_interval_bytes,
            restored=restored,
            durable_index=lambda: opened.log.durable_index,
        )
        has_state = restored is not None or found.awaited is not None
        if opened.log.start_index > 1 and not has_state and not state_machine.needs_saved_state:
            saver.begins(opened.log.origin, members)
        return Replica(
            group=group,
            core=core,
            log=opened.log,
            hard_state_file=opened.hard_state_file,
            state_machine=state_machine,
            restored=restored,
            awaited=found.awaited,
            saver=saver,
            config=self._config,
            clock=self._clock,
            worker=self._worker,
            place=self._place,
            send=self._send,
            on_event=self._on_event,
            heard_at=self._heard_at,
            patience_s=self._patience_s,
            catch_up=partial(self._catch_up_of, opened.left_at),
            on_damage=self._on_damage,
        )

    def _catch_up_of(self, left_at: Index | None, replica: Replica) -> CatchUp:
        return CatchUp(
            replica,
            node_id=self._node_id,
            disk=self._disk,
            directory=self._files.path_of(replica.group),
            clock=self._clock,
            worker=self._worker,
            pacer=self._pacer,
            rng=self._rng,
            send=self._send,
            install=partial(self._install, replica),
            left_at=left_at,
        )
