"""How the requests of a client's producers share messages, and with whom they must not."""

import asyncio

from client.fake_cluster import FakeCluster
from client.virtual import run
from quorumlog.client.client import AsyncClient
from quorumlog.client.producer import Producer
from quorumlog.errors import Overloaded
from quorumlog.types import MAX_PACKED_BYTES, MAX_PACKED_REQUESTS


def client_of(cluster: FakeCluster) -> AsyncClient:
    return AsyncClient(*cluster.addresses, connector=cluster, rng=cluster.rng)


async def producers_of(client: AsyncClient, count: int) -> list[Producer]:
    """Producers that have found their leader, over a link that knows what the node takes."""
    producers = [client.producer("t") for _ in range(count)]
    await send_together(producers, b"first")
    return producers


async def send_together(producers: list[Producer], value: bytes) -> list[int]:
    """The offsets of one record of each, all sent in one turn of the loop."""
    sent = await asyncio.gather(*(producer.send(value) for producer in producers))
    return [metadata.offset or 0 for metadata in sent]


def test_what_many_producers_send_in_one_turn_is_one_message() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        [partition] = cluster.add_topic("t")
        async with client_of(cluster) as client:
            producers = await producers_of(client, 40)
            cluster.packed.clear()
            offsets = await send_together(producers, b"v")
        assert cluster.packed == [40]
        assert sorted(offsets) == list(range(40, 80))
        assert partition.values() == [b"first"] * 40 + [b"v"] * 40

    run(scenario())


def test_one_message_has_no_more_requests_than_a_node_takes() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        async with client_of(cluster) as client:
            producers = await producers_of(client, MAX_PACKED_REQUESTS + 3)
            cluster.packed.clear()
            await send_together(producers, b"v")
        assert cluster.packed == [MAX_PACKED_REQUESTS, 3]

    run(scenario())


def test_a_large_batch_travels_alone_and_in_its_turn() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        [partition] = cluster.add_topic("t")
        async with client_of(cluster) as client:
            producers = await producers_of(client, 5)
            cluster.packed.clear()
            values = [b"a", b"b", bytes(MAX_PACKED_BYTES), b"c", b"d"]
            sends = [each.send(value) for each, value in zip(producers, values, strict=True)]
            await asyncio.gather(*sends)
        assert cluster.packed == [2, 1, 2]
        assert partition.values()[5:] == values

    run(scenario())


def test_a_node_that_never_said_it_takes_packs_gets_none() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.takes_packed = False
        [partition] = cluster.add_topic("t")
        async with client_of(cluster) as client:
            producers = await producers_of(client, 9)
            await send_together(producers, b"v")
        assert cluster.packed == [1] * 18
        assert partition.values() == [b"first"] * 9 + [b"v"] * 9

    run(scenario())


def test_the_next_link_asks_again_what_its_node_takes() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        [partition] = cluster.add_topic("t")
        async with client_of(cluster) as client:
            producers = await producers_of(client, 9)
            cluster.packed.clear()
            cluster.takes_packed = False
            cluster.break_streams()
            await send_together(producers, b"v")
        assert cluster.packed == [1] * 9
        assert partition.values() == [b"first"] * 9 + [b"v"] * 9

    run(scenario())


def test_a_pack_of_which_half_arrived_before_the_break_is_sent_again_and_doubles_nothing() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        [partition] = cluster.add_topic("t")
        async with client_of(cluster) as client:
            producers = await producers_of(client, 40)
            cluster.lose_request = 0.05
            await send_together(producers, b"v")
        assert max(cluster.packed) == 40
        assert sum(cluster.packed) > 80, "nothing broke: this would show nothing"
        assert partition.values() == [b"first"] * 40 + [b"v"] * 40

    run(scenario())


def test_each_request_of_a_pack_has_an_answer_of_its_own() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        async with client_of(cluster) as client:
            producers = await producers_of(client, 3)
            cluster.packed.clear()
            cluster.produce_script.append(Overloaded("full"))
            offsets = await send_together(producers, b"v")
        assert cluster.packed == [3, 1], "only the one that was refused is sent again"
        assert sorted(offsets) == [3, 4, 5]

    run(scenario())
