"""The administrative commands: what they print, for people and for programs."""

import json
import sys
from typing import Any

import pytest

from cli.runner import invoke
from client.fake_cluster import FakeCluster
from quorumlog.errors import Unavailable


def json_of(cluster: FakeCluster, *arguments: str) -> Any:
    outcome = invoke(cluster, *arguments, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("\n") == 1
    return json.loads(outcome.out)


def test_create_says_what_was_made(cluster: FakeCluster) -> None:
    outcome = invoke(cluster, "topic", "create", "t", "--partitions", "3", "--fsync", "interval")
    assert outcome.code == 0
    assert outcome.out == "topic t: 3 partitions, 3 replicas, fsync interval\n"
    assert len(cluster.topics["t"]) == 3


def test_create_of_what_exists_fails_unless_that_is_fine(cluster: FakeCluster) -> None:
    cluster.add_topic("t", 2)
    outcome = invoke(cluster, "topic", "create", "t")
    assert outcome.code == 1
    assert outcome.err == "quorumlog: topic 't' exists already\n"
    assert len(json_of(cluster, "topic", "create", "t", "--if-not-exists")["partitions"]) == 2


def test_list_is_a_table_or_json(cluster: FakeCluster) -> None:
    cluster.add_topic("a", 2)
    cluster.add_topic("b")
    outcome = invoke(cluster, "topic", "list")
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["TOPIC", "PARTITIONS", "REPLICAS", "FSYNC", "RETENTION"],
        ["a", "2", "3", "always", "-"],
        ["b", "1", "3", "always", "-"],
    ]
    assert [item["name"] for item in json_of(cluster, "topic", "list")] == ["a", "b"]


def test_describe_for_programs_has_a_stable_shape(cluster: FakeCluster) -> None:
    cluster.add_topic("t", 2)
    assert invoke(cluster, "produce", "t", "--partition", "1", stdin=b"x\n").code == 0
    described = json_of(cluster, "topic", "describe", "t")
    assert described["partitions"][1] == {
        "partition": 1,
        "leader": "node2",
        "replicas": ["node1", "node2", "node3"],
        "term": 1,
        "log_start_offset": 0,
        "high_watermark": 1,
        "exact": True,
        "wanted": [],
    }
    assert {key: described[key] for key in ("name", "replicas", "fsync")} == {
        "name": "t",
        "replicas": 3,
        "fsync": "always",
    }


def test_describe_asks_the_leaders_for_what_the_answering_node_only_guesses(
    cluster: FakeCluster,
) -> None:
    cluster.add_topic("t")
    invoke(cluster, "produce", "t", stdin=b"1\n2\n")
    told = cluster.topic_message("t")
    told.partitions[0].exact = False
    told.partitions[0].high_watermark = 0
    cluster.topic_message = lambda name: told  # type: ignore[method-assign]
    assert invoke(cluster, "topic", "describe", "t").out.splitlines()[-1].split()[-1] == "2"
    cluster.unary_script.append(("ListOffsets", Unavailable("down"), False))
    for address in cluster.addresses:
        cluster.nodes[address].behind = True
    assert invoke(cluster, "topic", "describe", "t").out.splitlines()[-1].split()[-1] == ">=0"


def test_alter_changes_what_is_given_and_wants_something(cluster: FakeCluster) -> None:
    cluster.add_topic("t")
    assert len(json_of(cluster, "topic", "alter", "t", "--partitions", "4")["partitions"]) == 4
    outcome = invoke(cluster, "topic", "alter", "t")
    assert outcome.code == 2
    assert "nothing to change: give --partitions or --fsync" in outcome.err


def test_limits_are_shown_set_and_taken_off(cluster: FakeCluster) -> None:
    limits = ("--retention-ms", "1000", "--retention-bytes", "70", "--segment-bytes", "65536")
    made = invoke(cluster, "topic", "create", "t", *limits, "--cleanup", "delete")
    assert made.out == (
        "topic t: 1 partition, 3 replicas, fsync always, segments of 65536 bytes, "
        "keeps 1000 ms / 70 bytes\n"
    )
    listed = invoke(cluster, "topic", "list").out.splitlines()[1]
    assert listed.split(maxsplit=4)[4] == "1000 ms / 70 bytes"
    changed = json_of(
        cluster, "topic", "alter", "t", "--retention-ms", "-1", "--retention-records", "9"
    )
    limits_now = {name: value for name, value in changed.items() if name.endswith(("ms", "s"))}
    assert limits_now == {
        "replicas": 3,
        "partitions": changed["partitions"],
        "retention_ms": -1,
        "retention_bytes": 70,
        "retention_records": 9,
        "segment_bytes": 65536,
    }
    assert json_of(cluster, "topic", "describe", "t") == changed


def test_trim_says_where_the_partition_begins_then(cluster: FakeCluster) -> None:
    cluster.add_topic("t", 2)
    assert invoke(cluster, "produce", "t", "--partition", "1", stdin=b"1\n2\n3\n").code == 0
    outcome = invoke(cluster, "topic", "trim", "t", "--partition", "1", "--before", "2")
    assert outcome.out == "topic t, partition 1 begins at offset 2\n"
    trimmed = json_of(cluster, "topic", "trim", "t", "--partition", "1", "--before", "1")
    assert trimmed == {"topic": "t", "partition": 1, "log_start_offset": 2}
    outcome = invoke(cluster, "topic", "trim", "t", "--partition", "1", "--before", "4")
    assert (outcome.code, outcome.error_lines) == (
        1,
        ["quorumlog: offset 4 is out of range: this log has the offsets [2, 3)"],
    )


def test_a_limit_that_is_none_is_a_usage_error(cluster: FakeCluster) -> None:
    outcome = invoke(cluster, "topic", "create", "t", "--retention-ms", "-2")
    assert outcome.code == 2
    assert "--retention-ms" in outcome.err


def test_delete_asks_on_a_terminal_only(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add_topic("t")
    cluster.add_topic("u")
    assert invoke(cluster, "topic", "delete", "t").code == 0
    assert "t" not in cluster.topics

    class Terminal:
        def isatty(self) -> bool:
            return True

    with monkeypatch.context() as patched:
        patched.setattr("quorumlog.cli.topic.sys", type("", (), {"stdin": Terminal()}))
        refused = invoke(cluster, "topic", "delete", "u", stdin=b"n\n")
        assert refused.code == 130
        assert "u" in cluster.topics
        assert invoke(cluster, "topic", "delete", "u", "--yes").code == 0
    assert "u" not in cluster.topics


def test_status_and_members(cluster: FakeCluster) -> None:
    cluster.add_topic("t", 3)
    outcome = invoke(cluster, "cluster", "status")
    assert outcome.out.splitlines()[0] == "cluster fake, metadata leader node1 (term 1)"
    assert outcome.out.splitlines()[1] == "1 topic, 3 partitions, 3 with a leader"
    status = json_of(cluster, "cluster", "status")
    assert status["leader"] == "node1"
    assert status["nodes"][2]["address"] == "n3:7400"
    members = json_of(cluster, "cluster", "members")
    assert [member["state"] for member in members] == ["alive"] * 3


def test_transfer_takes_a_name_and_refuses_strangers(cluster: FakeCluster) -> None:
    partition = cluster.add_topic("t")[0]
    moved = json_of(cluster, "cluster", "transfer", "t", "0", "--to", "node3")
    assert (moved["leader"], partition.leader) == ("node3", "n3:7400")
    outcome = invoke(cluster, "cluster", "transfer", "t", "0", "--to", "nobody")
    assert outcome.code == 2
    assert "there are node1, node2, node3" in outcome.err


def test_tables_have_lines_on_a_terminal(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quorumlog.cli.output import print_table

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(["NAME", "SIZE"], [["a", 1], ["b", None]])
    assert "┃" in capsys.readouterr().out


@pytest.mark.parametrize("terminal", [True, False])
def test_what_somebody_called_a_thing_does_nothing_to_a_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quorumlog.cli.output import print_table

    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    print_table(["NAME"], [["\x1b[2Jgone"], ["[red]x[/nothing]"], ["übung"]])
    out = capsys.readouterr().out
    assert "\x1b[2J" not in out
    for name in (r"\x1b[2Jgone", "[red]x[/nothing]", "übung"):
        assert name in out
