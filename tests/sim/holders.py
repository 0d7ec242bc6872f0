"""Holders of a lock that writes to a topic of its own: fencing tokens and checkpoints."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from quorumlog.client.client import AsyncClient
from quorumlog.errors import QuorumlogError, StaleFencingToken
from sim.history import GroupHistory, Violation
from sim.loop import SimLoop
from sim.process import Process
from sim.rpc import RpcFabric
from sim.swarm import Swarm, rng_for
from sim.trace import Trace

HELD_TOPIC: Final = "held"

_REQUEST_TIMEOUT_S: Final = 2.0
_LAST_TIMEOUT_S: Final = 60.0
"""Of what is asked when all is healed: that has to be answered."""

_LONGEST_PAUSE_S: Final = 0.3
_MOST_RECORDS: Final = 4


class Holders:
    """``swarm.holders`` clients, each a process; none: nothing happens.

    Each takes a newer token than any before, again and again, without asking whether the one before
    is done; so what it appends is refused as soon as the next one has begun.
    """

    def __init__(
        self,
        swarm: Swarm,
        loop: SimLoop,
        fabric: RpcFabric,
        addresses: Sequence[str],
        history: Callable[[], GroupHistory],
        trace: Trace,
    ) -> None:
        """``history`` is that of the topic's only partition."""
        self.names = [f"holder-{number}" for number in range(swarm.holders)]
        self._swarm = swarm
        self._loop = loop
        self._fabric = fabric
        self._addresses = addresses
        self._history = history
        self._trace = trace
        self._last_token = 0
        self._fenced_token = 0
        """The newest that a call of ``fence`` said holds."""
        self._noted: dict[str, int] = {}
        """Where a checkpoint is at least, by what was answered."""
        self._asked: dict[str, int] = {}
        """Where it is at most, by what was asked."""
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def topics(self) -> list[str]:
        """What they need on every node before they start."""
        return [HELD_TOPIC] if self.names else []

    def start(self) -> None:
        for name in self.names:
            process = Process(name)
            self._tasks.append(self._loop.spawn(process, self._work(name, process), "holder"))

    async def finish(self) -> None:
        """Let all come to an end, and look at what is there.

        Raises:
            Violation: a record stands behind one of a newer token, or a note was lost.
        """
        if not self._tasks:
            return
        self._is_over = True
        await asyncio.wait(self._tasks)
        tokens = [int(value.partition(b"/")[0]) for value in self._history().records]
        if tokens != sorted(tokens):
            raise Violation(f"records of older holders stand behind those of newer ones: {tokens}")
        process = Process("holder-last")
        await self._loop.spawn(process, self._read_all(process), "holder")

    async def _work(self, name: str, process: Process) -> None:
        rng = rng_for(self._swarm.seed, f"{name}/pace")
        while not self._is_over:
            async with self._client(process, rng, _REQUEST_TIMEOUT_S) as client:
                try:
                    await self._hold(name, client, rng)
                except QuorumlogError as error:
                    self._trace.add(f"{name}: {error}")
            await asyncio.sleep(rng.uniform(0, _LONGEST_PAUSE_S))

    async def _hold(self, name: str, client: AsyncClient, rng: random.Random) -> None:
        token = self._last_token = self._last_token + 1
        try:
            if rng.random() < 0.5:
                if await client.fence(HELD_TOPIC, 0, token) < token:
                    raise Violation(f"fenced with {token}, and the newest is older")
                self._fenced_token = max(self._fenced_token, token)
            await self._check_checkpoint(name, client)
            await self._append(token, client, rng)
        except StaleFencingToken as error:
            if not token < error.newest <= self._last_token:
                raise Violation(f"{name} had {token} of {self._last_token}: {error}") from None
        end = len(self._history().records)
        if rng.random() < 0.2:
            await client.delete_before(HELD_TOPIC, 0, rng.randint(0, end))
        position = rng.randint(0, end)
        self._asked[name] = max(self._asked.get(name, 0), position)
        committed = await client.commit_checkpoint(HELD_TOPIC, name, {0: position})
        self._noted[name] = max(self._noted.get(name, 0), position)
        if committed[0] < self._noted[name]:
            raise Violation(f"checkpoint {name} went back to {committed} from {self._noted[name]}")

    async def _append(self, token: int, client: AsyncClient, rng: random.Random) -> None:
        producer = client.producer(
            HELD_TOPIC, fencing_token=token, delivery_timeout_s=_REQUEST_TIMEOUT_S
        )
        try:
            for number in range(rng.randint(1, _MOST_RECORDS)):
                value = b"%d/%d" % (token, number)
                appended = await producer.send(value)
                self._history().acknowledged(appended.offset, value)
        finally:
            producer.abort()

    async def _check_checkpoint(self, name: str, client: AsyncClient) -> None:
        noted, asked = self._noted.get(name, 0), self._asked.get(name, 0)
        found = (await client.checkpoints(HELD_TOPIC)).get(name, {}).get(0, 0)
        if not noted <= found <= asked:
            raise Violation(f"checkpoint {name} is at {found}, not from {noted} to {asked}")

    async def _read_all(self, process: Process) -> None:
        rng = rng_for(self._swarm.seed, process.name)
        async with self._client(process, rng, _LAST_TIMEOUT_S) as client:
            for name in self.names:
                await self._check_checkpoint(name, client)
            newest = await client.fencing_token(HELD_TOPIC, 0)
        if not self._fenced_token <= newest <= self._last_token:
            raise Violation(f"{newest} is the newest token, and {self._fenced_token} held before")

    def _client(self, process: Process, rng: random.Random, timeout_s: float) -> AsyncClient:
        addresses = list(self._addresses)
        rng.shuffle(addresses)
        return AsyncClient(
            *addresses,
            connector=self._fabric.client(process),
            request_timeout_s=timeout_s,
            connect_timeout_s=timeout_s,
            rng=rng,
        )
