"""Clients of a topic of their own, whose history has to be linearizable."""

import asyncio
import random
from collections.abc import Sequence
from typing import Final

from history.linearizability import NotLinearizable, check_linearizable
from history.operations import Recorder
from history.surveyor import Surveyor
from quorumlog.client.client import AsyncClient
from sim.history import Violation
from sim.loop import SimLoop
from sim.process import Process
from sim.rpc import RpcFabric
from sim.swarm import Swarm, rng_for
from sim.trace import Trace

SURVEYED_TOPIC: Final = "surveyed"

_REQUEST_TIMEOUT_S: Final = 0.5
_LAST_TIMEOUT_S: Final = 60.0
"""Of what is asked when all is healed: that has to be answered."""

_LONGEST_PAUSE_S: Final = 0.1
_LONGEST_SESSION: Final = 8
"""Operations of one client. The next one knows nothing, and asks any node who leads."""

_READERS_SHARE: Final = 0.5
"""Of the sessions, those that append nothing."""


class Survey:
    """``swarm.surveyors`` clients, each a process, and what they did; none: nothing happens."""

    def __init__(
        self,
        swarm: Swarm,
        loop: SimLoop,
        fabric: RpcFabric,
        addresses: Sequence[str],
        trace: Trace,
    ) -> None:
        self.names = [f"surveyor-{number}" for number in range(swarm.surveyors)]
        self.recorder = Recorder()
        self._swarm = swarm
        self._loop = loop
        self._fabric = fabric
        self._addresses = addresses
        self._trace = trace
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def topics(self) -> list[str]:
        """What it needs on every node before it starts."""
        return [SURVEYED_TOPIC] if self.names else []

    def start(self) -> None:
        for name in self.names:
            process = Process(name)
            self._tasks.append(self._loop.spawn(process, self._work(name, process), "survey"))

    async def finish(self) -> None:
        """Let all come to an end, read everything, and check what all of them saw.

        Raises:
            Violation: it is not linearizable.
        """
        if not self._tasks:
            return
        self._is_over = True
        await asyncio.wait(self._tasks)
        process = Process("surveyor-last")
        await self._loop.spawn(process, self._read_all(process), "survey")
        try:
            check_linearizable(self.recorder.operations)
        except NotLinearizable as refusal:
            raise Violation(str(refusal)) from None

    async def _work(self, name: str, process: Process) -> None:
        rng = rng_for(self._swarm.seed, f"{name}/sessions")
        while not self._is_over:
            async with self._client(process, rng, _REQUEST_TIMEOUT_S) as client:
                surveyor = self._surveyor(name, client, rng, rng.random() < _READERS_SHARE)
                for _ in range(rng.randint(1, _LONGEST_SESSION)):
                    if not self._is_over:
                        await surveyor.step()
                        await asyncio.sleep(rng.uniform(0, _LONGEST_PAUSE_S))

    async def _read_all(self, process: Process) -> None:
        rng = rng_for(self._swarm.seed, process.name)
        async with self._client(process, rng, _LAST_TIMEOUT_S) as client:
            surveyor = self._surveyor(process.name, client, rng, reads_only=True)
            await surveyor.read_all()
            await surveyor.ask_for_end()

    def _surveyor(
        self, name: str, client: AsyncClient, rng: random.Random, reads_only: bool
    ) -> Surveyor:
        return Surveyor(
            name,
            client,
            SURVEYED_TOPIC,
            self.recorder,
            rng,
            reads_only=reads_only,
            note=self._trace.add,
        )

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
