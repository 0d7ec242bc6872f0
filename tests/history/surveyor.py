"""A client that does a little of everything with one partition and writes down what came of it."""

import random
from collections.abc import Callable
from typing import Final

from history.operations import (
    Append,
    Call,
    EndOfLog,
    Read,
    ReadNothing,
    Recorder,
    Refused,
)
from quorumlog.client.client import AsyncClient
from quorumlog.client.consumed import ConsumedBatch
from quorumlog.errors import OutcomeUnknown, QuorumlogError, WrongExpectedOffset

DELIVERY_TIMEOUTS_S: Final = (0.1, 0.5, 2.0)
"""Short, so that outcomes become unknown while a cluster has no leader."""

_READ_BYTES: Final = 4096
_PARTITION: Final = 0


class Surveyor:
    """Appends records of its own, asks for the end, reads what is there and behind it.

    Every value is unique. Reads and ends that failed say nothing and are not written down; neither
    is an append of which the client says that it is surely not in the log. Ends are confirmed by a
    majority; that nothing is there to read yet is one node's view.
    """

    def __init__(
        self,
        name: str,
        client: AsyncClient,
        topic: str,
        recorder: Recorder,
        rng: random.Random,
        *,
        reads_only: bool = False,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        """``reads_only``: it is never held up by an append that waits for a leader.

        ``note`` gets a line for everything written down.
        """
        self.name = name
        self._client = client
        self._topic = topic
        self._recorder = recorder
        self._rng = rng
        self._reads_only = reads_only
        self._note = note
        self._producer = client.producer(topic, delivery_timeout_s=rng.choice(DELIVERY_TIMEOUTS_S))
        self._seen_end = 0

    async def step(self) -> None:
        """One operation, drawn at random."""
        kind = self._rng.random()
        if kind < 0.15 and not self._reads_only:
            await self.append_at(max(0, self._seen_end + self._rng.choice((0, 0, 0, -1, 1))))
        elif kind < 0.4 and not self._reads_only:
            await self.append()
        elif kind < 0.7:
            await self.ask_for_end()
        elif kind < 0.85:
            await self.read(self._seen_end)
        else:
            await self.read(self._rng.randint(0, self._seen_end))

    async def append(self) -> None:
        value = b"%s#%d" % (self.name.encode(), self._recorder.begin())
        began = self._recorder.begin()
        try:
            sent = await self._producer.send(value, partition=_PARTITION)
        except OutcomeUnknown:
            self._write_down(began, Append((value,), None))
        except QuorumlogError as error:
            self._note(f"{self.name} appended nothing: {error}")
        else:
            self._seen_end = max(self._seen_end, sent.offset + 1)
            self._write_down(began, Append((value,), sent.offset))

    async def append_at(self, expected: int) -> None:
        """On the condition that the log ends at ``expected``."""
        value = b"%s#%d" % (self.name.encode(), self._recorder.begin())
        began = self._recorder.begin()
        try:
            sent = await self._client.append_at(self._topic, _PARTITION, expected, [value])
        except WrongExpectedOffset as error:
            self._seen_end = max(self._seen_end, error.end)
            self._write_down(began, Refused(error.expected, error.end))
        except OutcomeUnknown:
            self._write_down(began, Append((value,), None, expected))
        except QuorumlogError as error:
            self._note(f"{self.name} appended nothing: {error}")
        else:
            self._seen_end = max(self._seen_end, expected + 1)
            self._write_down(began, Append((value,), sent.offset, expected))

    async def ask_for_end(self) -> None:
        began = self._recorder.begin()
        try:
            end = await self._client.offset(self._topic, _PARTITION, "latest")
        except QuorumlogError as error:
            self._note(f"{self.name} learned no end: {error}")
            return
        self._seen_end = max(self._seen_end, end)
        self._write_down(began, EndOfLog(end))

    async def read(self, offset: int) -> None:
        """Some records from ``offset`` on, or that there is none yet."""
        began = self._recorder.begin()
        try:
            batches = await self._client.fetch(
                self._topic, _PARTITION, offset, max_bytes=_READ_BYTES
            )
        except QuorumlogError as error:
            self._note(f"{self.name} read nothing: {error}")
            return
        self._write_down(began, *(_reads(batches) or [ReadNothing(offset, confirmed=False)]))

    async def read_all(self) -> int:
        """Everything there is, from the start, for the checker to know; how many records."""
        offset = 0
        while True:
            began = self._recorder.begin()
            reads = _reads(await self._client.fetch(self._topic, _PARTITION, offset))
            if not reads:
                self._write_down(began, ReadNothing(offset, confirmed=False))
                return offset
            self._write_down(began, *reads)
            offset += len(reads)

    def _write_down(self, began: int, *calls: Call) -> None:
        self._recorder.end(self.name, began, *calls)
        for call in calls:
            self._note(f"{self.name} {call}")


def _reads(batches: list[ConsumedBatch]) -> list[Read]:
    return [Read(record.offset, record.value) for batch in batches for record in batch.records()]
