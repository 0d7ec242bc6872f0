"""A disk that is full: refused in time, nothing lost, work goes on when there is space again."""

import asyncio
import errno
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.local_cluster import LocalCluster, NodeProcess, free_address
from faults.traffic import Traffic
from quorumlog import Client
from quorumlog.errors import QuorumlogError
from support.waiting import wait_for

_DISK_MIB = 24
_RECORDS_MEANWHILE = 20_000
_RECORD = bytes(256 * 1024)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of ``_DISK_MIB``."""
    disk = tmp_path / "node-1"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(disk)]
    try:
        result = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if result.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {result.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_refuses_records_loses_none_and_takes_them_again_later(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    node = NodeProcess("full", small_disk, listen=free_address(), gossip=free_address())
    try:
        node.start()
        node.wait_serving()
        with Client(node.listen) as client:
            client.create_topic("full", partitions=1)
            with ballast.open("wb") as file:
                file.write(bytes(8 << 20))
            acknowledged = 0
            refusal = None
            with client.producer("full", delivery_timeout_s=2.0) as producer:
                while refusal is None:
                    try:
                        producer.send(_RECORD)
                        acknowledged += 1
                    except QuorumlogError as error:
                        refusal = error
                    assert acknowledged * len(_RECORD) < _DISK_MIB << 20
            assert acknowledged > 0
            assert node.running, node.last_output()

            ballast.unlink()

            def send() -> bool:
                with client.producer("full", delivery_timeout_s=5.0) as producer:
                    try:
                        producer.send(b"again")
                    except QuorumlogError:
                        return False
                return True

            wait_for("a record after there was space", send)
            with client.consumer("full", start="earliest", follow=False) as consumer:
                values = [record.value for record in consumer]
            assert values.count(b"again") == 1
            assert values.count(_RECORD) in (acknowledged, acknowledged + 1)
    finally:
        if node.running:
            node.kill()


def fill_up(path: Path) -> None:
    """Make ``path`` as big as it can be."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


async def test_a_full_disk_of_one_of_three_nodes_loses_nothing_and_holds_up_nobody(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    with LocalCluster(small_disk.parent) as cluster:
        traffic = Traffic(cluster.servers, random.Random(1))

        async def fill() -> None:
            await asyncio.sleep(0.5)
            fill_up(ballast)
            before = sum(traffic.acknowledged)
            async with asyncio.timeout(20):
                while sum(traffic.acknowledged) < before + _RECORDS_MEANWHILE:
                    await asyncio.sleep(0.05)
            ballast.unlink()

        await traffic.run(fill)
        assert all(node.running for node in cluster.nodes)
        assert '"disk_full"' in cluster.nodes[0].output.read_text()
