"""What was promised is on disk first, wherever that is done; a full disk keeps it back."""

import asyncio
import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TypeVar, cast

import pytest

from quorumlog.errors import DiskFull, LogFenced
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.flusher import Flushed
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.log import Log, LogConfig
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.messages import VoteResponse
from quorumlog.replication.flush_place import FlushPlace
from quorumlog.replication.persister import Outgoing, Persister
from quorumlog.types import NodeId, Term
from sim.clock import SimClock
from sim.disk import SimDisk
from stored.batches import FixedClock
from support.replica_cluster import simulated

T = TypeVar("T")
A = NodeId("a")


class Inline:
    async def run(self, function: Callable[[], T]) -> T:
        return function()


@dataclass
class Disk:
    """The file of term and vote, and a log without batches."""

    is_full: bool = False
    saved: list[HardState] = field(default_factory=list)
    dirty: bool = False
    sync_due_s: float | None = None

    def save(self, state: HardState) -> None:
        if self.is_full:
            raise DiskFull("no space")
        self.saved.append(state)


@dataclass
class Owner:
    disk: Disk
    left: list[tuple[Outgoing, HardState | None]] = field(default_factory=list)
    """Each message with what was saved last when it left."""
    idle: int = 0

    def durable(self, messages: Sequence[Outgoing], flushed: Flushed | None) -> None:
        saved = self.disk.saved[-1] if self.disk.saved else None
        self.left += [(message, saved) for message in messages]

    def disk_full(self, error: DiskFull) -> None:
        pass

    def disk_idle(self) -> None:
        self.idle += 1

    def disk_failed(self, error: Exception) -> None:
        raise error


def vote(term: int) -> Outgoing:
    return A, VoteResponse(Term(term), True)


def state(term: int) -> HardState:
    return HardState(Term(term), A)


def make() -> tuple[Persister, Disk, Owner]:
    disk = Disk()
    owner = Owner(disk)
    persister = Persister(
        log=cast(Log, disk),
        hard_state_file=cast(HardStateFile, disk),
        worker=Inline(),
        place=FlushPlace(0.0),
        config=ReplicationConfig(),
        clock=SimClock(asyncio.get_running_loop()),
        owner=owner,
    )
    return persister, disk, owner


async def retried(persister: Persister) -> None:
    await asyncio.sleep(2 * ReplicationConfig().disk_full_retry_s)
    persister.start()
    await asyncio.sleep(0.01)


@simulated
async def test_a_vote_that_a_full_disk_refused_leaves_once_it_is_saved() -> None:
    persister, disk, owner = make()
    disk.is_full = True
    persister.keep(state(2), [vote(2)])
    persister.start()
    await asyncio.sleep(0.01)
    assert (owner.left, persister.full is None) == ([], False)
    disk.is_full = False
    await retried(persister)
    assert disk.saved == [state(2)]
    assert owner.left == [(vote(2), state(2))]


@simulated
async def test_what_came_while_the_disk_was_full_is_saved_instead_and_follows() -> None:
    persister, disk, owner = make()
    disk.is_full = True
    persister.keep(state(2), [vote(2)])
    persister.start()
    persister.keep(state(3), [vote(3)])
    await asyncio.sleep(0.01)
    disk.is_full = False
    await retried(persister)
    assert disk.saved == [state(3)]
    assert owner.left == [(vote(2), state(3)), (vote(3), state(3))]


async def last_index_after_close(*, usable: bool) -> int:
    """Of a log whose replica closes while a batch waits for a term that the disk refuses."""
    disk = SimDisk(Random(1))
    disk.make_directory("data")
    log = Log.open(disk, "data", LogConfig(), FixedClock())
    log.append([Draft.of(b"", kind=Kind.NOOP).stamp(1, 1, 0, 0)])
    persister = Persister(
        log=log,
        hard_state_file=HardStateFile(disk, "data/hard-state"),
        worker=Inline(),
        place=FlushPlace(0.0),
        config=ReplicationConfig(),
        clock=SimClock(asyncio.get_running_loop()),
        owner=Owner(Disk()),
    )
    persister.keep(state(1), ())
    disk.fail_at(1)
    with suppress(OSError):
        await persister.close(usable=usable)
    disk.kill()
    return Log.open(disk, "data", LogConfig(), FixedClock()).last_index


@simulated
async def test_no_batch_gets_to_the_disk_before_its_term() -> None:
    """A log without a hard state beside it is one whose votes are forgotten."""
    assert await last_index_after_close(usable=True) == 0
    assert await last_index_after_close(usable=False) == 0


class Hands:
    """A worker that begins nothing by itself; ``given`` is what it was given."""

    def __init__(self) -> None:
        self.given: list[Callable[[], object]] = []

    def run(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.given.append(lambda: done.set_result(function()))
        return done

    async def work(self) -> None:
        for function in self.given:
            function()
        self.given.clear()
        await asyncio.sleep(0)


@dataclass
class Steps:
    """What became durable, and when of what: the owner of a persister with a real log."""

    flushed: list[int] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)
    full: list[DiskFull] = field(default_factory=list)

    def durable(self, messages: Sequence[Outgoing], flushed: Flushed | None) -> None:
        if flushed is not None:
            self.flushed.append(flushed.last_index)

    def disk_full(self, error: DiskFull) -> None:
        self.full.append(error)

    def disk_idle(self) -> None:
        pass

    def disk_failed(self, error: Exception) -> None:
        self.failed.append(error)


class Quick:
    """A persister whose disk is known to be quick, and what it works with."""

    def __init__(self, limit_s: float = 0.001, log_config: LogConfig | None = None) -> None:
        self.disk = SimDisk(Random(1))
        self.disk.make_directory("data")
        clock = SimClock(asyncio.get_running_loop())
        self.log = Log.open(self.disk, "data", log_config or LogConfig(), clock)
        self.worker, self.owner = Hands(), Steps()
        self.place = FlushPlace(limit_s)
        self.place.given_to_worker()
        self.place.done_on_worker(0.0)
        self.persister = Persister(
            log=self.log,
            hard_state_file=HardStateFile(self.disk, "data/hard-state"),
            worker=self.worker,
            place=self.place,
            config=ReplicationConfig(),
            clock=clock,
            owner=self.owner,
        )

    def append(self, size_bytes: int = 0) -> None:
        draft = Draft.of(bytes(size_bytes), kind=Kind.NOOP)
        log = self.log
        log.append([draft.stamp(log.next_index, 1, log.end_offset, 0)])


@simulated
async def test_one_small_batch_is_flushed_in_the_loop_once_what_was_sent_has_left() -> None:
    quick = Quick()
    quick.append()
    quick.persister.start()
    assert (quick.owner.flushed, quick.worker.given) == ([], [])
    await asyncio.sleep(0)
    assert (quick.owner.flushed, quick.worker.given) == ([1], [])
    quick.disk.crash()
    assert Log.open(quick.disk, "data", LogConfig(), FixedClock()).last_index == 1


@pytest.mark.parametrize("case", ["two batches", "a large one", "a term", "a slow disk"])
def test_everything_else_is_flushed_on_the_worker(case: str) -> None:
    simulated(partial(flush_on_the_worker, case))()


async def flush_on_the_worker(case: str) -> None:
    quick = Quick(limit_s=0.0 if case == "a slow disk" else 0.001)
    quick.append(size_bytes=64 * 1024 if case == "a large one" else 0)
    if case == "two batches":
        quick.append()
    if case == "a term":
        quick.persister.keep(state(1), ())
    quick.persister.start()
    await asyncio.sleep(0)
    assert (quick.owner.flushed, len(quick.worker.given)) == ([], 1)
    await quick.worker.work()
    assert quick.owner.flushed == [quick.log.last_index]


@simulated
async def test_the_loop_writes_between_interval_syncs_and_the_worker_syncs_what_it_wrote() -> None:
    quick = Quick(log_config=LogConfig(fsync="interval", fsync_interval_s=1.0))
    for expected in ([1], [1, 2]):
        quick.append()
        quick.persister.start()
        await asyncio.sleep(0)
        assert (quick.owner.flushed, quick.worker.given) == (expected, [])
    await asyncio.sleep(1.0)
    quick.append()
    quick.persister.start()
    await asyncio.sleep(0)
    assert (quick.owner.flushed, len(quick.worker.given)) == ([1, 2], 1)
    await quick.worker.work()
    assert quick.owner.flushed == [1, 2, 3]


@simulated
async def test_what_comes_before_the_loop_flushes_sends_it_all_to_the_worker() -> None:
    quick = Quick()
    quick.append()
    quick.persister.start()
    quick.append()
    quick.persister.start()
    await asyncio.sleep(0)
    assert (quick.owner.flushed, len(quick.worker.given)) == ([], 1)
    await quick.worker.work()
    assert quick.owner.flushed == [2]


@simulated
async def test_an_error_of_the_disk_in_the_loop_is_one_of_the_replica() -> None:
    quick = Quick()
    quick.append()
    quick.disk.fail_at(1)
    quick.persister.start()
    await asyncio.sleep(0)
    assert quick.owner.flushed == []
    assert [type(error) for error in quick.owner.failed] == [LogFenced]


@simulated
async def test_a_disk_that_is_full_in_the_loop_keeps_back_what_waited_for_it() -> None:
    quick = Quick()
    quick.append()
    quick.persister.keep(None, [vote(1)])
    quick.disk.fail_at(1, errno.ENOSPC)
    quick.persister.start()
    await asyncio.sleep(0)
    assert (quick.owner.flushed, len(quick.owner.full)) == ([], 1)
    assert quick.persister.full is quick.owner.full[0]


@simulated
async def test_a_replica_that_closes_first_flushes_once() -> None:
    quick = Quick()
    quick.append()
    closing = asyncio.create_task(quick.persister.close(usable=True))
    quick.persister.start()
    await asyncio.sleep(0)
    await quick.worker.work()
    await closing
    assert (quick.owner.flushed, quick.owner.failed) == ([], [])
    assert Log.open(quick.disk, "data", LogConfig(), FixedClock()).last_index == 1
