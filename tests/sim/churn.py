"""Nodes that come and go for good, as by ``cluster remove``; replicas move meanwhile, and faults.

The budget: at most one node is dead for good and not yet removed, and only where every partition
has three replicas and no disk rots: two others have what it had.
"""

import asyncio
import random
from typing import Final

from quorumlog.broker.topics import Standing
from quorumlog.client.client import AsyncClient
from quorumlog.errors import QuorumlogError
from quorumlog.types import NodeId
from sim.loop import SimLoop
from sim.machines import Machines
from sim.process import Process
from sim.rpc import RpcFabric
from sim.trace import Trace

MAX_JOINED: Final = 3
MAX_REMOVED: Final = 3

_MIN_NODES: Final = 4
"""With fewer, nobody goes before somebody has come: partitions have three replicas."""

_CALL_S: Final = 4.0
_LOOK_S: Final = 0.3


class Churn:
    """Adds nodes, and has nodes removed that are up or have just died for good.

    Every removal that was ordered is seen through: an order whose outcome is not known, or that was
    taken back by an operator, is given again.
    """

    def __init__(
        self,
        loop: SimLoop,
        fabric: RpcFabric,
        machines: Machines,
        *,
        may_bury: bool,
        pace_s: float,
        rng: random.Random,
        trace: Trace,
    ) -> None:
        self.joined: list[NodeId] = []
        self.removed: list[NodeId] = []
        """Those whose removal was ordered, the last one perhaps not done."""
        self._loop = loop
        self._fabric = fabric
        self._machines = machines
        self._may_bury = may_bury
        self._pace_s = pace_s
        self._rng = rng
        self._trace = trace
        self._replacement: NodeId | None = None
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def leaving(self) -> NodeId | None:
        """Who is being removed."""
        last = self.removed[-1] if self.removed else None
        return None if last is None or self._machines.metadata.is_removed(last) else last

    def start(self) -> None:
        process = Process("churn")
        self._task = self._loop.spawn(process, self._work(process), "churn")

    async def finish(self) -> None:
        """Return when every removal is done."""
        self._stopping = True
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _work(self, process: Process) -> None:
        while not self._stopping:
            await asyncio.sleep(self._rng.uniform(0, self._pace_s))
            if self.leaving is None:
                self._begin()
            if self.leaving is not None and not self._is_leaving():
                await self._order(process)
        while self.leaving is not None:
            if not self._is_leaving():
                await self._order(process)
            await asyncio.sleep(_LOOK_S)

    def _begin(self) -> None:
        """Let a node come, or choose one that has to go; sometimes one takes another's place."""
        rng = self._rng
        present = [node.node_id for node in self._machines.members]
        if len(self.joined) < MAX_JOINED and (len(present) < _MIN_NODES or rng.random() < 0.4):
            self.joined.append(self._machines.join())
        elif len(self.removed) < MAX_REMOVED and len(present) >= _MIN_NODES:
            # Whoever dies before it was registered is nobody: its claim finds no answer.
            registered = [each for each in present if self._machines.metadata.node(each)]
            victim = rng.choice(registered)
            self._replacement = None
            if self._may_bury and rng.random() < 0.5 and self._machines.may_bury(victim):
                self._machines.bury(victim)
                if len(self.joined) < MAX_JOINED and rng.random() < 0.7:
                    self._replacement = self._machines.join()
                    self.joined.append(self._replacement)
            elif rng.random() < 0.3:
                self._replacement = rng.choice([each for each in present if each != victim])
            self.removed.append(victim)

    def _is_leaving(self) -> bool:
        leaving = self.leaving
        known = self._machines.metadata.node(leaving) if leaving is not None else None
        return known is not None and known.standing is Standing.LEAVING

    async def _order(self, process: Process) -> None:
        """``cluster remove``, which may be refused: whoever is to take over may not be known yet,
        or be drained. Then the next time anybody may."""
        leaving, replacement = self.removed[-1], self._replacement
        addresses = list(self._machines.servers)
        self._rng.shuffle(addresses)
        client = AsyncClient(
            *addresses,
            connector=self._fabric.client(process),
            request_timeout_s=_CALL_S,
            connect_timeout_s=_CALL_S,
            rng=random.Random(self._rng.random()),
        )
        async with client:
            try:
                moving = await client.remove_node(leaving, replacement)
            except QuorumlogError as error:
                self._trace.add(f"removal of {leaving} for {replacement}: {error}")
                if self._rng.random() < 0.3:
                    self._replacement = None
            else:
                self._trace.add(f"removal of {leaving} for {replacement} moves {moving}")
