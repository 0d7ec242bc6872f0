"""One peer's link over streams that break in every way."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from quorumlog.api.frames import frame_head, split_frame
from quorumlog.api.peer_link import MAX_FRAME_BYTES, PeerLink
from quorumlog.types import GroupId, NodeId
from support.replica_cluster import simulated

PEER = NodeId("peer")


class Stream:
    """Reads block until told what comes; writes are kept, or fail."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.written: list[bytes] = []
        self.error: Exception | None = None

    async def write(self, frame: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.written.append(frame)

    @property
    def read(self) -> Callable[[], Awaitable[bytes | None]]:
        return self.incoming.get

    def run(self, link: PeerLink, received: list[bytes]) -> "asyncio.Task[None]":
        return asyncio.create_task(
            link.run(
                "process",
                self.read,
                self.write,
                lambda sender, group, payload: received.append(bytes(payload)),
            )
        )


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_stream_that_cannot_be_written_any_more_ends_though_nothing_is_read() -> None:
    link, stream = PeerLink(PEER), Stream()
    run = stream.run(link, [])
    await settle()
    stream.error = RuntimeError("cannot write")
    link.send(GroupId(1), b"lost")
    with pytest.raises(RuntimeError, match="cannot write"):
        await asyncio.wait_for(run, 5)
    assert not link.connected


async def test_the_newest_of_three_streams_is_the_only_one_that_carries() -> None:
    link, received = PeerLink(PEER), list[bytes]()
    streams = [Stream() for _ in range(3)]
    runs = [streams[0].run(link, received)]
    await settle()
    # Both meet the first, and wait for its end at the same time.
    runs += [stream.run(link, received) for stream in streams[1:]]
    await settle()
    assert [run.done() for run in runs].count(False) == 1
    link.send(GroupId(1), b"x")
    await settle()
    assert sum(len(stream.written) for stream in streams) == 1
    link.disconnect()
    await asyncio.wait(runs)
    assert not link.connected


async def test_messages_of_a_frame_arrive_in_order_until_the_stream_ends() -> None:
    link, stream, received = PeerLink(PEER), Stream(), list[bytes]()
    run = stream.run(link, received)
    payloads = [b"one", b"two", bytes(1000)]
    stream.incoming.put_nowait(
        b"".join(part for each in payloads for part in (frame_head(GroupId(1), each), each))
    )
    stream.incoming.put_nowait(None)
    await asyncio.wait_for(run, 5)
    assert received == payloads
    assert not link.connected


@simulated
async def test_messages_share_frames_while_nodes_keep_each_other_waiting() -> None:
    patience_s = 0.0
    link, stream = PeerLink(PEER, lambda: patience_s), Stream()
    run = stream.run(link, [])
    await settle()
    frames = []
    for waiting_s in (0.0, 0.02, 9.0, 0.0):
        patience_s = waiting_s
        stream.written.clear()
        for _ in range(40):
            link.send(GroupId(1), b"x")
            await asyncio.sleep(0.001)
        await asyncio.sleep(1.0)
        frames.append(len(stream.written))
        assert sum(len(list(split_frame(frame))) for frame in stream.written) == 40
    assert frames[0] == frames[3] == 40
    assert 8 <= frames[1] <= 9
    assert frames[2] == 2
    run.cancel()
    await asyncio.wait([run])


@simulated
async def test_what_fills_frames_is_not_held_up_while_nodes_keep_each_other_waiting() -> None:
    link, stream = PeerLink(PEER, lambda: 9.0), Stream()
    run = stream.run(link, [])
    await settle()
    for _ in range(64):
        link.send(GroupId(1), bytes(MAX_FRAME_BYTES // 4))
    await settle()
    assert sum(map(len, stream.written)) > 15 * MAX_FRAME_BYTES
    run.cancel()
    await asyncio.wait([run])


def test_a_small_message_does_not_keep_its_large_frame_in_memory() -> None:
    sizes = (10, 100_000, 20)
    frame = b"".join(
        part for size in sizes for part in (frame_head(GroupId(1), bytes(size)), bytes(size))
    )
    kept = [payload.obj for _, payload in split_frame(frame)]
    assert [obj is frame for obj in kept] == [False, True, False]
    assert [len(obj) for obj in kept] == [10, len(frame), 20]
