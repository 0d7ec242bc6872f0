"""An asyncio event loop in virtual time: no selector, no threads, the same order every time.

When nothing is ready, time jumps to the next timer. ``asyncio`` above it is the real one: tasks,
futures, timeouts, queues and task groups work as ever. What would make two runs differ is
replaced or refused: tasks hash by their number (``asyncio.wait`` and ``TaskGroup`` keep sets of
them), executors and threads raise, and so do sockets for want of a selector.
"""

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeVar, TypeVarTuple

from sim.process import PROCESS, Process, State

MIN_DELAY_S: Final = 1e-6
"""A timer in the future is at least this far away, so that time goes on whatever is asked for."""

_PURGE_AT: Final = 256

Arguments = TypeVarTuple("Arguments")
Value = TypeVar("Value")


class SimulationError(Exception):
    """The run cannot go on, or found something wrong."""


class Stuck(SimulationError):
    """Nothing is ready and no timer is set: nothing can ever happen again."""


class VirtualTimeout(SimulationError):
    """The limit of virtual time was reached."""


class Livelock(SimulationError):
    """Too many turns of the loop, in all or without that time went on."""


class UnhandledError(SimulationError):
    """A callback or a task failed and nobody looked: its exception is the cause."""


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, **options: Any) -> None:
        self.number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.BaseEventLoop):
    """``end_s`` and ``max_turns`` bound a run; ``after_turn`` is called after each turn with the
    processes that ran in it."""

    # The base class's own, which its type stubs do not show.
    _ready: deque[asyncio.Handle]
    _timer_cancelled_count: int

    def __init__(
        self, *, end_s: float = 3600.0, max_turns: int = 5_000_000, max_turns_at_once: int = 20_000
    ) -> None:
        self._now_s = 0.0
        super().__init__()
        # With a number, so that of two timers for the same moment the older one fires first.
        self._timers: list[tuple[float, int, Any]] = []
        self._timer_count = 0
        self.end_s = end_s
        self.turns = 0
        self.after_turn: Callable[[dict[Process, None]], None] | None = None
        self._max_turns = max_turns
        self._max_turns_at_once = max_turns_at_once
        self._turns_at_once = 0
        self._task_count = 0
        self._failure: SimulationError | None = None
        self._disposing = False
        self._outside = Context()

    # -- time and turns ------------------------------------------------------------------------

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        """One turn: what is due now, each handle in its process or not at all."""
        ready, timers = self._ready, self._timers
        if not ready or (timers and timers[0][0] <= self._now_s):
            self._collect_due()
        ran: dict[Process, None] = {}
        for _ in range(len(ready)):
            handle: Any = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None:
                if process.state is not State.RUNNING:
                    process.hold(handle)
                    continue
                ran[process] = None
            handle._run()
            if self._failure is not None:
                raise self._failure
        self._count_turn()
        if self.after_turn is not None and ran:
            self.after_turn(ran)

    def _collect_due(self) -> None:
        timers = self._timers
        if self._timer_cancelled_count > _PURGE_AT < len(timers) / 2:
            timers[:] = [entry for entry in timers if not entry[2]._cancelled]
            heapq.heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)[2]._scheduled = False
            self._timer_cancelled_count -= 1
        if not self._ready:
            if not timers:
                raise Stuck(f"nothing is ready and no timer is set at {self._now_s:.6f} s")
            self._jump(timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False
            self._ready.append(timer)

    def _jump(self, when_s: float) -> None:
        if when_s > self.end_s:
            raise VirtualTimeout(f"not done after {self.end_s} virtual seconds")
        if when_s > self._now_s:
            self._now_s = when_s
            self._turns_at_once = 0

    def _count_turn(self) -> None:
        self.turns += 1
        self._turns_at_once += 1
        if self.turns > self._max_turns or self._turns_at_once > self._max_turns_at_once:
            raise Livelock(f"{self.turns} turns, {self._turns_at_once} at {self._now_s:.6f} s")

    # -- what asyncio asks of a loop -----------------------------------------------------------

    def call_soon(
        self,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        if self._disposing:
            return events.Handle(callback, args, self, context)
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if self._now_s < when < self._now_s + MIN_DELAY_S:
            when = self._now_s + MIN_DELAY_S
        timer = events.TimerHandle(when, callback, args, self, context)
        if not self._disposing:
            self._timer_count += 1
            heapq.heappush(self._timers, (when, self._timer_count, timer))
            timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    call_soon_threadsafe = call_soon
    """There is one thread."""

    def call_outside(
        self, delay_s: float, callback: Callable[[*Arguments], object], *args: *Arguments
    ) -> None:
        """Call from outside all processes, whatever becomes of the one that runs now."""
        self.call_at(self._now_s + delay_s, callback, *args, context=self._outside)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> SimTask:
        self._task_count += 1
        number = self._task_count
        return SimTask(coro, number, loop=self, name=name or f"task-{number}", context=context)

    def run_in_executor(
        self, executor: object, func: Callable[[*Arguments], Value], *args: *Arguments
    ) -> asyncio.Future[Value]:
        raise SimulationError("blocking work goes through the Worker port: the loop has no threads")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What nobody handled ends the run at the end of the callback it came from."""
        message = str(context.get("message"))
        if message.startswith("Future exception was never retrieved"):
            # An answer that nobody waits for any more: its caller is gone.
            return
        if self._failure is None and not self._disposing:
            error = context.get("exception")
            self._failure = UnhandledError(f"{message} (in {context.get('task')}): {error!r}")
            self._failure.__cause__ = error

    # -- processes -----------------------------------------------------------------------------

    def resume(self, process: Process) -> None:
        self._ready.extend(process.resume())

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any], name: str) -> SimTask:
        """Run ``work`` as a task of ``process``; its failure is the run's."""
        task = self.create_task(work, name=f"{process.name}/{name}", context=process.context())
        task.add_done_callback(self._spawned_ended)
        return task

    def _spawned_ended(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.call_exception_handler(
                {"message": "a process failed", "exception": error, "task": task.get_name()}
            )

    def dispose(self) -> None:
        """End everything that still exists, in a fixed order and without effect; close the loop.

        Pending coroutines are closed here, not by the garbage collector at a time of its own.
        """
        self._disposing = True
        pending: list[Any] = [task for task in asyncio.all_tasks(self) if not task.done()]
        for task in sorted(pending, key=lambda each: each.number):
            task._log_destroy_pending = False
            try:
                task.get_coro().close()
            except BaseException:
                # A finally block that awaits, or meets the ruins of its process.
                continue
        self._ready.clear()
        self._timers.clear()
        self.close()
