"""Checkpoints of consumers and the fencing of producers, as a program uses them."""

import asyncio

import pytest

from client.fake_cluster import FakeCluster
from client.virtual import run
from quorumlog.client.client import AsyncClient
from quorumlog.errors import (
    InvalidArgument,
    NotLeader,
    OutcomeUnknown,
    StaleFencingToken,
    Unavailable,
    UnknownTopic,
)


def client_of(cluster: FakeCluster) -> AsyncClient:
    return AsyncClient(*cluster.addresses, connector=cluster, rng=cluster.rng)


def test_a_consumer_goes_on_where_the_last_one_committed() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t", 2)
        async with client_of(cluster) as client:
            async with client.producer("t") as producer:
                for number in range(6):
                    await producer.send(b"%d" % number, partition=number % 2)
            async with client.consumer("t", checkpoint="billing") as consumer:
                read = [(await anext(consumer)).value for _ in range(2)]
                committed = await consumer.commit()
                assert sum(committed.values()) == 2
                assert await consumer.commit() == {}
            assert await client.checkpoints("t") == {"billing": {0: 1, 1: 1}}
            async with client.consumer("t", checkpoint="billing", follow=False) as consumer:
                read += [record.value async for record in consumer]
                await consumer.commit()
                assert sorted(value for value in read if value) == [b"%d" % n for n in range(6)]
                await consumer.seek(0, 1)
                assert await consumer.commit() == {0: 3}
                assert await consumer.commit(rewind=True) == {0: 1}
            other = client.consumer("t", checkpoint="mail", start="latest", follow=False)
            async with other:
                assert [record async for record in other] == []
            await client.forget_checkpoint("t", "billing")
            assert await client.checkpoints("t") == {}

    run(scenario())


def test_a_checkpoint_is_found_and_moved_through_a_change_of_leader() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            async with client.producer("t") as producer:
                await producer.send(b"a")
            cluster.elect(partition, "n2:7400")
            cluster.unary_script.append(("SetCheckpoint", NotLeader(), False))
            assert await client.commit_checkpoint("t", "billing", {0: 1}) == {0: 1}
            assert await client.checkpoints("t") == {"billing": {0: 1}}

    run(scenario())


def test_a_partition_that_a_consumer_does_not_read_does_not_keep_it_from_its_checkpoint() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        lost = cluster.add_topic("t", 2)[1]
        async with client_of(cluster) as client:
            async with client.producer("t") as producer:
                await producer.send(b"a", partition=0)
            await client.commit_checkpoint("t", "billing", {0: 1})
            cluster.elect(lost, None)
            async with client.consumer("t", partitions=[0], checkpoint="billing") as consumer:
                assert consumer.position(0) == 1

    run(scenario())


def test_a_consumer_that_could_not_open_does_not_look_like_one_at_the_end() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        (partition,) = cluster.add_topic("t")
        async with client_of(cluster) as client:
            async with client.producer("t") as producer:
                await producer.send(b"a")
            consumer = client.consumer("t", checkpoint="billing", follow=False)
            cluster.elect(partition, None)
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await anext(consumer)
            cluster.elect(partition, "n2:7400")
            assert [record.value async for record in consumer] == [b"a"]
            await consumer.close()

    run(scenario())


def test_a_producer_whose_token_is_stale_writes_nothing_and_says_who_is_newer() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            old = client.producer("t", fencing_token=1)
            await old.send(b"by 1")
            assert await client.fence("t", 0, 2) == 2
            with pytest.raises(StaleFencingToken) as caught:
                await old.send(b"late")
            assert (caught.value.token, caught.value.newest) == (1, 2)
            async with client.producer("t", fencing_token=2) as new:
                await new.send(b"by 2")
            async with client.producer("t") as free:
                await free.send(b"by nobody")
            assert partition.values() == [b"by 1", b"by 2", b"by nobody"]
            assert await client.fencing_token("t", 0) == 2
            with pytest.raises(StaleFencingToken):
                await client.fence("t", 0, 1)
            old.abort()

    run(scenario())


def test_a_stale_token_says_nothing_of_an_earlier_attempt_without_an_answer() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        async with client_of(cluster) as client:
            old = client.producer("t", fencing_token=1)
            await old.send(b"by 1")
            cluster.lose_request = 1.0
            in_doubt = asyncio.ensure_future(old.send(b"late"))
            await asyncio.sleep(0.01)
            cluster.lose_request = 0.0
            await client.fence("t", 0, 2)
            with pytest.raises(OutcomeUnknown) as caught:
                await in_doubt
            assert isinstance(caught.value.__cause__, StaleFencingToken)
            with pytest.raises(StaleFencingToken):
                await old.send(b"later")
            old.abort()

    run(scenario())


def test_what_cannot_be_noted_is_refused_before_anything_is_sent() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        async with client_of(cluster) as client:
            for token in (0, -1, 1 << 63, True):
                with pytest.raises(InvalidArgument):
                    await client.fence("t", 0, token)
                with pytest.raises(InvalidArgument):
                    client.producer("t", fencing_token=token)
            with pytest.raises(InvalidArgument):
                await client.commit_checkpoint("t", "a", {0: -1})
            with pytest.raises(InvalidArgument, match="no checkpoint to move"):
                await client.consumer("t").commit()
            with pytest.raises(UnknownTopic):
                await client.checkpoints("nothing")
            assert not [call for call in cluster.calls if "Checkpoint" in call[1]]

    run(scenario())
