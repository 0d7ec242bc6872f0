"""A group's state beside its log: saved now and then, restored at start.

A start replays only what was committed behind the snapshot. Nothing else depends on one: when none
is whole, or none can be saved, the log says it all.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from quorumlog.errors import ProtocolError, StorageError
from quorumlog.log.batch import Batch, BatchHeader, Kind
from quorumlog.log.log import Log
from quorumlog.log.segment import stand_in
from quorumlog.log.state_snapshot import (
    FoundSnapshot,
    LogOrigin,
    StateSnapshot,
    load_newest,
    save_snapshot,
)
from quorumlog.ports import Disk, Worker
from quorumlog.replication.core.members import Members
from quorumlog.replication.state_machine import StateMachine
from quorumlog.types import GroupId, Index

_NO_BOUND: Final = (1 << 64) - 1

BATCH_COST_BYTES: Final = 8 * 1024
"""What it costs to apply a batch beside its bytes, in bytes that cost as much.

Without it a start would apply hundreds of thousands of small batches again, and that in few turns
of the event loop, in which no other group of the node votes."""

_log = structlog.get_logger()


class StateSaver:
    """Saves what was applied, on the worker, one snapshot at a time. Called in the event loop."""

    def __init__(
        self,
        *,
        group: GroupId,
        disk: Disk,
        directory: str,
        worker: Worker,
        state_machine: StateMachine,
        interval_bytes: int,
        restored: StateSnapshot | None,
        durable_index: Callable[[], Index],
    ) -> None:
        """``restored`` is what ``state_machine`` holds already; ``durable_index`` that of the log,
        which what is committed and applied here may be ahead of."""
        self._group = group
        self._disk = disk
        self._directory = directory
        self._worker = worker
        self._state_machine = state_machine
        self._interval_bytes = interval_bytes
        self._durable_index = durable_index
        self._configuration = b""
        self._applied: BatchHeader | None = None
        self._configuration_index = Index(0)
        self._saved_index = Index(0)
        self._last: BatchHeader | None = None
        self._unsaved: BatchHeader | None = None
        self._unsaved_bytes = 0
        self._saving: asyncio.Future[None] | None = None
        if restored is not None:
            self.restored(restored)

    def restored(self, snapshot: StateSnapshot) -> None:
        """The state machine holds ``snapshot`` now, which is saved already."""
        self._configuration = snapshot.configuration
        self._applied = stand_in(
            snapshot.index, snapshot.next_offset, snapshot.term, snapshot.timestamp_ms
        )

    def begins(self, origin: LogOrigin, members: Members) -> None:
        """No state was restored, and the log begins at ``origin``: what the state machine has now
        is what it makes of the batches before. ``members`` is the configuration there."""
        self._configuration = members.encode()
        self._applied = stand_in(
            Index(origin.start_index - 1),
            origin.base_offset,
            origin.prev_term,
            origin.prev_timestamp_ms,
        )

    def present(self, origin: LogOrigin | None = None) -> StateSnapshot | None:
        """What the state machine holds now; None before it holds anything.

        With ``origin`` it is for a replica whose log is to begin there.
        """
        return None if self._applied is None else self._snapshot_at(self._applied, origin)

    @property
    def unsaved_configuration(self) -> Index | None:
        """Index of the newest CONFIG batch that was applied, while it is in no saved state."""
        index = self._configuration_index
        return index if index > self._saved_index else None

    def applied(self, batch: Batch, failed: Callable[[Exception], None]) -> None:
        """``batch`` is committed and in the state; save that when enough was applied since.

        ``failed`` hears of a bug in the saving. That a disk is full or broken is only logged: the
        log's own writes will say so, and the next interval tries again.
        """
        header = self._last = batch.header
        if header.kind is Kind.CONFIG:
            self._configuration = bytes(batch.body)
            self._configuration_index = header.index
        self._applied = self._unsaved = header
        self._unsaved_bytes += batch.size_bytes + BATCH_COST_BYTES
        if self._unsaved_bytes >= self._interval_bytes and self._saving is None:
            self._begin(header, failed)

    async def save_now(self, failed: Callable[[Exception], None]) -> None:
        """Save what was applied so far; return when that is done, or could not be."""
        await self.settle()
        if self._unsaved is not None and self._saving is None:
            self._begin(self._unsaved, failed)
        await self.settle()

    def find_older_index(self) -> Index:
        """Of the saved state before the newest, both read and found whole, and of what is durable
        in the log; 0 without them. Blocks.

        What precedes it can be given up: one damaged state loses nothing then.
        """
        newest = load_newest(self._disk, self._directory, self._durable_index()).snapshot
        if newest is None:
            return Index(0)
        older = load_newest(self._disk, self._directory, newest.index - 1).snapshot
        return Index(0) if older is None else older.index

    async def settle(self) -> None:
        """Wait for the save under way, whatever becomes of it."""
        if self._saving is not None:
            await asyncio.wait([self._saving])

    async def save_last(self) -> None:
        """Save what was applied since the last snapshot; nothing is applied any more."""
        if self._unsaved is not None:
            await self._write(self._take(self._unsaved))

    def _begin(self, header: BatchHeader, failed: Callable[[Exception], None]) -> None:
        self._saving = asyncio.ensure_future(self._write(self._take(header)))
        self._saving.add_done_callback(partial(self._ended, failed))

    def _take(self, header: BatchHeader) -> StateSnapshot:
        """The state as it is, with ``header`` the last that was applied."""
        self._unsaved, self._unsaved_bytes = None, 0
        return self._snapshot_at(header, None)

    def _snapshot_at(self, header: BatchHeader, origin: LogOrigin | None) -> StateSnapshot:
        return StateSnapshot(
            Index(header.next_index - 1),
            header.term,
            header.next_offset,
            header.timestamp_ms,
            self._configuration,
            self._state_machine.snapshot(),
            origin,
        )

    async def _write(self, snapshot: StateSnapshot) -> None:
        durable_index = self._durable_index()
        save = partial(save_snapshot, self._disk, self._directory, snapshot, durable_index)
        try:
            await self._worker.run(save)
        except (StorageError, OSError) as error:
            _log.warning("state_not_saved", group=self._group, error=str(error))
            # As long as nothing more is applied, it is this that has to be saved.
            self._unsaved = self._unsaved or self._last
        else:
            self._saved_index = snapshot.index

    def _ended(self, failed: Callable[[Exception], None], done: "asyncio.Future[None]") -> None:
        self._saving = None
        error = None if done.cancelled() else done.exception()
        if isinstance(error, Exception):
            failed(error)


async def restore_state(
    *,
    group: GroupId,
    disk: Disk,
    directory: str,
    log: Log,
    worker: Worker,
    state_machine: StateMachine,
) -> StateSnapshot | None:
    """Bring ``state_machine`` to the newest state saved in ``directory`` that is one of ``log``'s.

    Returns:
        What it holds now; None, and nothing changed, when the log has to be replayed as a whole.
    """
    at_most_index: int = log.last_index
    while True:
        found = await worker.run(partial(_find, disk, directory, log, at_most_index))
        for error in found.damage:
            _log.warning("state_snapshot_refused", group=group, error=str(error))
        snapshot = found.snapshot
        if snapshot is None:
            return None
        try:
            if snapshot.configuration:
                Members.decode(snapshot.configuration)
            state_machine.restore(snapshot.state)
        except ProtocolError as refusal:
            _log.warning("state_snapshot_refused", group=group, error=str(refusal))
            at_most_index = snapshot.index - 1
        else:
            return snapshot


@dataclass(slots=True)
class Held:
    """What the state machine of a group holds before its replica is made; None: nothing yet."""

    state: StateSnapshot | None


@dataclass(frozen=True, slots=True)
class FoundStates:
    """The states of a group: one that the state machine holds, one that it will."""

    restored: StateSnapshot | None
    awaited: StateSnapshot | None


async def find_states(
    *,
    group: GroupId,
    disk: Disk,
    directory: str,
    log: Log,
    worker: Worker,
    state_machine: StateMachine,
    held: Held,
) -> FoundStates:
    """Bring a new state machine to the newest saved state, noted in ``held``; see what is to come.

    One that holds a state keeps it until the log has passed it: an older one would look like a
    past that comes back.
    """
    carried, restored = held.state, None
    if carried is None:
        held.state = restored = await restore_state(
            group=group,
            disk=disk,
            directory=directory,
            log=log,
            worker=worker,
            state_machine=state_machine,
        )
        if restored is not None:
            return FoundStates(restored, None)
    above_index = log.last_index if carried is None else carried.index
    awaited = await _find_awaited(disk, directory, log, worker, above_index)
    return FoundStates(None, awaited or carried)


async def _find_awaited(
    disk: Disk, directory: str, log: Log, worker: Worker, above_index: int
) -> StateSnapshot | None:
    """The state of another replica that was installed here, if it is of a batch behind
    ``above_index``: it takes effect when ``log`` has passed that.

    It is the newest in ``directory``: as long as it has no effect, nothing behind it is applied.
    """
    if log.start_index == 1:
        return None
    found = await worker.run(partial(load_newest, disk, directory, _NO_BOUND))
    snapshot = found.snapshot
    if snapshot is None or snapshot.origin is None or snapshot.index <= above_index:
        return None
    return snapshot


def _find(disk: Disk, directory: str, log: Log, at_most_index: int) -> FoundSnapshot:
    """The newest valid snapshot that is of this log."""
    refused: list[StorageError] = []
    while True:
        found = load_newest(disk, directory, at_most_index)
        refused += found.damage
        snapshot = found.snapshot
        misfit = None if snapshot is None else _misfit(directory, log, snapshot)
        if snapshot is None or misfit is None:
            return FoundSnapshot(snapshot, tuple(refused))
        refused.append(misfit)
        at_most_index = snapshot.index - 1


def _misfit(directory: str, log: Log, snapshot: StateSnapshot) -> StorageError | None:
    """Why ``snapshot`` is not of ``log``.

    A batch of the same index and term is the same, and so is all before it (Raft §5.3), which was
    committed when the snapshot was made: so it is enough to compare these two.
    """
    if snapshot.index < log.start_index - 1:
        return StorageError(
            f"{directory}: the state of batch {snapshot.index} is older than the log, which "
            f"begins with {log.start_index}"
        )
    try:
        term = log.term_at(snapshot.index)
    except StorageError as error:
        return error
    if term != snapshot.term:
        return StorageError(
            f"{directory}: the state of batch {snapshot.index} of term {snapshot.term} is of "
            f"another log: here it is of term {term}"
        )
    return None
