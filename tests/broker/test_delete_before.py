"""Deletion up to an offset that a leader does not have: only one that still leads may refuse it."""

import asyncio

import pytest

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.errors import NotLeader, OffsetOutOfRange, Unavailable
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.records import encode_body
from quorumlog.types import RecordData
from sim.node import SimNode
from sim.process import Process
from support.moving_cluster import RECORDS, TOPIC, MovingCluster

_METHOD = "/quorumlog.v1.Admin/DeleteBefore"


async def delete_before(cluster: MovingCluster, node: SimNode, offset: int) -> int:
    """As asked of this node alone."""
    connection = cluster.fabric.client(Process("somebody")).connect(node.address)
    request = pb.DeleteBeforeRequest(topic=TOPIC, partition=0, offset=offset)
    reply = await connection.unary(_METHOD, request, pb.DeleteBeforeResponse, 10.0)
    start: int = reply.log_start_offset
    return start


def test_a_leader_that_was_deposed_unheard_does_not_say_that_there_is_no_such_offset() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        old = await cluster.led()
        assert await delete_before(cluster, old, 1) == 1
        cluster.isolate(old, for_s=30.0)
        old.pause()
        await cluster.until(lambda: cluster.leader(cluster.group) is not old)
        new = await cluster.led()
        replica = cluster.replica(new, cluster.group)
        body = encode_body([RecordData(b"new")])
        await new.process.context().run(replica.propose, Draft.of(body, 1, Kind.RECORDS))
        asked = asyncio.ensure_future(delete_before(cluster, old, RECORDS + 1))
        await asyncio.sleep(0.1)
        assert cluster.replica(old, cluster.group).serving
        old.resume()
        with pytest.raises((NotLeader, Unavailable)):
            await asked

    MovingCluster(3).run(scenario)


def test_a_leader_says_so_of_what_is_not_there() -> None:
    async def scenario(cluster: MovingCluster) -> None:
        await cluster.start("n1", "n2", "n3")
        leader = await cluster.led()
        assert await delete_before(cluster, leader, RECORDS) == RECORDS
        with pytest.raises(OffsetOutOfRange):
            await delete_before(cluster, leader, RECORDS + 1)

    MovingCluster(3).run(scenario)
