"""Three nodes of a replicated machine in virtual time; a machine that shows every mistake."""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from quorumlog.errors import OutcomeUnknown, Refused, Unavailable
from quorumlog.replicated.group_machine import GroupMachine
from quorumlog.replicated.leader_requests import LeaderRequests
from quorumlog.replicated.machine import Command
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.replica import Replica
from quorumlog.types import NodeId
from support.replica_cluster import Cluster

T = TypeVar("T")


class Ledger:
    """Keeps every command it applied; the result is how many there are. Refuses ``no``."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def apply(self, command: Command) -> bytes:
        line = command.body.decode()
        if line == "no":
            raise Refused("no, always")
        self.lines.append(line)
        return str(len(self.lines)).encode()

    def snapshot(self) -> bytes:
        return json.dumps(self.lines).encode()

    def restore(self, snapshot: bytes) -> None:
        self.lines = json.loads(snapshot)


class LossyCalls:
    """Requests between nodes: they take time, and they and their answers may be lost."""

    def __init__(self, group: "VirtualGroup", loss: float, rng: random.Random) -> None:
        self._group = group
        self._loss = loss
        self._rng = rng

    async def propose(self, peer: NodeId, command: bytes) -> bytes:
        await asyncio.sleep(self._rng.uniform(0.0002, 0.002))
        if self._rng.random() < self._loss:
            raise Unavailable(f"{peer} cannot be reached")
        try:
            answer = await self._group.run_on(peer, lambda requests: requests.answer(command))
        except TimeoutError:
            raise OutcomeUnknown("the command was not committed in time") from None
        if self._rng.random() < self._loss:
            raise OutcomeUnknown("the connection broke")
        return answer


class VirtualGroup:
    def __init__(
        self, seed: int = 0, loss: float = 0.0, config: ReplicationConfig | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.cluster = Cluster(3, machine=lambda: GroupMachine(Ledger(), "groups/1"))
        self.requests: dict[NodeId, LeaderRequests] = {}
        self._calls = LossyCalls(self, loss, self.rng)
        self._config = config
        self._of_the_dead: list[asyncio.Task[Any]] = []

    @property
    def nodes(self) -> list[NodeId]:
        return self.cluster.nodes

    async def open(self) -> None:
        for node in self.nodes:
            await self.open_node(node)

    async def open_node(self, node: NodeId) -> None:
        await self.cluster.open_node(node, self._config)
        replicas = self.cluster.hosts[node].replicas
        replica = self.cluster.replicas[node]
        self.requests[node] = LeaderRequests(
            node_id=node,
            machine=group_machine_of(replica),
            replica=lambda: next(iter(replicas.values()), replica),
            calls=self._calls,
            address_of=lambda leader: f"address of {leader}",
            new_id=lambda: f"{self.rng.getrandbits(128):032x}",
        )

    def power_cut(self, node: NodeId) -> None:
        if self.requests.pop(node, None) is not None:
            self.cluster.power_cut(node)

    async def run_on(
        self, node: NodeId, work: Callable[[LeaderRequests], Coroutine[Any, Any, T]]
    ) -> T:
        """Let the process of ``node`` do ``work``.

        Raises Unavailable: it does not run. OutcomeUnknown: it died meanwhile."""
        requests = self.requests.get(node)
        if requests is None:
            raise Unavailable(f"{node} cannot be reached")
        process = self.cluster.wire.processes[node]
        task = asyncio.get_running_loop().create_task(work(requests), context=process.context())
        while not task.done() and process.alive:
            await asyncio.wait([task], timeout=0.01)
        if not task.done():
            self._of_the_dead.append(task)
            raise OutcomeUnknown(f"{node} died")
        return task.result()

    async def propose(self, node: NodeId, command: bytes, **options: Any) -> bytes:
        return await self.run_on(node, lambda requests: requests.propose(command, **options))

    async def read(self, node: NodeId, **options: Any) -> list[str]:
        """The lines, as they are when a read at ``node`` is done."""

        async def look(requests: LeaderRequests) -> list[str]:
            await requests.read(**options)
            return list(self.ledger(node).lines)

        return await self.run_on(node, look)

    async def leader(self) -> NodeId:
        """Who leads now; a replica may have been opened again since its node was."""
        async with asyncio.timeout(10):
            while True:
                for node in sorted(self.requests):
                    replicas = self.cluster.hosts[node].replicas.values()
                    if node not in self.cluster.wire.cut and any(r.serving for r in replicas):
                        return node
                await asyncio.sleep(0.01)

    async def follower(self) -> NodeId:
        leader = await self.leader()
        return next(node for node in self.nodes if node != leader)

    def ledger(self, node: NodeId) -> Ledger:
        machine = group_machine_of(self.cluster.replicas[node]).machine
        assert isinstance(machine, Ledger)
        return machine


def group_machine_of(replica: Replica) -> GroupMachine:
    machine = replica.state_machine
    assert isinstance(machine, GroupMachine)
    return machine
