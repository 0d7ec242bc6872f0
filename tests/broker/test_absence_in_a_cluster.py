"""Nodes that go, come back and move, in a whole cluster in virtual time: what every node has on
record of them then."""

import asyncio

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.broker.presence import FAILED_AFTER_S
from quorumlog.broker.topics import NodeInfo, Presence
from quorumlog.ports import MemberState
from quorumlog.types import METADATA_GROUP, NodeId
from sim.membership import member
from support.moving_cluster import MovingCluster

LOST = NodeId("n3")
GRACE_S = 30


def records(cluster: MovingCluster, node: NodeId = LOST) -> list[NodeInfo]:
    """What each node that is up knows of ``node``."""
    known = [each.metadata.node(node) for each in cluster.nodes.values() if each.up]
    return [info for info in known if info is not None]


def all_say(cluster: MovingCluster, presence: Presence) -> bool:
    return {info.presence for info in records(cluster)} == {presence}


def test_every_node_has_it_on_record_that_one_failed_and_that_it_is_back() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        before = cluster.partition
        cluster.crash(cluster.nodes[LOST])
        await asyncio.sleep(FAILED_AFTER_S - 1)
        assert all_say(cluster, Presence.PRESENT)
        await cluster.until(lambda: all_say(cluster, Presence.FAILED))
        assert len(set(records(cluster))) == 1
        cluster.restart(cluster.nodes[LOST])
        await cluster.until(lambda: all_say(cluster, Presence.PRESENT))
        await cluster.until_whole()
        # It has lost nothing by it.
        assert cluster.partition == before
        assert LOST in cluster.replica(cluster.nodes[LOST], METADATA_GROUP).core.members.voters

    MovingCluster(5).run(scenario)


def test_a_node_that_left_is_on_record_under_the_leader_that_follows_it_too() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        leader = cluster.leader()
        assert leader is not None
        cluster.crash(leader)
        await cluster.until(lambda: not leader.up)
        cluster.roster.states[leader.node_id] = MemberState.LEFT
        await cluster.until(
            lambda: {each.presence for each in records(cluster, leader.node_id)} == {Presence.LEFT}
        )
        cluster.restart(leader)
        await cluster.until_whole()
        await cluster.until(
            lambda: (
                {each.presence for each in records(cluster, leader.node_id)} == {Presence.PRESENT}
            )
        )

    MovingCluster(5).run(scenario)


def test_a_new_address_is_committed_where_the_node_answers_and_a_forged_one_is_not() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        nodes, roster = cluster.nodes, cluster.roster
        before = records(cluster)[0].address

        def say(address: str) -> None:
            others = [each for each in roster.members if each.tags["id"] != LOST]
            roster._members = [*others, member(LOST, address)]

        say(nodes[NodeId("n4")].address)  # where another node answers
        await asyncio.sleep(20)
        assert {each.address for each in records(cluster)} == {before}
        cluster.crash(nodes[LOST])
        await cluster.until(lambda: not nodes[LOST].up)
        nodes[LOST].address = "elsewhere:7400"
        say("elsewhere:7400")
        cluster.restart(nodes[LOST])
        await cluster.until(
            lambda: {each.address for each in records(cluster)} == {"elsewhere:7400"}
        )
        assert len(records(cluster)) == 5

    MovingCluster(5).run(scenario)


def test_leaders_that_change_more_often_than_it_takes_still_replace_a_node_in_the_end() -> None:
    """Each begins its own count anew; the record is what they have in common."""

    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        settings = pb.SetCluster(replace_failed_after_s=GRACE_S)
        await cluster.order(pb.Command(set_cluster=settings))
        cluster.crash(cluster.nodes[LOST])
        await cluster.until(lambda: all_say(cluster, Presence.FAILED))
        for _ in range(3):
            leader = cluster.leader()
            assert leader is not None
            cluster.crash(leader)
            cluster.restart(leader, 1.0)
            # Less than all of it, more than half.
            await asyncio.sleep(0.6 * GRACE_S)
            if LOST not in cluster.partition.holders:
                break
        assert LOST not in cluster.partition.holders

    MovingCluster(5).run(scenario)
