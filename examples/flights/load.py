"""The load: every flight into the topic, in order, and what comes back."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from examples.flights.dataset import Flight
from quorumlog import AsyncClient
from quorumlog.client.models import RecordMetadata

_BREATHE_EVERY: Final = 256
"""Records between two turns of the event loop, so that batches leave while more are being made."""


class Acknowledgements:
    """Counts acknowledgements as they arrive."""

    def __init__(self) -> None:
        self.count = 0
        self.error: BaseException | None = None
        """Why the first record that could not be delivered was not."""
        self._watchers: list[Callable[[RecordMetadata], None]] = []
        self._awaited = 0
        self._reached = asyncio.Event()

    def watch(self, watcher: Callable[[RecordMetadata], None]) -> None:
        """Call ``watcher`` with every acknowledgement from now on."""
        self._watchers.append(watcher)

    def arrived(self, future: "asyncio.Future[RecordMetadata]") -> None:
        """The done-callback of a record's future."""
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self.error = self.error or error
            return
        self.count += 1
        if self.count == self._awaited:
            self._reached.set()
        if self._watchers:
            metadata = future.result()
            for watcher in self._watchers:
                watcher(metadata)

    async def reached(self, count: int) -> None:
        """Wait until ``count`` records, more than now, are acknowledged. For one caller."""
        self._awaited = count
        await self._reached.wait()


async def load(
    client: AsyncClient, topic: str, flights: Sequence[Flight], acknowledgements: Acknowledgements
) -> float:
    """Produce all flights; returns the seconds until the last one was acknowledged.

    ``submit`` waits only while the producer's buffer is full, so records leave in large batches.
    What the death of a leader left without an answer, the producer sends again by itself.
    """
    started = time.monotonic()
    async with client.producer(topic) as producer:
        for number, flight in enumerate(flights):
            future = await producer.submit(flight.value, key=flight.key)
            future.add_done_callback(acknowledgements.arrived)
            if number % _BREATHE_EVERY == 0:
                await asyncio.sleep(0)
        await producer.flush()
    if acknowledgements.error is not None:
        raise acknowledgements.error
    return time.monotonic() - started
