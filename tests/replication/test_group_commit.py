"""What is proposed in one turn of the loop shares what replication costs."""

import asyncio

from quorumlog.log.flusher import Flushed
from quorumlog.log.log import Log
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.messages import AppendRequest
from quorumlog.replication.wire import decode
from quorumlog.types import GroupId, NodeId
from support.replica_cluster import GROUP, Cluster, draft, simulated

COUNT = 64


def tap_requests(cluster: Cluster, node: NodeId) -> list[int]:
    """How many batches each AppendRequest to ``node`` has, from now on; empty ones left out."""
    seen: list[int] = []
    deliver = cluster.wire.handlers[node]

    def tap(sender: NodeId, group: GroupId, payload: memoryview) -> None:
        message = decode(payload) if group == GROUP else None
        if isinstance(message, AppendRequest) and message.batches:
            seen.append(len(message.batches))
        deliver(sender, group, payload)

    cluster.wire.handlers[node] = tap
    return seen


def tap_flushes(log: Log) -> list[int]:
    """The last index of each flush from now on."""
    seen: list[int] = []
    flush = log.flush

    def tap() -> Flushed:
        flushed = flush()
        seen.append(flushed.last_index)
        return flushed

    log.flush = tap  # type: ignore[method-assign]
    return seen


@simulated
async def test_proposals_of_one_turn_share_a_flush_and_a_request_to_each_follower() -> None:
    cluster = Cluster(3)
    await cluster.open(ReplicationConfig())
    leader = await cluster.leader()
    await leader.propose(draft(b"first"))
    await asyncio.sleep(0.5)
    leading = cluster.node_of(leader)
    requests = [tap_requests(cluster, node) for node in cluster.nodes if node != leading]
    flushes = [tap_flushes(replica.log) for replica in cluster.replicas.values()]

    proposed = [leader.propose(draft(b"%d" % number)) for number in range(COUNT)]
    await asyncio.gather(*proposed)
    await asyncio.sleep(0.01)

    assert requests == [[COUNT]] * 2
    assert flushes == [[leader.log.last_index]] * 3
    await cluster.close()
