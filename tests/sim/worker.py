"""Blocking work in virtual time: it takes as long as the seed says; a crash may cut it short."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sim.process import Process

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkerSpeed:
    """Seconds a piece of work takes; ``slow_chance`` of them take up to ``slow_s``."""

    shortest_s: float = 0.0002
    longest_s: float = 0.002
    slow_chance: float = 0.0
    slow_s: float = 0.2


class SimWorker:
    """A ``Worker`` whose functions run in one piece, at a moment within their duration.

    What the caller does before that moment is seen by the function, as by a thread that starts
    late; what the function did is on the disk before the caller hears of it, as with a thread
    whose result is still under way. ``cut_short`` is for the moment of a crash; ``begins`` hears of
    every function before it runs.
    """

    def __init__(
        self,
        process: Process,
        rng: random.Random,
        speed: WorkerSpeed,
        begins: Callable[[Callable[[], object]], None] = lambda function: None,
    ) -> None:
        self._process = process
        self._rng = rng
        self.speed = speed
        self._begins = begins
        self._unfinished: dict[int, Callable[[], Any]] = {}
        self._count = 0

    def run(self, function: Callable[[], T]) -> Awaitable[T]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        speed, rng = self.speed, self._rng
        duration_s = rng.uniform(speed.shortest_s, speed.longest_s)
        if speed.slow_chance and rng.random() < speed.slow_chance:
            duration_s = rng.uniform(speed.longest_s, speed.slow_s)
        effect_s = duration_s * rng.random()
        self._count += 1
        number = self._count
        self._unfinished[number] = function

        def take_effect() -> None:
            del self._unfinished[number]
            try:
                result = function()
            except Exception as error:
                loop.call_later(duration_s - effect_s, _fail, done, error)
            else:
                loop.call_later(duration_s - effect_s, _succeed, done, result)

        loop.call_later(effect_s, take_effect)
        self._begins(function)
        return done

    def cut_short(self, limit: Callable[[Callable[[], Any]], None]) -> None:
        """Give every function that has not run to ``limit``, which may run a part of it."""
        unfinished, self._unfinished = self._unfinished, {}
        for function in unfinished.values():
            limit(function)


def _succeed(done: "asyncio.Future[Any]", result: object) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: "asyncio.Future[Any]", error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
