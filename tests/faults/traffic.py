"""What clients do with a cluster of real processes while it is mistreated, and what has to hold.

Two topics: of ``PARTITIONS`` partitions one is written by producers and read by a consumer, each
record exactly once and in order; the other is surveyed, and what was seen of it is linearizable.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from history.linearizability import check_linearizable
from history.operations import Recorder
from history.surveyor import Surveyor
from quorumlog import AsyncClient

TOPIC: Final = "t"
SURVEYED_TOPIC: Final = "surveyed"
PARTITIONS: Final = 3
SURVEYORS: Final = 3

_RUN: Final = 500
_REQUEST_TIMEOUT_S: Final = 2.0
_CAUGHT_UP_S: Final = 40.0
_LONGEST_PAUSE_S: Final = 0.03
_LONGEST_SESSION: Final = 20


def values_of(partition: int, numbers: range) -> list[bytes]:
    """Of the records that were sent to ``partition``."""
    return [b"%d:%d" % (partition, number) for number in numbers]


class Traffic:
    """Clients of one cluster, in this event loop."""

    def __init__(self, servers: Sequence[str], rng: random.Random) -> None:
        self.recorder = Recorder()
        self.acknowledged = [0] * PARTITIONS
        self._servers = list(servers)
        self._rng = rng
        self._seen: list[list[bytes | None]] = [[] for _ in range(PARTITIONS)]
        self._is_over = False

    async def run(self, mistreat: Callable[[], Awaitable[object]]) -> None:
        """Make the topics, let records flow until ``mistreat`` returns, and check everything.

        ``mistreat`` leaves a cluster behind that can work again.

        Raises:
            AssertionError: a record was lost, doubled, reordered, or what was seen is not
                linearizable.
        """
        async with AsyncClient(*self._servers) as client:
            await client.create_topic(TOPIC, partitions=PARTITIONS, replicas=3)
            await client.create_topic(SURVEYED_TOPIC, partitions=1, replicas=3)
            consuming = asyncio.create_task(self._consume(client))
            async with asyncio.TaskGroup() as tasks:
                for partition in range(PARTITIONS):
                    tasks.create_task(self._produce(client, partition))
                for number in range(SURVEYORS):
                    tasks.create_task(self._survey(f"surveyor-{number}"))
                try:
                    await mistreat()
                finally:
                    self._is_over = True
            await self._caught_up()
            consuming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await consuming
            await self._check_records(client)
            await self._check_history(client)

    async def _produce(self, client: AsyncClient, partition: int) -> None:
        async with client.producer(TOPIC) as producer:
            while not self._is_over:
                first = self.acknowledged[partition]
                values = values_of(partition, range(first, first + _RUN))
                await producer.send_many(values, partition=partition)
                self.acknowledged[partition] = first + _RUN
                await asyncio.sleep(0.01)

    async def _consume(self, client: AsyncClient) -> None:
        async with client.consumer(TOPIC, start="earliest") as consumer:
            async for batch in consumer.batches():
                self._seen[batch.partition] += batch.values()

    async def _survey(self, name: str) -> None:
        """In sessions: a new client asks anybody who leads, and may be told what is long over."""
        rng = random.Random(f"{name}/{self._rng.random()}")
        while not self._is_over:
            servers = rng.sample(self._servers, len(self._servers))
            async with AsyncClient(*servers, request_timeout_s=_REQUEST_TIMEOUT_S) as client:
                surveyor = self._surveyor(name, client, rng, reads_only=rng.random() < 0.5)
                for _ in range(rng.randint(1, _LONGEST_SESSION)):
                    if not self._is_over:
                        await surveyor.step()
                        await asyncio.sleep(rng.uniform(0, _LONGEST_PAUSE_S))

    def _surveyor(
        self, name: str, client: AsyncClient, rng: random.Random, *, reads_only: bool
    ) -> Surveyor:
        return Surveyor(
            name,
            client,
            SURVEYED_TOPIC,
            self.recorder,
            rng,
            reads_only=reads_only,
        )

    async def _caught_up(self) -> None:
        async with asyncio.timeout(_CAUGHT_UP_S):
            while any(
                len(seen) < count for seen, count in zip(self._seen, self.acknowledged, strict=True)
            ):
                await asyncio.sleep(0.05)

    async def _check_records(self, client: AsyncClient) -> None:
        """What the consumer saw is what was sent, and a second look shows the same."""
        assert min(self.acknowledged) > 0
        for partition, count in enumerate(self.acknowledged):
            assert self._seen[partition] == values_of(partition, range(count))
        replay: list[list[bytes | None]] = [[] for _ in range(PARTITIONS)]
        async with client.consumer(TOPIC, start="earliest", follow=False) as consumer:
            async for batch in consumer.batches():
                replay[batch.partition] += batch.values()
        assert replay == self._seen

    async def _check_history(self, client: AsyncClient) -> None:
        last = self._surveyor("last", client, self._rng, reads_only=True)
        assert await last.read_all() > 0
        await last.ask_for_end()
        check_linearizable(self.recorder.operations)
