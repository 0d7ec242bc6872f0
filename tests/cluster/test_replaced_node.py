"""Nodes that come, go and take each other's places: real processes, the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.local_cluster import LocalCluster, NodeProcess, free_address
from quorumlog import Client
from support.command_line import run, succeed, succeed_json
from support.waiting import wait_for

RECORDS = 2000
WAIT = ("--wait", "50", "--timeout", "60")


@pytest.fixture
def four(tmp_path: Path) -> Iterator[tuple[LocalCluster, NodeProcess]]:
    """A cluster of three, and a node that may join it and does not run yet."""
    with LocalCluster(tmp_path) as cluster:
        joins = [argument for node in cluster.nodes for argument in ("--join", node.gossip)]
        fourth = NodeProcess(
            "node-4",
            tmp_path / "node-4",
            listen=free_address(),
            gossip=free_address(),
            arguments=joins,
        )
        try:
            yield cluster, fourth
        finally:
            if fourth.running:
                fourth.kill()


def test_an_empty_node_takes_the_place_of_one_that_is_gone_for_good(
    four: tuple[LocalCluster, NodeProcess],
) -> None:
    cluster, fourth = four
    old = cluster.nodes[2]
    succeed(cluster.servers, "topic", "create", "t", "--partitions", "4", "--replicas", "3")
    lines = "".join(f"{number}\n" for number in range(RECORDS))
    succeed(cluster.servers, "produce", "t", stdin=lines)
    old.kill()
    refused = run(cluster.servers[:2], "cluster", "remove", "node-3")
    assert refused.returncode == 1
    assert "no other live node can take one of them" in refused.stderr

    fourth.start()
    fourth.wait_serving()
    servers = [*cluster.servers[:2], fourth.listen]
    moved = succeed(servers, "cluster", "remove", "node-3", "--replace", "node-4", *WAIT)
    assert moved == "node-3 is removed, 4 partitions moved\n"

    status = succeed_json(servers, "cluster", "status")
    ids = {node["id"] for node in status["nodes"] if node["standing"] != "removed"}
    assert {node["name"] for node in status["nodes"] if node["id"] in ids} == {
        "node-1",
        "node-2",
        "node-4",
    }
    assert {node["role"] for node in status["nodes"] if node["id"] in ids} == {"voter"}
    topic = succeed_json(servers, "topic", "describe", "t")
    assert all(set(each["replicas"]) == ids for each in topic["partitions"])

    # With one of the survivors gone too, the new one is needed for every majority.
    cluster.nodes[0].kill()
    survivors = [cluster.nodes[1].listen, fourth.listen]
    succeed(survivors, "produce", "t", stdin="last\n")
    consumed = succeed(survivors, "consume", "t", "--from", "earliest")
    assert sorted(consumed.splitlines()) == sorted([*lines.splitlines(), "last"])

    cluster.nodes[0].start()
    cluster.nodes[0].wait_serving()
    old.start()
    assert old.wait(30) == 1
    assert "was removed from this cluster" in old.last_output()


def test_a_node_that_runs_is_drained_removed_and_ends(
    four: tuple[LocalCluster, NodeProcess],
) -> None:
    cluster, fourth = four
    fourth.start()
    fourth.wait_serving()
    servers = [*cluster.servers, fourth.listen]
    succeed(servers, "topic", "create", "t", "--partitions", "4", "--replicas", "3")
    lines = "".join(f"{number}\n" for number in range(RECORDS))
    succeed(servers, "produce", "t", stdin=lines)

    succeed(servers, "cluster", "drain", "node-1", *WAIT)
    (drained,) = nodes_called("node-1", servers)
    assert (drained["leads"], drained["standing"]) == (0, "draining")
    succeed(servers, "cluster", "drain", "node-1", "--undo")
    succeed(servers, "cluster", "add", "node-4", *WAIT)
    removed = run(servers[1:], "cluster", "remove", "node-1", *WAIT, timeout_s=90)
    assert removed.returncode == 0, removed.stderr
    assert cluster.nodes[0].wait(30) == 1
    assert "removed from its cluster" in cluster.nodes[0].last_output()
    assert nodes_called("node-1", servers[1:]) == []

    with Client(*servers[1:]) as client:
        topic = client.describe_topic("t")
        assert all(len(set(each.replicas)) == 3 for each in topic.partitions)
        wait_for(
            "leaders",
            lambda: all(each.leader for each in client.describe_topic("t").partitions),
        )
    consumed = succeed(servers[1:], "consume", "t", "--from", "earliest")
    assert sorted(consumed.splitlines()) == sorted(lines.splitlines())


def nodes_called(name: str, servers: list[str]) -> list[dict[str, object]]:
    status = succeed_json(servers, "cluster", "status")
    return [
        node
        for node in status["nodes"]
        if node["name"] == name and node["standing"] not in ("removed", "")
    ]
