"""Calls that any node answers, and those only a leader does."""

import asyncio

import pytest

from client.fake_cluster import FakeCluster
from client.virtual import run
from quorumlog.client.client import AsyncClient
from quorumlog.errors import (
    InvalidArgument,
    OffsetOutOfRange,
    OutcomeUnknown,
    TopicExists,
    Unavailable,
    UnknownTopic,
)


def client_of(cluster: FakeCluster, **options: float) -> AsyncClient:
    return AsyncClient(*cluster.addresses, connector=cluster, rng=cluster.rng, **options)


def test_topics_are_created_altered_listed_described_and_deleted() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        async with client_of(cluster) as client:
            created = await client.create_topic("b", partitions=3, fsync="interval")
            assert (created.name, len(created.partitions), created.fsync) == ("b", 3, "interval")
            await client.create_topic("a")
            assert [topic.name for topic in await client.list_topics()] == ["a", "b"]
            assert len((await client.alter_topic("b", partitions=5)).partitions) == 5
            assert (await client.alter_topic("b", fsync="always")).fsync == "always"
            with pytest.raises(OffsetOutOfRange):
                await client.delete_before("b", 0, 1)
            assert await client.delete_before("b", 0, 0) == 0
            for wrong in (-1, 1 << 63):
                with pytest.raises(InvalidArgument, match="offset"):
                    await client.delete_before("b", 0, wrong)
            limited = await client.alter_topic("b", retention_ms=5, segment_bytes=1 << 20)
            assert (limited.retention_ms, limited.segment_bytes) == (5, 1 << 20)
            assert (await client.alter_topic("b", retention_ms=-1)).retention_ms == -1
            with pytest.raises(InvalidArgument, match="retention_ms"):
                await client.alter_topic("b", retention_ms=1 << 63)
            assert (await client.describe_topic("b")).partitions[0].leader == "node1"
            await client.delete_topic("b")
            with pytest.raises(UnknownTopic):
                await client.describe_topic("b")
            with pytest.raises(UnknownTopic):
                await client.delete_topic("b")

    run(scenario())


def test_an_existing_topic_is_an_error_unless_that_is_fine() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        async with client_of(cluster) as client:
            await client.create_topic("t", partitions=2)
            with pytest.raises(TopicExists):
                await client.create_topic("t", partitions=2)
            existing = await client.create_topic("t", partitions=9, exist_ok=True)
            assert len(existing.partitions) == 2

    run(scenario())


def test_a_topic_whose_creation_was_answered_by_silence_is_not_said_to_exist_already() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.unary_script.append(("CreateTopic", Unavailable("broke after it was done"), True))
        cluster.unary_script.append(("DeleteTopic", OutcomeUnknown("no answer"), True))
        async with client_of(cluster) as client:
            assert len((await client.create_topic("t", partitions=2)).partitions) == 2
            await client.delete_topic("t")
        assert cluster.topics == {}

    run(scenario())


def test_another_ones_topic_is_not_taken_for_ours_after_a_lost_answer() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t", 5)
        cluster.unary_script.append(("CreateTopic", Unavailable("broke"), False))
        async with client_of(cluster) as client:
            with pytest.raises(TopicExists):
                await client.create_topic("t", partitions=2)

    run(scenario())


def test_any_live_node_will_do_and_one_that_hangs_costs_one_attempt() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.kill("n1:7400")
        cluster.nodes["n2:7400"].hung = True
        async with client_of(cluster) as client:
            start_s = asyncio.get_running_loop().time()
            assert (await client.cluster_status()).node_id == "node3"
            assert asyncio.get_running_loop().time() - start_s < 3
            calls = len(cluster.calls)
            await client.cluster_status()
            assert len(cluster.calls) == calls + 1

    run(scenario())


def test_a_leader_that_hangs_is_left_for_its_successor_within_seconds() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            assert await client.fetch("t", 0, 0) == []
            cluster.nodes["n1:7400"].hung = True
            cluster.elect(partition, "n2:7400")
            start_s = asyncio.get_running_loop().time()
            assert await client.fetch("t", 0, 0) == []
            assert asyncio.get_running_loop().time() - start_s < 6

    run(scenario())


def test_a_fetch_may_wait_longer_than_a_node_that_hangs_is_given() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        async with client_of(cluster) as client:
            await client.fetch("t", 0, 0)
            calls = len(cluster.calls)
            cluster.held_s = 20.0
            assert await client.fetch("t", 0, 0, max_wait_s=20.0) == []
            assert len(cluster.calls) == calls + 1

    run(scenario())


def test_nobody_there_is_said_soon_with_the_way_out() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        for address in cluster.addresses:
            cluster.kill(address)
        async with client_of(cluster) as client:
            start_s = asyncio.get_running_loop().time()
            with pytest.raises(Unavailable, match="no quorumlog node answers at n1:7400"):
                await client.list_topics()
            with pytest.raises(Unavailable, match="no quorumlog node answers"):
                await client.offsets("t")
            assert asyncio.get_running_loop().time() - start_s < 11

    run(scenario())


def test_an_outage_is_waited_out_up_to_the_request_timeout() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        async with client_of(cluster, request_timeout_s=20.0) as client:
            await client.cluster_status()
            for address in cluster.addresses:
                cluster.kill(address)
            waiting = asyncio.ensure_future(client.cluster_status())
            await asyncio.sleep(15)
            cluster.start("n2:7400")
            assert (await waiting).node_id == "node2"
            cluster.kill("n2:7400")
            start_s = asyncio.get_running_loop().time()
            with pytest.raises(Unavailable):
                await client.cluster_status()
            assert 19 < asyncio.get_running_loop().time() - start_s <= 20.1

    run(scenario())


def test_leadership_is_handed_over_by_the_leader() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            assert await client.transfer_leadership("t", 0, "node3") == "node3"
            assert partition.leader == "n3:7400"
            assert (await client.offsets("t"))[0].end == 0

    run(scenario())


def test_nodes_that_were_not_named_are_found() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        client = AsyncClient("n1:7400", connector=cluster, rng=cluster.rng)
        async with client:
            await client.offsets("t")
            cluster.kill("n1:7400")
            assert (await client.cluster_status()).node_id in ("node2", "node3")

    run(scenario())


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":7400", "host:0", "host:70000", "host:x", "::1:7400"]
)
def test_an_address_has_to_be_host_and_port(address: str) -> None:
    with pytest.raises(InvalidArgument, match=r"HOST:PORT|65535"):
        AsyncClient(address)


@pytest.mark.parametrize("bad", [-1, 1 << 32, "3"])
def test_numbers_that_do_not_fit_the_wire_are_refused(bad: int) -> None:
    async def scenario() -> None:
        async with client_of(FakeCluster()) as client:
            with pytest.raises(InvalidArgument, match="partitions is"):
                await client.create_topic("t", partitions=bad)

    run(scenario())
