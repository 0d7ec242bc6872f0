"""A node looks for rot in all of its logs, at one rate, and never waits for it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from random import Random
from threading import Event
from typing import Any

import pytest

import quorumlog
from quorumlog.errors import Corrupt
from quorumlog.log.config import LogConfig
from quorumlog.log.inspection.scrubber import Scrubber
from quorumlog.log.log import Log
from quorumlog.log.segment import DATA_START
from quorumlog.node import scrubbing as scrubbing_module
from quorumlog.node.config import NodeConfig
from quorumlog.node.node import Node
from quorumlog.node.scrubbing import Scrubbing
from quorumlog.ports import File
from quorumlog.types import GroupId
from sim.disk import SimDisk
from stored.batches import FixedClock, append
from support.events import logged

TIMEOUT_S = 60
FAST = 1024**3
MIB = 1024**2

_SMALL = LogConfig(segment_bytes=2048, index_interval_bytes=256, tail_cache_bytes=512)


class WatchedDisk(SimDisk):
    """``on_open`` sees the path of each file that is opened for reading, in that thread."""

    def __init__(self) -> None:
        super().__init__(Random(1))
        self.on_open: Callable[[str], None] = lambda path: None

    def open_readonly(self, path: str) -> File:
        self.on_open(path)
        return super().open_readonly(path)


class MovingStop(Event):
    """Who waits for it moves the clock instead."""

    def __init__(self, clock: FixedClock) -> None:
        super().__init__()
        self.clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self.clock.now_s += timeout or 0.0
        return self.is_set()


class Bench:
    """Groups of some segments each."""

    def __init__(self, groups: int = 3) -> None:
        self.disk = WatchedDisk()
        self.clock = FixedClock()
        self.logs = {GroupId(number): self.filled(f"{number}") for number in range(1, groups + 1)}

    def filled(self, directory: str) -> Log:
        log = Log.open(self.disk, directory, _SMALL, self.clock)
        append(log, 40, values=[b"x" * 200])
        log.advance_commit_floor(40)
        log.flush()
        return log

    def path(self, group: int, segment: int) -> str:
        return self.logs[GroupId(group)].segments()[segment].path

    async def opening_of(self, path: str) -> None:
        """Wait until the scrubber opens ``path`` once more."""
        opened = Event()
        self.disk.on_open = lambda each: opened.set() if each == path else None
        assert await asyncio.to_thread(opened.wait, TIMEOUT_S)

    def scrubbing(self, bytes_s: int = FAST, pause_s: float = 3600.0) -> Scrubbing:
        return Scrubbing(lambda: self.logs, self.disk, self.clock, bytes_s, pause_s)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def damage_a_sealed_segment(directory: Path) -> Path:
    """The first one of the only group that has any."""
    first, *behind = sorted(path for path in directory.rglob("*.log") if path.stat().st_size > MIB)
    assert {path.parent for path in behind} == {first.parent}
    with first.open("r+b") as file:
        file.seek(DATA_START + 1000)
        file.write(b"y")
    return first


async def next_of(events: "SimpleQueue[dict[str, Any]]") -> dict[str, Any]:
    return await asyncio.to_thread(events.get, timeout=TIMEOUT_S)


async def test_rot_in_any_group_is_reported_once_with_the_group(bench: Bench) -> None:
    damaged = [bench.path(3, 1), bench.path(1, 2)]
    for path in damaged:
        bench.disk.flip_bit(path, DATA_START + 90, 3)
    with logged("rot_found") as events:
        # Without a pause it goes round until it is closed.
        scrubbing = bench.scrubbing(pause_s=0.0)
        found = [await next_of(events) for _ in damaged]
        await bench.opening_of(bench.path(1, 0))
        await bench.opening_of(bench.path(3, -2))
        await scrubbing.close()
    assert [event["group"] for event in found] == [3, 1]
    assert [event["file"] for event in found] == damaged
    assert {event["level"] for event in found} == {"error"}
    assert events.empty()


async def test_a_group_that_is_closed_or_removed_in_its_round_holds_up_nothing(
    bench: Bench,
) -> None:
    bench.disk.flip_bit(bench.path(2, 3), DATA_START + 90, 3)
    second = bench.path(1, 1)

    def remove(path: str) -> None:
        if path == second and bench.disk.exists(path):
            # One is listed still, as while a host is about to remove it.
            bench.logs[GroupId(1)].close()
            bench.disk.remove_directory("1")
            bench.logs.pop(GroupId(3)).close()

    bench.disk.on_open = remove
    with logged("rot_found", "scrub_failed") as events:
        scrubbing = bench.scrubbing()
        event = await next_of(events)
        await scrubbing.close()
    assert (event["event"], event["group"]) == ("rot_found", 2)
    assert not bench.disk.exists(second)
    assert events.empty()


async def test_a_group_that_was_opened_again_is_read_again(bench: Bench) -> None:
    bench.disk.flip_bit(bench.path(1, 0), DATA_START + 90, 3)
    with logged("rot_found") as events:
        scrubbing = bench.scrubbing()
        first = await next_of(events)
        bench.logs[GroupId(1)].close()
        bench.logs[GroupId(1)] = Log.open(bench.disk, "1", _SMALL, bench.clock)
        assert await next_of(events) == first
        await scrubbing.close()


async def test_closing_does_not_wait_for_the_end_of_a_round(bench: Bench) -> None:
    # All of it would take a minute and more.
    scrubbing = bench.scrubbing(bytes_s=4096)
    await bench.opening_of(bench.path(1, 0))
    async with asyncio.timeout(TIMEOUT_S):
        await scrubbing.close()
        await scrubbing.close()


async def test_the_rate_is_that_of_all_groups_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each one reads in a round is too little to wait for: only together they have to."""
    bench = Bench(groups=10)
    monkeypatch.setattr(scrubbing_module, "Event", lambda: MovingStop(bench.clock))
    alone = Scrubber(bench.logs[GroupId(1)], bench.disk, bench.clock, Event(), bytes_s=FAST)
    while alone.check_next() is not None:
        pass
    last = bench.path(10, -2)
    scrubbing = bench.scrubbing(bytes_s=int(alone.bytes_read / 0.01))
    await bench.opening_of(last)
    await scrubbing.close()
    assert 0.04 < bench.clock.now_s < 0.11


async def test_off_means_that_nothing_is_read(bench: Bench) -> None:
    opened: list[str] = []
    bench.disk.on_open = opened.append
    scrubbing = bench.scrubbing(bytes_s=0)
    await asyncio.sleep(0)
    await scrubbing.close()
    assert opened == []


async def test_a_node_reports_rot_in_a_partition(tmp_path: Path) -> None:
    def config(scrub_bytes_s: int) -> NodeConfig:
        return NodeConfig(
            data_dir=str(tmp_path),
            listen="127.0.0.1:0",
            gossip="127.0.0.1:0",
            segment_bytes=8 * MIB,
            scrub_bytes_s=scrub_bytes_s,
        )

    async with Node(config(0)) as node, quorumlog.AsyncClient(node.address) as client:
        await client.create_topic("events", partitions=1)
        async with client.producer("events") as producer:
            await producer.send_many([b"x" * 500_000] * 20)
    damaged = damage_a_sealed_segment(tmp_path)
    with logged("rot_found") as events:
        async with Node(config(FAST)):
            event = await next_of(events)
    assert event["group"] == int(damaged.parent.name)
    assert event["file"] == str(damaged)


async def test_whoever_owns_the_logs_hears_of_what_a_log_has_lost(bench: Bench) -> None:
    bench.disk.flip_bit(bench.path(2, 3), DATA_START + 90, 3)
    heard: asyncio.Queue[tuple[GroupId, Corrupt]] = asyncio.Queue()
    scrubbing = Scrubbing(
        lambda: bench.logs,
        bench.disk,
        bench.clock,
        FAST,
        on_damage=lambda group, error: heard.put_nowait((group, error)),
    )
    group, error = await asyncio.wait_for(heard.get(), TIMEOUT_S)
    await scrubbing.close()
    assert group == 2
    assert error.file == bench.path(2, 3)
    assert heard.empty()
