"""A node that fails is replaced by itself, where the cluster is set to it: real processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.local_cluster import LocalCluster, NodeProcess, free_address
from quorumlog import Client
from support.command_line import run, succeed, succeed_json
from support.waiting import wait_for

GRACE_S = 5
RECORDS = 500


@pytest.fixture
def four(tmp_path: Path) -> Iterator[tuple[LocalCluster, NodeProcess]]:
    """A cluster of three, and a fourth node that has joined it."""
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
            fourth.start()
            fourth.wait_serving()
            yield cluster, fourth
        finally:
            if fourth.running:
                fourth.kill()


def node_called(name: str, servers: list[str]) -> dict[str, Any]:
    status = succeed_json(servers, "cluster", "status")
    (found,) = [node for node in status["nodes"] if node["name"] == name]
    return dict(found)


def test_the_replicas_of_a_node_that_failed_are_made_anew_and_it_comes_back_as_a_spare(
    four: tuple[LocalCluster, NodeProcess],
) -> None:
    cluster, fourth = four
    lost = cluster.nodes[2]
    servers = [cluster.nodes[0].listen, cluster.nodes[1].listen, fourth.listen]
    refused = run(servers, "cluster", "settings", "--replace-failed-after-s", "1")
    assert refused.returncode == 1
    assert "it goes from 5 to 604800" in refused.stderr
    said = succeed(servers, "cluster", "settings", "--replace-failed-after-s", str(GRACE_S))
    assert said == f"replace_failed_after_s  {GRACE_S}\n"
    with Client(*cluster.servers) as client:
        ids = {node.name: node.id for node in client.cluster_status().nodes}
        client.create_topic("t", partitions=3, replicas=3)
        first_three = ("node-1", "node-2", "node-3")
        for partition in range(3):
            client.assign_replicas("t", partition, first_three)
        wait_for(
            "the start",
            lambda: not any(each.wanted for each in client.describe_topic("t").partitions),
        )
    lines = "".join(f"{number}\n" for number in range(RECORDS))
    succeed(servers, "produce", "t", stdin=lines)

    lost.kill()
    wait_for(
        "the count",
        lambda: (node_called("node-3", servers)["replacement"] or {}).get("stage") == "counting",
    )
    assert "made anew elsewhere in" in succeed(servers, "cluster", "status")
    wait_for(
        "the replacement",
        lambda: (node_called("node-3", servers)["replacement"] or {}).get("stage") == "replaced",
        timeout_s=60.0,
    )
    topic = succeed_json(servers, "topic", "describe", "t")
    expected = {ids[name] for name in ("node-1", "node-2", "node-4")}
    assert [set(each["replicas"]) for each in topic["partitions"]] == [expected] * 3
    roles = {name: node_called(name, servers)["role"] for name in ("node-3", "node-4")}
    assert roles == {"node-3": "learner", "node-4": "voter"}

    lost.start()
    lost.wait_serving()
    groups = lost.data / "groups"

    def has_let_go() -> bool:
        left = [each for each in groups.iterdir() if each.name.isdigit() and each.name != "0"]
        return not any(list(each.glob("*.log")) for each in left)

    wait_for("the old replicas to go", has_let_go, timeout_s=30)
    # The metadata's leader looks once a second whom it hears.
    wait_for("node-3 to be heard", lambda: not node_called("node-3", servers)["replacement"])
    back = node_called("node-3", servers)
    assert (back["standing"], back["state"]) == ("active", "alive")
    # A spare again: it can take everything, and have a vote.
    succeed(servers, "cluster", "move", "t", "0", "--to", "node-3,node-1,node-2", "--wait", "50")
    consumed = succeed(servers, "consume", "t", "--from", "earliest")
    assert sorted(consumed.splitlines()) == sorted(lines.splitlines())
