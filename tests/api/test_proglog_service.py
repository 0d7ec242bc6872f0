"""What clients of "Distributed Services with Go" rely on."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc.error_details_pb2 import LocalizedMessage
from google.rpc.status_pb2 import Status

from fakes.broker import FakeBroker
from fakes.calls import aborted, failure, settle
from fakes.context import Aborted, FakeContext
from quorumlog.api._pb import proglog_pb2 as pb
from quorumlog.api.limits import Limits
from quorumlog.api.proglog_service import ProglogService
from quorumlog.errors import NotLeader, OffsetOutOfRange, RecordTooLarge, Unavailable
from quorumlog.log.batch import Draft
from quorumlog.log.records import encode_body
from quorumlog.types import RecordData


@pytest.fixture
def empty() -> FakeBroker:
    """Three nodes, no topic at all."""
    return FakeBroker()


@pytest.fixture
def service(empty: FakeBroker) -> ProglogService:
    return ProglogService(empty)


def record(value: bytes) -> pb.ProduceRequest:
    return pb.ProduceRequest(record=pb.Record(value=value))


async def produce(service: ProglogService, *values: bytes) -> list[int]:
    return [(await service.Produce(record(value), FakeContext())).offset for value in values]


def localized(error: Aborted) -> list[tuple[str, str]]:
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    messages = []
    for detail in status.details:
        message = LocalizedMessage()
        if detail.Unpack(message):
            messages.append((message.locale, message.message))
    return messages


async def test_the_first_record_has_offset_0_and_is_read_back(
    empty: FakeBroker, service: ProglogService, context: FakeContext
) -> None:
    assert await produce(service, b"hello", b"world") == [0, 1]
    answer = await service.Consume(pb.ConsumeRequest(offset=1), context)
    assert (answer.record.value, answer.record.offset) == (b"world", 1)
    assert answer.record.term == 3
    topic = empty.metadata.topic("default")
    assert (len(topic.partitions), topic.replicas) == (1, 3)


async def test_an_empty_value_is_a_record_too(
    service: ProglogService, context: FakeContext
) -> None:
    await produce(service, b"")
    answer = await service.Consume(pb.ConsumeRequest(offset=0), context)
    assert (answer.record.value, answer.record.offset) == (b"", 0)


async def test_a_record_in_the_middle_of_a_batch_is_found(
    empty: FakeBroker, service: ProglogService, context: FakeContext
) -> None:
    empty.create("default")
    body = encode_body([RecordData(b"a"), RecordData(b"b"), RecordData(b"c")])
    empty.submit("default", 0, Draft.of(body, 3))
    answer = await service.Consume(pb.ConsumeRequest(offset=1), context)
    assert (answer.record.value, answer.record.offset) == (b"b", 1)


@pytest.mark.parametrize("offset", [1, 2, 1 << 60])
async def test_past_the_end_is_out_of_range_with_the_localized_message(
    service: ProglogService, context: FakeContext, offset: int
) -> None:
    await produce(service, b"only")
    error = await aborted(service.Consume(pb.ConsumeRequest(offset=offset), context))
    assert error.code() is grpc.StatusCode.OUT_OF_RANGE
    assert localized(error) == [
        ("en-US", f"The requested offset is outside the log's range: {offset}")
    ]


async def test_before_the_start_is_out_of_range_for_a_stream_too(
    empty: FakeBroker, service: ProglogService, context: FakeContext
) -> None:
    await produce(service, b"a", b"b")
    empty.trim("default", 1)
    error = await failure(service.ConsumeStream(pb.ConsumeRequest(offset=0), context))
    assert isinstance(error, OffsetOutOfRange)
    assert error.start == 1


async def test_consume_is_served_by_a_follower_and_produce_is_not(
    empty: FakeBroker, service: ProglogService, context: FakeContext
) -> None:
    await produce(service, b"a")
    empty.lead_elsewhere("default", "c")
    answer = await service.Consume(pb.ConsumeRequest(offset=0), context)
    assert answer.record.value == b"a"
    first = await anext(aiter(service.ConsumeStream(pb.ConsumeRequest(), context)))
    assert first.record.value == b"a"
    error = await failure(service.Produce(record(b"b"), context))
    assert isinstance(error, NotLeader)
    assert error.leader == "c:7400"


async def test_a_consume_stream_follows_the_tail_without_polling(
    empty: FakeBroker, service: ProglogService, context: FakeContext
) -> None:
    await produce(service, b"a", b"b")
    responses = aiter(service.ConsumeStream(pb.ConsumeRequest(offset=1), context))
    assert (await anext(responses)).record.value == b"b"
    for value, offset in ((b"c", 2), (b"d", 3)):
        coming = asyncio.ensure_future(anext(responses))
        await settle()
        assert not coming.done()
        await produce(service, value)
        got = (await coming).record
        assert (got.value, got.offset) == (value, offset)
    assert len(empty.fetches) == 3


async def test_a_consume_stream_from_beyond_the_end_waits_there(
    empty: FakeBroker, service: ProglogService, context: FakeContext
) -> None:
    await produce(service, b"a")
    responses = aiter(service.ConsumeStream(pb.ConsumeRequest(offset=3), context))
    coming = asyncio.ensure_future(anext(responses))
    for value in (b"b", b"c"):
        await settle()
        assert not coming.done()
        await produce(service, value)
    await settle()
    assert len(empty.fetches) < 10
    assert not coming.done()
    await produce(service, b"d")
    assert (await coming).record.value == b"d"


async def test_a_produce_stream_is_pipelined_and_answered_in_order(
    empty: FakeBroker, service: ProglogService, context: FakeContext
) -> None:
    empty.create("default")
    empty.held = True

    async def requests() -> AsyncIterator[pb.ProduceRequest]:
        for at in range(5):
            yield record(b"%d" % at)

    async def offsets() -> list[int]:
        return [each.offset async for each in service.ProduceStream(requests(), context)]

    producing = asyncio.create_task(offsets())
    await settle()
    assert len(empty.submitted) == 5
    empty.commit("default")
    assert await producing == [0, 1, 2, 3, 4]


async def test_an_error_ends_a_produce_stream_after_the_answers_before_it(
    empty: FakeBroker, context: FakeContext
) -> None:
    service = ProglogService(empty, Limits(max_record_bytes=10))
    answers: list[int] = []

    async def requests() -> AsyncIterator[pb.ProduceRequest]:
        for value in (b"a", b"x" * 11, b"b"):
            yield record(value)

    async def run() -> AsyncIterator[None]:
        async for each in service.ProduceStream(requests(), context):
            answers.append(each.offset)
            yield

    assert isinstance(await failure(run()), RecordTooLarge)
    assert answers == [0]


async def test_the_topic_is_made_once_by_whoever_comes_first(
    empty: FakeBroker, service: ProglogService, context: FakeContext
) -> None:
    other = ProglogService(empty)
    offsets = await asyncio.gather(produce(service, b"a"), produce(other, b"b"))
    assert sorted(offsets) == [[0], [1]]
    assert empty.metadata.next_group == 2


async def test_a_topic_made_by_another_node_is_waited_for(
    empty: FakeBroker, service: ProglogService
) -> None:
    empty.metadata_delayed = True
    empty.create("default")
    producing = asyncio.create_task(produce(service, b"a"))
    await settle()
    assert not producing.done()
    empty.catch_up()
    assert await producing == [0]


async def test_the_first_election_of_the_new_topic_is_waited_for_once(
    empty: FakeBroker, service: ProglogService
) -> None:
    empty.create("default", replicas=3)
    empty.log("default")
    empty.elections = 3
    assert await produce(service, b"a") == [0]
    assert empty.elections == 0
    # A later election is told as it is: waiting on every call would hide a lost majority.
    empty.elections = 3
    assert await produce(service, b"b") == [1]
    assert empty.elections == 3


async def test_reading_first_makes_the_topic_too(
    empty: FakeBroker, service: ProglogService, context: FakeContext
) -> None:
    error = await failure(service.Consume(pb.ConsumeRequest(offset=0), context))
    assert isinstance(error, OffsetOutOfRange)
    assert empty.metadata.has_topic("default")


async def test_servers_name_the_leader_of_the_topic_or_first_of_the_cluster(
    empty: FakeBroker, service: ProglogService, context: FakeContext
) -> None:
    async def leaders() -> dict[str, bool]:
        answer = await service.GetServers(pb.GetServersRequest(), context)
        assert [(each.id, each.rpc_addr) for each in answer.servers] == [
            ("a", "a:7400"),
            ("b", "b:7400"),
            ("c", "c:7400"),
        ]
        return {each.id: each.is_leader for each in answer.servers}

    assert await leaders() == {"a": False, "b": True, "c": False}
    assert not empty.metadata.has_topic("default")
    await produce(service, b"a")
    assert await leaders() == {"a": True, "b": False, "c": False}


async def test_without_a_cluster_every_call_says_so(
    empty: FakeBroker,
    service: ProglogService,
    context: FakeContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise Unavailable("this node is not in a cluster yet")

    monkeypatch.setattr(empty, "cluster_status", refuse)
    monkeypatch.setattr(empty, "alive_nodes", refuse)
    calls = (
        service.GetServers(pb.GetServersRequest(), context),
        service.Produce(record(b"a"), context),
        service.Consume(pb.ConsumeRequest(), context),
        service.ConsumeStream(pb.ConsumeRequest(), context),
    )
    for call in calls:
        assert type(await failure(call)) is Unavailable
