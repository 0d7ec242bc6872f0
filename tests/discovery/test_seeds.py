"""Seeds: what they are, what each try calls, and what is said when nobody is found."""

import asyncio
import socket
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import cast

import dns.message
import dns.rcode
import dns.rrset
import pytest
from structlog.testing import capture_logs

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.limits import RateLimit
from quorumlog.discovery.resolver import Resolver, ServiceTarget, SystemResolver
from quorumlog.discovery.seeds import MAX_ADDRESSES, Seed, SeedFinder, SeedKind, parse_seed
from quorumlog.discovery.wire.messages import Address
from quorumlog.errors import ConfigError

OWN = ("10.0.0.1", 7946)
IPV4, IPV6, OTHER = ("10.0.0.2", 7946), ("fd00::2", 7946), ("10.0.0.3", 7946)
SERVICE = "_gossip._tcp.q"


class FakeResolver:
    """``hosts`` and ``records`` are what DNS holds and may be changed; what is missing raises."""

    def __init__(
        self,
        hosts: dict[str, list[str]] | None = None,
        records: dict[str, list[ServiceTarget]] | None = None,
    ) -> None:
        self.hosts = hosts or {}
        self.records = records or {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        if host not in self.hosts:
            raise OSError(f"{host} is unknown")
        return [(found, port) for found in self.hosts[host]]

    async def services(self, name: str) -> list[ServiceTarget]:
        if name not in self.records:
            raise OSError(f"{name} has no records")
        return self.records[name]

    def require_services(self) -> None:
        pass


class Calls:
    """Notes who is called; those in ``up`` answer and become members."""

    def __init__(
        self, resolver: Resolver, *seeds: str, up: set[Address], bound: Address | None = None
    ) -> None:
        self.called: list[Address] = []
        self.members = [OWN]
        self.up = up
        self.finder = SeedFinder(
            seeds,
            exchange=self._exchange,
            running=self._running,
            bound=bound or OWN,
            resolver=resolver,
            config=GossipConfig(seed_retry_s=0.001),
        )

    async def until(self, done: Callable[[], bool]) -> None:
        """Let the finder try until ``done``."""
        task = asyncio.create_task(self.finder.run())
        async with asyncio.timeout(5):
            while not done() and not task.done():
                await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _exchange(self, address: Address) -> None:
        self.called.append(address)
        if address not in self.up:
            raise ConnectionRefusedError(f"{address} refuses")
        self.members.append(address)

    def _running(self) -> list[Address]:
        return self.members


def seed_logs(logs: list[MutableMapping[str, object]]) -> list[MutableMapping[str, object]]:
    return [entry for entry in logs if entry["event"] == "seed_unreachable"]


@pytest.mark.parametrize(
    ("text", "seed"),
    [
        ("h:1", Seed(SeedKind.MEMBER, "h", 1)),
        ("dns+a://q.default.svc:7946", Seed(SeedKind.ADDRESSES, "q.default.svc", 7946)),
        ("dns+a://[::1]:7946", Seed(SeedKind.ADDRESSES, "::1", 7946)),
        ("[fe80::1%eth0]:7946", Seed(SeedKind.MEMBER, "fe80::1%eth0", 7946)),
        (
            "dns+srv://_gossip._tcp.q.default.svc.cluster.local",
            Seed(SeedKind.SERVICE, "_gossip._tcp.q.default.svc.cluster.local", 0),
        ),
    ],
)
def test_a_seed_is_an_address_a_name_or_a_service(text: str, seed: Seed) -> None:
    assert parse_seed(text) == seed


@pytest.mark.parametrize(
    "text",
    [
        *("dns+a://q", "dns+a://:1", "dns+a:///q:1", "http://q:80", "h:" + "1" * 5000),
        *("dns+srv://q", "dns+srv://_a.q", "dns+srv://_a._tcp."),
        *("dns+srv://_a._tcp.q:1", "dns+srv://_a._tcp.q/"),
        *(
            "::1:7946",
            "a:1:2",
            "a:1 b:2",
            "[a]:1",
            "[a:1",
            "a]:1",
            "[::1]7946",
            "[::g]:1",
            "[10.0.0.1]:1",
        ),
    ],
)
def test_an_impossible_seed_is_named_with_what_it_should_be(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not .*dns\+srv://_SERVICE\._PROTOCOL\.NAME"):
        parse_seed(text)


@pytest.mark.parametrize("text", ["a:1,b:2", "a,b:1", "[::1]:7946,[::2]:7946", "dns+a://q:1,r:1"])
def test_several_seeds_in_one_are_refused_with_how_to_give_them(text: str) -> None:
    with pytest.raises(ConfigError, match=r"comma.*--join A:7946 --join B:7946.*join = \["):
        parse_seed(text)


async def test_a_seed_is_tried_when_all_its_addresses_failed_or_one_has_answered() -> None:
    resolver = FakeResolver({"q": [IPV4[0], IPV6[0]], "r": [OTHER[0], IPV4[0]]})
    calls = Calls(resolver, "q:7946", "r:7946", "unknown:7946", up={OTHER})
    before: list[bool] = []
    exchange = calls.finder._exchange

    async def noted(address: Address) -> None:
        before.append(calls.finder.tried)
        await exchange(address)

    calls.finder._exchange = noted
    assert not calls.finder.tried
    await calls.until(lambda: calls.finder.tried)
    assert {*calls.called} == {IPV4, IPV6, OTHER}
    assert before == [False] * 3
    assert OTHER in calls.members
    assert not calls.finder.only_this_node


@pytest.mark.parametrize(
    ("found", "is_own"),
    [
        ([OWN[0]], True),
        ([OWN[0], "fd00::9"], True),
        ([OWN[0], IPV4[0]], False),
        (["fd00::9"], False),
        ([IPV4[0]], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("seed", ["q:7946", "dns+a://q:7946", f"dns+srv://{SERVICE}"])
async def test_whether_a_seed_is_this_node_and_nobody_else_is_known(
    seed: str, found: list[str], is_own: bool
) -> None:
    """An address of the other family, which this node is not at, says nothing."""
    hosts = {"q": found} if found else {}
    resolver = FakeResolver(hosts, {SERVICE: [ServiceTarget("q", 7946)]})
    calls = Calls(resolver, seed, "own:7946", up={IPV4})
    resolver.hosts["own"] = [OWN[0]]
    assert not calls.finder.only_this_node
    await calls.until(lambda: calls.finder.tried)
    assert calls.finder.only_this_node is is_own


@pytest.mark.parametrize(
    ("bound", "found", "is_own"),
    [
        ("0.0.0.0", ["127.0.0.1"], True),
        ("0.0.0.0", ["127.0.0.1", "::1"], True),
        ("::", ["127.0.0.1", "::1"], True),
        ("0.0.0.0", ["127.0.0.1", IPV4[0]], False),
        (OWN[0], ["127.0.0.1"], False),
    ],
)
async def test_loopback_is_this_node_where_it_listens_at_every_address(
    bound: str, found: list[str], is_own: bool
) -> None:
    resolver = FakeResolver({"localhost": found})
    calls = Calls(resolver, f"localhost:{OWN[1]}", up=set(), bound=(bound, OWN[1]))
    await calls.until(lambda: calls.finder.tried)
    assert calls.finder.only_this_node is is_own


def test_who_has_no_seeds_has_tried_them_and_is_alone() -> None:
    finder = Calls(FakeResolver(), up=set()).finder
    assert finder.tried
    assert finder.only_this_node


async def test_every_address_of_a_name_is_called_but_this_node_itself() -> None:
    resolver = FakeResolver({"q": [OWN[0], IPV4[0], IPV6[0], OTHER[0]]})
    calls = Calls(resolver, "dns+a://q:7946", up={IPV6, OTHER})
    with capture_logs() as logs:
        await calls.until(lambda: calls.called.count(IPV4) == 3)
    assert calls.called == [IPV4, IPV6, OTHER, IPV4, IPV4]
    assert not logs


async def test_of_one_member_the_first_address_that_answers_is_enough() -> None:
    resolver = FakeResolver({"q": [IPV4[0], IPV6[0], OTHER[0]]})
    calls = Calls(resolver, "q:7946", up={IPV6, OTHER})
    await calls.until(lambda: IPV6 in calls.members)
    assert calls.called == [IPV4, IPV6]


async def test_a_name_that_only_this_node_has_is_unreachable() -> None:
    calls = Calls(FakeResolver({"q": [OWN[0]]}), "dns+a://q:7946", up=set())
    with capture_logs() as logs:
        await calls.until(lambda: bool(logs))
    (entry,) = seed_logs(logs)
    assert (entry["error"], entry["alone"]) == ("there is nobody but this node", True)


async def test_a_name_that_only_this_node_has_is_said_once_and_not_in_company() -> None:
    tries = 0

    class Counting(FakeResolver):
        async def addresses(self, host: str, port: int) -> list[Address]:
            nonlocal tries
            tries += 1
            return await super().addresses(host, port)

    resolver, seed = Counting({"q": [OWN[0]]}), "dns+a://q:7946"
    calls = Calls(resolver, seed, up=set())
    calls.finder._limits[seed] = RateLimit(0.0)
    with capture_logs() as logs:
        await calls.until(lambda: tries >= 10)
    assert len(seed_logs(logs)) == 1
    resolver.hosts.clear()
    with capture_logs() as logs:
        await calls.until(lambda: tries >= 20)
    assert len(seed_logs(logs)) > 1
    resolver.hosts["q"] = [OWN[0]]
    calls.members.append(OTHER)
    with capture_logs() as logs:
        await calls.until(lambda: tries >= 30)
    assert seed_logs(logs) == []


async def test_a_resolver_that_breaks_is_a_seed_that_does_not_answer() -> None:
    class Broken(FakeResolver):
        async def addresses(self, host: str, port: int) -> list[Address]:
            raise KeyError(host)

    calls = Calls(Broken(), "q:7946", up=set())
    with capture_logs() as logs:
        await calls.until(lambda: bool(logs))
    (entry,) = seed_logs(logs)
    assert entry["error"] == "'q'"


@pytest.mark.parametrize("seed", ["q:7946", "dns+a://q:7946", f"dns+srv://{SERVICE}"])
async def test_a_seed_that_cannot_be_resolved_is_asked_for_again_and_said_once(seed: str) -> None:
    tries = 0

    class Counting(FakeResolver):
        async def addresses(self, host: str, port: int) -> list[Address]:
            nonlocal tries
            tries += 1
            return await super().addresses(host, port)

        async def services(self, name: str) -> list[ServiceTarget]:
            nonlocal tries
            tries += 1
            return await super().services(name)

    resolver = Counting()
    calls = Calls(resolver, seed, up={IPV4})
    with capture_logs() as logs:
        await calls.until(lambda: tries == 20)
        assert not calls.called
        resolver.hosts["q"] = [IPV4[0]]
        resolver.records[SERVICE] = [ServiceTarget("q", 7946)]
        await calls.until(lambda: IPV4 in calls.members)
    assert [entry["seed"] for entry in seed_logs(logs)] == [seed]


async def test_the_targets_of_a_service_are_called_by_priority_and_weight() -> None:
    records = [
        ServiceTarget("c", 3, priority=2, weight=9),
        ServiceTarget("b", 2, priority=1, weight=1),
        ServiceTarget("gone", 9, priority=0),
        ServiceTarget("a", 1, priority=1, weight=5),
        ServiceTarget("", 0),
    ]
    hosts = {"a": ["10.0.0.2", "fd00::2"], "b": ["10.0.0.3"], "c": ["10.0.0.4"]}
    resolver = FakeResolver(hosts, {SERVICE: records})
    calls = Calls(resolver, f"dns+srv://{SERVICE}", up={("10.0.0.4", 3)})
    await calls.until(lambda: len(calls.members) == 2)
    assert calls.called == [("10.0.0.2", 1), ("fd00::2", 1), ("10.0.0.3", 2), ("10.0.0.4", 3)]


async def test_more_addresses_than_the_bound_are_left_out() -> None:
    many = [f"10.1.{number // 256}.{number % 256}" for number in range(2 * MAX_ADDRESSES)]
    resolver = FakeResolver({"q": many}, {SERVICE: [ServiceTarget("q", 1), ServiceTarget("q", 2)]})
    for seed in ("dns+a://q:1", f"dns+srv://{SERVICE}"):
        calls = Calls(resolver, seed, up=set())
        await calls.until(lambda calls=calls: calls.called.count((many[0], 1)) == 2)  # type: ignore[misc]
        assert len(set(calls.called)) == MAX_ADDRESSES


async def test_without_dnspython_a_service_is_refused_with_the_extra_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dns.asyncresolver", None)
    Calls(SystemResolver(), "dns+a://q:1", up=set())
    with pytest.raises(ConfigError, match=r"pip install 'quorumlog\[dns\]'"):
        Calls(SystemResolver(), f"dns+srv://{SERVICE}", up=set())


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".q"])
async def test_a_name_that_dns_cannot_have_is_one_that_is_not_found(host: str) -> None:
    with pytest.raises(OSError, match=r"."):
        await SystemResolver().addresses(host, 7946)


class NameServer(asyncio.DatagramProtocol):
    """Knows one service."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        question = dns.message.from_wire(data)
        answer = dns.message.make_response(question)
        name = question.question[0].name
        if name.to_text() == f"{SERVICE}.":
            records = ("1 5 7946 node-1.q.", "0 0 7947 node-2.q.")
            answer.answer.append(dns.rrset.from_text(name, 30, "IN", "SRV", *records))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(answer.to_wire(), addr)


async def test_srv_records_are_read_from_a_name_server() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0), family=socket.AF_INET
    )
    resolver = SystemResolver(transport.get_extra_info("sockname"))
    assert sorted(await resolver.services(f"{SERVICE}."), key=lambda each: each.priority) == [
        ServiceTarget("node-2.q", 7947, 0, 0),
        ServiceTarget("node-1.q", 7946, 1, 5),
    ]
    with pytest.raises(OSError, match="has no SRV records"):
        await resolver.services("_other._tcp.q.")
    transport.close()
