"""What the cluster has on record of a node that leaves, moves, fails and comes back, and what it
does not believe: real processes."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.local_cluster import LocalCluster, free_address
from quorumlog import Client
from quorumlog.client.models import NodeInfo
from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.gossip import Gossip
from support.command_line import succeed, succeed_json
from support.waiting import wait_for


@pytest.fixture
def three(tmp_path: Path) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path) as cluster:
        yield cluster


def wait_for_record(client: Client, presence: str, address: str) -> NodeInfo:
    def look() -> NodeInfo | None:
        (node,) = [each for each in client.cluster_status().nodes if each.name == "node-3"]
        return node if (node.presence, node.address) == (presence, address) else None

    return wait_for(f"node-3 {presence} at {address}", look, timeout_s=40.0)


def test_a_node_leaves_comes_back_elsewhere_fails_and_is_back(three: LocalCluster) -> None:
    node = three.nodes[2]
    servers = three.servers[:2]
    address = node.listen
    with Client(*servers) as client:
        assert node.terminate() == 0
        wait_for_record(client, "left", address)
        assert "node-3 has left, and was last heard 2" in succeed(servers, "cluster", "status")

        node.listen, node.gossip = free_address(), free_address()
        node.start()
        node.wait_serving()
        back = wait_for_record(client, "present", node.listen)
        assert (back.absent_since_ms, back.gossip_address) == (0, "")
        # Every node finds it there, and it finds the others.
        client.create_topic("t", partitions=3, replicas=3)
        assert all(len(each.replicas) == 3 for each in client.describe_topic("t").partitions)

        node.kill()
        wait_for_record(client, "failed", node.listen)
        assert "active, failed" in succeed(servers, "cluster", "members")
        node.start()
        node.wait_serving()
        wait_for_record(client, "present", node.listen)


def test_what_strangers_say_by_gossip_of_nodes_is_not_believed(three: LocalCluster) -> None:
    """Three strangers: one claims to be node-2, another to be a node that nobody knows, at the
    address of node-1, and one is no node, as a Serf agent."""
    servers = three.servers
    before = {node["name"]: node for node in succeed_json(servers, "cluster", "members")}
    cluster_id = succeed_json(servers, "cluster", "status")["cluster_id"]

    async def forge() -> None:
        seeds = [node.gossip for node in three.nodes]
        ours = {"cluster": cluster_id, "ver": "0"}
        claims = {
            "thief": {"id": before["node-2"]["id"], "rpc": "127.0.0.1:1", **ours},
            "new": {"id": "0" * 32, "rpc": servers[0], **ours},
            "agent": {"role": "web"},
        }
        strangers = [
            await Gossip.start(
                name=name,
                bind=("127.0.0.1", 0),
                seeds=seeds,
                tags=tags,
                config=GossipConfig(),
                rng=random.Random(),
            )
            for name, tags in claims.items()
        ]

        def seen() -> bool:
            with Client(*servers) as client:
                status = client.cluster_status()
            is_claimed = any(each.claimed_by for each in status.nodes)
            return len(status.nodes) == 4 and is_claimed and len(status.others) == 1

        def refused() -> bool:
            told = [node.output.read_text("utf-8") for node in three.nodes]
            return any(f"{servers[0]} is node" in text for text in told)

        try:
            await asyncio.to_thread(wait_for, "the strangers", seen)
            await asyncio.to_thread(wait_for, "the refusal", refused)
            members = await asyncio.to_thread(succeed_json, servers, "cluster", "members")
        finally:
            for stranger in strangers:
                await stranger.leave()
                await stranger.close()
        found = {each["name"]: each for each in members}
        assert found["new"]["standing"] == ""
        assert found["node-2"]["address"] == before["node-2"]["address"]
        assert found["node-2"]["claimed_by"] == ["node-2", "thief"]
        assert (found["agent"]["kind"], found["agent"]["id"]) == ("agent", "")
        assert found["node-2"]["difference"] == "node-2 and thief claim to be it: stop all but one"

    asyncio.run(forge())
    succeed(servers, "topic", "create", "t", "--partitions", "3", "--replicas", "3")
    assert succeed(servers, "produce", "t", stdin="1\n2\n3\n")
