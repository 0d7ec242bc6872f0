"""Replication streams between real gRPC servers on loopback."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from quorumlog.api.frames import frame_head, split_frame
from quorumlog.api.peers import GrpcPeers
from quorumlog.errors import DuplicateNode, ProtocolError, WrongCluster
from quorumlog.types import GroupId, NodeId


class Peer:
    """One node's transport behind a server of its own."""

    def __init__(self, node_id: str, process_id: str, addresses: dict[str, str]) -> None:
        self.node_id = NodeId(node_id)
        self.received: asyncio.Queue[tuple[NodeId, GroupId, bytes]] = asyncio.Queue()
        self.server = grpc.aio.server()
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.transport = GrpcPeers(
            node_id=self.node_id,
            process_id=process_id,
            address=self.address,
            resolve=addresses.get,
            rng=random.Random(1),
        )
        self.transport.cluster_id = "cluster"
        self.transport.on_message(
            lambda sender, group, payload: self.received.put_nowait((sender, group, bytes(payload)))
        )
        self.server.add_generic_rpc_handlers((self.transport.rpc_handler(),))

    async def close(self) -> None:
        await self.transport.close()
        await self.server.stop(0)


@asynccontextmanager
async def two_peers() -> AsyncIterator[tuple[Peer, Peer]]:
    addresses: dict[str, str] = {}
    peers = Peer("a", "process-a", addresses), Peer("b", "process-b", addresses)
    for peer in peers:
        addresses[peer.node_id] = peer.address
        await peer.server.start()
        peer.transport.set_peers([NodeId("a"), NodeId("b")])
    try:
        yield peers
    finally:
        for peer in peers:
            await peer.close()


async def connected(one: Peer, other: Peer) -> None:
    async with asyncio.timeout(10):
        while not (
            one.transport.connected(other.node_id) and other.transport.connected(one.node_id)
        ):
            await asyncio.sleep(0.01)


async def test_messages_go_both_ways_in_order_whatever_their_size() -> None:
    async with two_peers() as (a, b):
        await connected(a, b)
        payloads = [bytes([n % 256]) * size for n, size in enumerate([0, 1, 100, 3_000_000, 5] * 4)]
        for number, payload in enumerate(payloads):
            a.transport.send(b.node_id, GroupId(number), payload)
            b.transport.send(a.node_id, GroupId(number), payload)
        for sender, receiver in ((a, b), (b, a)):
            for number, payload in enumerate(payloads):
                got = await asyncio.wait_for(receiver.received.get(), 10)
                assert got == (sender.node_id, GroupId(number), payload)


async def test_a_broken_stream_is_dialled_again() -> None:
    async with two_peers() as (a, b):
        await connected(a, b)
        # The accepting side drops the stream; only the other one may dial.
        b.transport._links[a.node_id].disconnect()
        async with asyncio.timeout(10):
            while a.transport.connected(b.node_id):
                await asyncio.sleep(0.01)
        await connected(a, b)
        a.transport.send(b.node_id, GroupId(7), b"again")
        assert await asyncio.wait_for(b.received.get(), 10) == ("a", GroupId(7), b"again")


async def test_who_was_only_heard_of_is_dialled_no_more_once_nobody_speaks_of_it() -> None:
    async with two_peers() as (a, b):
        await connected(a, b)
        a.transport.set_peers([b.node_id, *(NodeId(f"stranger-{each}") for each in range(50))])
        assert len(a.transport._dials) == 51
        a.transport.set_peers([NodeId("stranger-7")])
        # A stream that stands is kept.
        assert a.transport._dials.keys() == {b.node_id, "stranger-7"}
        assert a.transport.connected(b.node_id)


async def test_a_stream_pauses_by_how_late_its_own_peer_is() -> None:
    asked = []

    def patience_s(peer: NodeId) -> float:
        asked.append(peer)
        return 0.0

    async with two_peers() as (a, b):
        a.transport.patience_s = patience_s
        await connected(a, b)
        for node in (b.node_id, NodeId("c")):
            a.transport.send(node, GroupId(7), b"once")
        await asyncio.wait_for(b.received.get(), 10)
    assert asked == [b.node_id]


async def test_another_cluster_is_refused() -> None:
    async with two_peers() as (a, b):
        hello = b.transport.hello()
        hello.cluster_id = "other"
        with pytest.raises(WrongCluster, match="two clusters never mix"):
            a.transport.check(hello)
        assert a.transport.answer(hello).error == "WRONG_CLUSTER"


async def test_a_second_process_with_a_connected_id_is_refused() -> None:
    async with two_peers() as (a, b):
        await connected(a, b)
        b.transport.send(a.node_id, GroupId(1), b"alive")
        await asyncio.wait_for(a.received.get(), 10)
        hello = b.transport.hello()
        a.transport.check(hello)
        hello.process_id = "copy"
        with pytest.raises(DuplicateNode, match="belongs to one node"):
            a.transport.check(hello)


async def test_ones_own_id_from_another_process_is_refused() -> None:
    async with two_peers() as (a, _):
        hello = a.transport.hello()
        hello.process_id = "copy"
        with pytest.raises(DuplicateNode):
            a.transport.check(hello)


async def test_a_full_queue_drops_instead_of_growing() -> None:
    async with two_peers() as (a, b):
        await connected(a, b)
        link = a.transport._links[b.node_id]
        chunk = bytes(8 * 1024 * 1024)
        for _ in range(20):
            a.transport.send(b.node_id, GroupId(1), chunk)
        assert link.dropped > 0


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_truncated_frame_is_garbage(cut: int) -> None:
    frame = b"".join(
        [frame_head(GroupId(1), b"first"), b"first", frame_head(GroupId(2), b"x"), b"x"]
    )
    assert [bytes(payload) for _, payload in split_frame(frame)] == [b"first", b"x"]
    whole = {0, 17, 30}
    if cut not in whole:
        with pytest.raises(ProtocolError):
            list(split_frame(frame[:cut]))
