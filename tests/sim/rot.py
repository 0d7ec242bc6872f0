"""Rot: bits flip in what a node has synced; its scrubber finds them, and the replica starts over.
Or all of a group's directory is gone when the node comes back, or all that was in it.

The budget: one node at a time, until everything on it is whole again. So of every group a majority
has what was acknowledged, and votes.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from quorumlog.errors import Closed, Corrupt, LogFenced
from quorumlog.log.inspection.damage import Severity
from quorumlog.log.inspection.scrubber import Scrubber
from quorumlog.log.segment import DATA_START
from quorumlog.ports import Clock, Worker
from quorumlog.replication.catch_up.leaving import has_left
from quorumlog.replication.catch_up.starting_over import (
    MAX_SET_ASIDE,
    NOTE_NAME,
    has_replica,
)
from quorumlog.replication.group_list import GroupList, groups_in
from quorumlog.replication.host import GroupHost
from sim.disk import SimDisk
from sim.disk_model import Inode
from sim.trace import Trace

_SCRUB_PAUSE_S: Final = 0.3
_FAST: Final = 1 << 40

_LOSS_SHARE: Final = 0.3
"""Of the strikes, those that take a whole directory."""

_EMPTIED_SHARE: Final = 0.3
"""Of these, those that leave the directory itself."""


class Machine(Protocol):
    """A node, as this needs it."""

    disk: SimDisk
    was_rotten: bool
    host: GroupHost | None
    gone: bool

    @property
    def node_id(self) -> str: ...

    @property
    def up(self) -> bool: ...

    @property
    def ready(self) -> bool: ...

    def crash(self, *, power: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class _Flip:
    path: str
    inode: Inode


class Rot:
    def __init__(
        self,
        nodes: Sequence[Machine],
        directory: str,
        rng: random.Random,
        loss_rng: random.Random,
        trace: Trace,
    ) -> None:
        """``loss_rng`` says which of the strikes take a whole directory."""
        self._nodes = nodes
        self._directory = directory
        self._rng = rng
        self._loss_rng = loss_rng
        self._trace = trace
        self._victim: Machine | None = None
        self._flips: list[_Flip] = []
        self._count = 0

    def strike(self) -> None:
        """Flip a bit of some node if the budget allows it."""
        if not self.is_mended() or self._count == MAX_SET_ASIDE:
            return
        victim = self._rng.choice([node for node in self._nodes if not node.gone])
        if self._loss_rng.random() < _LOSS_SHARE:
            self._lose_group(victim)
            return
        places = self._places(victim.disk)
        if not places:
            return
        self._count += 1
        self._victim = victim
        victim.was_rotten = True
        path, end = self._rng.choice(places)
        position = self._rng.randrange(DATA_START, end)
        self._trace.add(f"rot on {victim.node_id}: {path} at byte {position}")
        victim.disk.flip_bit(path, position, self._rng.randrange(8))
        self._flips = [_Flip(path, victim.disk.inode(path))]

    def _lose_group(self, victim: Machine) -> None:
        """Kill the node; one of its groups is gone when it comes back."""
        disk = victim.disk
        there = groups_in(disk, self._directory)
        if not there:
            return
        self._count += 1
        self._victim = victim
        victim.was_rotten = True
        self._flips = []
        group = self._loss_rng.choice(there)
        if victim.up:
            victim.crash(power=False)
        self._trace.add(f"{victim.node_id} loses the directory of group {group}")
        disk.remove_directory(f"{self._directory}/{group}")
        if self._loss_rng.random() < _EMPTIED_SHARE:
            disk.make_directory(f"{self._directory}/{group}")
        disk.sync_directory(self._directory)

    def is_mended(self) -> bool:
        """Whether every flipped bit is gone, and every replica whole."""
        victim = self._victim
        if victim is None or victim.gone:
            return True
        host = victim.host
        if not victim.ready or host is None:
            return False
        disk = victim.disk
        is_there = [flip for flip in self._flips if self._stands(disk, flip)]
        listed = GroupList(disk, self._directory).groups()
        lost = [each for each in listed if not has_replica(disk, f"{self._directory}/{each}")]
        notes = [
            name
            for name in disk.list_directory(self._directory)
            if disk.exists(f"{self._directory}/{name}/{NOTE_NAME}")
            and name.isdecimal()
            and not has_left(disk, f"{self._directory}/{name}")
        ]
        failed = [each for each in host.replicas.values() if each.failure is not None]
        return not (is_there or lost or notes or failed)

    def _stands(self, disk: SimDisk, flip: _Flip) -> bool:
        return disk.exists(flip.path) and disk.inode(flip.path) is flip.inode

    def _places(self, disk: SimDisk) -> list[tuple[str, int]]:
        """Sealed segments, all of them synced, and where they end."""
        if not disk.exists(self._directory):
            return []
        places = []
        for group in disk.list_directory(self._directory):
            if not group.isdecimal():
                continue
            directory = f"{self._directory}/{group}"
            logs = [name for name in disk.list_directory(directory) if name.endswith(".log")]
            # The last one is not scrubbed: rot in it is found when the log is opened or read.
            for name in logs[:-1]:
                path = f"{directory}/{name}"
                inode = disk.inode(path)
                if not (inode.overwrites or inode.lost) and len(inode.data) > DATA_START:
                    places.append((path, len(inode.data)))
        return places


class _NeverStop:
    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:
        return False


async def scrub_forever(host: GroupHost, disk: SimDisk, clock: Clock, worker: Worker) -> None:
    """What ``quorumlog.node.scrubbing`` does on its thread, in virtual time."""
    while True:
        await asyncio.sleep(_SCRUB_PAUSE_S)
        for group in sorted(host.replicas):
            replica = host.replicas.get(group)
            if replica is None or replica.failure is not None:
                continue
            scrubber = Scrubber(
                replica.log,
                disk,
                clock,
                _NeverStop(),
                bytes_s=_FAST,
                on_finding=lambda finding: None,
            )
            try:
                while (checked := await worker.run(scrubber.check_next)) is not None:
                    lost = [each for each in checked.findings if each.severity is Severity.DAMAGE]
                    if lost and host.replicas.get(group) is replica:
                        worst = lost[0]
                        host.report_damage(
                            group, Corrupt(worst.file, worst.position, worst.expected, worst.found)
                        )
                        break
            except (Closed, LogFenced):
                continue
