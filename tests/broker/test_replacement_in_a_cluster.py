"""A node that fails for good, in a whole cluster in virtual time: its replicas are made anew, and
what it has is deleted when it is back, and not before it may; the simulator's checkers look on."""

import asyncio

import pytest

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.types import METADATA_GROUP, NodeId
from support.moving_cluster import MovingCluster

GRACE_S = 5
LOST = NodeId("n3")


async def replaced_after(cluster: MovingCluster, seconds: int) -> None:
    settings = pb.SetCluster(replace_failed_after_s=seconds)
    await cluster.order(pb.Command(set_cluster=settings))


def is_replaced(cluster: MovingCluster) -> bool:
    partition, metadata = cluster.partition, cluster.metadata
    return LOST not in partition.holders and LOST not in (metadata.voters or [LOST])


def run(cluster: MovingCluster, strike_at: int = 0) -> int:
    """Lose a node for good, and the metadata's leader for a moment at commit number ``strike_at``
    of what follows; how many commits of the metadata there were."""
    counts: list[int] = []

    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        await replaced_after(cluster, GRACE_S)
        history = cluster.checker.history(METADATA_GROUP)
        lost = cluster.nodes[LOST]
        cluster.crash(lost)
        await cluster.until(lambda: not lost.up)
        before, struck = len(history.committed), False

        def strike() -> None:
            nonlocal struck
            if not struck and strike_at and len(history.committed) >= before + strike_at:
                struck = True
                leader = cluster.leader()
                if leader is not None:
                    cluster.crash(leader)
                    cluster.restart(leader, 1.0)

        cluster.after_turn = strike
        await cluster.until(lambda: is_replaced(cluster))
        counts.append(len(history.committed) - before)
        assert lost.host is not None
        assert len(set(cluster.partition.replicas)) == 3
        cluster.restart(lost)
        await cluster.until_whole()
        assert cluster.group not in lost.host.replicas
        await cluster.move("n3", "n1", "n2")
        await cluster.until_whole()
        assert struck == bool(strike_at)

    cluster.run(scenario)
    return counts[0]


def test_a_node_that_failed_is_replaced_and_comes_back_with_nothing() -> None:
    assert run(MovingCluster(5)) >= 3


@pytest.mark.parametrize("step", range(1, 5))
def test_a_leader_of_the_metadata_that_is_lost_on_the_way_is_followed_by_one_that_ends_it(
    step: int,
) -> None:
    run(MovingCluster(5), strike_at=step)


def test_a_node_that_is_back_in_time_keeps_all() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        await replaced_after(cluster, GRACE_S)
        before = cluster.partition
        for _ in range(3):
            cluster.crash(cluster.nodes[LOST])
            await asyncio.sleep(GRACE_S - 1.5)
            cluster.restart(cluster.nodes[LOST])
            await cluster.until_whole()
        assert cluster.partition == before

    MovingCluster(5).run(scenario)


def test_with_a_second_node_away_nothing_is_replaced_until_that_is_back() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        await cluster.move("n1", "n3", "n4")
        await cluster.until_whole()
        await replaced_after(cluster, GRACE_S)
        before = cluster.partition
        second = cluster.nodes[NodeId("n2")]  # it votes on the metadata
        cluster.crash(cluster.nodes[LOST])
        cluster.crash(second)
        cluster.restart(second, 3 * GRACE_S)
        await asyncio.sleep(2 * GRACE_S)
        assert cluster.partition == before
        await cluster.until(lambda: is_replaced(cluster))
        assert second.up

    MovingCluster(5).run(scenario)
