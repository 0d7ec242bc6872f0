"""Encryption, labels and key rotation over real sockets on loopback."""

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.gossip import Gossip
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.ports import MemberState

pytest.importorskip("cryptography")

pytestmark = pytest.mark.both_loops

Start = Callable[..., Awaitable[Gossip]]
OLD, NEW = bytes(16), bytes([1]) * 32
CONFIG = replace(GossipConfig.local(), key_check_interval_s=0.05)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def make(
            name: str, *seeds: Gossip, keys: GossipKeys | None = None, **settings: object
        ) -> Gossip:
            gossip = await Gossip.start(
                name=name,
                bind=("127.0.0.1", 0),
                seeds=["{}:{}".format(*seed.address) for seed in seeds],
                tags={"id": name},
                config=replace(CONFIG, **settings),
                keys=keys,
                rng=random.Random(name),
            )
            stack.push_async_callback(gossip.close)
            return gossip

        yield make


async def until(done: Callable[[], bool], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not done():
            await asyncio.sleep(0.01)


def alive(gossip: Gossip) -> list[str]:
    return [m.name for m in gossip.members() if m.state is MemberState.ALIVE]


def write(path: Path, *keys: bytes) -> None:
    path.write_text(json.dumps([base64.b64encode(key).decode() for key in keys]))
    path.chmod(0o600)


async def test_who_encrypts_with_a_key_that_the_others_lack_is_not_heard(start: Start) -> None:
    one = await start("one", keys=GossipKeys([OLD]), label="blue")
    two = await start("two", one, keys=GossipKeys([NEW, OLD]), label="blue")
    three = await start("three", one, keys=GossipKeys([OLD]), label="blue")
    await until(lambda: alive(three) == ["one", "three"])
    await until(lambda: one.rejected["FOREIGN_PEER"] > 0)
    assert "two" not in alive(one)
    assert two.rejected_packets == 0


async def test_a_cluster_changes_its_key_by_its_files_and_nobody_is_lost(
    start: Start, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(3)]
    nodes: list[Gossip] = []
    changes: list[tuple[str, MemberState]] = []
    rings = []
    for path in paths:
        write(path, OLD)
        rings.append(GossipKeys.load(str(path)))
        nodes.append(await start(path.stem, *nodes[:1], keys=rings[-1]))
    await until(lambda: all(len(alive(node)) == 3 for node in nodes))
    for node in nodes:
        node.on_change(lambda member: changes.append((member.name, member.state)))
    for keys in ((OLD, NEW), (NEW, OLD), (NEW,)):
        for path, ring in zip(paths, rings, strict=True):
            write(path, *keys)
            await until(lambda ring=ring, keys=keys: ring.keys == keys)
    nodes[2].set_tags({"id": "2", "after": "yes"})
    await until(lambda: all(tags_of(node, "2").get("after") == "yes" for node in nodes))
    assert {state for _, state in changes} <= {MemberState.ALIVE, MemberState.SUSPECT}
    assert sum(node.rejected_packets for node in nodes) == 0
    await start("late", nodes[0], keys=GossipKeys([NEW]))
    await until(lambda: all("late" in alive(node) for node in nodes))


async def test_a_broken_key_file_keeps_the_ring_that_was(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write(path, OLD)
    ring = GossipKeys.load(str(path))
    await start("one", keys=ring)
    with capture_logs() as logs:
        path.write_text("[")
        await until(lambda: any(line["event"] == "gossip_keys_unusable" for line in logs))
    assert ring.keys == (OLD,)
    write(path, NEW)
    await until(lambda: ring.keys == (NEW,))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"keys": GossipKeys([OLD])}, {}),
        ({}, {"keys": GossipKeys([OLD])}),
        ({"label": "blue"}, {"label": "green"}),
        ({"label": "blue"}, {}),
    ],
)
async def test_foreign_members_are_counted_and_never_known(
    start: Start, ours: dict[str, object], theirs: dict[str, object]
) -> None:
    one = await start("one", **ours)
    two = await start("two", one, **theirs)
    await until(lambda: one.rejected["FOREIGN_PEER"] > 2)
    assert alive(one) == ["one"]
    assert alive(two) == ["two"]
    assert set(one.rejected) == {"FOREIGN_PEER"}


def tags_of(gossip: Gossip, name: str) -> dict[str, str]:
    return next((m.tags for m in gossip.members() if m.name == name), {})
