"""Virtual time: exact, in order, and nothing is swallowed."""

import asyncio
from collections.abc import Iterator

import pytest

from sim.loop import (
    Livelock,
    SimLoop,
    SimulationError,
    Stuck,
    UnhandledError,
    VirtualTimeout,
)
from sim.process import Process


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    loop = SimLoop(end_s=1000.0)
    yield loop
    loop.dispose()


def test_sleeping_takes_virtual_time_only(loop: SimLoop) -> None:
    loop.run_until_complete(asyncio.sleep(500))
    assert loop.time() == 500


def test_timers_for_the_same_moment_fire_in_the_order_they_were_set(loop: SimLoop) -> None:
    fired: list[int] = []
    for number in range(50):
        loop.call_at(7.0, fired.append, number)
    loop.run_until_complete(asyncio.sleep(8))
    assert fired == list(range(50))


def test_timeouts_queues_and_task_groups_work(loop: SimLoop) -> None:
    async def work() -> list[object]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        results: list[object] = []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 3)
        results.append(loop.time())
        async with asyncio.TaskGroup() as group:
            group.create_task(queue.put(5))
            taken = group.create_task(queue.get())
        results.append(taken.result())
        return results

    assert loop.run_until_complete(work()) == [3.0, 5]


def test_a_task_that_fails_unseen_ends_the_run(loop: SimLoop) -> None:
    async def fail() -> None:
        raise ValueError("nobody looks")

    loop.spawn(Process("p"), fail(), "work")
    with pytest.raises(UnhandledError, match="nobody looks"):
        loop.run_until_complete(asyncio.sleep(1))


def test_a_callback_that_fails_ends_the_run(loop: SimLoop) -> None:
    loop.call_later(1, int, "no number")
    with pytest.raises(UnhandledError, match="no number"):
        loop.run_until_complete(asyncio.sleep(2))


def test_waiting_for_nothing_is_noticed(loop: SimLoop) -> None:
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())


def test_a_run_that_takes_too_long_is_noticed(loop: SimLoop) -> None:
    with pytest.raises(VirtualTimeout):
        loop.run_until_complete(asyncio.sleep(1001))


def test_a_run_in_which_time_stands_still_is_noticed(loop: SimLoop) -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        loop.run_until_complete(spin())


def test_threads_are_refused(loop: SimLoop) -> None:
    with pytest.raises(SimulationError, match="Worker"):
        loop.run_until_complete(asyncio.to_thread(int))


def test_a_killed_process_never_runs_again_not_even_to_clean_up(loop: SimLoop) -> None:
    said: list[str] = []

    async def work() -> None:
        try:
            while True:
                await asyncio.sleep(1)
                said.append("alive")
        finally:
            said.append("cleaned up")

    process = Process("p")
    loop.spawn(process, work(), "work")
    loop.call_at(2.5, process.kill)
    loop.run_until_complete(asyncio.sleep(10))
    assert said == ["alive", "alive"]


def test_a_paused_process_goes_on_where_it_was(loop: SimLoop) -> None:
    times: list[float] = []

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            times.append(loop.time())

    process = Process("p")
    loop.spawn(process, work(), "work")
    loop.call_at(1.5, process.pause)
    loop.call_at(6.0, loop.resume, process)
    loop.run_until_complete(asyncio.sleep(10))
    assert times == [1.0, 6.0, 7.0]
