"""A majority is one of a group's replicas: a node that is up with a replica that is not does not
count towards it."""

import asyncio

import pytest

from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.errors import LogFenced
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.records import encode_body
from quorumlog.types import METADATA_GROUP, GroupId, NodeId, RecordData
from support.moving_cluster import MovingCluster

FENCED = NodeId("n2")


async def fence(cluster: MovingCluster, group: GroupId) -> None:
    """The disk fails under one replica of a node, which goes on and says that it is there."""
    node = cluster.nodes[FENCED]
    node.may_fail = True
    node.process.context().run(cluster.replica(node, group).fail, LogFenced("fdatasync failed"))
    await asyncio.sleep(1.0)


async def append(cluster: MovingCluster, value: bytes) -> None:
    leader = await cluster.led()
    replica = cluster.replica(leader, cluster.group)
    body = encode_body([RecordData(value)])
    await leader.process.context().run(replica.propose, Draft.of(body, 1, Kind.RECORDS))


def test_a_group_shrinks_to_no_majority_that_has_a_fenced_replica_in_it() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        await fence(cluster, cluster.group)
        await cluster.move("n1", "n2")
        await asyncio.sleep(5.0)
        await append(cluster, b"meanwhile")
        assert NodeId("n3") in cluster.partition.holders
        cluster.crash(cluster.nodes[FENCED])
        cluster.restart(cluster.nodes[FENCED], 1.0)
        await cluster.until(lambda: cluster.partition.replicas == ("n1", "n2"))
        await append(cluster, b"after it")

    MovingCluster(3).run(scenario)


def test_the_metadata_shrink_to_no_majority_that_has_a_fenced_replica_in_it() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        if cluster.leader() is cluster.nodes[FENCED]:
            pytest.fail("the scenario is about a follower")
        await fence(cluster, METADATA_GROUP)
        leader = cluster.leader()
        assert leader is not None
        await cluster.order(
            pb.Command(set_voters=pb.SetVoters(voters=[leader.node_id, FENCED], voters_index=0))
        )
        await asyncio.sleep(5.0)
        drain = pb.DrainNode(node="n3")
        await cluster.order(pb.Command(drain_node=drain))
        assert len(cluster.replica(leader, METADATA_GROUP).core.members.voters) == 3

    MovingCluster(3).run(scenario)
