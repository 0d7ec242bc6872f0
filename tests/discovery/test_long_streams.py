"""Streams that take long to decode: the event loop, which Raft shares, goes on meanwhile."""

import asyncio
import random

import msgpack
import pytest

from fakes.lzw import compress
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.discovery.streams import read_message
from quorumlog.discovery.wire.codec import encode_push_pull
from quorumlog.discovery.wire.envelope import Envelope
from quorumlog.discovery.wire.messages import (
    MAX_META_BYTES,
    Alive,
    MemberRecord,
    PushPull,
    Status,
    StreamMessage,
)
from quorumlog.discovery.wire.seal import Seal
from quorumlog.discovery.wire.stream import MAX_STREAM_BYTES, STEP_BYTES
from quorumlog.errors import ProtocolError

RECORDS = tuple(
    MemberRecord(Alive(f"m{i}", 1, ("10.0.0.1", 7946), bytes([i % 250]) * 500), Status.ALIVE)
    for i in range(1000)
)
STATE = PushPull(RECORDS, join=True, user_state=b"\x02state")


def compressed(data: bytes) -> bytes:
    packed: bytes = msgpack.packb({"Algo": 0, "Buf": compress(data)}, use_bin_type=False)
    return b"\x09" + packed


def encrypting() -> Envelope:
    pytest.importorskip("cryptography")
    return Envelope(seal=Seal(GossipKeys([bytes(32)]), random.Random(1).randbytes))


async def read(data: bytes, envelope: Envelope, turns: asyncio.Lock) -> StreamMessage:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read_message(reader, envelope.message_decoder(dialled=False), turns)


class Turns:
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.count += 1
        self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> int:
        self._handle.cancel()
        return self.count


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("sealed", [False, True], ids=["in clear", "encrypted"])
async def test_the_loop_has_a_turn_between_two_steps(packed: bool, sealed: bool) -> None:
    plain = encode_push_pull(STATE)
    data = compressed(plain) if packed else plain
    if sealed:
        data = encrypting().wrap_message(data, dialled=True)
    turns = Turns()
    envelope = encrypting() if sealed else Envelope()
    assert await read(data, envelope, asyncio.Lock()) == STATE
    assert turns.stop() >= len(plain) // STEP_BYTES - 1


async def test_work_that_comes_to_nothing_is_done_by_steps_too() -> None:
    junk = b"\x09" + msgpack.packb(
        {"Algo": 0, "Buf": compress(random.Random(1).randbytes(200_000))[:-3]}, use_bin_type=False
    )
    turns = Turns()
    with pytest.raises(ProtocolError):
        await read(junk, Envelope(), asyncio.Lock())
    assert turns.stop() >= 3


async def test_streams_that_share_turns_make_one_step_in_each() -> None:
    data = encode_push_pull(STATE)
    steps = len(data) // STEP_BYTES
    shared, turns = asyncio.Lock(), Turns()
    found = await asyncio.gather(*(read(data, Envelope(), shared) for _ in range(8)))
    assert found == [STATE] * 8
    assert turns.stop() >= 8 * (steps - 1)


async def test_a_state_of_all_members_with_full_tags_is_taken_compressed() -> None:
    records = tuple(
        MemberRecord(
            Alive(f"member-{i}", i, ("10.0.0.1", 7946), b"t" * MAX_META_BYTES), Status.ALIVE
        )
        for i in range(4096)
    )
    state = PushPull(records, join=True, user_state=b"")
    data = encode_push_pull(state)
    assert len(data) < MAX_STREAM_BYTES
    assert await read(data, Envelope(), asyncio.Lock()) == state
    assert await read(compressed(data), Envelope(), asyncio.Lock()) == state
