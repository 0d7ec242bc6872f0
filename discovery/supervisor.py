"""The tasks of one gossip member, from the first to the last, and why they ended."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import structlog

from quorumlog.errors import InvariantViolation, QuorumlogError

_log = structlog.get_logger(__name__)


class Supervisor:
    """Runs tasks until ``stop``, or until ``fail`` says that it cannot go on.

    A task made by ``spawn`` that fails is logged and missed by nobody: what one packet, stream or
    file brings about must not end all. An ``InvariantViolation`` does, and all that ``main``
    raises. ``release`` is awaited in the end, with ``failure`` set where nobody asked for it.
    """

    def __init__(self, release: Callable[[], Awaitable[None]]) -> None:
        self._release = release
        self._group = asyncio.TaskGroup()
        self._runner: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._fault: Exception | None = None
        self.failure: QuorumlogError | None = None

    @property
    def stopping(self) -> bool:
        """Nothing is to be begun any more."""
        return self._stopping.is_set()

    async def start(self, main: Coroutine[object, object, None]) -> None:
        """Returns when ``spawn`` may be called."""
        entered = asyncio.Event()
        self._runner = asyncio.create_task(self._supervise(main, entered))
        await entered.wait()

    def spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return self._group.create_task(_contained(work))

    def fail(self, fault: Exception) -> None:
        """End, as what has happened cannot be put right here."""
        self._fault = self._fault or fault
        self._stopping.set()

    async def stop(self) -> None:
        """Returns when everything is released. Idempotent."""
        self._stopping.set()
        if self._runner is not None:
            # Its failure, if any, was logged when it happened.
            await asyncio.wait([self._runner])

    async def _supervise(
        self, main: Coroutine[object, object, None], entered: asyncio.Event
    ) -> None:
        try:
            async with self._group as group:
                group.create_task(main)
                entered.set()
                await self._stopping.wait()
                raise self._fault or _Stop
        except* _Stop:
            _log.debug("gossip_stopped")
        except* Exception as errors:
            self.failure = _as_failure(errors.exceptions[0])
            _log.error("gossip_failed", exc_info=errors)
        finally:
            self._stopping.set()
            await self._release()


class _Stop(Exception):
    """Ends the task group of a member that closes."""


async def _contained(work: Coroutine[object, object, None]) -> None:
    try:
        await work
    except InvariantViolation:
        raise
    except Exception:
        _log.exception("gossip_task_failed")


def _as_failure(error: BaseException) -> QuorumlogError:
    if isinstance(error, QuorumlogError):
        return error
    failure = InvariantViolation(f"gossip cannot go on after {error!r}: start it again")
    failure.__cause__ = error
    return failure
