"""Old records of a topic leave all nodes and their disks; readers begin where the log does now."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.local_cluster import LocalCluster, NodeProcess
from quorumlog import Client
from quorumlog.errors import OffsetOutOfRange
from support.command_line import run, succeed_json
from support.waiting import wait_for

VALUE = bytes(1024)
LIMIT_BYTES = 1 << 20
SEGMENT_BYTES = 1 << 18
SETTINGS = {"QUORUMLOG_RETENTION_INTERVAL_MS": "200"}


@pytest.fixture
def tidy_cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three nodes that look for old segments five times a second."""
    with LocalCluster(tmp_path, environment=SETTINGS) as cluster:
        yield cluster


def start_at(node: NodeProcess, topic: str) -> int:
    """Where partition 0 begins, as this node itself knows it."""
    with Client(node.listen) as client:
        return client.describe_topic(topic).partitions[0].log_start_offset


def starts(cluster: LocalCluster, topic: str) -> set[int]:
    return {start_at(node, topic) for node in cluster.nodes}


def bytes_on(directory: Path, group: int) -> int:
    """What the files of a group take on the disk of one node."""
    files = (directory / "groups" / str(group)).glob("*.log")
    return sum(file.stat().st_blocks * 512 for file in files)


def look(client: Client) -> tuple[int, list[int], tuple[int, int]] | None:
    """Where the log starts, the offsets a reader gets, what it is told of the offset before.

    None when the start moved in between: nobody who asks three times can expect one answer then.
    """
    start = client.offsets("t")[0].start
    try:
        with client.consumer("t", start="earliest", follow=False) as consumer:
            offsets = [record.offset for record in consumer]
    except OffsetOutOfRange:
        assert client.offsets("t")[0].start > start
        return None
    with pytest.raises(OffsetOutOfRange) as caught:
        client.offset("t", 0, start - 1)
    if client.offsets("t")[0].start != start:
        return None
    return start, offsets, (caught.value.start, caught.value.end)


def test_old_records_leave_all_nodes_and_their_disks_and_stay_gone_after_a_kill(
    tidy_cluster: LocalCluster, tmp_path: Path
) -> None:
    cluster = tidy_cluster
    with Client(*cluster.servers) as client:
        client.create_topic(
            "t", replicas=3, retention_bytes=LIMIT_BYTES, segment_bytes=SEGMENT_BYTES
        )
        count = 8 * LIMIT_BYTES // len(VALUE)
        with client.producer("t", batch_bytes=1 << 14) as producer:
            producer.send_many([VALUE] * count)

        def all_moved() -> bool:
            found = starts(cluster, "t")
            return len(found) == 1 and min(found) > count // 2

        wait_for("the same start everywhere", all_moved)
        directories = [tmp_path / f"node-{number}" for number in (1, 2, 3)]
        # Above the limit: a quarter of it, a segment, what is reserved for the last one.
        wait_for("the disks", lambda: all(bytes_on(d, 1) < 4 * LIMIT_BYTES for d in directories))

        start, offsets, refused_range = wait_for("a look between two moves", lambda: look(client))
        assert offsets == list(range(start, count))
        assert (count - start) * len(VALUE) >= LIMIT_BYTES * 0.9
        assert refused_range == (start, count)

        trimmed = succeed_json(
            cluster.servers, "topic", "trim", "t", "--partition", "0", "--before", str(count - 5)
        )
        assert trimmed["log_start_offset"] == count - 5
        beyond = ("topic", "trim", "t", "--partition", "0", "--before", str(count + 1))
        refused = run(cluster.servers, *beyond)
        assert refused.returncode == 1
        assert f"[{count - 5}, {count})" in refused.stderr

    for node in cluster.nodes:
        node.kill()
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        node.wait_serving()
    wait_for("the start after a restart", lambda: starts(cluster, "t") == {count - 5})
    with Client(*cluster.servers) as client:
        with client.producer("t") as producer:
            assert producer.send(b"next").offset == count
        with client.consumer("t", start="earliest", follow=False) as consumer:
            assert [record.offset for record in consumer] == list(range(count - 5, count + 1))
