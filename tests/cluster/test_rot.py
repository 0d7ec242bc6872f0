"""Bits flip on the disk of one node of three, or files are gone: it is whole again in the end."""

import shutil
from pathlib import Path

from examples.local_cluster import LocalCluster
from quorumlog import Client
from support.command_line import run, succeed
from support.waiting import wait_for

VALUE = "v" * 16_000
RECORDS = 400


def test_a_node_with_flipped_bits_is_mended_while_the_partition_stays_available(
    cluster: LocalCluster, client: Client
) -> None:
    topic = "rotten"
    client.create_topic(topic, partitions=1, replicas=3, segment_bytes=1 << 20)
    with client.producer(topic) as producer:
        for number in range(RECORDS):
            producer.send(f"{number} {VALUE}".encode())
    victim = cluster.nodes[1]
    assert victim.terminate() == 0
    group = largest_group(victim.data)
    segments = sorted(group.glob("*.log"))
    assert len(segments) > 3
    for segment in segments[:-1]:
        flip_bits(segment)
    assert run(cluster.servers, "log", "verify", str(group)).returncode == 1

    victim.start()
    victim.wait_serving()
    expected = [f"{number} {VALUE}".encode() for number in range(RECORDS)]
    assert values_in(client, topic) == expected
    # The scrubber, or whoever needs it first, finds it.
    set_aside = group.with_name(f"{group.name}.damaged-1")
    wait_for("the damaged log to be set aside", set_aside.exists)
    wait_for("the replica to be whole", lambda: not (group / "recovering").exists())
    with client.producer(topic) as producer:
        producer.send(b"last")
    assert values_in(client, topic) == [*expected, b"last"]
    assert victim.terminate() == 0
    succeed(cluster.servers, "log", "verify", str(group))
    # Of the copy that was set aside verify speaks only when it is asked.
    succeed(cluster.servers, "log", "verify", str(victim.data))


def test_one_rotten_segment_is_written_anew_and_nothing_else_is_copied(
    cluster: LocalCluster, client: Client
) -> None:
    topic = "mended"
    client.create_topic(topic, partitions=1, replicas=3, segment_bytes=1 << 20)
    with client.producer(topic) as producer:
        for number in range(RECORDS):
            producer.send(f"{number} {VALUE}".encode())
    victim = cluster.nodes[2]
    assert victim.terminate() == 0
    group = largest_group(victim.data)
    segments = sorted(group.glob("*.log"))
    flip_bits(segments[1])
    victim.start()
    victim.wait_serving()
    kept = group / f"{segments[1].name}.damaged-1"
    wait_for("the damaged segment to be written anew", kept.exists)
    assert values_in(client, topic) == [f"{number} {VALUE}".encode() for number in range(RECORDS)]
    assert victim.terminate() == 0
    succeed(cluster.servers, "log", "verify", str(group))
    assert not group.with_name(f"{group.name}.damaged-1").exists()
    assert not (group / "recovering").exists()


def test_a_group_whose_directory_is_gone_is_gotten_again(
    cluster: LocalCluster, client: Client
) -> None:
    topic = "gone"
    client.create_topic(topic, partitions=1, replicas=3)
    expected = [f"{number} {VALUE}".encode() for number in range(50)]
    with client.producer(topic) as producer:
        for value in expected:
            producer.send(value)
    victim = cluster.nodes[1]
    assert victim.terminate() == 0
    group = largest_group(victim.data)
    shutil.rmtree(group)
    victim.start()
    victim.wait_serving()
    wait_for("the loss to be noticed", lambda: '"lost_group_begun"' in victim.output.read_text())
    wait_for("the replica to be whole", lambda: not (group / "recovering").exists())
    assert values_in(client, topic) == expected
    assert victim.terminate() == 0
    succeed(cluster.servers, "log", "verify", str(group))
    assert sum(path.stat().st_size for path in group.glob("*.log")) > 50 * len(VALUE)


def values_in(client: Client, topic: str) -> list[bytes | None]:
    (offsets,) = client.offsets(topic).values()
    with client.consumer(topic, start="earliest") as consumer:
        return [record.value for _, record in zip(range(offsets.end), consumer, strict=False)]


def largest_group(data_dir: Path) -> Path:
    groups = [each for each in (data_dir / "groups").iterdir() if each.name != "0"]
    return max(groups, key=lambda each: sum(path.stat().st_size for path in each.glob("*.log")))


def flip_bits(segment: Path) -> None:
    middle = segment.stat().st_size // 2
    with segment.open("r+b") as file:
        file.seek(middle)
        (byte,) = file.read(1)
        file.seek(middle)
        file.write(bytes((byte ^ 0x10,)))
