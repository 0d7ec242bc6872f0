"""Batches that were compressed by their producer, thinned by compaction, or emptied by it."""

import asyncio
import random
from dataclasses import replace

import pytest
from fastcrc.crc32 import iscsi as crc32c

from client.fake_cluster import FakeCluster
from client.fake_log import FakePartition
from client.test_consumer import fill
from client.virtual import run
from quorumlog.client.client import AsyncClient
from quorumlog.client.sync import Client
from quorumlog.errors import CodecUnavailable, InvalidArgument
from quorumlog.log.batch import CODEC_NONE, CODEC_ZSTD, SPARSE, Batch, BatchHeader, Kind
from quorumlog.log.compression import shrink
from quorumlog.log.records import encode_record, encode_sparse_body
from quorumlog.types import Index, Offset, RecordData, Term
from support.libraries import without_zstd


def client_of(cluster: FakeCluster) -> AsyncClient:
    return AsyncClient(*cluster.addresses, connector=cluster, rng=cluster.rng)


VALUES = [f"the value of record {number}".encode() for number in range(500)]


def codecs(partition: FakePartition) -> list[int]:
    return [batch.header.codec for batch in partition.batches]


# ------------------------------------------------------------------------------------- producing


def test_compressed_batches_are_small_and_read_as_any_other() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            async with client.producer("t", compression="zstd", batch_bytes=4000) as producer:
                await producer.send_many(VALUES)
                await producer.send(None, key=b"k", headers={"h": b"1" * 200})
            assert set(codecs(partition)) == {CODEC_ZSTD}
            assert sum(batch.header.body_length for batch in partition.batches) < 7000
            async with client.consumer("t", start=7, follow=False) as consumer:
                records = [record async for record in consumer]
            async with client.consumer("t", start=7, follow=False) as consumer:
                values = [value async for batch in consumer.batches() for value in batch.values()]
            (first, *_) = await client.fetch("t", 0, 3)
        assert [record.value for record in records] == [*VALUES[7:], None] == values
        assert [record.offset for record in records] == list(range(7, 501))
        assert (records[-1].key, dict(records[-1].headers)) == (b"k", {"h": b"1" * 200})
        assert first.records()[0].value == VALUES[3]

    run(scenario())


def test_a_batch_that_gets_no_smaller_goes_as_it_is() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        noise = random.Random(1).randbytes(1000)
        async with (
            client_of(cluster) as client,
            client.producer("t", compression="zstd") as producer,
        ):
            for value in (b"short", noise, b"long" * 100):
                await producer.send(value)
        assert codecs(partition) == [CODEC_NONE, CODEC_NONE, CODEC_ZSTD]
        assert partition.values() == [b"short", noise, b"long" * 100]

    run(scenario())


def test_without_compression_nothing_is_compressed() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client.producer("t") as producer:
            await producer.send(b"long" * 100)
        assert codecs(partition) == [CODEC_NONE]

    run(scenario())


def test_a_higher_level_makes_smaller_batches() -> None:
    words = random.Random(2)
    values = [words.choice(VALUES) + words.choice(VALUES) for _ in range(2000)]

    def stored_bytes(level: int) -> int:
        async def scenario() -> int:
            cluster = FakeCluster()
            partition = cluster.add_topic("t")[0]
            async with (
                client_of(cluster) as client,
                client.producer("t", compression="zstd", compression_level=level) as producer,
            ):
                await producer.send_many(values)
            return sum(batch.header.body_length for batch in partition.batches)

        return run(scenario())

    assert stored_bytes(19) < stored_bytes(1)


def test_the_buffer_counts_records_as_they_were_before_compression() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.delay_s = 1.0
        partition = cluster.add_topic("t")[0]
        async with (
            client_of(cluster) as client,
            client.producer(
                "t", compression="zstd", batch_bytes=2000, buffer_bytes=4000
            ) as producer,
        ):
            for number in range(20):
                # Waits for room: what is acknowledged gives back what it took.
                await producer.submit(b"%4d" % number + bytes(995))
            assert 16 <= len(partition.values()) < 20
            await producer.flush()
            assert len(partition.values()) == 20

    run(scenario())


def test_compressed_batches_are_stored_once_though_answers_are_lost() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.lose_reply = 0.3
        partition = cluster.add_topic("t")[0]
        async with (
            client_of(cluster) as client,
            client.producer("t", compression="zstd", batch_bytes=1000) as producer,
        ):
            pending = [await producer.submit(value) for value in VALUES]
            offsets = [(await future).offset for future in pending]
        assert partition.values() == VALUES
        assert offsets == list(range(500))
        assert len(cluster.produced) > len(partition.batches)

    run(scenario())


def test_a_leader_that_cannot_check_a_compressed_batch_is_a_final_and_typed_error() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            async with client.producer("t", compression="zstd") as producer:
                cluster.produce_script.append(CodecUnavailable("no zstd here"))
                with pytest.raises(CodecUnavailable, match="no zstd here"):
                    await producer.send(b"long" * 100)
                assert partition.values() == []
                await producer.send(b"next")
            assert partition.values() == [b"next"]

    run(scenario())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": "lz4"}, "compression is 'lz4', not zstd or None"),
        ({"compression": ""}, "compression is ''"),
        ({"compression": "zstd", "compression_level": 0}, "not 1 to 22"),
        ({"compression": "zstd", "compression_level": 23}, "not 1 to 22"),
    ],
)
def test_an_impossible_compression_is_named_at_once(
    options: dict[str, object], message: str
) -> None:
    async def scenario() -> None:
        async with client_of(FakeCluster()) as client:
            with pytest.raises(InvalidArgument, match=message):
                client.producer("t", **options)  # type: ignore[arg-type]

    run(scenario())


def test_a_producer_without_the_library_is_not_made_and_a_consumer_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        async with client_of(cluster) as client:
            async with client.producer("t", compression="zstd") as producer:
                await producer.send(b"long" * 100)
            without_zstd(monkeypatch)
            with pytest.raises(CodecUnavailable, match="pip install"):
                client.producer("t", compression="zstd")
            client.producer("t")
            async with client.consumer("t", follow=False) as consumer:
                with pytest.raises(CodecUnavailable, match="pip install"):
                    await anext(consumer)

    run(scenario())


def test_a_client_for_threads_compresses_too() -> None:
    cluster = FakeCluster()
    cluster.delay_s = 0.0
    partition = cluster.add_topic("t")[0]
    with (
        Client(*cluster.addresses, connector=cluster) as client,
        client.producer("t", compression="zstd", compression_level=9) as producer,
    ):
        producer.send_many(VALUES)
    assert set(codecs(partition)) == {CODEC_ZSTD}
    assert partition.values() == VALUES


# ------------------------------------------------------------------------------------- compacted


def thin(partition: FakePartition, at: int, kept: list[int], *, compressed: bool) -> None:
    """Leave of the batch at ``at`` the records with these deltas."""
    header = partition.batches[at].header
    fields = [
        (delta, encode_record(RecordData(f"{header.base_offset + delta}".encode() * 20, b"k")))
        for delta in kept
    ]
    body, codec = encode_sparse_body(fields), CODEC_NONE
    if compressed:
        body, codec = shrink(body)
    thinned = replace(
        header, body_crc=crc32c(body), body_length=len(body), codec=codec, flags=SPARSE
    )
    partition.batches[at] = Batch(thinned, thinned.encode(), body)


def leave_gap(partition: FakePartition, start: int, end: int) -> None:
    """Let one gap stand for the batches ``[start, end)``."""
    gone = partition.batches[start:end]
    first, last = gone[0].header, gone[-1].header
    gap = BatchHeader(
        crc32c(b""),
        0,
        last.next_offset - first.base_offset,
        Index(first.index),
        Term(first.term),
        Offset(first.base_offset),
        last.timestamp_ms,
        kind=Kind.GAP,
        index_count=len(gone),
    )
    partition.batches[start:end] = [Batch(gap, gap.encode(), b"")]


def compacted(cluster: FakeCluster) -> FakePartition:
    """Offsets 0 to 79, of which 3, 5, 9, 11, 70 and 79 are left."""
    partition = cluster.add_topic("t")[0]
    for _ in range(8):
        fill(partition, [b"gone"] * 10)
    thin(partition, 7, [0, 9], compressed=False)
    thin(partition, 1, [1], compressed=True)
    thin(partition, 0, [3, 5, 9], compressed=True)
    leave_gap(partition, 3, 7)
    thin(partition, 2, [], compressed=False)
    return partition


@pytest.mark.parametrize("start", [0, 3, 4, 10, 11, 12, 25, 30, 55, 70, 71, 79, 80])
def test_a_consumer_reads_what_compaction_left_from_any_offset_on(start: int) -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        compacted(cluster)
        expected = [offset for offset in (3, 5, 9, 11, 70, 79) if offset >= start]
        values = [f"{offset}".encode() * 20 for offset in expected]
        async with client_of(cluster) as client:
            async with client.consumer("t", start=start, follow=False) as consumer:
                records = [record async for record in consumer]
            async with client.consumer("t", start=start, follow=False, max_bytes=1) as consumer:
                batches = [batch async for batch in consumer.batches()]
        assert [(record.offset, record.value) for record in records] == list(
            zip(expected, values, strict=True)
        )
        assert [value for batch in batches for value in batch.values()] == values
        assert [record.offset for batch in batches for record in batch.records()] == expected

    run(scenario())


def test_a_consumer_that_stops_within_a_thinned_batch_goes_on_behind_it() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        compacted(cluster)
        async with client_of(cluster) as client, client.consumer("t", follow=False) as consumer:
            assert (await anext(consumer)).offset == 3
            assert consumer.position(0) == 4
            rest = await consumer.next_batch()
            assert rest is not None
            assert [record.offset for record in rest.records()] == [5, 9]
            assert consumer.position(0) == 10

    run(scenario())


def test_a_fetch_that_begins_in_a_gap_returns_what_is_behind_it() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = compacted(cluster)
        async with client_of(cluster) as client:
            (batch,) = await client.fetch("t", 0, 40, max_bytes=1)
            assert [record.offset for record in batch.records()] == [70, 79]
            leave_gap(partition, 3, 5)
            assert await client.fetch("t", 0, 40) == []
            assert await client.fetch("t", 0, 80) == []

    run(scenario())


def test_a_consumer_that_follows_waits_behind_a_gap_at_the_end() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = compacted(cluster)
        leave_gap(partition, 3, 5)
        async with client_of(cluster) as client, client.consumer("t", start=12) as consumer:
            waiting = asyncio.ensure_future(anext(consumer))
            await asyncio.sleep(10)
            assert not waiting.done()
            fill(partition, [b"new"])
            assert (await waiting).offset == 80

    run(scenario())
