import asyncio
from collections.abc import AsyncIterator

import pytest
from fastcrc.crc32 import iscsi as crc32c

from fakes.broker import FakeBroker
from fakes.calls import failure, settle
from fakes.context import Aborted, FakeContext
from fakes.requests import batch, produce, values_of
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api.convert import draft_of
from quorumlog.api.limits import Limits
from quorumlog.api.log_service import LogService
from quorumlog.errors import (
    CodecUnavailable,
    ConfigError,
    InvalidArgument,
    InvalidBatch,
    NotLeader,
    OffsetOutOfRange,
    PartitionOutOfRange,
    QuorumlogError,
    RecordTooLarge,
    StaleFencingToken,
    UnknownTopic,
    WrongExpectedOffset,
)
from quorumlog.log.batch import CODEC_ZSTD, iterate_batches
from quorumlog.log.compression import compress
from quorumlog.log.records import encode_body, encode_record, encode_sparse_body
from quorumlog.rpc_status import error_from_rpc
from quorumlog.types import RecordData
from support.libraries import without_zstd


@pytest.fixture
def service(broker: FakeBroker) -> LogService:
    return LogService(broker)


def damaged(batch: pb.Batch, **fields: object) -> pb.Batch:
    copy = pb.Batch()
    copy.CopyFrom(batch)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


def compressed(body: bytes, record_count: int) -> pb.Batch:
    frame = compress(body)
    return pb.Batch(body=frame, record_count=record_count, body_crc=crc32c(frame), codec=CODEC_ZSTD)


# ------------------------------------------------------------------------------------- produce


async def test_produce_answers_with_offset_and_time(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    first = await service.Produce(produce(b"a", b"b", request_id=9), context)
    second = await service.Produce(produce(b"c"), context)
    assert (first.base_offset, first.timestamp_ms, first.request_id) == (0, 1001, 9)
    assert (second.base_offset, second.timestamp_ms) == (2, 1002)
    assert not first.HasField("error")


BAD_BATCHES = [
    pytest.param(pb.Batch(), InvalidBatch, "1 to 1000000 records, not 0", id="empty"),
    pytest.param(
        damaged(batch(b"a"), body_crc=1), InvalidBatch, "checksum is .* should be", id="crc"
    ),
    pytest.param(damaged(batch(b"a"), record_count=2), InvalidBatch, "says 2 records", id="count"),
    pytest.param(damaged(batch(b"a"), codec=2), InvalidBatch, "unknown codec 2", id="codec"),
    pytest.param(damaged(batch(b"a"), codec=1), InvalidBatch, "not a zstd frame", id="no frame"),
    pytest.param(
        compressed(encode_body([RecordData(b"a" * 100)] * 9), 8),
        InvalidBatch,
        "says 8 records, its body has 9",
        id="count in a frame",
    ),
    pytest.param(
        compressed(encode_body([RecordData(bytes(1000))] * 5000), 5000),
        InvalidBatch,
        "over 4194304 bytes when it is decompressed",
        id="frame size",
    ),
    pytest.param(
        compressed(encode_body([RecordData(bytes(2 << 20))], 4 << 20), 1),
        RecordTooLarge,
        "1048576",
        id="record in a frame",
    ),
    pytest.param(
        compressed(encode_sparse_body([(0, encode_record(RecordData(b"a" * 100)))]), 1),
        InvalidBatch,
        "not sparse",
        id="sparse",
    ),
    pytest.param(
        damaged(batch(b"a"), record_count=2_000_000), InvalidBatch, "1 to 1000000", id="too many"
    ),
    pytest.param(
        damaged(batch(b"a"), producer_id=1, sequence=(1 << 64) - 1),
        InvalidArgument,
        "out of range",
        id="sequence",
    ),
    pytest.param(
        batch(b"x" * (4 * 1024 * 1024 + 1)), InvalidBatch, "the limit is 4194304", id="batch size"
    ),
]


@pytest.mark.parametrize(("bad", "kind", "message"), BAD_BATCHES)
async def test_a_bad_batch_is_a_typed_error_and_never_submitted(
    broker: FakeBroker,
    service: LogService,
    context: FakeContext,
    bad: pb.Batch,
    kind: type[QuorumlogError],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        draft_of(bad, Limits())
    error = await failure(service.Produce(pb.ProduceRequest(topic="t", batch=bad), context))
    assert type(error) is kind
    assert broker.submitted == []


async def test_a_compressed_batch_is_submitted_as_it_came(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    sent = compressed(encode_body([RecordData(b"a" * 100)] * 9), 9)
    answer = await service.Produce(pb.ProduceRequest(topic="t", batch=sent), context)
    assert answer.base_offset == 0
    fetched = await service.Fetch(pb.FetchRequest(topic="t"), context)
    assert values_of(fetched) == [b"a" * 100] * 9
    (stored,) = iterate_batches(fetched.batches)
    assert (bytes(stored.body), stored.header.codec) == (sent.body, CODEC_ZSTD)
    assert stored.header.body_crc == sent.body_crc


async def test_the_limit_of_a_batch_is_one_of_what_is_in_its_frame(
    broker: FakeBroker, context: FakeContext
) -> None:
    service = LogService(broker, Limits(max_record_bytes=1000, max_batch_bytes=5000))
    for count, refused in ((4, False), (5, True)):
        sent = compressed(encode_body([RecordData(bytes(1000))] * count), count)
        call = service.Produce(pb.ProduceRequest(topic="t", batch=sent), context)
        if refused:
            assert "over 5000 bytes when it is decompressed" in str(await failure(call))
        else:
            await call
    assert len(broker.submitted) == 1


async def test_a_node_without_the_library_refuses_a_compressed_batch_and_says_so(
    broker: FakeBroker,
    service: LogService,
    context: FakeContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = compressed(encode_body([RecordData(b"a" * 100)] * 9), 9)
    without_zstd(monkeypatch)
    error = await failure(service.Produce(pb.ProduceRequest(topic="t", batch=sent), context))
    assert type(error) is CodecUnavailable
    assert "leader" in str(error)
    assert "pip install 'quorumlog[zstd]'" in str(error)
    assert not error.retryable
    assert broker.submitted == []


async def test_a_body_that_is_no_record_batch_is_refused(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    garbage = b"\x0a\xff\xff\xff"
    bad = pb.Batch(body=garbage, record_count=1, body_crc=crc32c(garbage))
    error = await failure(service.Produce(pb.ProduceRequest(topic="t", batch=bad), context))
    assert type(error) is InvalidBatch
    assert broker.submitted == []


async def test_a_record_over_the_limit_is_named(broker: FakeBroker, context: FakeContext) -> None:
    service = LogService(broker, Limits(max_record_bytes=1000))
    await service.Produce(produce(b"x" * 900, b"y" * 900), context)
    error = await failure(service.Produce(produce(b"x", b"y" * 1100), context))
    assert isinstance(error, RecordTooLarge)
    assert error.limit_bytes == 1000
    assert "1000" in str(error)


async def test_produce_to_what_is_not_there_or_not_led_here(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    unknown = await failure(service.Produce(produce(b"a", topic="nope"), context))
    assert type(unknown) is UnknownTopic
    missing = await failure(service.Produce(produce(b"a", partition=2), context))
    assert type(missing) is PartitionOutOfRange
    broker.lead_elsewhere("t", "b")
    moved = await failure(service.Produce(produce(b"a"), context))
    assert isinstance(moved, NotLeader)
    assert moved.leader == "b:7400"


async def test_a_caller_that_leaves_does_not_cancel_what_its_retry_waits_for(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    broker.held = True
    request = produce(b"a", producer_id=5)
    first = asyncio.create_task(service.Produce(request, context))
    await settle()
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(service.Produce(request, context))
    await settle()
    broker.commit("t")
    assert (await second).base_offset == 0
    assert len(broker.log("t").committed) == 1


# -------------------------------------------------------------------------------- produce stream


class Stream:
    """A client's side of a ProduceStream: sends, and keeps the answers that came."""

    def __init__(self, service: LogService) -> None:
        self.answers: list[pb.ProduceResponse] = []
        self.read = 0
        self._queue: asyncio.Queue[pb.ProduceRequest | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(service))

    async def _requests(self) -> AsyncIterator[pb.ProduceRequest]:
        while (request := await self._queue.get()) is not None:
            self.read += 1
            yield request

    async def _run(self, service: LogService) -> None:
        async for answer in service.ProduceStream(self._requests(), FakeContext()):
            self.answers.append(answer)

    async def send(self, *requests: pb.ProduceRequest) -> None:
        for request in requests:
            self._queue.put_nowait(request)
        await settle()

    async def finish(self) -> list[pb.ProduceResponse]:
        self._queue.put_nowait(None)
        await self._task
        return self.answers

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    @property
    def ids(self) -> list[int]:
        return [answer.request_id for answer in self.answers]


async def test_requests_are_submitted_without_waiting_for_earlier_ones(
    broker: FakeBroker, service: LogService
) -> None:
    broker.held = True
    stream = Stream(service)
    await stream.send(*(produce(b"%d" % at, request_id=at) for at in range(5)))
    assert [draft.record_count for _, _, draft in broker.submitted] == [1] * 5
    assert stream.answers == []
    broker.commit("t", batches=2)
    await settle()
    assert stream.ids == [0, 1]
    broker.commit("t")
    answers = await stream.finish()
    assert [(each.request_id, each.base_offset) for each in answers] == [(n, n) for n in range(5)]


async def test_a_slow_partition_does_not_hold_up_another(
    broker: FakeBroker, service: LogService
) -> None:
    broker.held = True
    stream = Stream(service)
    await stream.send(produce(b"a", request_id=1), produce(b"b", request_id=2, partition=1))
    broker.commit("t", partition=1)
    await settle()
    assert stream.ids == [2]
    broker.commit("t", partition=0)
    await stream.finish()
    assert stream.ids == [2, 1]


async def test_an_error_waits_for_its_turn_and_the_stream_goes_on(
    broker: FakeBroker, service: LogService
) -> None:
    broker.held = True
    stream = Stream(service)
    bad = produce(b"b", request_id=2)
    bad.batch.body_crc ^= 1
    await stream.send(
        produce(b"a", request_id=1),
        bad,
        produce(b"c", request_id=3, topic="nope"),
        produce(b"d", request_id=4),
    )
    assert stream.ids == [3]
    broker.commit("t")
    await stream.finish()
    assert stream.ids == [3, 1, 2, 4]
    by_id = {answer.request_id: answer for answer in stream.answers}
    assert by_id[2].error.reason == "INVALID_BATCH"
    assert not by_id[2].error.retryable
    assert by_id[3].error.reason == "UNKNOWN_TOPIC"
    assert dict(by_id[3].error.metadata) == {"topic": "nope"}
    assert by_id[4].base_offset == 1


async def test_a_commit_that_fails_is_an_error_in_the_answer(
    broker: FakeBroker, service: LogService
) -> None:
    broker.held = True
    stream = Stream(service)
    await stream.send(produce(b"a", request_id=1), produce(b"b", request_id=2))
    pending = broker.log("t").pending
    pending[0][1].set_exception(NotLeader("deposed", "c:7400"))
    pending[1][1].cancel()
    await settle()
    await stream.finish()
    assert [answer.error.reason for answer in stream.answers] == ["NOT_LEADER", "OUTCOME_UNKNOWN"]
    assert stream.answers[0].error.metadata["leader"] == "c:7400"
    assert stream.answers[0].error.retryable


async def test_a_bug_in_the_broker_ends_the_stream_and_is_not_swallowed(
    broker: FakeBroker, service: LogService
) -> None:
    broker.refuse.append(ZeroDivisionError("a bug"))
    stream = Stream(service)
    await stream.send(produce(b"a", request_id=1))
    with pytest.raises(ZeroDivisionError):
        await stream.finish()


async def test_reading_stops_at_the_bound_of_unanswered_requests(broker: FakeBroker) -> None:
    broker.held = True
    stream = Stream(LogService(broker, Limits(max_unanswered_requests=3)))
    await stream.send(*(produce(b"a", request_id=at) for at in range(8)))
    assert (len(broker.submitted), stream.read) == (3, 3)
    broker.commit("t", batches=1)
    await settle()
    assert len(broker.submitted) == 4
    broker.held = False
    broker.commit("t")
    assert len(await stream.finish()) == 8


async def test_reading_stops_when_the_largest_message_might_not_fit(broker: FakeBroker) -> None:
    broker.held = True
    mebibyte = 1024 * 1024
    stream = Stream(LogService(broker, Limits(max_unanswered_bytes=18 * mebibyte)))
    large = b"x" * (mebibyte - 100)
    await stream.send(*(produce(large, request_id=at) for at in range(5)))
    # Up to 2 MiB leave room for the 16 MiB a message may have; the third does not.
    assert len(broker.submitted) == 3
    broker.commit("t", batches=1)
    await settle()
    assert len(broker.submitted) == 4
    broker.held = False
    broker.commit("t")
    assert len(await stream.finish()) == 5


async def test_a_client_that_reads_no_answers_is_not_read_from(broker: FakeBroker) -> None:
    service = LogService(broker, Limits(max_unanswered_requests=4))
    sent = 0

    async def requests() -> AsyncIterator[pb.ProduceRequest]:
        nonlocal sent
        while True:
            sent += 1
            yield produce(b"a")

    responses = service.ProduceStream(requests(), FakeContext())
    await anext(aiter(responses))
    await settle()
    # One answer was taken but its successor not asked for: it still counts.
    assert sent == 4
    await responses.aclose()  # type: ignore[attr-defined]


async def test_a_stream_that_is_cancelled_leaves_no_task_behind(
    broker: FakeBroker, service: LogService
) -> None:
    broker.held = True
    before = asyncio.all_tasks()
    stream = Stream(service)
    await stream.send(produce(b"a"))
    await stream.cancel()
    assert asyncio.all_tasks() == before
    # What was submitted is in the log, and its late outcome disturbs nobody.
    broker.commit("t")
    await settle()
    assert len(broker.log("t").committed) == 1


async def test_a_retry_in_a_new_stream_is_answered_as_the_first_time(
    broker: FakeBroker, service: LogService
) -> None:
    broker.held = True
    requests = [produce(b"a", producer_id=7, sequence=at, request_id=at) for at in range(3)]
    first = Stream(service)
    await first.send(*requests)
    broker.commit("t", batches=1)
    await first.cancel()
    second = Stream(service)
    await second.send(*requests)
    broker.commit("t")
    answers = await second.finish()
    assert [(each.request_id, each.base_offset) for each in answers] == [(0, 0), (1, 1), (2, 2)]
    assert len(broker.log("t").committed) == 3


# --------------------------------------------------------------------------- fetch and consume


async def fill(service: LogService, *batches: tuple[bytes, ...]) -> None:
    for values in batches:
        await service.Produce(produce(*values), FakeContext())


async def test_fetch_returns_whole_batches_and_where_to_go_on(
    service: LogService, context: FakeContext
) -> None:
    await fill(service, (b"a", b"b"), (b"c",))
    answer = await service.Fetch(pb.FetchRequest(topic="t", start=pb.Start(offset=1)), context)
    assert values_of(answer) == [b"a", b"b", b"c"]
    assert (answer.next_offset, answer.log_start_offset, answer.high_watermark) == (3, 0, 3)
    small = await service.Fetch(pb.FetchRequest(topic="t", max_bytes=1), context)
    assert values_of(small) == [b"a", b"b"]
    assert small.next_offset == 2


@pytest.mark.parametrize(
    ("start", "values"),
    [
        (pb.Start(), [b"a", b"b", b"c"]),
        (pb.Start(earliest=True), [b"a", b"b", b"c"]),
        (pb.Start(offset=2), [b"c"]),
        (pb.Start(timestamp_ms=1003), [b"c"]),
        (pb.Start(timestamp_ms=0), [b"a", b"b", b"c"]),
        (pb.Start(timestamp_ms=9999), []),
        (pb.Start(latest=True), []),
    ],
)
async def test_a_reader_begins_where_it_asks_to(
    service: LogService, context: FakeContext, start: pb.Start, values: list[bytes]
) -> None:
    await fill(service, (b"a",), (b"b",), (b"c",))
    answer = await service.Fetch(pb.FetchRequest(topic="t", start=start), context)
    assert values_of(answer) == values
    consumed = [
        value
        async for each in service.Consume(pb.ConsumeRequest(topic="t", start=start), context)
        for value in values_of(each)
    ]
    assert consumed == values


async def test_fetch_waits_for_a_record_at_the_end(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    request = pb.FetchRequest(topic="t", max_wait_ms=20_000)
    waiting = asyncio.create_task(service.Fetch(request, context))
    await settle()
    assert not waiting.done()
    await fill(service, (b"a",))
    assert values_of(await waiting) == [b"a"]
    at_once = await service.Fetch(pb.FetchRequest(topic="t", start=pb.Start(offset=1)), context)
    assert at_once.batches == b""


async def test_what_fetch_asks_for_is_cut_to_the_bounds(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    await fill(service, (b"a",))
    for request in (
        pb.FetchRequest(topic="t"),
        pb.FetchRequest(topic="t", max_bytes=4_000_000_000, max_wait_ms=4_000_000_000),
        pb.FetchRequest(topic="t", max_bytes=77, max_wait_ms=1500),
    ):
        await service.Fetch(request, context)
    assert broker.fetches == [(1024 * 1024, 0.0), (8 * 1024 * 1024, 30.0), (77, 1.5)]


async def test_an_offset_outside_the_log_names_the_range(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    await fill(service, (b"a",), (b"b",), (b"c",))
    broker.trim("t", 1)
    for offset in (0, 4):
        start = pb.Start(offset=offset)
        for call in (
            service.Fetch(pb.FetchRequest(topic="t", start=start), context),
            service.ListOffsets(pb.ListOffsetsRequest(topic="t", start=start), context),
            service.Consume(pb.ConsumeRequest(topic="t", start=start, follow=True), context),
        ):
            error = await failure(call)
            assert isinstance(error, OffsetOutOfRange)
            assert (error.offset, error.start, error.end) == (offset, 1, 3)


async def test_consume_ends_at_the_end_unless_it_follows(
    service: LogService, context: FakeContext
) -> None:
    await fill(service, (b"a",), (b"b",))
    request = pb.ConsumeRequest(topic="t", max_bytes=1)
    answers = [each async for each in service.Consume(request, context)]
    assert [values_of(each) for each in answers] == [[b"a"], [b"b"]]
    assert answers[-1].next_offset == answers[-1].high_watermark == 2


async def test_consume_of_an_empty_log_says_that_it_is_empty(
    service: LogService, context: FakeContext
) -> None:
    answers = [each async for each in service.Consume(pb.ConsumeRequest(topic="t"), context)]
    assert [(each.batches, each.high_watermark) for each in answers] == [(b"", 0)]


async def test_a_follower_of_the_tail_waits_without_polling(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    request = pb.ConsumeRequest(topic="t", start=pb.Start(latest=True), follow=True)
    responses = aiter(service.Consume(request, context))
    for value in (b"a", b"b", b"c"):
        coming = asyncio.ensure_future(anext(responses))
        await settle()
        assert not coming.done()
        await fill(service, (value,))
        assert values_of(await coming) == [value]
    assert len(broker.fetches) == 3


async def test_an_idle_consumer_gets_heartbeats(broker: FakeBroker, context: FakeContext) -> None:
    service = LogService(broker, Limits(heartbeat_s=0.001))
    await fill(service, (b"a",))
    responses = aiter(service.Consume(pb.ConsumeRequest(topic="t", follow=True), context))
    assert values_of(await anext(responses)) == [b"a"]
    for _ in range(3):
        heartbeat = await anext(responses)
        assert (heartbeat.batches, heartbeat.next_offset, heartbeat.high_watermark) == (b"", 1, 1)


async def test_a_consumer_learns_that_the_leader_moved(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    await fill(service, (b"a",), (b"b",))
    request = pb.ConsumeRequest(topic="t", follow=True, max_bytes=1)
    responses = aiter(service.Consume(request, context))
    await anext(responses)
    broker.lead_elsewhere("t", "c")
    with pytest.raises(Aborted) as caught:
        await anext(responses)
    error = error_from_rpc(caught.value)
    assert isinstance(error, NotLeader)
    assert error.leader == "c:7400"


async def test_list_offsets_and_init_producer(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    await fill(service, (b"a",), (b"b",))
    request = pb.ListOffsetsRequest(topic="t", start=pb.Start(timestamp_ms=1002))
    answer = await service.ListOffsets(request, context)
    assert (answer.offset, answer.log_start_offset, answer.high_watermark) == (1, 0, 2)
    ids = [await service.InitProducer(pb.InitProducerRequest(), context) for _ in range(2)]
    assert [(each.producer_id, each.producer_epoch) for each in ids] == [(1, 0), (2, 0)]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_record_bytes": 0},
        {"max_record_bytes": 2000, "max_batch_bytes": 1000},
        {"max_batch_bytes": 8 * 1024 * 1024},
        {"fetch_bytes": 2000, "max_fetch_bytes": 1000},
        {"max_fetch_bytes": 16 * 1024 * 1024},
        {"max_unanswered_requests": 0},
        {"max_unanswered_bytes": 1000},
        {"heartbeat_s": 0.0},
        {"max_wait_s": -1.0},
    ],
)
def test_limits_that_cannot_be_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Limits(**settings)


# --------------------------------------------------------------------------------------- notes


async def test_notes_are_kept_with_their_partition_and_read_back(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    await service.Produce(produce(b"a", b"b"), context)
    at = {"topic": "t", "partition": 0}
    fenced = await service.Fence(pb.FenceRequest(token=7, **at), context)
    assert fenced.token == 7
    noted = pb.SetCheckpointRequest(name="billing", offset=2, **at)
    assert (await service.SetCheckpoint(noted, context)).offset == 2
    back = pb.SetCheckpointRequest(name="billing", offset=1, **at)
    assert (await service.SetCheckpoint(back, context)).offset == 2
    notes = await service.GetNotes(pb.NotesRequest(**at), context)
    assert (notes.fencing_token, dict(notes.checkpoints)) == (7, {"billing": 2})
    await service.ForgetCheckpoint(pb.ForgetCheckpointRequest(name="billing", **at), context)
    assert not (await service.GetNotes(pb.NotesRequest(**at), context)).checkpoints


async def test_a_batch_is_appended_only_where_the_partition_ends(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    batch = produce(b"a", b"b").batch
    request = pb.ProduceAtRequest(topic="t", partition=0, batch=batch, expected_end=0)
    assert (await service.ProduceAt(request, context)).base_offset == 0
    error = await failure(service.ProduceAt(request, context))
    assert isinstance(error, WrongExpectedOffset)
    assert (error.expected, error.end) == (0, 2)


async def test_a_batch_with_a_stale_fencing_token_is_refused_alone_or_in_a_stream(
    broker: FakeBroker, service: LogService, context: FakeContext
) -> None:
    await service.Fence(pb.FenceRequest(topic="t", partition=0, token=7), context)
    stale = produce(b"late", request_id=4)
    stale.batch.fencing_token = 6
    error = await failure(service.Produce(stale, context))
    assert isinstance(error, StaleFencingToken)
    assert (error.token, error.newest) == (6, 7)

    async def requests() -> AsyncIterator[pb.ProduceRequest]:
        yield stale
        stale.batch.fencing_token = 7
        yield stale

    answers = [each async for each in service.ProduceStream(requests(), context)]
    assert [each.error.reason for each in answers] == ["STALE_FENCING_TOKEN", ""]
