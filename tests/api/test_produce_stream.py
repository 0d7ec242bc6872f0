"""Several requests in a message of a produce stream, and several answers: to whom, how many."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastcrc.crc32 import iscsi as crc32c

from fakes.broker import FakeBroker
from fakes.calls import failure, settle
from fakes.context import FakeContext
from fakes.requests import produce
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api.limits import Limits
from quorumlog.api.log_service import LogService
from quorumlog.api.produce_stream import ProduceStream
from quorumlog.errors import InvalidArgument
from quorumlog.log.batch import CODEC_ZSTD
from quorumlog.log.compression import compress
from quorumlog.types import MAX_MESSAGE_BYTES, MAX_PACKED_REQUESTS


class Stream:
    """A client's side of the call: sends, and keeps the messages that came."""

    def __init__(self, service: LogService) -> None:
        self.messages: list[pb.ProduceResponse] = []
        self._queue: asyncio.Queue[pb.ProduceRequest | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(service))

    async def _requests(self) -> AsyncIterator[pb.ProduceRequest]:
        while (request := await self._queue.get()) is not None:
            yield request

    async def _run(self, service: LogService) -> None:
        async for message in service.ProduceStream(self._requests(), FakeContext()):
            self.messages.append(pb.ProduceResponse.FromString(message.SerializeToString()))

    async def send(self, *messages: pb.ProduceRequest) -> None:
        for message in messages:
            self._queue.put_nowait(message)
        await settle()

    async def finish(self) -> None:
        self._queue.put_nowait(None)
        await self._task

    @property
    def ids(self) -> list[list[int]]:
        """The requests that each message answers."""
        return [[each.request_id for each in [message, *message.more]] for message in self.messages]


def packed(*requests: pb.ProduceRequest, takes_packed: bool = True) -> pb.ProduceRequest:
    """One message of ``requests``."""
    message = pb.ProduceRequest(takes_packed=takes_packed)
    message.MergeFrom(requests[0])
    message.more.extend(requests[1:])
    return message


@pytest.fixture
def service(broker: FakeBroker) -> LogService:
    return LogService(broker)


async def test_the_requests_of_a_message_are_submitted_in_their_order_and_answered_in_one(
    broker: FakeBroker, service: LogService
) -> None:
    broker.held = True
    stream = Stream(service)
    await stream.send(packed(*(produce(b"%d" % at, request_id=at) for at in range(5))))
    assert len(broker.submitted) == 5
    broker.commit("t", batches=3)
    await settle()
    broker.commit("t")
    await stream.finish()
    assert stream.ids == [[0, 1, 2], [3, 4]]
    answers = [each for message in stream.messages for each in [message, *message.more]]
    assert [each.base_offset for each in answers] == [0, 1, 2, 3, 4]
    assert all(message.takes_packed for message in stream.messages)


async def test_requests_of_one_turn_are_answered_together_also_when_each_was_a_message(
    broker: FakeBroker, service: LogService
) -> None:
    broker.held = True
    stream = Stream(service)
    await stream.send(*(packed(produce(b"a", request_id=at)) for at in range(4)))
    broker.commit("t")
    await stream.finish()
    assert stream.ids == [[0, 1, 2, 3]]


async def test_a_client_that_never_said_it_takes_packs_gets_an_answer_a_message(
    broker: FakeBroker, service: LogService
) -> None:
    broker.held = True
    stream = Stream(service)
    await stream.send(*(produce(b"a", request_id=at) for at in range(4)))
    broker.commit("t")
    await stream.finish()
    assert stream.ids == [[0], [1], [2], [3]]


async def test_a_compressed_batch_in_a_pack_ends_the_turn_of_the_loop(
    broker: FakeBroker, service: LogService
) -> None:
    """A hundred bytes may stand for a megabyte: a pack of such must not hold everybody up."""
    requests = [produce(b"%d" % number, request_id=number) for number in range(4)]
    for request in requests[:2]:
        frame = compress(request.batch.body)
        request.batch.MergeFrom(pb.Batch(body=frame, body_crc=crc32c(frame), codec=CODEC_ZSTD))
    seen: list[int] = []
    loop = asyncio.get_running_loop()

    def look() -> None:
        seen.append(len(broker.submitted))
        if len(broker.submitted) < 4:
            loop.call_soon(look)

    stream = Stream(service)
    await settle()
    look()
    await stream.send(packed(*requests))
    assert sorted(set(seen)) == [0, 1, 2, 4]
    await stream.finish()


async def test_an_error_within_a_pack_is_the_answer_of_its_request_alone(
    broker: FakeBroker, service: LogService
) -> None:
    bad = produce(b"b", request_id=2)
    bad.batch.body_crc ^= 1
    stream = Stream(service)
    await stream.send(
        packed(
            produce(b"a", request_id=1),
            bad,
            produce(b"c", request_id=3, topic="nope"),
            produce(b"d", request_id=4),
        )
    )
    await stream.finish()
    reasons = {
        each.request_id: each.error.reason
        for message in stream.messages
        for each in [message, *message.more]
    }
    assert reasons == {1: "", 2: "INVALID_BATCH", 3: "UNKNOWN_TOPIC", 4: ""}


async def test_the_largest_pack_is_taken_and_answered(service: LogService) -> None:
    stream = Stream(service)
    count = MAX_PACKED_REQUESTS
    await stream.send(packed(*(produce(b"a", request_id=at) for at in range(count))))
    await stream.finish()
    assert stream.ids == [list(range(count))]


async def test_answers_to_more_requests_than_a_pack_holds_are_several_messages(
    broker: FakeBroker, service: LogService
) -> None:
    broker.held = True
    stream = Stream(service)
    count = MAX_PACKED_REQUESTS + 2
    await stream.send(*(packed(produce(b"a", request_id=at)) for at in range(count)))
    broker.commit("t")
    await stream.finish()
    assert [len(ids) for ids in stream.ids] == [MAX_PACKED_REQUESTS, 2]
    assert [one for ids in stream.ids for one in ids] == list(range(count))


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(packed(*[produce(b"a")] * (MAX_PACKED_REQUESTS + 1)), id="one too many"),
        pytest.param(
            packed(produce(b"a"), packed(produce(b"b"), produce(b"c"))), id="a pack in a pack"
        ),
    ],
)
async def test_a_pack_that_nobody_may_send_ends_the_stream_and_appends_nothing(
    broker: FakeBroker, service: LogService, message: pb.ProduceRequest
) -> None:
    async def requests() -> AsyncIterator[pb.ProduceRequest]:
        yield message

    error = await failure(aiter(service.ProduceStream(requests(), FakeContext())))
    assert isinstance(error, InvalidArgument)
    assert broker.submitted == []


async def test_a_single_call_refuses_a_pack(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    call = service.Produce(packed(produce(b"a"), produce(b"b")), context)
    assert isinstance(await failure(call), InvalidArgument)
    assert broker.submitted == []


async def test_reading_stops_at_the_bound_of_unanswered_requests_however_they_came(
    broker: FakeBroker,
) -> None:
    broker.held = True
    stream = Stream(LogService(broker, Limits(max_unanswered_requests=3)))
    four = packed(*(produce(b"a", request_id=at) for at in range(4)))
    await stream.send(four, four)
    assert len(broker.submitted) == 4
    broker.commit("t", batches=1)
    await settle()
    assert len(broker.submitted) == 4, "three are unanswered still"
    broker.commit("t", batches=1)
    await settle()
    assert len(broker.submitted) == 8
    broker.held = False
    broker.commit("t")
    await stream.finish()


async def test_reading_stops_at_the_bound_of_bytes_also_where_they_are_the_names_of_topics(
    broker: FakeBroker,
) -> None:
    read = []

    async def requests() -> AsyncIterator[pb.ProduceRequest]:
        for at in range(10):
            read.append(at)
            yield produce(b"a", topic="x" * 1000)

    limits = Limits(max_unanswered_bytes=MAX_MESSAGE_BYTES + 2500)
    answers = ProduceStream(broker, limits).responses(requests())
    await anext(answers)
    # Nobody takes the next one.
    await settle()
    assert read == [0, 1, 2]
    assert len([answer async for answer in answers]) == 9
