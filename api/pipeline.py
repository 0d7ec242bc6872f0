"""A produce stream: many requests under way, answers in order within each partition.

Requests are handed to the broker as they arrive, without waiting for the ones before; an answer
leaves as soon as all earlier requests of its *lane* (its partition) are answered, together with all
that can leave then. One task per stream reads; what happens per request is callbacks only.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from quorumlog.api.limits import Limits
from quorumlog.broker.port import ProduceAck
from quorumlog.errors import OutcomeUnknown, QuorumlogError
from quorumlog.types import MAX_MESSAGE_BYTES

Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class Submission:
    """A request that was handed on: its lane, its size, and what comes or came of it.

    ``took_long``: everybody else has a turn before the next one of its message.
    """

    lane: Hashable
    request_id: int
    size_bytes: int
    outcome: "asyncio.Future[ProduceAck] | QuorumlogError"
    took_long: bool = False

    def settled(self) -> bool:
        return isinstance(self.outcome, QuorumlogError) or self.outcome.done()


@dataclass(frozen=True, slots=True)
class Answer:
    request_id: int
    outcome: ProduceAck | QuorumlogError


class ProducePipeline(Generic[Message]):
    """Serves one stream, once.

    At ``max_unanswered_requests``, or with less room in ``max_unanswered_bytes`` than the largest
    message takes, it stops reading; gRPC's flow control then stops the client. The requests of the
    message read last may be over it. A request counts until its answer was taken, so a client that
    does not read its answers is stopped too.
    """

    def __init__(self, accept: Callable[[Message], Iterable[Submission]], limits: Limits) -> None:
        """``accept`` submits the requests of one message, each when it is asked for.

        A typed error is the outcome of its request; one that it raises is the end of the stream.
        """
        self._accept = accept
        self._max_requests = limits.max_unanswered_requests
        self._max_bytes = limits.max_unanswered_bytes - MAX_MESSAGE_BYTES
        self._lanes: dict[Hashable, deque[Submission]] = {}
        self._ready: list[Submission] = []
        self._unanswered_requests = 0
        self._unanswered_bytes = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()

    async def answers(self, messages: AsyncIterable[Message]) -> AsyncGenerator[list[Answer]]:
        """Answers, as many at a time as there are, until ``messages`` has ended and all of it is
        answered.

        Close it (``contextlib.aclosing``) to stop reading; what was submitted stays submitted.
        Raises what reading ``messages`` and ``accept`` raise.
        """
        reader = asyncio.create_task(self._read(messages))
        reader.add_done_callback(lambda done: self._wake.set())
        try:
            while True:
                while self._ready:
                    ready, self._ready = self._ready, []
                    yield [Answer(each.request_id, _outcome(each)) for each in ready]
                    self._release(ready)
                if reader.done():
                    reader.result()
                    if not self._unanswered_requests:
                        return
                self._wake.clear()
                await self._wake.wait()
        finally:
            reader.cancel()
            await asyncio.wait([reader])

    async def _read(self, messages: AsyncIterable[Message]) -> None:
        async for message in messages:
            for submission in self._accept(message):
                self._take(submission)
                if submission.took_long:
                    await asyncio.sleep(0)
            while self._full():
                self._room.clear()
                await self._room.wait()

    def _take(self, submission: Submission) -> None:
        self._unanswered_requests += 1
        self._unanswered_bytes += submission.size_bytes
        self._lanes.setdefault(submission.lane, deque()).append(submission)
        if isinstance(submission.outcome, QuorumlogError):
            self._settle(submission.lane)
        else:
            # Runs in a later turn of the loop, also where the future is done already.
            submission.outcome.add_done_callback(partial(self._committed, submission.lane))

    def _full(self) -> bool:
        return (
            self._unanswered_requests >= self._max_requests
            or self._unanswered_bytes > self._max_bytes
        )

    def _release(self, submissions: Sequence[Submission]) -> None:
        self._unanswered_requests -= len(submissions)
        self._unanswered_bytes -= sum([each.size_bytes for each in submissions])
        self._room.set()

    def _committed(self, key: Hashable, outcome: "asyncio.Future[ProduceAck]") -> None:
        self._settle(key)

    def _settle(self, key: Hashable) -> None:
        """Move what is settled at the head of the lane to the answers."""
        lane = self._lanes.get(key)
        if lane is None:
            return
        while lane and lane[0].settled():
            self._ready.append(lane.popleft())
        if not lane:
            del self._lanes[key]
        self._wake.set()


def _outcome(submission: Submission) -> ProduceAck | QuorumlogError:
    """Raises what is no typed error: a bug ends the stream, its outcomes stay unknown."""
    if isinstance(submission.outcome, QuorumlogError):
        return submission.outcome
    if submission.outcome.cancelled():
        return OutcomeUnknown("the request was given up before it was committed")
    error = submission.outcome.exception()
    if error is None:
        return submission.outcome.result()
    if isinstance(error, QuorumlogError):
        return error
    raise error
