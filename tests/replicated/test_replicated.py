"""Whole nodes of a replicated machine in this process: over gRPC on loopback, on real disks."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from examples.local_cluster import free_address
from quorumlog import Replicated, ReplicatedConfig
from quorumlog.errors import (
    AddressInUse,
    Closed,
    ConfigError,
    InvalidArgument,
    LogLocked,
    NotLeader,
    Refused,
    Unavailable,
)
from support.replicated_group import Ledger

_TIMEOUT_S = 20.0


class Nodes:
    """Nodes by name, with a directory and an address each."""

    def __init__(self, directory: Path, names: str) -> None:
        self.directory = directory
        self.peers = {name: free_address() for name in names}
        self.running: dict[str, Replicated] = {}

    def make(self, name: str, **options: object) -> Replicated:
        return Replicated(
            Ledger(),
            node=name,
            peers=self.peers,
            data_dir=str(self.directory / name),
            **options,  # type: ignore[arg-type]
        )

    async def start(self, *names: str) -> None:
        for name in names:
            self.running[name] = node = self.make(name)
            await node.start()

    async def ready(self) -> None:
        for node in self.running.values():
            await node.wait_ready(_TIMEOUT_S)

    async def stop(self, *names: str) -> None:
        for name in names or tuple(self.running):
            await self.running.pop(name).close()

    async def leader(self) -> Replicated:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                for node in self.running.values():
                    if node.is_leader:
                        return node
                await asyncio.sleep(0.01)

    async def follower(self) -> Replicated:
        leader = await self.leader()
        return next(node for node in self.running.values() if node is not leader)

    async def lines(self, name: str) -> list[str]:
        node = self.running[name]
        await node.read(timeout_s=_TIMEOUT_S)
        machine = node.machine
        assert isinstance(machine, Ledger)
        return machine.lines


@pytest_asyncio.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    nodes = Nodes(tmp_path, "abc")
    await nodes.start("a", "b", "c")
    await nodes.ready()
    yield nodes
    await nodes.stop()


async def test_commands_survive_the_leader_and_a_restart_of_all(nodes: Nodes) -> None:
    for name in nodes.peers:
        await nodes.running[name].propose(name.encode(), request_id=name)
    with pytest.raises(Refused):
        await (await nodes.follower()).propose(b"no")
    leader = await nodes.leader()
    await nodes.stop(leader.node)
    follower = await nodes.follower()
    assert await follower.propose(b"a", request_id="a") == b"1"
    assert await follower.propose(b"d") == b"4"
    await nodes.stop()
    with pytest.raises(Closed):
        await follower.propose(b"e")
    await nodes.start(*nodes.peers)
    for name in nodes.peers:
        assert await nodes.lines(name) == ["a", "b", "c", "d"]


async def test_a_node_whose_disk_was_lost_is_nobody_until_it_is_admitted(nodes: Nodes) -> None:
    await nodes.running["a"].propose(b"x")
    lost = (await nodes.follower()).node
    await nodes.stop(lost)
    shutil.rmtree(nodes.directory / lost)
    await nodes.start(lost)
    follower = nodes.running[lost]
    leader = await nodes.leader()
    before = leader._host.replicas[1].core.members.voters  # type: ignore[index]
    await leader.admit(lost, timeout_s=_TIMEOUT_S)
    after = leader._host.replicas[1].core.members.voters  # type: ignore[index]
    assert leader.voters == ("a", "b", "c")
    assert len(set(before) & set(after)) == 2
    assert await nodes.lines(lost) == ["x"]
    # A majority of the new three: one of the old ones may go.
    await nodes.stop(next(n for n in nodes.running if n not in (lost, leader.node)))
    assert await follower.propose(b"y") == b"2"


async def test_a_new_name_is_admitted_and_an_old_one_removed(nodes: Nodes) -> None:
    await nodes.running["a"].propose(b"x")
    nodes.peers["d"] = free_address()
    for name in "abc":
        await nodes.stop(name)
        await nodes.start(name)
        await nodes.running[name].wait_ready(_TIMEOUT_S)
    await nodes.start("d")
    leader = await nodes.leader()
    await leader.admit("d", timeout_s=_TIMEOUT_S)
    assert leader.voters == ("a", "b", "c", "d")
    assert await nodes.lines("d") == ["x"]
    await leader.remove(leader.node, timeout_s=_TIMEOUT_S)
    await nodes.stop(leader.node)
    successor = await nodes.leader()
    assert len(successor.voters) == 3
    with pytest.raises(InvalidArgument):
        await successor.remove(leader.node)


async def test_leadership_goes_to_who_is_named(nodes: Nodes) -> None:
    leader, follower = await nodes.leader(), await nodes.follower()
    for change in (follower.transfer, follower.admit):
        with pytest.raises(NotLeader) as refusal:
            await change(leader.node)
        assert refusal.value.leader == nodes.peers[leader.node]
    await leader.transfer(follower.node)
    assert leader.leader == follower.node
    with pytest.raises(NotLeader) as refusal:
        await leader.propose(b"x", forward=False)
    assert refusal.value.leader == nodes.peers[follower.node]


async def test_one_node_is_a_group_and_waits_for_nobody(tmp_path: Path) -> None:
    peers = {"only": free_address()}
    directory = str(tmp_path)
    config = ReplicatedConfig(election_timeout_s=0.1, heartbeat_s=0.02)
    for expected in (b"1", b"2"):
        async with Replicated(
            Ledger(), node="only", peers=peers, data_dir=directory, config=config
        ) as group:
            assert await group.propose(b"x") == expected
            assert (group.leader, group.voters, group.failure) == ("only", ("only",), None)


async def test_until_all_are_there_nothing_is_done(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, "abc")
    await nodes.start("a", "b")
    with pytest.raises(Unavailable, match="has not formed"):
        await nodes.running["a"].propose(b"x", timeout_s=0.5)
    assert nodes.running["a"].voters == ()
    await nodes.stop()


async def test_what_belongs_to_another_is_not_taken(nodes: Nodes, tmp_path: Path) -> None:
    with pytest.raises(LogLocked):
        await nodes.make("a", listen=free_address()).start()
    await nodes.stop("a")
    wrong = Replicated(Ledger(), node="b", peers=nodes.peers, data_dir=str(nodes.directory / "a"))
    with pytest.raises(ConfigError, match="belongs to node 'a', not 'b'"):
        await wrong.start()
    elsewhere = Replicated(
        Ledger(),
        node="a",
        peers=nodes.peers,
        data_dir=str(tmp_path / "new"),
        listen=nodes.peers["b"],
    )
    with pytest.raises(AddressInUse):
        await elsewhere.start()
    # Nothing was left behind: the directory is free.
    await nodes.start("a")
    await nodes.running["a"].wait_ready(_TIMEOUT_S)


async def test_closing_twice_is_closing(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        peers = {"a": free_address()}
        group = await stack.enter_async_context(
            Replicated(Ledger(), node="a", peers=peers, data_dir=str(tmp_path))
        )
        await group.close()
