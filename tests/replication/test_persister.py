"""A full disk keeps back what was promised: term, vote, and the messages that rely on them."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar, cast

from quorumlog.errors import DiskFull
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.flusher import Flushed
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.log import Log, LogConfig
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.messages import VoteResponse
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
