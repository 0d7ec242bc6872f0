"""Against HashiCorp's library itself, for what no Serf agent does: labels, and every version of the
protocol, compressed or not."""

import base64
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from examples.local_cluster import free_address
from fakes.memberlist_member import (
    BUILD_LIMIT_S,
    MemberlistMember,
    built_member,
    start_member,
)
from fakes.serf_agent import address_of, eventually, until
from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.gossip import Gossip
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.discovery.wire.tags import encode_tags
from quorumlog.ports import Member, MemberState

pytestmark = pytest.mark.timeout(BUILD_LIMIT_S + 120)

KEY = bytes(range(32))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as exits:
        yield exits


@pytest.fixture(scope="session")
def program() -> Path:
    return built_member()


async def start_ours(
    stack: AsyncExitStack,
    name: str,
    host: str,
    port: int,
    *seeds: str,
    label: str = "",
    encrypted: bool = False,
) -> Gossip:
    gossip = await Gossip.start(
        name=name,
        bind=(host, port),
        seeds=seeds,
        tags={"id": name},
        config=replace(GossipConfig.local(), label=label),
        keys=GossipKeys([KEY]) if encrypted else None,
        rng=random.Random(name),
    )
    stack.push_async_callback(gossip.close)
    return gossip


def free_port() -> int:
    return int(free_address().rpartition(":")[2])


class Mixed:
    """Two of ours and one of memberlist for each version, at one port: who speaks version 1 does
    not look at the ports of others. All know each other."""

    def __init__(self, one: Gossip, two: Gossip, peers: dict[str, MemberlistMember]) -> None:
        self.one = one
        self.two = two
        self.peers = peers

    @classmethod
    async def start(
        cls, stack: AsyncExitStack, program: Path, *, label: str, encrypted: bool, compressed: bool
    ) -> "Mixed":
        port = free_port()
        one = await start_ours(stack, "one", "127.0.0.1", port, label=label, encrypted=encrypted)
        seed = address_of(one)
        two = await start_ours(
            stack, "two", "127.0.0.2", port, seed, label=label, encrypted=encrypted
        )
        options = [f"-label={label}", f"-compress={str(compressed).lower()}"]
        peers = {
            f"speaks {version}": await start_member(
                stack,
                program,
                f"-protocol={version}",
                *options,
                name=f"speaks {version}",
                host=f"127.0.0.{version + 2}",
                port=port,
                join=address_of(one if version % 2 else two),
                key=KEY if encrypted else b"",
            )
            for version in range(1, 6)
        }
        for name, peer in peers.items():
            for gossip in (one, two):
                await until(gossip, name, MemberState.ALIVE)
            for other in ("one", "two", *peers):
                await peer.until("join", member=other)
        return cls(one, two, peers)


@pytest.mark.parametrize(
    ("label", "encrypted", "compressed"),
    [
        pytest.param("", False, False, id="plain"),
        pytest.param("quorum", False, True, id="label, compressed"),
        pytest.param("", True, True, id="encrypted, compressed"),
        pytest.param("quorum", True, False, id="label, encrypted"),
    ],
)
async def test_who_speaks_any_version_joins_hears_and_leaves(
    stack: AsyncExitStack, program: Path, label: str, encrypted: bool, compressed: bool
) -> None:
    mixed = await Mixed.start(
        stack, program, label=label, encrypted=encrypted, compressed=compressed
    )
    peers = mixed.peers
    kinds = {member.tags["kind"] for member in mixed.one.members() if member.name in peers}
    assert kinds == {"foreign"}

    mixed.two.set_tags({"id": "two", "new": "tag"})
    meta = base64.b64encode(encode_tags({"id": "two", "new": "tag"})).decode()
    for peer in peers.values():
        await peer.until("update", member="two", meta=meta)

    leaving = peers.pop("speaks 2")
    leaving.leave()
    await leaving.until("left")
    for gossip in (mixed.one, mixed.two):
        await until(gossip, "speaks 2", MemberState.LEFT)
    await mixed.two.leave()
    for peer in peers.values():
        await peer.until("leave", member="speaks 2")
        await peer.until("leave", member="two")
    assert not mixed.one.rejected
    assert not mixed.two.rejected


async def test_of_all_versions_only_the_one_that_is_killed_fails(
    stack: AsyncExitStack, program: Path
) -> None:
    mixed = await Mixed.start(stack, program, label="quorum", encrypted=True, compressed=True)
    changes: list[Member] = []
    mixed.one.on_change(changes.append)
    mixed.peers.pop("speaks 3").process.kill()
    for gossip in (mixed.one, mixed.two):
        await until(gossip, "speaks 3", MemberState.FAILED)
    for peer in mixed.peers.values():
        await peer.until("leave", member="speaks 3")
        assert [line["member"] for line in peer.heard if line["event"] == "leave"] == ["speaks 3"]
    assert {m.name for m in changes if m.state is MemberState.FAILED} == {"speaks 3"}
    assert not mixed.one.rejected
    assert not mixed.two.rejected


@pytest.mark.parametrize(("ours", "theirs"), [("quorum", "other"), ("quorum", ""), ("", "quorum")])
async def test_another_label_is_another_cluster(
    stack: AsyncExitStack, program: Path, ours: str, theirs: str
) -> None:
    port = free_port()
    one = await start_ours(stack, "one", "127.0.0.1", port, label=ours)
    peer = await start_member(
        stack,
        program,
        f"-label={theirs}",
        name="theirs",
        host="127.0.0.2",
        port=port,
        join=address_of(one),
    )
    await peer.until("refused")
    await eventually(lambda: one.rejected["FOREIGN_PEER"] > 0)
    assert [member.name for member in one.members()] == ["one"]


async def test_a_program_without_serf_is_no_member(stack: AsyncExitStack, program: Path) -> None:
    """Both refuse, by the versions of what is above memberlist."""
    port = free_port()
    one = await start_ours(stack, "one", "127.0.0.1", port)
    peer = await start_member(
        stack,
        program,
        "-layer=0",
        "-layers=0",
        name="theirs",
        host="127.0.0.2",
        port=port,
        join=address_of(one),
    )
    assert "incompatible" in (await peer.until("refused"))["error"]
    await eventually(lambda: one.rejected["INCOMPATIBLE_MEMBER"] > 0)
    assert [member.name for member in one.members()] == ["one"]
