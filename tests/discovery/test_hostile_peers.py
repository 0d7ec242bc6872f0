"""What nobody may do to a member that runs: on both event loops, over real sockets."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from fuzz.mutate import mutate
from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.gossip import Gossip
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.discovery.member_events import MemberEvent
from quorumlog.discovery.packets import PacketProtocol
from quorumlog.discovery.sockets import bind_pair
from quorumlog.discovery.wire.codec import encode_message, encode_push_pull
from quorumlog.discovery.wire.envelope import Envelope
from quorumlog.discovery.wire.messages import (
    Ack,
    Alive,
    Dead,
    IndirectPing,
    MemberRecord,
    Ping,
    PushPull,
    Status,
    Suspect,
)
from quorumlog.discovery.wire.packet import encode_packet
from quorumlog.discovery.wire.seal import Seal
from quorumlog.discovery.wire.serf_codec import encode_serf, encode_state
from quorumlog.discovery.wire.serf_messages import Intent, Query, QueryFlag, SerfState, UserEvent
from quorumlog.errors import InvariantViolation, QuorumlogError
from quorumlog.ports import MemberState

pytestmark = pytest.mark.both_loops

Start = Callable[..., Awaitable[Gossip]]
FAST = GossipConfig(
    probe_interval_s=0.1, probe_timeout_s=0.05, gossip_interval_s=0.02, stream_timeout_s=0.5
)
NOWHERE = ("127.0.0.1", 9)
HAS_IPV6 = socket.has_ipv6
try:
    socket.create_server(("::1", 0), family=socket.AF_INET6).close()
except OSError:
    HAS_IPV6 = False
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 on this machine's loopback")


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def make(name: str, *seeds: Gossip, **settings: object) -> Gossip:
            options = {
                "bind": ("127.0.0.1", 0),
                "seeds": [address_of(seed) for seed in seeds],
                "tags": {"id": name},
                "config": GossipConfig.local(),
                "rng": random.Random(name),
            } | settings
            gossip = await Gossip.start(name=name, **options)  # type: ignore[arg-type]
            stack.push_async_callback(gossip.close)
            return gossip

        yield make


def address_of(gossip: Gossip) -> str:
    host, port = gossip.address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def states(gossip: Gossip) -> dict[str, MemberState]:
    return {member.name: member.state for member in gossip.members()}


async def until(done: Callable[[], bool], limit_s: float = 10.0) -> None:
    async with asyncio.timeout(limit_s):
        while not done():
            await asyncio.sleep(0.005)


async def is_well(gossip: Gossip, start: Start, **settings: object) -> None:
    """It takes a newcomer in, by stream and by packet."""
    late = await start("late", gossip, **settings)
    await until(lambda: states(gossip).get("late") is MemberState.ALIVE)
    late.set_tags({"id": "late", "new": "yes"})
    await until(lambda: any(m.tags.get("new") == "yes" for m in gossip.members()))
    assert gossip.failure is None
    assert "INTERNAL" not in gossip.rejected


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


BEGINNINGS = {
    "nothing": b"",
    "garbage": b"\xfe",
    "half a state": b"\x06\x83",
    "a ping": encode_message(Ping(1, "one")),
    "a state": encode_push_pull(PushPull((), join=False)),
}


@pytest.mark.parametrize("data", BEGINNINGS.values(), ids=BEGINNINGS.keys())
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
async def test_connections_that_are_reset_end_nothing(
    start: Start, data: bytes, encrypted: bool
) -> None:
    keys = {"keys": GossipKeys([bytes(32)])} if encrypted else {}
    one = await start("one", **keys)
    for turns in (0, 0, 0, 1, 2, 3, 4, 5, 6):
        connection = socket.create_connection(one.address)
        connection.sendall(data)
        for _ in range(turns):
            await asyncio.sleep(0)
        reset(connection)
    await is_well(one, start, **keys)


async def test_a_seed_that_resets_every_connection_ends_nothing(start: Start) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as bad:
        bad.setblocking(False)
        config = replace(GossipConfig.local(), seed_retry_s=0.02)
        one = await Gossip.start(
            name="one",
            bind=("127.0.0.1", 0),
            seeds=["{}:{}".format(*bad.getsockname())],
            tags={},
            config=config,
            rng=random.Random(1),
        )
        try:
            for data in (b"", b"\x06\x83", b"\xfe" * 100, b"") * 3:
                connection, _ = await asyncio.wait_for(loop.sock_accept(bad), 5)
                if data:
                    connection.sendall(data)
                reset(connection)
            assert one.failure is None
        finally:
            await one.close()


async def test_a_packet_that_names_an_address_of_another_family_stops_no_timer(
    start: Start,
) -> None:
    one = await start("one", config=FAST)
    claims = [Alive("six", 1, ("fd00::9", 7946), b""), Alive("link", 1, ("fe80::1", 7), b"")]
    asks = [
        Ping(1, "one", "x", ("::1", 7)),
        Ping(2, "one", "x", ("224.0.0.1", 7)),
        Ping(3, "one", "x", ("255.255.255.255", 7)),
        IndirectPing(4, "q", ("ff02::1", 7), True, "x", NOWHERE),
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for message in (*claims, *asks):
            sender.sendto(encode_packet([encode_message(message)]), one.address)
    gone = {"six": MemberState.FAILED, "link": MemberState.FAILED}
    await until(lambda: gone.items() <= states(one).items(), 20)
    assert one.unsent_packets > 2
    await is_well(one, start, config=FAST)


@needs_ipv6
async def test_members_of_both_families_meet_one_that_is_bound_to_both(start: Start) -> None:
    both = await start("both", bind=("::", 0), advertise=("127.0.0.1", 0), config=FAST)
    four = await start("four", config=FAST, seeds=[f"127.0.0.1:{both.address[1]}"])
    await until(lambda: states(both).get("four") is MemberState.ALIVE)
    four.set_tags({"new": "yes"})
    await until(lambda: any(m.tags.get("new") == "yes" for m in both.members()))
    assert both.unsent_packets == four.unsent_packets == 0


@needs_ipv6
async def test_members_of_two_families_keep_each_other_by_tcp(start: Start) -> None:
    four = await start("four", config=FAST)
    six = await start("six", four, config=FAST, bind=("::1", 0))
    seen: list[MemberState] = []
    six.on_change(lambda member: seen.append(member.state))
    await until(lambda: len(states(four)) == len(states(six)) == 2)
    before = six.unsent_packets
    await until(lambda: six.unsent_packets > before + 10)
    assert MemberState.FAILED not in seen
    assert set(states(six).values()) <= {MemberState.ALIVE, MemberState.SUSPECT}


async def test_gossip_that_cannot_go_on_says_so_to_everybody(start: Start) -> None:
    class Worn(random.Random):
        broken = False

        def random(self) -> float:
            if self.broken:
                raise RuntimeError("worn out")
            return super().random()

        def getrandbits(self, k: int, /) -> int:
            return int(self.random() * (1 << k))

    rng = Worn(1)
    one = await start("one", config=FAST, rng=rng)
    two = await start("two", one, config=FAST)
    await until(lambda: len(states(one)) == 2)
    told: list[QuorumlogError] = []
    one.on_failure(told.append)
    events = one.events()
    heard: list[MemberEvent] = []

    async def read() -> None:
        async for event in events:
            heard.append(event)

    with capture_logs() as logs:
        rng.broken = True
        with pytest.raises(InvariantViolation, match="worn out") as raised:
            await asyncio.wait_for(read(), 5)
    assert len(heard) >= 2
    assert told == [one.failure] == [raised.value]
    assert [line["log_level"] for line in logs if line["event"] == "gossip_failed"] == ["error"]
    with pytest.raises(InvariantViolation, match="worn out"):
        one.set_tags({})
    with pytest.raises(OSError, match=r"refused|Errno"):
        await asyncio.open_connection(*one.address)
    await one.close()
    assert two.failure is None


async def test_who_calls_while_gossip_ends_is_turned_away(start: Start) -> None:
    one = await start("one")
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    may_end = asyncio.Event()

    async def takes_long_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()

    one._tasks.spawn(takes_long_to_end())
    await asyncio.sleep(0)
    closing = asyncio.create_task(one.close())
    await asyncio.sleep(0.01)
    try:
        with socket.create_connection(one.address) as caller:
            caller.setblocking(False)
            assert await asyncio.wait_for(loop.sock_recv(caller, 1), 5) == b""
    finally:
        may_end.set()
        await closing
    assert errors == []


async def test_a_udp_socket_that_is_lost_is_told_once() -> None:
    packets, stream = bind_pair("127.0.0.1", 0)
    stream.close()
    lost: list[Exception] = []
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: PacketProtocol(packets, receive=lambda data, sender: None, lost=lost.append),
        sock=packets,
    )
    try:
        protocol.send(b"x", ("127.0.0.1", 70_000))
        assert protocol.unsent == 1
        transport.abort()
        await until(lambda: bool(lost))
        protocol.send(b"x", NOWHERE)
    finally:
        await protocol.close()
    assert len(lost) == 1


async def test_a_stream_that_is_sent_again_is_counted_and_not_answered(start: Start) -> None:
    pytest.importorskip("cryptography")
    keys = GossipKeys([bytes(32)])
    one = await start("one", keys=keys)
    records = (MemberRecord(Alive("zombie", 1, NOWHERE, b""), Status.LEFT),)
    wrapped = Envelope(seal=Seal(keys, random.Random(1).randbytes)).wrap_message(
        encode_push_pull(PushPull(records, True)), dialled=True
    )
    answers = []
    for _ in range(3):
        reader, writer = await asyncio.open_connection(*one.address)
        writer.write(wrapped)
        answers.append(await asyncio.wait_for(reader.read(), 5))
        writer.close()
        await writer.wait_closed()
    assert [bool(answer) for answer in answers] == [True, False, False]
    assert one.rejected == {"REPLAYED_PACKET": 2}


def corpus() -> list[bytes]:
    gossip = (
        Ping(1, "one", "z", NOWHERE),
        IndirectPing(2, "b", NOWHERE, True, "z", NOWHERE),
        Ack(4),
        Suspect("b", 1, "z"),
        Dead("b", 1, "z"),
        Alive("b", 1, NOWHERE, b"\xff\x81\xa2id\xa1b"),
        encode_serf(Intent("b", 4, True, True)),
        encode_serf(UserEvent(3, "d", b"v")),
        encode_serf(Query(6, 7, NOWHERE, "m", "_serf_conflict", b"b", (), QueryFlag.ACK, 2, 10**9)),
    )
    single = [encode_message(message) for message in gossip]
    return [*single, encode_packet(single), encode_packet(single[:2])]


def streams() -> list[bytes]:
    records = tuple(
        MemberRecord(Alive(name, 2, NOWHERE, b"tags"), status)
        for name, status in zip("abcz", Status, strict=False)
    )
    user = encode_state(SerfState(20, {"b": 4}, ("m",), 5, (UserEvent(3, "d", b"v"),), 6))
    return [encode_push_pull(PushPull(records, True, user)), *corpus()]


@asynccontextmanager
async def loop_errors() -> AsyncIterator[list[dict[str, object]]]:
    """What nobody caught."""
    loop = asyncio.get_running_loop()
    errors: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    yield errors
    loop.set_exception_handler(None)


async def test_mutated_packets_and_streams_end_nothing(start: Start) -> None:
    """With a key nothing is taken; without, what is well formed is, and the member goes on."""
    rng = random.Random(5)
    packets, states_sent = corpus(), streams()
    keys = GossipKeys([bytes(32)])
    one, closed = await start("one"), await start("closed", keys=keys)
    before = closed.members()
    async with loop_errors() as errors:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(2000):
                for gossip in (one, closed):
                    sender.sendto(mutate(packets, rng)[:60_000], gossip.address)
                if number % 50 == 0:
                    connection = socket.create_connection((one, closed)[number % 100 // 50].address)
                    connection.sendall(mutate(states_sent, rng))
                    await asyncio.sleep(0.001)
                    (reset if rng.random() < 0.5 else socket.socket.close)(connection)
        await until(lambda: closed.rejected_packets > 500)
        await is_well(one, start)
        assert errors == []
    assert closed.members() == before
    assert closed.failure is None
    assert closed.rejected.keys() <= {"FOREIGN_PEER", "BROKEN_STREAM", "PROTOCOL_ERROR"}
