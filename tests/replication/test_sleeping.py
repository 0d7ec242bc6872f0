"""Groups of real replicas that fall asleep, and what wakes them."""

import asyncio
import random

import pytest

from quorumlog.errors import InvalidArgument, LogFenced
from quorumlog.replication.core.members import Members
from quorumlog.types import NodeId
from sim.disk import SimDisk
from support.replica_cluster import Cluster, draft, simulated


async def fall_asleep(cluster: Cluster) -> None:
    leader = await cluster.leader()
    await leader.propose(draft(b"first"))
    await asyncio.sleep(3)
    assert all(replica.core.asleep for replica in cluster.replicas.values())


@simulated
async def test_a_group_that_nobody_uses_after_an_election_sleeps_at_once() -> None:
    cluster = Cluster(3)
    await cluster.open()
    await cluster.leader()
    await asyncio.sleep(0.2)
    assert all(replica.core.asleep for replica in cluster.replicas.values())
    await cluster.close()


@simulated
async def test_a_change_of_members_that_is_refused_leaves_no_group_awake_without_a_timer() -> None:
    cluster = Cluster(3)
    await cluster.open()
    await fall_asleep(cluster)
    leader = await cluster.leader()
    with pytest.raises(InvalidArgument):
        leader.propose_members(Members((*cluster.nodes, NodeId("stranger"))))
    await asyncio.sleep(1)
    assert all(replica.core.asleep for replica in cluster.replicas.values())
    assert leader.serving
    await cluster.close()


@simulated
async def test_a_group_sleeps_without_a_replica_that_is_closed_on_a_node_that_is_not() -> None:
    cluster = Cluster(3)
    await cluster.open()
    leader = await cluster.leader()
    fenced = next(node for node in cluster.nodes if node != cluster.node_of(leader))
    cluster.replicas[fenced].fail(LogFenced("for the test"))
    await leader.propose(draft(b"first"))
    await asyncio.sleep(3)
    assert leader.core.asleep
    answering = [node for node in cluster.nodes if leader.answers(node)]
    assert answering == [
        node for node in cluster.nodes if node not in (fenced, cluster.node_of(leader))
    ]
    await leader.propose(draft(b"second"))
    await cluster.close()


@simulated
async def test_a_member_whose_process_begins_anew_is_soon_one_of_those_that_sleep() -> None:
    cluster = Cluster(3)
    await cluster.open()
    await fall_asleep(cluster)
    leader = await cluster.leader()
    other = next(node for node in cluster.nodes if node != cluster.node_of(leader))
    cluster.power_cut(other)
    await asyncio.sleep(1)
    await leader.propose(draft(b"second"))
    await asyncio.sleep(2)
    assert leader.core.asleep
    await cluster.open_node(other)
    await asyncio.sleep(0.3)
    assert leader.answers(other)
    assert cluster.replicas[other].log.last_index == leader.log.last_index
    assert all(replica.core.asleep for replica in cluster.replicas.values())
    await cluster.close()


@simulated
async def test_a_learner_that_knows_no_member_of_today_wakes_the_group_that_sleeps() -> None:
    cluster = Cluster(3)
    await cluster.open()
    leader = await cluster.leader()
    newcomer = NodeId("newcomer")
    cluster.disks[newcomer] = SimDisk(random.Random(newcomer))
    await leader.propose_members(Members(tuple(cluster.nodes), learners=(newcomer,)))
    await asyncio.sleep(3)
    assert leader.core.asleep
    await cluster.open_node(newcomer, members=Members((NodeId("gone"),)))
    await asyncio.sleep(2)
    assert cluster.replicas[newcomer].log.last_index == leader.log.last_index
    assert all(replica.core.asleep for replica in cluster.replicas.values())
    await cluster.close()
