"""A leader that slept through its own deposition: what it says when it wakes is not old."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from examples.local_cluster import LocalCluster, NodeProcess
from faults.namespaces import Namespaces
from quorumlog import AsyncClient
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.grpc_transport import GrpcConnector
from quorumlog.client.transport import LOG_SERVICE, Connection
from quorumlog.errors import QuorumlogError

TOPIC = "t"
QUESTIONS = 20
LIMIT_S = 20.0


async def end_at(connection: Connection) -> int | None:
    """The end of the log as this very node says it; None when it does not say."""
    request = pb.ListOffsetsRequest(topic=TOPIC, partition=0, start=pb.Start(latest=True))
    try:
        response = await connection.unary(
            LOG_SERVICE + "ListOffsets", request, pb.ListOffsetsResponse, LIMIT_S
        )
    except QuorumlogError:
        return None
    return response.offset


async def test_a_leader_that_slept_and_hears_nothing_of_the_new_one_tells_no_old_end(
    tmp_path: Path, namespaces: Namespaces
) -> None:
    """Its clients reach it, its peers do not: it has to find out by itself."""
    with LocalCluster(tmp_path, places=namespaces.places()) as cluster:
        async with AsyncClient(*cluster.servers) as client:
            await client.create_topic(TOPIC, partitions=1, replicas=3)
        sleeper, connection = await leader_of(cluster.nodes)
        try:
            namespaces.cut_from_peers(cluster.nodes.index(sleeper))
            assert await old_ends(cluster, sleeper, connection) == []
        finally:
            sleeper.resume()
            await connection.close()


async def old_ends(
    cluster: LocalCluster, sleeper: NodeProcess, connection: Connection
) -> list[int]:
    """What ``sleeper`` says of the end, asleep while others append, that was not so any more."""
    sleeper.pause()
    end = await append_elsewhere(cluster, sleeper)
    # Asked while it sleeps: the questions lie in its socket when it wakes.
    early = [asyncio.ensure_future(end_at(connection)) for _ in range(QUESTIONS)]
    await asyncio.sleep(0.1)
    sleeper.resume()
    answers = await asyncio.gather(*early)
    answers += [await end_at(connection) for _ in range(QUESTIONS)]
    return [answer for answer in answers if answer is not None and answer < end]


async def leader_of(nodes: Sequence[NodeProcess]) -> tuple[NodeProcess, Connection]:
    """The one of ``nodes`` that says that it leads, and a connection to it."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            for node in nodes:
                connection = GrpcConnector().connect(node.listen)
                if await end_at(connection) is not None:
                    return node, connection
                await connection.close()


async def append_elsewhere(cluster: LocalCluster, sleeper: NodeProcess) -> int:
    """Have the others elect a leader and commit a record; where the log ends behind it."""
    others = [node for node in cluster.nodes if node is not sleeper]
    # A client that comes too early is sent to the sleeper, which keeps it waiting.
    _, connection = await leader_of(others)
    await connection.close()
    servers = [node.listen for node in others]
    async with AsyncClient(*servers) as client, client.producer(TOPIC) as producer:
        return (await producer.send(b"meanwhile")).offset + 1
