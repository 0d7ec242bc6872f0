"""What users do meanwhile: the real client produces numbered records and consumes all of them."""

import asyncio
import random
from collections.abc import Callable, Sequence

from quorumlog.client.client import AsyncClient
from quorumlog.client.consumer import Consumer
from quorumlog.client.models import RecordMetadata
from quorumlog.errors import (
    OffsetOutOfRange,
    OutcomeUnknown,
    ProducerForgotten,
    QuorumlogError,
)
from sim.checkers import Checker
from sim.history import Violation
from sim.loop import SimLoop
from sim.process import Process
from sim.rpc import RpcFabric
from sim.swarm import Swarm, rng_for
from sim.trace import Trace

TOPIC = "events"
PRODUCE_LIMIT_S = 600.0


class Workload:
    """Each producer and each consumer is a process with a client of its own.

    Every value is unique, so that a record is recognised wherever it turns up.
    """

    def __init__(
        self,
        swarm: Swarm,
        loop: SimLoop,
        fabric: RpcFabric,
        addresses: Sequence[str],
        checker: Checker,
        group_of: Callable[[int], int],
        trace: Trace,
    ) -> None:
        """``group_of`` is the Raft group of a partition of the topic."""
        self.acknowledged = 0
        self.given_up = 0
        """Records whose producer was forgotten with what it wrote before: nobody knows of them."""
        self.consumed = 0
        self.skipped = 0
        """Reads that found the record deleted."""
        self.names = [f"producer-{number}" for number in range(swarm.producers)]
        self.names += [f"consumer-{number}" for number in range(swarm.consumers)]
        self.names += ["trimmer"] if swarm.trims else []
        self._swarm = swarm
        self._loop = loop
        self._fabric = fabric
        self._addresses = addresses
        self._checker = checker
        self._group_of = group_of
        self._trace = trace
        self._producing = swarm.producers
        self._positions: dict[tuple[str, int], int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def create_topic(self, topic: str) -> None:
        """``topic`` exists when this returns, on the node that was asked.

        Of the topics only ``TOPIC`` has several partitions.
        """
        process = Process("creator")
        await self._loop.spawn(process, self._create(process, topic), "create")

    async def set_cluster(self, replace_failed_after_s: int) -> None:
        """The cluster replaces nodes that failed, from when this returns."""
        process = Process("creator")
        await self._loop.spawn(process, self._set_cluster(process, replace_failed_after_s), "set")

    def start(self) -> None:
        for name in self.names:
            process = Process(name)
            kind = name.partition("-")[0]
            work = {"producer": self._produce, "consumer": self._consume, "trimmer": self._trim}[
                kind
            ]
            self._tasks.append(self._loop.spawn(process, work(name, process), "work"))

    async def finished(self) -> None:
        """Return when every record is acknowledged and every consumer has read all of them."""
        await asyncio.wait(self._tasks)

    def describe(self) -> str:
        """How far everybody has come, for a report."""
        total = self._swarm.producers * self._swarm.records_per_producer
        return f"{self.acknowledged} of {total} acknowledged, read up to {self._positions}"

    def _client(self, process: Process) -> AsyncClient:
        rng = rng_for(self._swarm.seed, process.name)
        addresses = list(self._addresses)
        rng.shuffle(addresses)
        connector = self._fabric.client(process)
        return AsyncClient(*addresses, connector=connector, connect_timeout_s=600.0, rng=rng)

    async def _create(self, process: Process, topic: str) -> None:
        partitions = self._swarm.partitions if topic == TOPIC else 1
        async with self._client(process) as client:
            await client.create_topic(
                topic, partitions=partitions, replicas=3, fsync=self._swarm.fsync
            )
            if topic == TOPIC:
                await client.alter_topic(
                    topic,
                    retention_records=self._swarm.retention_records,
                    retention_ms=self._swarm.retention_ms,
                )

    async def _set_cluster(self, process: Process, replace_failed_after_s: int) -> None:
        async with self._client(process) as client:
            await client.alter_cluster(replace_failed_after_s=replace_failed_after_s)

    # -- producers -----------------------------------------------------------------------------

    async def _produce(self, name: str, process: Process) -> None:
        swarm = self._swarm
        rng = rng_for(swarm.seed, f"{name}/pace")
        pace_s = swarm.fault_duration_s * swarm.burst / swarm.records_per_producer
        async with self._client(process) as client:
            producer = client.producer(
                TOPIC, batch_bytes=swarm.batch_bytes, delivery_timeout_s=PRODUCE_LIMIT_S
            )
            pending: list[asyncio.Future[None]] = []
            number = 0
            while number < swarm.records_per_producer:
                for _ in range(
                    min(rng.randint(1, swarm.burst), swarm.records_per_producer - number)
                ):
                    value = f"{name}/{number}".encode().ljust(swarm.record_bytes, b".")
                    partition = rng.randrange(swarm.partitions)
                    sent = await producer.submit(value, partition=partition)
                    pending.append(asyncio.ensure_future(self._acknowledge(sent, value)))
                    number += 1
                await asyncio.sleep(rng.uniform(0, pace_s))
            await asyncio.gather(*pending)
            try:
                await producer.close()
            except (OutcomeUnknown, ProducerForgotten):
                if not swarm.deletes:
                    raise
        self._producing -= 1

    async def _acknowledge(self, sent: "asyncio.Future[RecordMetadata]", value: bytes) -> None:
        try:
            metadata = await sent
        except (OutcomeUnknown, ProducerForgotten) as error:
            if not self._swarm.deletes:
                raise
            self._trace.add(f"given up {value[:24]!r}: {error}")
            self.given_up += 1
            return
        partition, offset = metadata.partition, metadata.offset
        self.acknowledged += 1
        self._trace.add(f"acknowledged {value[:24]!r} at {partition}/{offset}")
        self._checker.history(self._group_of(partition)).acknowledged(offset, value)

    # -- consumers -----------------------------------------------------------------------------

    async def _consume(self, name: str, process: Process) -> None:
        """Reads from the start; leaves and comes back where it was, now and then."""
        rng = rng_for(self._swarm.seed, f"{name}/pace")
        async with self._client(process) as client:
            while not self._is_done(name):
                positions = {
                    partition: self._positions.get((name, partition), 0)
                    for partition in range(self._swarm.partitions)
                }
                consumer = client.consumer(TOPIC, start=positions, retry_timeout_s=PRODUCE_LIMIT_S)
                try:
                    await self._read_some(name, consumer, rng)
                except TimeoutError:
                    self._trace.add(f"{name} has waited long enough")
                except OffsetOutOfRange as error:
                    if not self._swarm.deletes:
                        raise
                    self._trace.add(f"{name}: {error}")
                    await self._skip_deleted(name, client)
                finally:
                    await consumer.close()

    async def _skip_deleted(self, name: str, client: AsyncClient) -> None:
        """Go on at the earliest record: what is before it was agreed to be deleted."""
        for partition in range(self._swarm.partitions):
            try:
                start = await client.offset(TOPIC, partition, "earliest")
            except QuorumlogError:
                continue
            agreed = self._checker.history(self._group_of(partition)).starts[-1].offset
            if start > agreed:
                raise Violation(f"{partition} begins at {start} and only {agreed} was agreed")
            position = self._positions.get((name, partition), 0)
            if start > position:
                self.skipped += start - position
                self._positions[name, partition] = start

    async def _read_some(self, name: str, consumer: Consumer, rng: random.Random) -> None:
        count = rng.randint(1, 40)
        async with asyncio.timeout(rng.uniform(0.5, 4.0)):
            async for record in consumer:
                self._check_read(name, record.partition, record.offset, record.value)
                count -= 1
                if count == 0 or self._is_done(name):
                    return

    def _check_read(self, name: str, partition: int, offset: int, value: bytes | None) -> None:
        """Readers see the committed prefix, in order, without gap or repetition."""
        expected = self._positions.get((name, partition), 0)
        records = self._checker.history(self._group_of(partition)).records
        if offset != expected:
            raise Violation(f"{name} reads {partition}/{offset} and expected {expected}")
        if offset >= len(records) or records[offset] != value:
            committed = records[offset] if offset < len(records) else None
            raise Violation(f"{name} reads {value!r} at {partition}/{offset}, not {committed!r}")
        self._positions[name, partition] = offset + 1
        self.consumed += 1

    # -- deletion ------------------------------------------------------------------------------

    async def _trim(self, name: str, process: Process) -> None:
        """Deletes up to any offset that there is, and tries some that there are not."""
        rng = rng_for(self._swarm.seed, f"{name}/pace")
        async with self._client(process) as client:
            while self._producing:
                await asyncio.sleep(rng.uniform(0, self._swarm.fault_duration_s / 3))
                partition = rng.randrange(self._swarm.partitions)
                history = self._checker.history(self._group_of(partition))
                offset = rng.randint(0, len(history.records) + 3)
                try:
                    start = await client.delete_before(TOPIC, partition, offset)
                except OffsetOutOfRange as error:
                    if offset <= error.end:
                        raise Violation(f"to delete before {offset} was refused: {error}") from None
                except QuorumlogError as error:
                    self._trace.add(f"not trimmed: {error}")
                else:
                    self._trace.add(f"trimmed {partition} to {start}")
                    if not offset <= start <= history.starts[-1].offset:
                        raise Violation(f"trimmed to {start}, asked {offset}: {history.starts[-1]}")

    def _is_done(self, name: str) -> bool:
        if self._producing:
            return False
        return all(
            self._positions.get((name, partition), 0)
            == len(self._checker.history(self._group_of(partition)).records)
            for partition in range(self._swarm.partitions)
        )
