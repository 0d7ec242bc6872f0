"""Closing a replica, changing what it has on disk, and opening its group again."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import structlog

from quorumlog.errors import Closed, StorageError
from quorumlog.log.state_snapshot import StateSnapshot
from quorumlog.replication.replica import Replica
from quorumlog.types import GroupId

_log = structlog.get_logger()


class Reopener:
    """One task per group that is opened again. Called in the event loop."""

    def __init__(
        self,
        *,
        replicas: Mapping[GroupId, Replica],
        lock_of: Callable[[GroupId], asyncio.Lock],
        reopen: Callable[[GroupId, StateSnapshot | None], Awaitable[object]],
        retry_s: float,
    ) -> None:
        """``reopen`` opens a group whose state machine holds a state from before, or none, and
        puts the new replica into ``replicas``, where the old one stays until then."""
        self._replicas = replicas
        self._lock_of = lock_of
        self._reopen = reopen
        self._retry_s = retry_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def begin(self, replica: Replica, change: Callable[[], Awaitable[None]]) -> None:
        """Let ``replica`` take no part from this moment on; ``change`` comes once it is closed."""
        replica.stop()
        task = asyncio.create_task(self._run(replica, change))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Nothing is tried again; what is under way comes to its end."""
        self._closing.set()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _run(self, replica: Replica, change: Callable[[], Awaitable[None]]) -> None:
        group = replica.group
        async with self._lock_of(group):
            if self._replicas.get(group) is not replica:
                return
            try:
                await replica.close()
            except StorageError as error:
                _log.warning("group_closed_unflushed", group=group, error=str(error))
            carried = replica.present_state()
            is_changed = False
            while not self._closing.is_set():
                try:
                    if not is_changed:
                        await change()
                        is_changed = True
                    await self._reopen(group, carried)
                    return
                except Closed:
                    return
                except (StorageError, OSError) as error:
                    if isinstance(error, StorageError) and not error.retryable:
                        _log.error("group_stays_closed", group=group, error=str(error))
                        return
                    _log.warning("group_not_reopened", group=group, error=str(error))
                await self._pause()

    async def _pause(self) -> None:
        """Before a full or failing disk is tried again; not once this is closing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._retry_s):
                await self._closing.wait()
