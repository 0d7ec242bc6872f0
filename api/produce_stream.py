"""One ProduceStream: its messages hold one request or several, and so do those of its answers.

Which, each end says of itself (``takes_packed``), so clients and nodes of releases without it go on
with one a message.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Sequence
from contextlib import aclosing

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api.convert import draft_of, fill_response
from quorumlog.api.limits import Limits
from quorumlog.api.pipeline import Answer, ProducePipeline, Submission
from quorumlog.api.produce_request import bad_pack
from quorumlog.broker.port import BrokerPort, ProduceAck
from quorumlog.errors import QuorumlogError
from quorumlog.types import MAX_PACKED_REQUESTS


class ProduceStream:
    """Serves one call, once. The requests of a message are submitted in one turn of the loop, so
    that they share a flush and a message to each follower; but a compressed batch ends the turn: a
    few bytes may be some milliseconds of decompression."""

    def __init__(self, broker: BrokerPort, limits: Limits) -> None:
        self._broker = broker
        self._limits = limits
        self._takes_packed = False

    async def responses(
        self, requests: AsyncIterable[pb.ProduceRequest]
    ) -> AsyncGenerator[pb.ProduceResponse]:
        """Answers until ``requests`` has ended. Close it to stop reading.

        Raises:
            InvalidArgument: a message holds too many requests; none of it was submitted.
        """
        pipeline = ProducePipeline(self._accept, self._limits)
        async with aclosing(pipeline.answers(requests)) as ready:
            async for answers in ready:
                if self._takes_packed:
                    for first in range(0, len(answers), MAX_PACKED_REQUESTS):
                        yield _packed(answers[first : first + MAX_PACKED_REQUESTS])
                else:
                    for answer in answers:
                        yield _packed([answer])

    def _accept(self, message: pb.ProduceRequest) -> Iterator[Submission]:
        if message.takes_packed:
            self._takes_packed = True
        more = message.more
        if len(more) >= MAX_PACKED_REQUESTS or any(request.more for request in more):
            raise bad_pack()
        yield self._submit(message)
        yield from map(self._submit, more)

    def _submit(self, request: pb.ProduceRequest) -> Submission:
        outcome: asyncio.Future[ProduceAck] | QuorumlogError
        batch = request.batch
        try:
            draft = draft_of(batch, self._limits)
            outcome = self._broker.submit(
                request.topic, request.partition, draft, batch.fencing_token
            )
        except QuorumlogError as error:
            outcome = error
        lane = (request.topic, request.partition)
        # A topic that does not exist may have a name as long as a message, and is kept as long.
        size_bytes = len(batch.body) + len(request.topic)
        return Submission(lane, request.request_id, size_bytes, outcome, batch.codec != 0)


def _packed(answers: Sequence[Answer]) -> pb.ProduceResponse:
    """One message of the answers, in their order; there is at least one."""
    message = pb.ProduceResponse(takes_packed=True)
    fill_response(message, answers[0].outcome, answers[0].request_id)
    for answer in answers[1:]:
        fill_response(message.more.add(), answer.outcome, answer.request_id)
    return message
