"""``cluster add|remove|drain|move``: what is asked of the cluster, and what is said about it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cli.runner import invoke
from client.fake_cluster import FakeCluster
from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.errors import UnsafeChange


def test_a_node_is_removed_for_another_one(cluster: FakeCluster) -> None:
    outcome = invoke(cluster, "cluster", "remove", "node3", "--replace", "node4")
    assert outcome.out == (
        "node3 is being removed, 2 partitions to move; `quorumlog cluster status` shows how far "
        "it is\n"
    )
    assert cluster.changes == [pb.RemoveNodeRequest(node="node3", replacement="node4")]
    told = invoke(cluster, "cluster", "remove", "node3", "--json")
    assert json.loads(told.out) == {"node": "node3", "replacement": None, "moving": 2}


def test_what_is_unsafe_is_one_line_with_the_way_out(cluster: FakeCluster) -> None:
    cluster.unary_script.append(("RemoveNode", UnsafeChange("t/0 would be lost: start it"), False))
    outcome = invoke(cluster, "cluster", "remove", "node3", "--json")
    assert outcome.code == 1
    (line,) = outcome.error_lines
    assert json.loads(line) == {
        "error": "UNSAFE_CHANGE",
        "message": "t/0 would be lost: start it",
        "details": {},
    }


def test_who_waits_hears_when_it_is_done_or_not_in_time(cluster: FakeCluster) -> None:
    late = invoke(cluster, "cluster", "remove", "node3", "--wait", "0.1")
    assert (late.code, len(late.error_lines)) == (1, 1)
    assert "it goes on" in late.error_lines[0]
    done = invoke(cluster, "cluster", "remove", "gone", "--wait", "5")
    assert done.out == "gone is removed, 2 partitions moved\n"
    drained = invoke(cluster, "cluster", "drain", "node1", "--wait", "5")
    assert drained.code == 0


def test_a_node_is_drained_and_that_is_undone(cluster: FakeCluster) -> None:
    drained = invoke(cluster, "cluster", "drain", "node1", "--replicas")
    assert drained.out == (
        "node1 gives its leaderships away; 2 partitions to move; `cluster drain node1 --undo` "
        "ends that\n"
    )
    undone = invoke(cluster, "cluster", "drain", "node1", "--undo")
    assert undone.out == "node1 may lead and take replicas again\n"
    assert cluster.changes == [
        pb.DrainNodeRequest(node="node1", replicas=True),
        pb.DrainNodeRequest(node="node1", undo=True),
    ]
    assert invoke(cluster, "cluster", "drain", "node1", "--undo", "--replicas").code == 2


def test_a_voter_is_added(cluster: FakeCluster) -> None:
    outcome = invoke(cluster, "cluster", "add", "node3", "--wait", "5")
    assert outcome.out == "node3 votes on the cluster's metadata, with 3 voters in all\n"


def test_a_partition_is_moved(cluster: FakeCluster) -> None:
    cluster.add_topic("t", 2)
    outcome = invoke(cluster, "cluster", "move", "t", "1", "--to", "node1, node2")
    assert outcome.out == "partition 1 of t moves to node1, node2\n"
    assert cluster.changes == [
        pb.AssignReplicasRequest(topic="t", partition=1, replicas=["node1", "node2"])
    ]
    done = invoke(cluster, "cluster", "move", "t", "1", "--to", "node1", "--wait", "5")
    assert done.out == "partition 1 of t is on node1\n"


def test_members_say_where_gossip_and_the_metadata_differ(cluster: FakeCluster) -> None:
    cluster.kill("n2:7400")
    lines = invoke(cluster, "cluster", "members").out.splitlines()
    assert "DIFFERENCE" in lines[0]
    assert "registered, and not there" in lines[2]
    members = json.loads(invoke(cluster, "cluster", "members", "--json").out)
    assert [each["difference"] for each in members] == [None, "registered, and not there", None]


@pytest.mark.parametrize(
    ("node", "difference"),
    [
        ({"presence": "present"}, None),
        ({"presence": "failed", "state": "failed"}, None),
        ({"presence": "left", "state": "unknown"}, None),
        ({"presence": "left", "state": "left"}, None),
        ({"presence": "failed", "state": "unknown"}, None),
        ({"presence": "present", "state": "suspect"}, "gossip suspects that it failed"),
        ({"presence": "present", "state": "failed"}, "registered, and not there"),
        ({"presence": "present", "state": "left"}, "registered, and not there"),
        ({"presence": "present", "state": "unknown"}, "registered, and not there"),
        ({"presence": "failed", "state": "alive"}, "on record as failed"),
        ({"presence": "left", "state": "alive"}, "on record as left"),
        (
            {"presence": "failed", "state": "suspect"},
            "on record as failed, and gossip says suspect",
        ),
        ({"presence": "left", "state": "suspect"}, "on record as left, and gossip says suspect"),
        ({"presence": "failed", "state": "left"}, "on record as failed, and gossip says left"),
        ({"presence": "left", "state": "failed"}, "on record as left, and gossip says failed"),
        ({"standing": "removed", "state": "alive"}, "removed, and still runs"),
        ({"standing": "removed", "state": "suspect"}, "removed, and still runs"),
        ({"standing": "removed", "state": "left"}, None),
        ({"standing": "", "state": "alive"}, "not registered yet"),
        ({"claimed_by": ["x", "y"], "state": "failed"}, "x and y claim to be it: stop all but one"),
        ({"gossip_address": "n:1"}, "gossip has n:1"),
        ({"gossip_name": "new"}, "gossip calls it new"),
        (
            {"state": "suspect", "gossip_address": "n:1", "gossip_name": "new"},
            "gossip suspects that it failed; gossip has n:1; gossip calls it new",
        ),
    ],
)
def test_members_compare_gossip_with_what_is_on_record(
    cluster: FakeCluster, node: dict[str, Any], difference: str | None
) -> None:
    cluster.known["node2"] = node
    members = json.loads(invoke(cluster, "cluster", "members", "--json").out)
    assert members[1]["difference"] == difference


OTHERS = [
    pb.GossipMember(name="agent", gossip="10.0.0.9:7946", state="alive"),
    pb.GossipMember(name="new", gossip="10.0.0.8:7946", state="alive", node_id="8", address="n8:1"),
    pb.GossipMember(
        name="odd", gossip="[::7]:7946", state="left", node_id="7", cluster_id="x", address="n7:1"
    ),
    pb.GossipMember(
        name="was", gossip="10.0.0.1:7946", state="left", node_id="node1", cluster_id="fake"
    ),
]


def test_members_show_who_else_is_in_the_same_gossip(cluster: FakeCluster) -> None:
    cluster.others = OTHERS
    lines = [line.split() for line in invoke(cluster, "cluster", "members").out.splitlines()]
    assert [line[:2] for line in lines[4:]] == [
        ["agent", "alive"],
        ["new", "alive"],
        ["odd", "left"],
        ["was", "left"],
    ]
    assert [line[4] for line in lines[4:]] == ["10.0.0.9:7946", "n8:1", "n7:1", "10.0.0.1:7946"]
    assert " ".join(lines[4][5:]) == "no node: a Serf agent, or another program -"
    assert " ".join(lines[5][5:]) == "a node that is in no cluster yet 8"
    assert " ".join(lines[6][5:]) == "a node of another cluster, x 7"
    assert " ".join(lines[7][5:]) == "an earlier name of node1 node1"
    members = json.loads(invoke(cluster, "cluster", "members", "--json").out)
    kinds = ["node"] * 3 + ["agent", "unformed", "foreign", "former"]
    assert [each["kind"] for each in members] == kinds
    assert members[5] == {
        "id": "7",
        "name": "odd",
        "address": "n7:1",
        "state": "left",
        "version": "",
        "rack": "",
        "cluster_id": "x",
        "gossip": "[::7]:7946",
        "kind": "foreign",
        "difference": "a node of another cluster, x",
    }


@pytest.mark.parametrize(
    ("state", "other", "difference"),
    [
        ("unknown", {"node_id": "8", "state": "alive"}, "gossip has 8 under its name"),
        ("failed", {"state": "suspect"}, "gossip has no node under its name"),
        ("alive", {"node_id": "8", "state": "alive"}, None),
        ("unknown", {"node_id": "8", "state": "left"}, None),
        ("unknown", {"node_id": "8", "state": "alive", "name": "else"}, None),
    ],
)
def test_an_id_that_gossip_has_under_the_name_of_another_is_a_difference(
    cluster: FakeCluster, state: str, other: dict[str, Any], difference: str | None
) -> None:
    cluster.known["node2"] = {"presence": "failed" if state != "alive" else "present"}
    cluster.known["node2"]["state"] = state
    cluster.others = [pb.GossipMember(**{"name": "node2", **other})]
    members = json.loads(invoke(cluster, "cluster", "members", "--json").out)
    assert members[1]["difference"] == difference


def test_a_machine_that_was_emptied_is_told_from_the_node_that_it_was(cluster: FakeCluster) -> None:
    """The new node is registered, too, and has the name of the old one."""
    cluster.known["node2"] = {"presence": "failed", "state": "unknown"}
    cluster.known["node3"] = {"name": "node2"}
    members = json.loads(invoke(cluster, "cluster", "members", "--json").out)
    assert members[1]["difference"] == "gossip has node3 under its name"
    assert members[2]["difference"] is None


def test_an_absence_on_record_is_shown_with_its_time(cluster: FakeCluster) -> None:
    cluster.known["node2"] = {"presence": "left", "absent_since_ms": 1_700_000_000_000}
    assert "active, left" in invoke(cluster, "cluster", "members").out
    last = invoke(cluster, "cluster", "status").out.splitlines()[-1]
    told = datetime.fromisoformat(last.removeprefix("node2 has left, and was last heard "))
    assert told == datetime.fromtimestamp(1_700_000_000, UTC)


@pytest.mark.parametrize("command", ["status", "members"])
def test_racks_are_shown_where_a_node_has_one(cluster: FakeCluster, command: str) -> None:
    assert "RACK" not in invoke(cluster, "cluster", command).out
    cluster.racks["node2"] = "eu-1b"
    header, *rows = invoke(cluster, "cluster", command).out.splitlines()[-4:]
    start = header.index("RACK")
    assert [row[start:].split()[0] for row in rows] == ["-", "eu-1b", "-"]
    shown = json.loads(invoke(cluster, "cluster", command, "--json").out)
    nodes = shown["nodes"] if command == "status" else shown
    assert [node["rack"] for node in nodes] == ["", "eu-1b", ""]


def test_a_drain_names_what_nobody_else_has_and_does_not_wait_for_it(cluster: FakeCluster) -> None:
    for partition in cluster.add_topic("t", 2):
        partition.replicas = ["n1:7400"]
    outcome = invoke(cluster, "cluster", "drain", "node1", "--wait", "5")
    assert outcome.out.splitlines()[1] == (
        "2 partitions cannot be served without it, having no other replica: t/0, t/1"
    )


def test_what_holds_for_the_cluster_is_shown_and_set(cluster: FakeCluster) -> None:
    assert invoke(cluster, "cluster", "settings").out == "replace_failed_after_s  0 (never)\n"
    assert cluster.changes == []
    changed = invoke(cluster, "cluster", "settings", "--replace-failed-after-s", "600")
    assert changed.out == "replace_failed_after_s  600\n"
    assert json.loads(invoke(cluster, "cluster", "settings", "--json").out) == {
        "replace_failed_after_s": 600
    }
    off = invoke(cluster, "cluster", "settings", "--replace-failed-after-s", "0")
    assert off.out == "replace_failed_after_s  0 (never)\n"


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            pb.Replacement(stage="counting", silent_s=12.4, remaining_s=47.6, partitions=3),
            "node3 was not heard for 12 s; its replicas are made anew elsewhere in 48 s",
        ),
        (
            pb.Replacement(stage="moving", silent_s=61, partitions=1),
            "node3 was not heard for 61 s and is being replaced, 1 partition to go",
        ),
        (
            pb.Replacement(stage="moving", silent_s=61, partitions=2, reason="t/0 cannot"),
            "node3 was not heard for 61 s and is being replaced, 2 partitions to go; not all: "
            "t/0 cannot",
        ),
        (
            pb.Replacement(stage="refused", silent_s=61, partitions=2, reason="no spare"),
            "node3 was not heard for 61 s and is not replaced, 2 partitions on it: no spare",
        ),
        (
            pb.Replacement(stage="refused", silent_s=61, reason="no spare"),
            "node3 was not heard for 61 s and keeps its vote: no spare",
        ),
        (
            pb.Replacement(stage="replaced", silent_s=99),
            "node3 was not heard for 99 s and holds nothing any more; back again, it is a spare",
        ),
    ],
)
def test_the_status_says_what_becomes_of_a_node_that_is_not_heard(
    cluster: FakeCluster, found: pb.Replacement, line: str
) -> None:
    cluster.replacements["node3"] = found
    assert invoke(cluster, "cluster", "status").out.splitlines()[-1] == line
    status = json.loads(invoke(cluster, "cluster", "status", "--json").out)
    told = {node["id"]: node["replacement"] for node in status["nodes"]}
    assert told["node1"] is None
    assert told["node3"]["stage"] == found.stage
