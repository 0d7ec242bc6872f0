"""``quorumlog.open_async``: the embedded log for asyncio."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any

import pytest

import quorumlog
from quorumlog.embedded import EmbeddedLog, aio_opening
from quorumlog.embedded import open as open_log
from quorumlog.embedded.aio import AsyncLog, Workers
from quorumlog.embedded.options import Options
from quorumlog.embedded.room import Room
from quorumlog.errors import (
    Closed,
    ConfigError,
    DiskFull,
    InvalidArgument,
    LogFenced,
    LogLocked,
    OffsetOutOfRange,
)
from quorumlog.log.cleaning.compaction_plan import Compaction
from quorumlog.log.config import LogConfig
from sim.disk import SimDisk
from stored.batches import FixedClock

DIRECTORY = "data"


class StepWorker:
    """Does what it is given when it is told to, or at once while ``is_free``."""

    def __init__(self, *, is_free: bool = True) -> None:
        self.is_free = is_free
        self.waiting: list[tuple[Callable[[], Any], Future[Any]]] = []
        self.runs = 0

    def run(self, function: Callable[[], Any]) -> Any:
        outcome: Future[Any] = Future()
        self.waiting.append((function, outcome))
        if self.is_free:
            self.step()
        return asyncio.wrap_future(outcome)

    def step(self) -> None:
        """Do the oldest piece of work."""
        function, outcome = self.waiting.pop(0)
        if not outcome.set_running_or_notify_cancel():
            return
        self.runs += 1
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)


class Bench:
    """An asynchronous log on a simulated disk, its threads under control."""

    def __init__(self, max_waiting_bytes: int = 10**6, options: Options | None = None) -> None:
        self.disk = SimDisk(Random(1))
        self.flush = StepWorker()
        self.read = StepWorker()
        config = LogConfig(segment_bytes=2048, index_interval_bytes=256, tail_cache_bytes=300)
        embedded = EmbeddedLog(self.disk, DIRECTORY, config, FixedClock(), options)
        self.compress = StepWorker()
        workers = Workers(self.flush, self.read, StepWorker(), self.compress)
        self.log = AsyncLog(embedded, workers, max_waiting_bytes)


async def turns(number: int = 10) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def values(log: AsyncLog, start: int | None = None) -> list[bytes | None]:
    return [record.value async for record in log.read(start)]


async def test_records_come_back_after_a_restart(tmp_path: Path) -> None:
    async with quorumlog.open_async(tmp_path / "log", segment_bytes=1024) as log:
        assert await log.append(b"value", key=b"k", headers={"trace": b"1"}) == 0
        assert await log.append_batch([b"plain", (b"key", b"paired")]) == 1
        offsets = await asyncio.gather(*(log.append(b"%d" % n * 50) for n in range(50)))
        assert offsets == list(range(3, 53))
    log = await quorumlog.open_async(tmp_path / "log")
    records = [record async for record in log.read()]
    assert [record.offset for record in records] == list(range(53))
    assert records[0].headers == {"trace": b"1"}
    assert [r.value for r in records[3:]] == [b"%d" % n * 50 for n in range(50)]
    assert [r async for r in log.read(7, end=30, reverse=True)] == records[7:30][::-1]
    assert await log.offset_for_time(0) == 0
    await log.close()


async def test_appends_of_one_turn_share_a_flush() -> None:
    bench = Bench()
    before = bench.disk.calls["sync"]
    offsets = await asyncio.gather(*(bench.log.append(b"x") for _ in range(15)))
    assert offsets == list(range(15))
    assert (bench.flush.runs, bench.disk.calls["sync"]) == (1, before + 1)


async def test_appends_that_come_while_the_disk_is_busy_share_the_next_flush() -> None:
    bench = Bench()
    bench.flush.is_free = False
    first = asyncio.create_task(bench.log.append(b"first"))
    await turns()
    # The flush is on its way: it takes what is there when it begins.
    flush, outcome = bench.flush.waiting.pop()
    flush()
    others = [asyncio.create_task(bench.log.append(b"%d" % n)) for n in range(20)]
    await turns()
    assert not first.done()
    assert bench.log.end_offset == 1
    outcome.set_result(None)
    await turns()
    assert first.result() == 0
    assert not any(other.done() for other in others)
    bench.flush.step()
    assert await asyncio.gather(*others) == list(range(1, 21))
    assert len(bench.flush.waiting) == 0


async def test_the_loop_goes_on_while_the_disk_is_busy() -> None:
    bench = Bench()
    bench.flush.is_free = bench.read.is_free = False
    append = asyncio.create_task(bench.log.append(b"x"))
    reader = asyncio.create_task(values(bench.log))
    await turns()
    assert not append.done()
    assert reader.done()
    bench.flush.step()
    assert await append == 0
    reader = asyncio.create_task(values(bench.log))
    await turns()
    assert not reader.done()
    while bench.read.waiting:
        bench.read.step()
        await turns()
    assert await reader == [b"x"]


async def test_appends_wait_for_room_and_get_their_offsets_in_order() -> None:
    bench = Bench(max_waiting_bytes=1000)
    bench.flush.is_free = False
    appends = [asyncio.create_task(bench.log.append(b"%d" % n * 150)) for n in range(10)]
    await turns()
    assert bench.log._room.used_bytes <= 1000
    assert 1 <= bench.log._log.commits.waiting < 10
    steps = 0
    while bench.flush.waiting:
        bench.flush.step()
        steps += 1
        await turns()
        assert bench.log._room.used_bytes <= 1000
    assert steps > 1
    assert await asyncio.gather(*appends) == list(range(10))
    assert read_all(bench) == [b"%d" % n * 150 for n in range(10)]
    assert bench.log._room.used_bytes == 0


def read_all(bench: Bench) -> list[bytes | None]:
    return [record.value for record in bench.log._log.read()]


async def test_an_append_over_the_limit_has_room_when_it_is_alone() -> None:
    bench = Bench(max_waiting_bytes=4096)
    assert await asyncio.gather(*(bench.log.append(b"x" * 9000) for _ in range(3))) == [0, 1, 2]


async def test_a_cancelled_append_takes_nothing_with_it() -> None:
    bench = Bench(max_waiting_bytes=1000)
    bench.flush.is_free = False
    appends = [asyncio.create_task(bench.log.append(b"%d" % n * 150)) for n in range(9)]
    await turns()
    waiting = bench.log._log.commits.waiting
    # One that is in the log, one that waits for room.
    cancelled = [0, waiting + 1]
    for number in cancelled:
        appends[number].cancel()
    await turns()
    bench.flush.step()
    await turns()
    while bench.flush.waiting:
        bench.flush.step()
        await turns()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    read = read_all(bench)
    for number, outcome in enumerate(outcomes):
        if number in cancelled:
            assert isinstance(outcome, asyncio.CancelledError)
        else:
            assert isinstance(outcome, int)
            assert read[outcome] == b"%d" % number * 150
    # It was in the log when it was cancelled; the other one never got there.
    assert read[0] == b"0" * 150
    assert len(read) == 8
    assert bench.log._room.used_bytes == 0
    bench.flush.is_free = True
    assert await bench.log.append(b"after") == 8


async def test_an_append_that_is_cancelled_when_its_turn_has_come_leaves_its_room() -> None:
    bench = Bench(max_waiting_bytes=1000)
    bench.flush.is_free = False
    appends = [asyncio.create_task(bench.log.append(b"%d" % n * 150)) for n in range(9)]
    await turns()
    outside = list(bench.log._room._outside)
    bench.flush.step()
    while not outside[0][1].done():
        await asyncio.sleep(0)
    first = 9 - len(outside)
    assert appends[first].cancel()
    bench.flush.is_free = True
    await turns(50)
    while bench.flush.waiting:
        bench.flush.step()
        await turns()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert isinstance(outcomes[first], asyncio.CancelledError)
    assert [each for each in outcomes if isinstance(each, int)] == list(range(8))
    assert bench.log._room.used_bytes == 0


async def test_followers_wait_on_one_event_and_all_get_everything() -> None:
    bench = Bench()
    await bench.log.append(b"before")

    async def follow() -> list[bytes | None]:
        return [record.value async for record in bench.log.read(follow=True)]

    followers = [asyncio.create_task(follow()) for _ in range(50)]
    await turns()
    reads = bench.read.runs
    await turns(50)
    assert bench.read.runs == reads
    for number in range(5):
        await bench.log.append(b"%d" % number)
        await turns()
    await bench.log.close()
    expected = [b"before", b"0", b"1", b"2", b"3", b"4"]
    assert await asyncio.gather(*followers) == [expected] * 50


async def test_a_follower_sees_a_record_only_when_it_is_durable() -> None:
    bench = Bench()
    seen: list[bytes | None] = []

    async def follow() -> None:
        async for record in bench.log.read(follow=True):
            seen.append(record.value)

    follower = asyncio.create_task(follow())
    bench.flush.is_free = False
    append = asyncio.create_task(bench.log.append(b"x"))
    await turns()
    assert seen == []
    bench.flush.step()
    await append
    await turns()
    assert seen == [b"x"]
    bench.flush.is_free = True
    await bench.log.close()
    await follower


async def test_a_cancelled_reader_lets_its_files_go_and_harms_nobody() -> None:
    bench = Bench()
    for number in range(60):
        await bench.log.append(b"%d" % number * 40)
    bench.read.is_free = False
    reader = asyncio.create_task(values(bench.log))
    await turns()
    reader.cancel()
    await turns()
    assert reader.cancelled()
    while bench.read.waiting:
        bench.read.step()
    bench.read.is_free = True
    assert len(await values(bench.log)) == 60
    await bench.log.close()


async def test_a_full_disk_takes_the_appends_back_and_the_log_goes_on() -> None:
    bench = Bench()
    await bench.log.append(b"before")
    bench.disk.capacity_bytes = 0
    outcomes = await asyncio.gather(
        *(bench.log.append(b"x" * 100_000) for _ in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [DiskFull] * 3
    bench.disk.capacity_bytes = None
    assert await bench.log.append(b"after") == 1
    assert await values(bench.log) == [b"before", b"after"]


async def test_after_a_failed_fdatasync_every_waiting_append_is_told() -> None:
    bench = Bench()
    await bench.log.append(b"before")
    bench.disk.fail_at(2)
    outcomes = await asyncio.gather(
        *(bench.log.append(b"x") for _ in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [LogFenced] * 3
    with pytest.raises(LogFenced):
        await bench.log.append(b"y")
    assert bench.log._room.used_bytes == 0
    await bench.log.close()


async def test_close_writes_what_waits_and_refuses_what_has_no_room() -> None:
    bench = Bench(max_waiting_bytes=1000)
    bench.flush.is_free = False
    appends = [asyncio.create_task(bench.log.append(b"%d" % n * 150)) for n in range(9)]
    await turns()
    inside = bench.log._log.commits.waiting
    closing = [asyncio.create_task(bench.log.close()) for _ in range(2)]
    await turns()
    closing[0].cancel()
    while bench.flush.waiting:
        bench.flush.step()
        await turns()
    await closing[1]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert outcomes[:inside] == list(range(inside))
    assert [type(outcome) for outcome in outcomes[inside:]] == [Closed] * (9 - inside)
    for use in (lambda: bench.log.append(b"x"), bench.log.flush, bench.log.housekeep):
        with pytest.raises(Closed):
            await use()
    with pytest.raises(Closed):
        bench.log.read()
    bench.disk.crash()
    again = EmbeddedLog(bench.disk, DIRECTORY, LogConfig(), FixedClock())
    assert again.end_offset == inside


async def test_bad_input_is_refused_and_changes_nothing() -> None:
    bench = Bench()
    with pytest.raises(InvalidArgument):
        await bench.log.append("text")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        await bench.log.append_batch([])
    with pytest.raises(OffsetOutOfRange):
        bench.log.read(1)
    with pytest.raises(InvalidArgument, match="not both"):
        bench.log.read(follow=True, reverse=True)
    with pytest.raises(ConfigError, match="max_waiting_bytes"):
        quorumlog.open_async("never made", max_waiting_bytes=1)
    assert await bench.log.append(b"good") == 0


async def test_deletion_and_compaction_from_a_task() -> None:
    bench = Bench(options=Options(compaction=Compaction(min_dirty_ratio=0.0)))
    for number in range(90):
        await bench.log.append(b"%d" % number * 30, key=b"%d" % (number % 3))
    assert (await bench.log.housekeep()).errors == ()
    kept = [record.offset async for record in bench.log.read()]
    assert len(kept) < 60
    await bench.log.delete_before(85)
    assert bench.log.start_offset == 85
    assert [record.offset async for record in bench.log.read(reverse=True)] == [
        offset for offset in reversed(kept) if offset >= 85
    ]
    with pytest.raises(OffsetOutOfRange):
        await bench.log.delete_before(91)
    await bench.log.close()


async def test_compressing_holds_up_neither_the_loop_nor_the_order_of_appends() -> None:
    bench = Bench(options=Options(compression="zstd"))
    bench.compress.is_free = False
    large = [b"%d" % number * 9000 for number in range(5)]
    appends = [
        asyncio.create_task(bench.log.append(value))
        for pair in zip(large, [b"small"] * 5, strict=True)
        for value in pair
    ]
    await turns()
    assert (bench.log._log.commits.waiting, bench.log.end_offset) == (0, 0)
    # One that is compressed now, one that waits for its turn.
    appends[0].cancel()
    appends[4].cancel()
    await turns()
    while bench.compress.waiting:
        bench.compress.step()
        await turns()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [each for each in outcomes if isinstance(each, int)] == list(range(8))
    expected = [b"small", large[1], b"small", b"small", large[3], b"small", large[4], b"small"]
    assert await values(bench.log) == expected
    assert bench.disk.content(f"{DIRECTORY}/{1:020d}.log").count(b"4" * 9000) == 0
    await bench.log.close()


async def test_closing_refuses_what_is_still_being_compressed() -> None:
    bench = Bench(options=Options(compression="zstd"))
    bench.compress.is_free = False
    appends = [asyncio.create_task(bench.log.append(b"x" * 9000)) for _ in range(3)]
    await turns()
    await bench.log.close()
    while bench.compress.waiting:
        bench.compress.step()
        await turns()
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [type(each) for each in outcomes] == [Closed] * 3
    assert bench.compress.runs == 1
    assert bench.log._room.used_bytes == 0


async def test_a_follower_hears_that_the_log_is_fenced() -> None:
    uses: list[Callable[[AsyncLog], Any]] = [
        lambda log: log.append(b"y"),
        lambda log: log.delete_before(1),
        # As the thread does that syncs when an interval is over.
        lambda log: asyncio.to_thread(log._log.append, b"y"),
    ]
    for use in uses:
        bench = Bench()
        await bench.log.append(b"x")
        follower = asyncio.create_task(_follow(bench.log))
        await turns()
        bench.disk.fail_at(1)
        with pytest.raises(LogFenced):
            await use(bench.log)
        async with asyncio.timeout(10):
            with pytest.raises(LogFenced):
                await follower
        await bench.log.close()


async def _follow(log: AsyncLog) -> list[bytes | None]:
    return [record.value async for record in log.read(follow=True)]


async def test_a_log_that_is_closed_cannot_be_entered_again(tmp_path: Path) -> None:
    async with quorumlog.open_async(tmp_path / "log") as log, log:
        assert log.recovery.cut_bytes == 0
        assert log.last_housekeeping is None
        assert log.housekeeping_failure is None
    with pytest.raises(Closed):
        await log.__aenter__()


async def test_a_cancelled_opening_leaves_the_directory_free(tmp_path: Path) -> None:
    opening = asyncio.create_task(_opened(tmp_path / "log"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(10):
        while True:
            try:
                async with quorumlog.open_async(tmp_path / "log") as log:
                    assert await log.append(b"x") == 0
                break
            except LogLocked:
                await asyncio.sleep(0.001)


async def _opened(path: Path) -> AsyncLog:
    return await quorumlog.open_async(path)


async def test_an_append_that_gives_up_its_place_lets_smaller_ones_behind_it_in() -> None:
    room = Room(100)
    await room.enter(60)
    large = asyncio.create_task(room.enter(90))
    small = asyncio.create_task(room.enter(40))
    await turns()
    assert not small.done()
    large.cancel()
    await turns()
    assert small.done()
    assert (room.used_bytes, room.waiting) == (100, 0)


async def test_an_opening_that_is_cancelled_when_it_has_begun_closes_what_it_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()
    close = EmbeddedLog.close

    def slow(*args: Any, **settings: Any) -> EmbeddedLog:
        begun.set()
        assert go_on.wait(10)
        return open_log(*args, **settings)

    def watched(log: EmbeddedLog) -> None:
        close(log)
        closed.set()

    monkeypatch.setattr(aio_opening, "open_log", slow)
    monkeypatch.setattr(EmbeddedLog, "close", watched)
    opening = asyncio.create_task(_opened(tmp_path / "log"))
    assert await asyncio.to_thread(begun.wait, 10)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    assert await asyncio.to_thread(closed.wait, 10)
    open_log(tmp_path / "log").close()
