"""A majority is one of a group's replicas: a node that is up with a replica that is not does not
count towards it."""

import asyncio

import pytest

from quorumlog.api._pb.quorumlog_pb2 import (
    AssignReplicasRequest,
    Topic,
    TransferLeadershipRequest,
    TransferLeadershipResponse,
)
from quorumlog.broker._pb import metadata_pb2 as pb
from quorumlog.errors import LogFenced, UnsafeChange
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.records import encode_body
from quorumlog.types import METADATA_GROUP, GroupId, NodeId, RecordData
from sim.machines import address_of
from sim.process import Process
from support.moving_cluster import TOPIC, MovingCluster

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


async def refusal_of_move(cluster: MovingCluster, asked: str, *wanted: str) -> str:
    """What node ``asked`` says against it; empty: it is ordered."""
    connection = cluster.fabric.client(Process("admin")).connect(address_of(NodeId(asked)))
    request = AssignReplicasRequest(topic=TOPIC, replicas=wanted)
    try:
        await connection.unary("/quorumlog.v1.Admin/AssignReplicas", request, Topic, 10.0)
    except UnsafeChange as error:
        return str(error)
    return ""


@pytest.mark.parametrize("asked", ["n1", "n3", "n5"])
def test_an_order_towards_a_fenced_replica_is_refused_wherever_it_is_given(asked: str) -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        await fence(cluster, cluster.group)
        error = await refusal_of_move(cluster, asked, "n1", "n2")
        assert f"{TOPIC}/0 would have no majority of voters that answers (n2 up, but" in error
        assert not cluster.partition.wanted
        assert not await refusal_of_move(cluster, asked, "n1", "n3", "n5")
        await cluster.until(lambda: cluster.partition.replicas == ("n1", "n3", "n5"))

    MovingCluster(5).run(scenario)


def test_an_order_is_refused_where_one_voter_is_down_and_another_one_fenced() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n3", "n2", "n4")
        await fence(cluster, cluster.group)
        down = cluster.nodes[NodeId("n4")]
        cluster.crash(down)
        await cluster.until(lambda: not down.up)
        await asyncio.sleep(1.0)
        error = await refusal_of_move(cluster, "n1", "n3", "n1", "n5")
        assert f"{TOPIC}/0 has no majority of voters that answers (n4 down; nobody leads" in error
        assert not cluster.partition.wanted

    MovingCluster(5).run(scenario)


def test_an_order_that_is_given_during_an_election_waits_for_the_leader() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n3", "n2", "n4")
        leader = await cluster.led()
        asked = next(node for node in cluster.names if node != leader.node_id)
        cluster.crash(leader)
        await cluster.until(lambda: not leader.up)
        assert cluster.leader(cluster.group) is None
        rest = [each for each in ("n3", "n2", "n4") if each != leader.node_id]
        assert not await refusal_of_move(cluster, asked, *rest, "n5")
        await cluster.until(lambda: "n5" in cluster.partition.replicas)

    MovingCluster(5).run(scenario)


def test_a_node_that_does_not_answer_leaves_its_groups_to_what_gossip_sees() -> None:
    """Gossip sees the leader's node still, which is cut off from the one that is asked alone."""

    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n3", "n2", "n4")
        leader = await cluster.led()
        asked = NodeId("n5")
        cluster.network.cut(asked, leader.node_id)
        cluster.network.cut(leader.node_id, asked)
        assert not await refusal_of_move(cluster, asked, "n2", "n3", "n1")

    MovingCluster(5).run(scenario)


def test_a_drained_leader_hands_over_to_a_replica_that_answers() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        await cluster.until(lambda: cluster.leader(cluster.group) is cluster.nodes[NodeId("n1")])
        replica = cluster.replica(cluster.nodes[NodeId("n1")], cluster.group)
        asked: list[NodeId] = []
        transfer = replica.transfer_leadership

        def note(target: NodeId) -> None:
            asked.append(target)
            transfer(target)

        replica.transfer_leadership = note  # type: ignore[method-assign]
        await fence(cluster, cluster.group)
        await cluster.order(pb.Command(drain_node=pb.DrainNode(node="n1")))
        await cluster.until(lambda: cluster.leader(cluster.group) is cluster.nodes[NodeId("n3")])
        assert set(asked) == {NodeId("n3")}

    MovingCluster(3).run(scenario)


def test_a_leadership_that_may_go_anywhere_goes_to_a_replica_that_answers() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        leader = cluster.nodes[NodeId("n1")]
        await cluster.until(lambda: cluster.leader(cluster.group) is leader)
        await fence(cluster, cluster.group)
        connection = cluster.fabric.client(Process("admin")).connect(address_of(NodeId("n1")))
        method = "/quorumlog.v1.Admin/TransferLeadership"
        request = TransferLeadershipRequest(topic=TOPIC)
        response = await connection.unary(method, request, TransferLeadershipResponse, 10.0)
        assert response.leader == "n3"

    MovingCluster(3).run(scenario)
