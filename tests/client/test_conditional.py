"""Appends on the condition that a partition ends at an offset, as a program uses them."""

import pytest

from client.fake_cluster import FakeCluster
from client.virtual import run
from quorumlog.client.client import AsyncClient
from quorumlog.errors import (
    InvalidArgument,
    NotLeader,
    OutcomeUnknown,
    Unavailable,
    WrongExpectedOffset,
)


def client_of(cluster: FakeCluster, timeout_s: float = 5.0) -> AsyncClient:
    return AsyncClient(
        *cluster.addresses, connector=cluster, rng=cluster.rng, request_timeout_s=timeout_s
    )


def test_records_are_appended_where_the_partition_ends_and_nowhere_else() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client, client_of(cluster) as other:
            assert (await client.append_at("t", 0, 0, [b"a", b"b"])).offset == 0
            assert (await other.append_at("t", 0, 2, [b"c"])).offset == 2
            with pytest.raises(WrongExpectedOffset) as caught:
                await client.append_at("t", 0, 2, [b"late"])
            assert (caught.value.expected, caught.value.end) == (2, 3)
            assert (await client.append_at("t", 0, 3, [b"d"])).offset == 3
        assert partition.end_offset == 4

    run(scenario())


@pytest.mark.parametrize("is_done", [True, False])
def test_an_answer_that_is_lost_is_asked_for_again_and_refuses_nothing(is_done: bool) -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            cluster.unary_script.append(("ProduceAt", OutcomeUnknown("lost"), is_done))
            assert (await client.append_at("t", 0, 0, [b"a"])).offset == 0
            cluster.elect(partition, "n2:7400")
            cluster.unary_script.append(("ProduceAt", NotLeader(), False))
            assert (await client.append_at("t", 0, 1, [b"b"])).offset == 1
        assert partition.end_offset == 2

    run(scenario())


def test_a_condition_beyond_the_end_is_refused_and_never_sent() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster) as client:
            cluster.unary_script.append(("ProduceAt", OutcomeUnknown("sent"), True))
            with pytest.raises(WrongExpectedOffset) as caught:
                await client.append_at("t", 0, 1, [b"early"])
            assert (caught.value.expected, caught.value.end) == (1, 0)
            assert cluster.unary_script
        assert partition.end_offset == 0

    run(scenario())


def test_without_an_answer_in_time_the_outcome_is_unknown_and_the_next_is_another_append() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        partition = cluster.add_topic("t")[0]
        async with client_of(cluster, timeout_s=1.0) as client:
            await client.append_at("t", 0, 0, [b"a"])
            cluster.unary_script.append(("ProduceAt", OutcomeUnknown("lost"), True))
            cluster.unary_script += [("ProduceAt", Unavailable("busy"), False)] * 100
            with pytest.raises(OutcomeUnknown):
                await client.append_at("t", 0, 1, [b"b"])
            cluster.unary_script.clear()
            with pytest.raises(WrongExpectedOffset):
                await client.append_at("t", 0, 1, [b"c"])
            assert (await client.append_at("t", 0, 2, [b"c"])).offset == 2
        assert partition.end_offset == 3

    run(scenario())


def test_what_cannot_be_an_append_is_refused() -> None:
    async def scenario() -> None:
        cluster = FakeCluster()
        cluster.add_topic("t")
        async with client_of(cluster) as client:
            for offset, records in ((-1, [b"a"]), (True, [b"a"]), (1 << 63, [b"a"]), (0, [])):
                with pytest.raises(InvalidArgument):
                    await client.append_at("t", 0, offset, records)

    run(scenario())
