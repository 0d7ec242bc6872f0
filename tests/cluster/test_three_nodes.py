"""A cluster of three through the command line, its nodes killed and stopped meanwhile."""

import signal
import time

import pytest

from examples.local_cluster import LocalCluster, NodeProcess
from quorumlog import Client
from quorumlog.log.batch import CODEC_ZSTD
from support.command_line import run, start, succeed, succeed_json
from support.waiting import wait_for

LINES = 100_000


def leader_of(client: Client, cluster: LocalCluster, topic: str) -> NodeProcess:
    """The node that leads partition 0 of ``topic``, once there is one."""

    def look() -> NodeProcess | None:
        leader = client.describe_topic(topic).partitions[0].leader
        nodes = client.cluster_status().nodes
        return next((cluster.node_at(node.address) for node in nodes if node.id == leader), None)

    return wait_for(f"a leader of {topic}", look)


def committed(client: Client, topic: str) -> int:
    """How many records ``topic`` has."""
    return sum(offsets.end - offsets.start for offsets in client.offsets(topic).values())


def test_each_line_comes_back_once_though_a_leader_is_killed_between_them(
    cluster: LocalCluster, client: Client
) -> None:
    succeed(cluster.servers, "topic", "create", "t", "--partitions", "3", "--replicas", "3")
    lines = [f"{number}\n" for number in range(1, LINES + 1)]
    half = len(lines) // 2
    consume = start(cluster.servers, "consume", "t", "--from", "earliest", "--count", str(LINES))
    produce = start(cluster.servers, "produce", "t")
    assert produce.stdin is not None
    produce.stdin.writelines(lines[:half])
    produce.stdin.flush()
    wait_for("the first records", lambda: committed(client, "t"))

    leader = leader_of(client, cluster, "t")
    term = client.describe_topic("t").partitions[0].term
    leader.kill()
    produce.stdin.writelines(lines[half:])
    produce.stdin.flush()
    leader.start()
    _, produce_errors = produce.communicate(timeout=60)
    consumed, consume_errors = consume.communicate(timeout=60)

    assert produce.returncode == 0, produce_errors
    assert consume.returncode == 0, consume_errors
    assert sorted(consumed.splitlines(), key=int) == [line.strip() for line in lines]
    assert committed(client, "t") == LINES
    assert client.describe_topic("t").partitions[0].term > term


def test_ctrl_c_during_produce_says_how_many_lines_were_acknowledged(
    cluster: LocalCluster, client: Client
) -> None:
    client.create_topic("interrupted", partitions=1, replicas=3)
    produce = start(cluster.servers, "produce", "interrupted")
    assert produce.stdin is not None
    produce.stdin.writelines(f"{number}\n" for number in range(1234))
    produce.stdin.flush()
    wait_for("1,234 records", lambda: committed(client, "interrupted") == 1234)

    produce.send_signal(signal.SIGINT)
    # The pipe stays open: it is the signal that ends the command.
    returncode = produce.wait(timeout=20)
    _, errors = produce.communicate()

    assert returncode == 130
    assert "1234" in errors.replace(",", "")
    assert "Traceback" not in errors


def test_a_node_that_gets_sigterm_hands_its_partitions_over_and_ends_within_seconds(
    cluster: LocalCluster, client: Client
) -> None:
    client.create_topic("handed-over", partitions=3, replicas=3)
    succeed(cluster.servers, "produce", "handed-over", stdin="before\n")
    leader = leader_of(client, cluster, "handed-over")

    started = time.monotonic()
    code = leader.terminate()
    took_s = time.monotonic() - started

    assert code == 0, leader.last_output()
    assert took_s < 5
    others = [address for address in cluster.servers if address != leader.listen]
    description = succeed_json(others, "topic", "describe", "handed-over")
    status = succeed_json(others, "cluster", "status")
    gone = next(node["id"] for node in status["nodes"] if node["address"] == leader.listen)
    led_by = {partition["leader"] for partition in description["partitions"]}
    assert gone not in led_by
    assert None not in led_by
    succeed(others, "produce", "handed-over", stdin="after\n")
    assert committed(client, "handed-over") == 2


def test_json_output_says_where_every_partition_and_node_is(
    cluster: LocalCluster, client: Client
) -> None:
    client.create_topic("described", partitions=2, replicas=3)
    topic = succeed_json(cluster.servers, "topic", "describe", "described")
    status = succeed_json(cluster.servers, "cluster", "status")

    assert topic["name"] == "described"
    assert [partition["partition"] for partition in topic["partitions"]] == [0, 1]
    ids = {node["id"] for node in status["nodes"]}
    assert len(ids) == 3
    assert all(set(partition["replicas"]) == ids for partition in topic["partitions"])
    assert {node["address"] for node in status["nodes"]} == set(cluster.servers)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("topic", "describe", "missing"), "topic create missing"),
        (("produce", "missing"), "topic create missing"),
        (("consume", "missing"), "topic create missing"),
        (("produce", "narrow", "--partition", "7"), "partition"),
        (("consume", "narrow", "--partition", "0", "--from", "99"), "99"),
        (("topic", "create", "narrow"), "exists"),
        (("topic", "create", "wide", "--replicas", "9"), "3"),
    ],
)
def test_what_cannot_work_is_one_line_that_names_the_way_out(
    cluster: LocalCluster, client: Client, arguments: tuple[str, ...], expected: str
) -> None:
    client.create_topic("narrow", partitions=1, replicas=3, exist_ok=True)
    result = run(cluster.servers, *arguments, stdin="line\n")
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert expected in result.stderr


def test_a_line_over_the_limit_is_refused_and_the_limit_named(
    cluster: LocalCluster, client: Client
) -> None:
    client.create_topic("limited", partitions=1, replicas=3)
    result = run(cluster.servers, "produce", "limited", stdin="x" * (1024 * 1024 + 1) + "\n")
    assert result.returncode == 1
    assert "1048576" in result.stderr.replace(",", "")
    assert committed(client, "limited") == 0


def test_compressed_lines_come_back_and_the_nodes_store_them_compressed(
    cluster: LocalCluster, client: Client
) -> None:
    succeed(cluster.servers, "topic", "create", "small", "--replicas", "3")
    lines = "".join(f"line number {number}\n" for number in range(10_000))
    succeed(cluster.servers, "produce", "small", "--compression", "zstd", stdin=lines)
    assert succeed(cluster.servers, "consume", "small", "--from", "earliest") == lines
    batches = client.fetch("small", 0)
    assert {batch.batch.header.codec for batch in batches} == {CODEC_ZSTD}
    assert sum(batch.batch.size_bytes for batch in batches) < len(lines) // 3
