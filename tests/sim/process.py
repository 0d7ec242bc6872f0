"""A simulated operating system process: everything that runs on behalf of one node or client.

A context variable says whose turn it is, so whatever a process starts (tasks, timers, callbacks)
belongs to it without its knowledge, and stops with it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from enum import Enum


class State(Enum):
    RUNNING = "running"
    PAUSED = "paused"
    """As by SIGSTOP: nothing runs, what becomes due waits."""
    DEAD = "dead"
    """As by SIGKILL: nothing runs ever again, no ``finally`` either."""


class Process:
    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State.RUNNING
        self._waiting: deque[asyncio.Handle] = deque()
        self._on_death: list[Callable[[], None]] = []
        self._context = Context()
        self._context.run(PROCESS.set, self)

    def context(self) -> Context:
        """For tasks and callbacks that belong to this process and are started elsewhere."""
        return self._context.copy()

    @property
    def alive(self) -> bool:
        return self.state is not State.DEAD

    def hold(self, handle: asyncio.Handle) -> None:
        """Keep what may not run now. What a dead process left is kept from the destructors."""
        self._waiting.append(handle)

    def pause(self) -> None:
        if self.state is State.RUNNING:
            self.state = State.PAUSED

    def resume(self) -> list[asyncio.Handle]:
        """Run again; what became due meanwhile, in order, is the caller's to schedule."""
        if self.state is not State.PAUSED:
            return []
        self.state = State.RUNNING
        handles = list(self._waiting)
        self._waiting.clear()
        return handles

    def kill(self) -> None:
        """Stop at once and tell those who asked; idempotent."""
        if self.state is State.DEAD:
            return
        self.state = State.DEAD
        for notify in self._on_death:
            notify()

    def on_death(self, notify: Callable[[], None]) -> None:
        self._on_death.append(notify)


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
"""The process that runs now; None for the simulation itself."""
