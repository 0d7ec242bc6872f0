"""The producer against a cluster that misbehaves: exactly once, in order, or a clear error."""

import asyncio

import pytest

from client.fake_cluster import FakeCluster
from client.virtual import run
from quorumlog.client.client import AsyncClient
from quorumlog.client.encoding import encode_item
from quorumlog.errors import (
    Closed,
    DuplicateSequence,
    InvalidArgument,
    InvalidBatch,
    NotLeader,
    OutcomeUnknown,
    OutOfOrderSequence,
    Overloaded,
    PartitionOutOfRange,
    RecordTooLarge,
    Unavailable,
    UnknownTopic,
)
from quorumlog.types import RecordData


def client_of(cluster: FakeCluster, **options: float) -> AsyncClient:
    return AsyncClient(cluster.addresses[0], connector=cluster, rng=cluster.rng, **options)


def values(count: int, prefix: str = "v") -> list[bytes]:
    return [f"{prefix}{number}".encode() for number in range(count)]


def test_send_returns_where_the_record_stands() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t", 2)[1]
        async with client_of(cluster) as client, client.producer("t") as producer:
            first = await producer.send(b"a", partition=1)
            second = await producer.send(b"b", partition=1, key=b"k", headers={"h": b"1"})
        assert (first.topic, first.partition, first.offset) == ("t", 1, 0)
        assert second.offset == 1
        record = partition.records()[1]
        assert (record.value, record.key, dict(record.headers)) == (b"b", b"k", {"h": b"1"})
        assert second.timestamp_ms == record.timestamp_ms

    run(scenario())


def test_records_submitted_in_one_turn_share_a_batch() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t") as producer:
            futures = [await producer.submit(value) for value in values(100)]
            offsets = [(await future).offset for future in futures]
        assert offsets == list(range(100))
        assert len(partition.batches) == 1

    run(scenario())


def test_full_batches_are_pipelined_five_deep_and_no_deeper() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.delay_s = 1.0
        cluster.add_topic("t")
        async with client_of(cluster) as client, client.producer("t", batch_bytes=1000) as producer:
            for _ in range(60):
                await producer.submit(bytes(300))
        counts = [request.batch.record_count for _, request in cluster.produced]
        assert set(counts) == {3}
        assert sum(counts) == 60
        assert cluster.most_unanswered == 5

    run(scenario())


def test_small_records_gather_while_a_batch_is_under_way() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.delay_s = 1.0
        cluster.add_topic("t")
        async with client_of(cluster) as client, client.producer("t") as producer:
            await producer.send(b"first")
            for value in values(30):
                await producer.submit(value)
                await asyncio.sleep(0.01)
        counts = [request.batch.record_count for _, request in cluster.produced]
        assert counts == [1, 1, 29]

    run(scenario())


def test_records_with_a_key_stay_on_one_partition_and_others_go_round() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partitions = cluster.add_topic("t", 4)
        async with client_of(cluster) as client, client.producer("t") as producer:
            homes = {(await producer.send(b"v", key=b"same")).partition for _ in range(5)}
            rounds = [(await producer.send(b"v")).partition for _ in range(8)]
        assert len(homes) == 1
        assert sorted(rounds) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert sum(len(partition.records()) for partition in partitions) == 13

    run(scenario())


def test_send_many_keeps_order_and_counts_everything() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partitions = cluster.add_topic("t", 3)
        keyed = [RecordData(value, key=value[-1:]) for value in values(25_000)]
        async with (
            client_of(cluster) as client,
            client.producer("t", batch_bytes=50_000) as producer,
        ):
            summary = await producer.send_many(keyed)
            plain = await producer.send_many(iter(values(25_000, "p")))
        assert (summary.record_count, plain.record_count) == (25_000, 25_000)
        stored = [value for partition in partitions for value in partition.values()]
        assert sorted(stored) == sorted([*values(25_000), *values(25_000, "p")])
        for partition in partitions:
            numbers = [int(v[1:]) for v in partition.values() if v is not None and v[:1] == b"v"]
            assert numbers == sorted(numbers)
        assert {number: partitions[number].end_offset - 1 for number in range(3)} == {
            **summary.last_offsets,
            **plain.last_offsets,
        }

    run(scenario())


def test_submit_many_tells_the_fate_of_each_position() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partitions = cluster.add_topic("t", 3)
        records = [RecordData(value, key=value[-1:]) for value in values(100)]
        async with client_of(cluster) as client, client.producer("t") as producer:
            runs = await producer.submit_many(records)
            for item in runs:
                where = await item.acknowledged
                assert where.base_offset is not None
                stored = partitions[where.partition].records()[where.base_offset :]
                for position, record in zip(item.positions, stored, strict=False):
                    assert record.value == records[position].value
        assert sorted(position for item in runs for position in item.positions) == list(range(100))

    run(scenario())


def test_a_refused_record_leaves_nothing_of_its_call() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t") as producer:
            with pytest.raises(RecordTooLarge, match="1048577 bytes and the limit is 1048576"):
                await producer.submit_many([b"ok", bytes(1024 * 1024 + 1)])
            with pytest.raises(RecordTooLarge):
                await producer.send(bytes(1024 * 1024 + 1))
            with pytest.raises(InvalidArgument):
                await producer.send("text")  # type: ignore[arg-type]
            await producer.send(bytes(1024 * 1024))
        assert len(partition.records()) == 1

    run(scenario())


def test_unknown_topic_and_partition_are_said_before_anything_is_sent() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t", 2)
        async with client_of(cluster) as client:
            with pytest.raises(UnknownTopic, match="quorumlog topic create nosuch"):
                await client.producer("nosuch").send(b"v")
            with pytest.raises(PartitionOutOfRange, match="partitions 0 to 1, there is no 2"):
                await client.producer("t").send(b"v", partition=2)
        assert cluster.produced == []

    run(scenario())


def test_one_node_that_is_behind_does_not_make_a_topic_unknown() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        cluster.nodes["n1:7400"].behind = True
        cluster.elect(partition, "n1:7400")

        async def catch_up() -> None:
            await asyncio.sleep(5)
            cluster.nodes["n1:7400"].behind = False

        catching_up = asyncio.ensure_future(catch_up())
        async with client_of(cluster) as client, client.producer("t") as producer:
            assert (await producer.send(b"v")).offset == 0
        await catching_up

    run(scenario())


def test_a_topic_deleted_while_producing_is_unknown_in_the_end() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        async with client_of(cluster) as client, client.producer("t") as producer:
            await producer.send(b"v")
            await client.delete_topic("t")
            with pytest.raises(UnknownTopic):
                await producer.send(b"w")

    run(scenario())


def test_a_new_leader_gets_what_the_old_one_did_not_acknowledge() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t", batch_bytes=200) as producer:
            await producer.send(b"first")
            futures = [await producer.submit(value) for value in values(200)]
            await asyncio.sleep(0.0015)
            cluster.kill("n1:7400")
            assert not all(future.done() for future in futures)
            await asyncio.sleep(2)
            cluster.elect(partition, "n2:7400")
            offsets = [(await future).offset for future in futures]
        assert partition.values() == [b"first", *values(200)]
        assert offsets == list(range(1, 201))

    run(scenario())


def test_a_hint_is_followed_within_milliseconds() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t") as producer:
            await producer.send(b"a")
            cluster.elect(partition, "n3:7400")
            start_s = asyncio.get_running_loop().time()
            await producer.send(b"b")
            assert asyncio.get_running_loop().time() - start_s < 0.01
        assert cluster.produced[-1][0] == "n3:7400"

    run(scenario())


def test_nobody_is_sent_back_and_forth_to_a_dead_leader_until_the_others_elect() -> None:
    """They name it until their election timeout: the new one is found soon after, whenever."""

    async def scenario(elected_after_s: float) -> float:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t") as producer:
            await producer.send(b"a")
            cluster.kill("n1:7400")
            cluster.elect(partition, "n1:7400")
            sent = asyncio.create_task(producer.send(b"b"))
            await asyncio.sleep(elected_after_s)
            cluster.elect(partition, "n2:7400")
            start_s = asyncio.get_running_loop().time()
            await sent
            return asyncio.get_running_loop().time() - start_s

    assert max(run(scenario(0.3 + number * 0.01)) for number in range(60)) < 0.22


def test_a_node_that_is_asked_about_others_partitions_may_guess_wrong() -> None:
    """Metadata names a dead leader for ever; the partition's other replicas know better."""

    async def scenario() -> None:
        cluster = FakeCluster(5)
        partition = cluster.add_topic("t")[0]
        partition.replicas = ["n1:7400", "n2:7400", "n3:7400"]
        async with client_of(cluster) as client, client.producer("t") as producer:
            await producer.send(b"a")
            cluster.kill("n1:7400")
            cluster.elect(partition, "n3:7400")
            told = cluster.topic_message("t")
            told.partitions[0].leader = "node1"
            cluster.topic_message = lambda name: told  # type: ignore[method-assign]
            assert (await producer.send(b"b")).offset == 1

    run(scenario())


def test_a_leader_that_hangs_is_left_for_its_successor() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t") as producer:
            await producer.send(b"a")
            cluster.nodes["n1:7400"].hung = True
            pending = await producer.submit(b"b")
            await asyncio.sleep(1)
            cluster.elect(partition, "n2:7400")
            start_s = asyncio.get_running_loop().time()
            await pending
            assert asyncio.get_running_loop().time() - start_s < 5
        assert partition.values() == [b"a", b"b"]

    run(scenario())


def test_a_leader_that_hangs_without_successor_is_dialled_anew_after_the_request_timeout() -> None:
    async def scenario() -> None:
        cluster = FakeCluster(1)
        partition = cluster.add_topic("t")[0]
        async with (
            client_of(cluster, request_timeout_s=10.0) as client,
            client.producer("t") as producer,
        ):
            await producer.send(b"a")
            cluster.nodes["n1:7400"].hung = True
            pending = await producer.submit(b"b")
            await asyncio.sleep(20)
            cluster.nodes["n1:7400"].hung = False
            start_s = asyncio.get_running_loop().time()
            await pending
            assert asyncio.get_running_loop().time() - start_s < 15
        assert partition.values() == [b"a", b"b"]

    run(scenario())


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("full"),
        OutcomeUnknown("lost leadership"),
        Unavailable("shutting down"),
        NotLeader(),
        OutOfOrderSequence(0, 5),
    ],
)
def test_a_passing_failure_is_retried_without_loss_or_double(error: Exception) -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t", batch_bytes=100) as producer:
            await producer.send(b"a")
            cluster.produce_script.append(error)  # type: ignore[arg-type]
            futures = [await producer.submit(value) for value in values(100)]
            for future in futures:
                await future
        assert partition.values() == [b"a", *values(100)]

    run(scenario())


def test_a_duplicate_whose_offset_is_forgotten_counts_as_acknowledged() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        cluster.produce_script.append(DuplicateSequence("long ago"))
        async with client_of(cluster) as client, client.producer("t") as producer:
            metadata = await producer.send(b"v")
        assert metadata.offset is None

    run(scenario())


def test_a_batch_the_log_refuses_fails_alone_and_the_rest_goes_on_under_a_new_producer_id() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t", batch_bytes=100) as producer:
            await producer.send(b"a")
            cluster.produce_script.append(InvalidBatch("refused"))
            futures = [await producer.submit(value) for value in values(100)]
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            failed = [outcome for outcome in outcomes if isinstance(outcome, InvalidBatch)]
            assert 0 < len(failed) < 100
            assert outcomes[: len(failed)] == failed
            with pytest.raises(InvalidBatch):
                await producer.flush()
        assert partition.values() == [b"a", *values(100)[len(failed) :]]
        ids = {request.batch.producer_id for _, request in cluster.produced}
        assert len(ids) == 2

    run(scenario())


def test_the_log_forgot_the_producer_what_was_never_in_doubt_starts_anew() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t") as producer:
            await producer.send(b"a")
            partition.producers.clear()
            await producer.send(b"b")
        assert partition.values() == [b"a", b"b"]

    run(scenario())


def test_no_leader_until_the_timeout_is_unavailable_and_surely_not_in_the_log() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        cluster.elect(partition, None)
        async with client_of(cluster) as client:
            producer = client.producer("t", delivery_timeout_s=60.0)
            start_s = asyncio.get_running_loop().time()
            with pytest.raises(Unavailable, match="not acknowledged within 60 s"):
                await producer.send(b"v")
            assert 60 <= asyncio.get_running_loop().time() - start_s < 61
            cluster.elect(partition, "n2:7400")
            assert (await producer.send(b"w")).offset == 0
            await producer.close()
        assert partition.values() == [b"w"]

    run(scenario())


def test_no_answer_until_the_timeout_is_outcome_unknown_for_all_that_was_sent() -> None:
    async def scenario() -> None:
        cluster = FakeCluster(1)
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            producer = client.producer("t", delivery_timeout_s=40.0, batch_bytes=100)
            await producer.send(b"a")
            cluster.nodes["n1:7400"].hung = True
            futures = [await producer.submit(bytes(90)) for _ in range(8)]
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            kinds = [type(outcome) for outcome in outcomes]
            assert kinds[:5] == [OutcomeUnknown] * 5
            assert set(kinds[5:]) <= {OutcomeUnknown, Unavailable}
            cluster.nodes["n1:7400"].hung = False
            assert (await producer.send(b"b")).offset is not None
        assert [value for value in partition.values() if value in (b"a", b"b")] == [b"a", b"b"]

    run(scenario())


def test_a_full_buffer_makes_sending_wait_in_turn() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.delay_s = 1.0
        partition = cluster.add_topic("t")[0]
        async with (
            client_of(cluster) as client,
            client.producer("t", batch_bytes=1000, buffer_bytes=2000) as producer,
        ):
            order: list[int] = []

            async def one(number: int) -> None:
                await producer.submit(str(number).encode() + bytes(500))
                order.append(number)

            tasks = [asyncio.ensure_future(one(number)) for number in range(20)]
            await asyncio.sleep(0.1)
            assert len(order) < 5
            await asyncio.gather(*tasks)
            assert order == list(range(20))
        assert len(partition.records()) == 20

    run(scenario())


def test_a_cancelled_wait_for_room_gives_its_share_back() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.delay_s = 1.0
        partition = cluster.add_topic("t")[0]
        async with (
            client_of(cluster) as client,
            client.producer("t", batch_bytes=1000, buffer_bytes=1000) as producer,
        ):
            await producer.send(b"first")
            await producer.submit(bytes(900))
            waiting = [asyncio.ensure_future(producer.submit(bytes(900))) for _ in range(3)]
            await asyncio.sleep(0.1)
            waiting[0].cancel()
            waiting[1].cancel()
            await asyncio.wait_for(waiting[2], 10)
        assert len(partition.records()) == 3

    run(scenario())


def test_cancelling_a_send_does_not_unsend_it() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t") as producer:
            await producer.send(b"a")
            sending = asyncio.ensure_future(producer.send(b"b"))
            await asyncio.sleep(0.0001)
            sending.cancel()
            await producer.send(b"c")
        assert partition.values() == [b"a", b"b", b"c"]

    run(scenario())


def test_close_flushes_is_idempotent_and_refuses_what_comes_later() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            producer = client.producer("t")
            future = await producer.submit(b"v")
            await producer.close()
            assert future.done()
            await producer.close()
            with pytest.raises(Closed):
                await producer.send(b"w")
        assert partition.values() == [b"v"]

    run(scenario())


def test_leaving_with_an_exception_gives_up_at_once() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        cluster.elect(partition, None)
        start_s = asyncio.get_running_loop().time()
        futures = []

        async def fail() -> None:
            async with client_of(cluster) as client, client.producer("t") as producer:
                futures.append(await producer.submit(b"v"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert asyncio.get_running_loop().time() - start_s < 1
        with pytest.raises(Closed):
            await futures[0]

    run(scenario())


def test_a_failure_that_nobody_looked_at_is_raised_by_close() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        cluster.elect(partition, None)
        async with client_of(cluster) as client:
            producer = client.producer("t", delivery_timeout_s=1.0)
            await producer.submit(b"v")
            with pytest.raises(Unavailable):
                await producer.close()
            other = client.producer("t", delivery_timeout_s=1.0)
            with pytest.raises(Unavailable):
                await other.send(b"v")
            await other.close()

    run(scenario())


def test_closing_the_client_ends_everything_and_leaves_no_stream() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t", 3)
        client = client_of(cluster)
        producer = client.producer("t")
        await producer.send_many(values(100))
        async with asyncio.timeout(5):
            consumer = client.consumer("t")
            await anext(consumer)
            assert cluster.open_streams() > 0
            await client.close()
            await client.close()
        assert cluster.open_streams() == 0
        with pytest.raises(Closed):
            await producer.send(b"v")
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert [task for task in others if not task.done() and not task.cancelling()] == []

    run(scenario())


def test_all_partitions_and_producers_of_a_client_share_one_stream_per_node() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t", 9)
        cluster.add_topic("u", 9)
        async with (
            client_of(cluster) as client,
            client.producer("t") as one,
            client.producer("u") as other,
        ):
            for partition in range(9):
                await one.send(b"v", partition=partition)
                await other.send(b"v", partition=partition)
            assert cluster.open_streams() == 3

    run(scenario())


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_bytes", 0), ("batch_bytes", 5 << 20), ("buffer_bytes", 1), ("delivery_timeout_s", 0)],
)
def test_impossible_options_are_refused(name: str, value: int) -> None:
    async def scenario() -> None:
        async with client_of(FakeCluster()) as client:
            with pytest.raises(InvalidArgument, match=name):
                client.producer("t", **{name: value})  # type: ignore[arg-type]

    run(scenario())


def test_an_answer_that_leaves_it_open_makes_a_later_failure_an_unknown_outcome() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            producer = client.producer("t", delivery_timeout_s=5.0)
            cluster.produce_script.append(OutcomeUnknown("lost leadership, and it was stored"))
            pending = await producer.submit(b"v")
            while not cluster.produced:
                await asyncio.sleep(0.0001)
            cluster.elect(partition, None)
            with pytest.raises(OutcomeUnknown):
                await pending
        assert partition.values() == [b"v"]

    run(scenario())


def test_a_small_record_does_not_overtake_a_large_one_that_waits_for_room() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.delay_s = 1.0
        partition = cluster.add_topic("t")[0]
        async with (
            client_of(cluster) as client,
            client.producer("t", batch_bytes=1000, buffer_bytes=1000) as producer,
        ):
            await producer.send(b"first")
            await producer.submit(bytes(500))
            large = asyncio.ensure_future(producer.submit(bytes(900)))
            await asyncio.sleep(0.1)
            small = asyncio.ensure_future(producer.submit(b"small"))
            await asyncio.gather(large, small)
        assert partition.values() == [b"first", bytes(500), bytes(900), b"small"]

    run(scenario())


def test_room_that_was_granted_to_a_cancelled_sender_goes_to_the_next() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.elect(cluster.add_topic("t")[0], None)
        async with client_of(cluster) as client:
            producer = client.producer("t", batch_bytes=1000, buffer_bytes=1000)
            await producer.submit(bytes(900))
            first, second = (asyncio.ensure_future(producer.submit(bytes(900))) for _ in range(2))
            await asyncio.sleep(0.1)
            producer.released(len(encode_item(bytes(900))))
            first.cancel()
            await asyncio.wait([second], timeout=1.0)
            assert first.cancelled()
            assert second.done()
            producer.abort()

    run(scenario())
