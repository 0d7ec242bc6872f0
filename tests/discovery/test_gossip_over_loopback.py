"""The shell over real sockets on loopback: members, seeds, bad peers, closing."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.gossip import Gossip
from quorumlog.discovery.resolver import ServiceTarget, SystemResolver
from quorumlog.discovery.seeds import parse_seed
from quorumlog.discovery.streams import exchange_state, ping
from quorumlog.discovery.wire.codec import encode_push_pull
from quorumlog.discovery.wire.envelope import Envelope
from quorumlog.discovery.wire.messages import Ping, PushPull
from quorumlog.errors import AddressInUse, Closed, ConfigError, InvalidArgument, ProtocolError
from quorumlog.ports import Member, MemberState

pytestmark = pytest.mark.both_loops

Start = Callable[..., Awaitable[Gossip]]
LOOPBACK = ("127.0.0.1", 0)


async def start_gossip(name: str, *seeds: Gossip | str, **settings: object) -> Gossip:
    addresses = [seed if isinstance(seed, str) else address_of(seed) for seed in seeds]
    options = {
        "bind": LOOPBACK,
        "tags": {"id": name},
        "config": GossipConfig.local(),
        "rng": random.Random(repr(name)),
    } | settings
    return await Gossip.start(name=name, seeds=addresses, **options)  # type: ignore[arg-type]


def address_of(gossip: Gossip) -> str:
    return "{}:{}".format(*gossip.address)


def alive(gossip: Gossip) -> set[str]:
    return {m.name for m in gossip.members() if m.state is MemberState.ALIVE}


def member(gossip: Gossip, name: str) -> Member:
    return next(m for m in gossip.members() if m.name == name)


async def until(done: Callable[[], bool], *gossips: Gossip, limit_s: float = 2.0) -> None:
    """Return once ``done`` holds, looked at whenever a member changes."""
    changed = asyncio.Event()
    for gossip in gossips:
        gossip.on_change(lambda _: changed.set())
    async with asyncio.timeout(limit_s):
        while not done():
            changed.clear()
            await changed.wait()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def make(name: str, *seeds: Gossip | str, **settings: object) -> Gossip:
            gossip = await start_gossip(name, *seeds, **settings)
            stack.push_async_callback(gossip.close)
            return gossip

        yield make


async def meet(*gossips: Gossip) -> None:
    everybody = {m.name for gossip in gossips for m in gossip.members()}
    await until(lambda: all(alive(gossip) == everybody for gossip in gossips), *gossips)


async def test_three_members_see_each_other_and_their_tags(start: Start) -> None:
    one = await start("one", tags={"id": "1", "rpc": "127.0.0.1:7400"})
    two, three = await start("two", one), await start("three", one)
    await meet(one, two, three)
    assert [m.name for m in three.members()] == ["one", "three", "two"]
    assert member(three, "one").tags == {"id": "1", "rpc": "127.0.0.1:7400"}
    assert (member(three, "one").address, member(three, "one").port) == one.address


async def test_new_tags_reach_the_others(start: Start) -> None:
    one = await start("one")
    two = await start("two", one)
    await meet(one, two)
    two.set_tags({"id": "two", "cluster": "c"})
    assert member(two, "two").tags == {"id": "two", "cluster": "c"}
    await until(lambda: member(one, "two").tags.get("cluster") == "c", one)


async def test_tags_that_do_not_fit_are_refused_and_the_old_ones_stay(start: Start) -> None:
    one = await start("one")
    with pytest.raises(InvalidArgument, match="limit is 512"):
        one.set_tags({"id": "x" * 600})
    assert member(one, "one").tags == {"id": "one"}


async def test_a_member_that_leaves_has_left_and_one_that_closes_fails(start: Start) -> None:
    fast = {"probe_interval_s": 0.1, "probe_timeout_s": 0.05, "gossip_interval_s": 0.02}
    config = GossipConfig(**fast)  # type: ignore[arg-type]
    one = await start("one", config=config)
    two, three = await start("two", one, config=config), await start("three", one, config=config)
    await meet(one, two, three)
    await two.leave()
    await two.close()
    await three.close()
    await until(
        lambda: (
            member(one, "two").state is MemberState.LEFT
            and member(one, "three").state is MemberState.FAILED
        ),
        one,
        limit_s=10,
    )


async def test_a_node_that_comes_back_elsewhere_is_found_in_two_seconds(start: Start) -> None:
    one = await start("one")
    two, three = await start("two", one), await start("three", one)
    await meet(one, two, three)
    old_port = three.address[1]
    await three.close()
    again = await start("three", two)
    assert again.address[1] != old_port
    await until(lambda: member(one, "three").port == again.address[1], one)
    assert member(one, "three").state is MemberState.ALIVE


async def test_a_second_node_with_the_same_name_is_told(start: Start) -> None:
    one = await start("one")
    two = await start("two", one)
    await meet(one, two)
    told = asyncio.get_running_loop().create_future()
    second = await start("two", one, tags={"id": "another"})
    second.on_conflict(lambda error: told.done() or told.set_result(error))
    error = await asyncio.wait_for(told, 2)
    assert "'two'" in str(error)
    assert f":{two.address[1]}" in str(error)
    assert member(one, "two").port == two.address[1]


async def test_a_port_in_use_is_named(start: Start) -> None:
    one = await start("one")
    with pytest.raises(AddressInUse, match=address_of(one)):
        await start("two", bind=one.address)


async def test_a_udp_port_in_use_is_named_too(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(LOOPBACK)
        with pytest.raises(AddressInUse, match=str(taken.getsockname()[1])):
            await start("one", bind=taken.getsockname())


async def test_an_address_of_another_machine_is_refused(start: Start) -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        await start("one", bind=("192.0.2.1", 0))


@pytest.mark.parametrize("port", [-1, 65_536, 70_000])
async def test_an_impossible_port_is_refused(start: Start, port: int) -> None:
    with pytest.raises(ConfigError, match=f"{port} has no port from 0 to 65535"):
        await start("one", bind=("127.0.0.1", port))
    with pytest.raises(ConfigError, match=f"{port} has no port from 0 to 65535"):
        await start("one", advertise=("127.0.0.1", port))


@pytest.mark.parametrize(
    "settings",
    [
        {"tags": {"rack": "\ud800"}},
        {"tags": {"\udfff": ""}},
        {"config": GossipConfig(label="\ud800")},
        {"bind": ("a..b", 0)},
    ],
    ids=["tag", "key of a tag", "label", "address"],
)
async def test_what_cannot_be_written_or_bound_is_a_typed_error(
    start: Start, settings: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgument):
        await start("one", **settings)


async def test_who_has_left_is_not_back_by_new_tags(start: Start) -> None:
    one = await start("one")
    two = await start("two", one)
    await meet(one, two)
    await two.leave()
    await until(lambda: member(one, "two").state is MemberState.LEFT, one)
    seen: list[MemberState] = []
    two.on_change(lambda changed: seen.append(changed.state))
    two.set_tags({"id": "two", "late": "yes"})
    assert seen == []
    assert member(two, "two").state is MemberState.LEFT


@pytest.mark.parametrize("name", ["", "n" * 129, "a\0b", "\ud800"])
async def test_an_impossible_name_is_refused_and_the_port_is_free_again(
    start: Start, name: str
) -> None:
    one = await start("one")
    await one.close()
    with pytest.raises(InvalidArgument, match="member name"):
        await start(name, bind=one.address)
    await start("good", bind=one.address)


async def test_a_seed_may_be_a_name(start: Start) -> None:
    one = await start("one")
    two = await start("two", f"localhost:{one.address[1]}")
    await meet(one, two)


async def test_a_member_finds_the_others_by_the_records_of_a_service(start: Start) -> None:
    one = await start("one")

    class Records(SystemResolver):
        async def services(self, name: str) -> list[ServiceTarget]:
            return [ServiceTarget("localhost", one.address[1])]

    two = await start("two", "dns+srv://_gossip._tcp.q", resolver=Records())
    await meet(one, two)


async def test_a_node_that_is_its_own_seed_stays_well(start: Start) -> None:
    host, port = one_free_address()
    one = await start("one", f"{host}:{port}", f"localhost:{port}", bind=(host, port))
    two = await start("two", one)
    await meet(one, two)


async def test_an_unreachable_seed_is_logged_and_tried_until_it_is_there(start: Start) -> None:
    host, port = one_free_address()
    with capture_logs() as logs:
        early = await start("early", f"{host}:{port}")
        async with asyncio.timeout(10):
            while not any(entry["event"] == "seed_unreachable" for entry in logs):
                await asyncio.sleep(0)
        late = await start("late", bind=(host, port))
        await until(lambda: alive(early) == {"early", "late"}, early, limit_s=5)
        await meet(early, late)
    unreachable = [entry for entry in logs if entry["event"] == "seed_unreachable"]
    assert [entry["seed"] for entry in unreachable] == [f"{host}:{port}"]


async def test_bad_packets_are_counted_and_change_nothing(start: Start) -> None:
    one = await start("one")
    two = await start("two", one)
    await meet(one, two)
    before = one.members()
    rng = random.Random(1)
    bad = [b"", b"\xff", b"\x0c\0\0\0\0x", *(rng.randbytes(size) for size in (10, 1000, 60_000))]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in bad:
            sender.sendto(data, one.address)
    async with asyncio.timeout(5):
        while one.rejected_packets < len(bad):
            await asyncio.sleep(0)
    assert one.members() == before


async def test_bad_streams_are_counted_and_change_nothing(start: Start) -> None:
    one = await start("one")
    before = one.members()
    garbage = [b"\x63", b"\x06\x81", b"\x06\xc1", b"GET / HTTP/1.1\r\n\r\n"]
    for data in garbage:
        reader, writer = await asyncio.open_connection(*one.address)
        writer.write(data)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await writer.wait_closed()
    assert one.rejected_packets == len(garbage)
    assert one.members() == before


async def test_more_streams_than_the_bound_are_closed(start: Start) -> None:
    config = GossipConfig(max_streams=2)
    one = await start("one", config=config)
    waiting = [await asyncio.open_connection(*one.address) for _ in range(2)]
    with pytest.raises((ProtocolError, OSError)):
        await exchange_state(one.address, PushPull((), join=False), 5, Envelope())
    for _, writer in waiting:
        writer.close()
        await writer.wait_closed()


async def test_a_stream_that_stalls_is_given_up(start: Start) -> None:
    one = await start("one", config=GossipConfig(stream_timeout_s=0.05))
    reader, writer = await asyncio.open_connection(*one.address)
    writer.write(encode_push_pull(PushPull((), join=False))[:-1])
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    await writer.wait_closed()
    assert one.rejected_packets == 1


async def test_a_ping_over_tcp_is_answered_for_this_member_only(start: Start) -> None:
    one = await start("one")
    assert (await ping(one.address, Ping(7, "one"), 5, Envelope())).sequence == 7
    with pytest.raises(ProtocolError):
        await ping(one.address, Ping(7, "another"), 5, Envelope())


async def test_a_failing_handler_stops_nothing(start: Start) -> None:
    one = await start("one")
    one.on_change(lambda member: 1 // 0)
    seen: list[str] = []
    one.on_change(lambda member: seen.append(member.name))
    two = await start("two", one)
    with capture_logs() as logs:
        await until(lambda: "two" in seen, one)
    assert any(entry["event"] == "gossip_handler_failed" for entry in logs)
    await meet(one, two)


async def test_a_handler_may_set_tags(start: Start) -> None:
    one = await start("one")
    one.on_change(lambda member: one.set_tags({"id": "one", "seen": member.name}))
    two = await start("two", one)
    await meet(one, two)
    await until(lambda: member(two, "one").tags.get("seen") == "one", two)


async def test_closing_twice_is_fine_and_using_it_after_is_an_error(start: Start) -> None:
    one = await start("one")
    tasks = asyncio.all_tasks()
    await one.close()
    await one.close()
    assert len(asyncio.all_tasks()) < len(tasks)
    with pytest.raises(Closed):
        one.set_tags({})
    with pytest.raises(Closed):
        await one.leave()


async def test_closing_during_an_exchange_does_not_wait_for_it(start: Start) -> None:
    with socket.socket() as silent:
        silent.bind(LOOPBACK)
        silent.listen()
        one = await start("one", "{}:{}".format(*silent.getsockname()))
        silent.setblocking(False)
        connection, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(silent), 5)
        with connection:
            await asyncio.wait_for(one.close(), 2)


async def test_what_is_advertised_is_what_others_are_told(start: Start) -> None:
    one = await start("one", bind=("0.0.0.0", 0), advertise=("localhost", 0))
    two = await start("two", f"127.0.0.1:{one.address[1]}")
    await meet(one, two)
    assert (member(two, "one").address, member(two, "one").port) == (
        "127.0.0.1",
        one.address[1],
    )


@pytest.mark.parametrize(
    ("text", "address"),
    [("h:1", ("h", 1)), ("[::1]:7946", ("::1", 7946)), ("10.0.0.1:65535", ("10.0.0.1", 65535))],
)
def test_a_seed_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    seed = parse_seed(text)
    assert (seed.host, seed.port) == address


@pytest.mark.parametrize("text", ["", "h", "h:", ":1", "h:0", "h:65536", "h:x", "h:²", "[]:1"])
async def test_an_impossible_seed_is_refused_at_start(start: Start, text: str) -> None:
    with pytest.raises(ConfigError, match="not HOST:PORT"):
        await start("one", text)


def one_free_address() -> tuple[str, int]:
    with socket.socket() as probe:
        probe.bind(LOOPBACK)
        host, port = probe.getsockname()
        return host, port
