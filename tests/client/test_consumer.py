"""The consumer: never skips, never repeats, and says clearly why it cannot go on."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from client.fake_cluster import FakeCluster
from client.fake_log import FakePartition
from client.virtual import run
from quorumlog.client.client import AsyncClient
from quorumlog.errors import (
    Closed,
    InvalidArgument,
    OffsetOutOfRange,
    PartitionOutOfRange,
    ProtocolError,
    Unavailable,
    UnknownTopic,
)
from quorumlog.log.batch import Draft
from quorumlog.log.records import encode_body
from quorumlog.types import RecordData


def client_of(cluster: FakeCluster) -> AsyncClient:
    return AsyncClient(*cluster.addresses, connector=cluster, rng=cluster.rng)


def fill(
    partition: FakePartition, values: Sequence[bytes | RecordData], timestamp_ms: int = 1
) -> None:
    """One batch of ``values``."""
    body = encode_body(
        [value if isinstance(value, RecordData) else RecordData(value) for value in values]
    )
    draft = Draft.of(body, len(values))
    index, term = len(partition.batches) + 1, partition.term
    partition.batches.append(draft.stamp(index, term, partition.end_offset, timestamp_ms))
    partition.changed.set()
    partition.changed = asyncio.Event()


def filled(partition: FakePartition, batches: int = 10, size: int = 10) -> None:
    for number in range(batches):
        fill(partition, [f"{number * size + at}".encode() for at in range(size)], number)


def test_without_follow_it_ends_at_the_end_of_every_partition() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partitions = cluster.add_topic("t", 3)
        filled(partitions[0])
        filled(partitions[2], batches=2)
        async with (
            client_of(cluster) as client,
            client.consumer("t", follow=False) as consumer,
        ):
            records = [record async for record in consumer]
            assert [consumer.position(number) for number in (0, 1, 2)] == [100, 0, 20]
        assert len(records) == 120
        for number in (0, 2):
            offsets = [record.offset for record in records if record.partition == number]
            assert offsets == list(range(len(offsets)))
        assert records[0].topic == "t"

    run(scenario())


@pytest.mark.parametrize("start", [0, 1, 55, 99, 100])
def test_it_begins_at_the_offset_asked_for_even_within_a_batch(start: int) -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        filled(cluster.add_topic("t")[0])
        async with (
            client_of(cluster) as client,
            client.consumer("t", start=start, follow=False) as consumer,
        ):
            values = [record.value async for record in consumer]
        assert values == [str(number).encode() for number in range(start, 100)]

    run(scenario())


def test_it_begins_at_a_time_at_the_latest_and_per_partition() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        for partition in cluster.add_topic("t", 2):
            filled(partition)
        async with client_of(cluster) as client:
            at = datetime.fromtimestamp(0.005, UTC)
            async with client.consumer("t", start=at, follow=False) as consumer:
                assert (consumer.position(0), consumer.position(1)) == (50, 50)
            async with client.consumer("t", start="latest") as consumer:
                assert (consumer.position(0), consumer.position(1)) == (100, 100)
            async with client.consumer("t", start={0: 7}) as consumer:
                assert (consumer.position(0), consumer.position(1)) == (7, 0)

    run(scenario())


def test_following_it_waits_for_what_comes() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.consumer("t", start="latest") as consumer:
            waiting = asyncio.ensure_future(anext(consumer))
            await asyncio.sleep(100)
            assert not waiting.done()
            fill(partition, [b"new"])
            assert (await waiting).value == b"new"

    run(scenario())


def test_a_broken_stream_is_resumed_where_it_broke_also_within_a_batch_and_elsewhere() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        filled(partition, batches=50)
        offsets = []
        async with (
            client_of(cluster) as client,
            client.consumer("t", max_bytes=300, follow=False) as consumer,
        ):
            async for record in consumer:
                offsets.append(record.offset)
                if record.offset % 97 == 0:
                    cluster.break_streams()
                    cluster.elect(partition, cluster.rng.choice(cluster.addresses))
        assert offsets == list(range(500))

    run(scenario())


def test_what_a_leader_sends_again_is_not_returned_again() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        filled(partition)
        read = partition.read

        def read_from_before(offset: int, max_bytes: int) -> tuple[bytes, int]:
            data, _ = read(max(0, offset - 25), max_bytes)
            return data, read(offset, max_bytes)[1]

        partition.read = read_from_before  # type: ignore[method-assign]
        async with (
            client_of(cluster) as client,
            client.consumer("t", start=33, follow=False, max_bytes=2000) as consumer,
        ):
            offsets = [record.offset async for record in consumer]
        assert offsets == list(range(33, 100))

    run(scenario())


def test_a_gap_is_an_error_and_never_skipped() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        filled(partition)
        del partition.batches[4]
        async with client_of(cluster) as client, client.consumer("t", follow=False) as consumer:
            with pytest.raises(ProtocolError, match="expected offset 40, the next batch begins at"):
                async for _ in consumer:
                    pass
            assert consumer.position(0) == 40

    run(scenario())


@pytest.mark.parametrize(("times", "readable"), [(2, True), (1000, False)])
def test_damaged_bytes_are_asked_for_again_and_reported_when_they_stay(
    times: int, readable: bool
) -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        filled(cluster.add_topic("t")[0])
        cluster.garble_next_fetch = times
        async with client_of(cluster) as client, client.consumer("t", follow=False) as consumer:
            if readable:
                assert len([record async for record in consumer]) == 100
                return
            with pytest.raises(ProtocolError, match="checksum"):
                async for _ in consumer:
                    pass

    run(scenario())


def test_a_silent_leader_is_left() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.consumer("t") as consumer:
            waiting = asyncio.ensure_future(anext(consumer))
            await asyncio.sleep(1)
            cluster.nodes["n1:7400"].hung = True
            cluster.elect(partition, "n2:7400")
            fill(partition, [b"v"])
            assert (await asyncio.wait_for(waiting, 30)).value == b"v"

    run(scenario())


def test_no_leader_for_the_retry_timeout_is_unavailable() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with (
            client_of(cluster) as client,
            client.consumer("t", retry_timeout_s=60.0) as consumer,
        ):
            cluster.break_streams()
            cluster.elect(partition, None)
            start_s = asyncio.get_running_loop().time()
            with pytest.raises(Unavailable):
                await anext(consumer)
            assert 55 < asyncio.get_running_loop().time() - start_s < 62

    run(scenario())


def test_a_partition_without_leader_does_not_hold_up_the_others() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partitions = cluster.add_topic("t", 2)
        filled(partitions[1])
        async with client_of(cluster) as client, client.consumer("t") as consumer:
            cluster.break_streams()
            cluster.elect(partitions[0], None)
            records = [await anext(consumer) for _ in range(100)]
        assert {record.partition for record in records} == {1}

    run(scenario())


def test_partitions_take_turns() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        for partition in cluster.add_topic("t", 3):
            filled(partition)
        async with (
            client_of(cluster) as client,
            client.consumer("t", follow=False, max_bytes=1) as consumer,
        ):
            await asyncio.sleep(1)
            turns = [batch.partition async for batch in consumer.batches()]
        assert turns == [0, 1, 2] * 10

    run(scenario())


def test_batches_and_records_can_be_mixed_without_loss() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        filled(cluster.add_topic("t")[0])
        async with client_of(cluster) as client, client.consumer("t", follow=False) as consumer:
            first = [(await anext(consumer)).value for _ in range(3)]
            batch = await consumer.next_batch()
            assert batch is not None
            assert (batch.start, batch.next_offset, batch.record_count) == (3, 10, 7)
            assert consumer.position(0) == 10
            rest = [record.value async for record in consumer]
        values = [*first, *batch.values(), *rest]
        assert values == [str(number).encode() for number in range(100)]

    run(scenario())


def test_prefetch_is_bounded() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        for _ in range(100):
            fill(partition, [bytes(1000)])
        async with client_of(cluster) as client:
            consumer = client.consumer("t", follow=False, max_bytes=1000, prefetch_bytes=5000)
            async with consumer:
                await asyncio.sleep(10)
                waiting = consumer._readers[0]._ready_bytes
                assert 5000 <= waiting < 7000
                assert len([batch async for batch in consumer.batches()]) == 100

    run(scenario())


def test_seek_goes_anywhere_and_drops_what_was_read_ahead() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        filled(cluster.add_topic("t")[0])
        async with client_of(cluster) as client, client.consumer("t") as consumer:
            assert (await anext(consumer)).offset == 0
            await consumer.seek(0, 95)
            assert (await anext(consumer)).offset == 95
            await consumer.seek(0, "earliest")
            assert (await anext(consumer)).offset == 0
            assert (await anext(consumer)).offset == 1
            with pytest.raises(OffsetOutOfRange):
                await consumer.seek(0, 101)
            assert (await anext(consumer)).offset == 2

    run(scenario())


def test_offsets_out_of_range_name_the_range() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        filled(cluster.add_topic("t")[0])
        async with client_of(cluster) as client:
            with pytest.raises(OffsetOutOfRange, match=r"offset 101 .* \[0, 100\)"):
                await client.consumer("t", start=101).open()

    run(scenario())


def test_records_removed_while_reading_are_an_error_not_a_jump() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        filled(partition)
        async with (
            client_of(cluster) as client,
            client.consumer("t", max_bytes=1, prefetch_bytes=1) as consumer,
        ):
            await anext(consumer)
            partition.start_offset = 50
            with pytest.raises(OffsetOutOfRange):
                async for _ in consumer:
                    pass

    run(scenario())


def test_a_new_leader_that_is_behind_is_waited_for() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        filled(partition)
        async with client_of(cluster) as client, client.consumer("t") as consumer:
            for _ in range(100):
                await anext(consumer)
            hidden, partition.batches = partition.batches, partition.batches[:5]
            cluster.break_streams()
            await asyncio.sleep(3)
            partition.batches = hidden
            fill(partition, [b"next"])
            assert (await anext(consumer)).offset == 100

    run(scenario())


def test_bad_arguments_are_refused() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t", 2)
        async with client_of(cluster) as client:
            with pytest.raises(UnknownTopic):
                await client.consumer("nosuch").open()
            with pytest.raises(PartitionOutOfRange):
                await client.consumer("t", partitions=[2]).open()
            with pytest.raises(InvalidArgument, match="time zone"):
                await client.consumer("t", start=datetime(2026, 1, 1)).open()  # noqa: DTZ001 - refused for it
            with pytest.raises(InvalidArgument):
                await client.consumer("t", start=-1).open()
            with pytest.raises(InvalidArgument):
                await client.consumer("t", start="middle").open()  # type: ignore[arg-type]
            async with client.consumer("t", partitions=[1]) as consumer:
                assert consumer.partitions == (1,)
                with pytest.raises(InvalidArgument):
                    consumer.position(0)

    run(scenario())


def test_a_closed_consumer_says_so_and_wakes_who_waits() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        async with client_of(cluster) as client:
            consumer = client.consumer("t")
            waiting = asyncio.ensure_future(anext(consumer))
            await asyncio.sleep(1)
            await consumer.close()
            await consumer.close()
            with pytest.raises(Closed):
                await waiting
            with pytest.raises(Closed):
                await anext(consumer)
            assert cluster.open_streams() == 0

    run(scenario())


def test_fetch_returns_one_look_and_offsets_the_ranges() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partitions = cluster.add_topic("t", 2)
        filled(partitions[0])
        async with client_of(cluster) as client:
            batches = await client.fetch("t", 0, 42, max_bytes=1)
            assert [record.offset for record in batches[0].records()] == list(range(42, 50))
            assert await client.fetch("t", 1) == []
            ranges = await client.offsets("t")
            assert [(item.start, item.end) for item in ranges.values()] == [(0, 100), (0, 0)]
            assert await client.offset("t", 0, datetime.fromtimestamp(0.005, UTC)) == 50

    run(scenario())


def test_values_tell_empty_from_absent() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        async with client_of(cluster) as client, client.producer("t") as producer:
            await producer.send_many([b"", RecordData(None, key=b"k"), b"v"])
            batches = await client.fetch("t", 0)
        values = [value for batch in batches for value in batch.values()]
        assert values == [b"", None, b"v"]
        assert [r.value for batch in batches for r in batch.records()] == values

    run(scenario())
