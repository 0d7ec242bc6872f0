"""Whole nodes in one process, over real sockets on loopback."""

import asyncio
import errno
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date
from pathlib import Path

import pytest

import quorumlog
from examples.local_cluster import free_address
from quorumlog.broker.gossip_view import LACKS_TAG
from quorumlog.errors import (
    AddressInUse,
    ConfigError,
    DiskFull,
    DuplicateNode,
    InvariantViolation,
    KeyMissing,
    LogLocked,
    OffsetOutOfRange,
    UnknownTopic,
    WrongCluster,
)
from quorumlog.log.key_ring import write_new_key
from quorumlog.node.config import NodeConfig
from quorumlog.node.identity import Identity
from quorumlog.node.node import Node
from quorumlog.node.storage import DataDirectory
from quorumlog.types import METADATA_GROUP


def config_in(directory: Path, **settings: object) -> NodeConfig:
    values = {"listen": "127.0.0.1:0", "gossip": "127.0.0.1:0", **settings}
    return NodeConfig(data_dir=str(directory), **values)  # type: ignore[arg-type]


@asynccontextmanager
async def cluster_of(size: int, directory: Path) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        nodes: list[Node] = []
        for number in range(size):
            seeds = tuple(node.gossip_address for node in nodes[:1])
            node = Node(config_in(directory / str(number), bootstrap_expect=size, join=seeds))
            nodes.append(node)
            await node.start()
            stack.push_async_callback(node.close)
        for node in nodes:
            await node.wait_ready(20)
        yield nodes


def lose_list(directory: Path) -> None:
    (path,) = directory.rglob("groups.list")
    path.unlink()


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_one_node_embedded_in_a_program_keeps_records_over_a_restart(
    tmp_path: Path,
) -> None:
    async with Node(config_in(tmp_path)) as node, quorumlog.AsyncClient(node.address) as client:
        await client.create_topic("events", partitions=1)
        async with client.producer("events") as producer:
            metadata = [await producer.send(b"%d" % number, key=b"k") for number in range(10)]
        assert [each.offset for each in metadata] == list(range(10))
    async with Node(config_in(tmp_path)) as node, quorumlog.AsyncClient(node.address) as client:
        async with client.consumer("events", start="earliest", follow=False) as consumer:
            values = [record.value async for record in consumer]
        assert values == [b"%d" % number for number in range(10)]
        with pytest.raises(UnknownTopic):
            await client.describe_topic("nothing")
        with pytest.raises(OffsetOutOfRange):
            async with client.consumer("events", start=11):
                pass


async def test_a_node_whose_start_has_a_bug_fails_and_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(quorumlog.node.node, "announce", broken)
    node = Node(config_in(tmp_path))
    await node.start()
    try:
        with pytest.raises(InvariantViolation, match="a bug"):
            await node.wait_ready(5)
    finally:
        await node.close()


async def test_a_node_says_its_rack_by_gossip_and_in_the_status(tmp_path: Path) -> None:
    async with (
        Node(config_in(tmp_path, rack="eu-1b")) as node,
        quorumlog.AsyncClient(node.address) as client,
    ):
        (found,) = (await client.cluster_status()).nodes
        assert found.rack == "eu-1b"


async def test_a_node_that_lost_the_list_of_its_groups_says_so_by_gossip(tmp_path: Path) -> None:
    async with Node(config_in(tmp_path)) as node:
        (member,) = node._gossip.members()
        assert LACKS_TAG not in member.tags
    lose_list(tmp_path)
    for _ in range(2):
        async with Node(config_in(tmp_path)) as node:
            (member,) = node._gossip.members()
            assert LACKS_TAG in member.tags


async def test_a_node_with_keys_stores_nothing_in_clear_and_needs_them_again(
    tmp_path: Path,
) -> None:
    keys = str(tmp_path / "keys.toml")
    write_new_key(keys, None, date(2026, 11, 21))
    directory = tmp_path / "data"
    async with (
        Node(config_in(directory, keys=keys)) as node,
        quorumlog.AsyncClient(node.address) as client,
    ):
        await client.create_topic("events", partitions=1)
        async with client.producer("events") as producer:
            await producer.send_many([b"plain text"] * 100)
    stored = b"".join(path.read_bytes() for path in directory.rglob("*.log"))
    assert b"plain text" not in stored
    with pytest.raises(KeyMissing, match="none was given"):
        async with Node(config_in(directory)):
            pass
    write_new_key(keys, "another", date(2026, 11, 22))
    async with (
        Node(config_in(directory, keys=keys)) as node,
        quorumlog.AsyncClient(node.address) as client,
        client.consumer("events", start="earliest", follow=False) as consumer,
    ):
        assert [record.value async for record in consumer] == [b"plain text"] * 100


async def test_a_key_file_that_is_not_there_keeps_a_node_from_starting(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with pytest.raises(ConfigError, match="there is no key file"):
        await Node(config_in(directory, keys=str(tmp_path / "keys.toml"))).start()
    assert not directory.exists()


async def test_a_node_whose_gossip_ends_by_itself_fails(tmp_path: Path) -> None:
    async with Node(config_in(tmp_path)) as node:
        node._gossip._tasks.fail(RuntimeError("worn out"))
        await asyncio.wait_for(node.failed.wait(), 5)
        assert "gossip cannot go on after RuntimeError('worn out')" in str(node.failure)


async def test_nodes_with_a_gossip_key_form_a_cluster_and_others_stay_outside(
    tmp_path: Path,
) -> None:
    keys = tmp_path / "gossip.json"
    keys.write_text('["MTIzNDU2Nzg5MDEyMzQ1Ng=="]')
    keys.chmod(0o600)
    async with AsyncExitStack() as stack:
        one = Node(config_in(tmp_path / "1", bootstrap_expect=2, gossip_keys=str(keys)))
        await one.start()
        stack.push_async_callback(one.close)
        seeds = (one.gossip_address,)
        plain = Node(config_in(tmp_path / "plain", join=seeds))
        await plain.start()
        stack.push_async_callback(plain.close)
        two = Node(config_in(tmp_path / "2", bootstrap_expect=2, join=seeds, gossip_keys=str(keys)))
        await two.start()
        stack.push_async_callback(two.close)
        await one.wait_ready(20)
        await two.wait_ready(20)
        with pytest.raises(TimeoutError):
            await plain.wait_ready(0)


async def test_a_gossip_key_file_that_is_not_there_keeps_a_node_from_starting(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "data"
    with pytest.raises(ConfigError, match="gossip key file"):
        await Node(config_in(directory, gossip_keys=str(tmp_path / "keys.json"))).start()
    assert not directory.exists()


async def test_three_nodes_serve_a_replicated_topic_through_the_loss_of_one(
    tmp_path: Path,
) -> None:
    async with (
        cluster_of(3, tmp_path) as nodes,
        quorumlog.AsyncClient(*(node.address for node in nodes)) as client,
    ):
        await client.create_topic("t", partitions=3, replicas=3)
        async with client.producer("t") as producer:
            await producer.send_many([b"%d" % number for number in range(1000)])
            await nodes[0].close()
            await producer.send_many([b"%d" % number for number in range(1000, 2000)])
        async with client.consumer("t", start="earliest", follow=False) as consumer:
            values = [record.value async for record in consumer]
        assert sorted(int(value or b"") for value in values) == list(range(2000))


async def test_a_late_node_joins_learns_the_metadata_and_takes_replicas(tmp_path: Path) -> None:
    async with cluster_of(1, tmp_path) as (first,):
        late = Node(config_in(tmp_path / "late", join=(first.gossip_address,)))
        await late.start()
        try:
            await late.wait_ready(20)
            async with quorumlog.AsyncClient(late.address) as client:
                status = await client.cluster_status()
                assert {node.id for node in status.nodes} == {first.node_id, late.node_id}
                topic = await client.create_topic("t", partitions=2, replicas=2)
                assert {len(partition.replicas) for partition in topic.partitions} == {2}
                async with client.producer("t") as producer:
                    await producer.send_many([b"x"] * 100)
        finally:
            await late.close()


async def test_who_expects_one_and_is_given_a_live_cluster_joins_that(tmp_path: Path) -> None:
    """Also where its id is smaller, and its own address is among those that it is given."""
    async with cluster_of(1, tmp_path) as (first,):
        own = free_address()
        joins = (own, first.gossip_address)
        config = config_in(tmp_path / "late", gossip=own, join=joins, bootstrap_expect=1)
        async with Node(config) as late:
            assert late.broker.cluster_status().cluster_id == (
                first.broker.cluster_status().cluster_id
            )


async def test_who_expects_one_and_is_given_itself_forms_a_cluster(tmp_path: Path) -> None:
    own = free_address()
    async with Node(config_in(tmp_path, gossip=own, join=(own,), bootstrap_expect=1)) as node:
        assert node.broker.cluster_status().cluster_id


async def test_a_node_is_found_under_its_new_address(tmp_path: Path) -> None:
    async with cluster_of(3, tmp_path) as nodes:
        await nodes[2].close()
        again = Node(config_in(tmp_path / "2", join=(nodes[0].gossip_address,)))
        await again.start()
        try:
            assert again.address != nodes[2].address
            await again.wait_ready(20)

            async def known() -> bool:
                node = nodes[0].broker.metadata.node(again.node_id)
                return node is not None and node.address == again.address

            await until(known)
            async with quorumlog.AsyncClient(nodes[0].address) as client:
                await client.create_topic("t", partitions=3, replicas=3)
                async with client.producer("t") as producer:
                    await producer.send_many([b"x"] * 300)
        finally:
            await again.close()


async def test_a_node_that_comes_back_to_unchanged_metadata_serves(tmp_path: Path) -> None:
    async with cluster_of(3, tmp_path) as nodes:
        follower = next(node for node in nodes if not node.host.replicas[METADATA_GROUP].serving)
        number = nodes.index(follower)
        await follower.close()
        again = Node(
            config_in(
                tmp_path / str(number),
                listen=follower.address,
                gossip=follower.gossip_address,
                join=tuple(node.gossip_address for node in nodes if node is not follower),
            )
        )
        await again.start()
        try:
            await again.wait_ready(20)
        finally:
            await again.close()


async def test_a_port_in_use_is_an_error_that_leaves_nothing_behind(tmp_path: Path) -> None:
    async with Node(config_in(tmp_path / "a")) as node:
        with pytest.raises(AddressInUse, match="--listen"):
            await Node(config_in(tmp_path / "b", listen=node.address)).start()
        with pytest.raises(AddressInUse, match=node.gossip_address):
            await Node(config_in(tmp_path / "b", gossip=node.gossip_address)).start()
        async with Node(config_in(tmp_path / "b")):
            pass


async def test_a_directory_belongs_to_one_node(tmp_path: Path) -> None:
    async with Node(config_in(tmp_path)):
        with pytest.raises(LogLocked, match="--data-dir"):
            await Node(config_in(tmp_path)).start()


async def test_a_copy_of_a_running_node_is_refused(tmp_path: Path) -> None:
    async with cluster_of(3, tmp_path) as nodes:
        shutil.copytree(tmp_path / "1", tmp_path / "copy")
        copy = Node(config_in(tmp_path / "copy", join=(nodes[0].gossip_address,)))
        await copy.start()
        with pytest.raises(DuplicateNode, match="node id"):
            await copy.wait_ready(20)
        await copy.close()
        async with quorumlog.AsyncClient(nodes[0].address) as client:
            await client.create_topic("t", partitions=3, replicas=3)


async def test_a_node_of_another_cluster_is_refused(tmp_path: Path) -> None:
    async with cluster_of(1, tmp_path / "one"), cluster_of(1, tmp_path / "two") as (second,):
        pass
    async with cluster_of(1, tmp_path / "two") as (second,):
        alien = Node(config_in(tmp_path / "one" / "0", join=(second.gossip_address,)))
        await alien.start()
        with pytest.raises(
            WrongCluster,
            match=r"never mix; give it the --join of its own, or, .* another data directory",
        ):
            await alien.wait_ready(20)
        await alien.close()


async def test_a_node_that_cannot_write_down_its_cluster_fails_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: DataDirectory, identity: Identity) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DataDirectory, "save", full)
    node = Node(config_in(tmp_path))
    await node.start()
    with pytest.raises(DiskFull, match="make space"):
        await node.wait_ready(10)
    await node.close()
