"""Gossip between simulated processes: the real core and the real search for seeds, on the network
of the simulator. Packets are lost and cut off one way; streams break, and need both ways."""

import asyncio
import math
import random
from collections.abc import Callable
from typing import TypeVarTuple

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.output import (
    MemberChanged,
    OpenExchange,
    OpenPing,
    Output,
    SendPacket,
)
from quorumlog.discovery.resolver import ServiceTarget
from quorumlog.discovery.seeds import SeedFinder
from quorumlog.discovery.wire.codec import encode_push_pull
from quorumlog.discovery.wire.messages import Address, Ping, PushPull
from quorumlog.discovery.wire.stream import StreamDecoder
from quorumlog.ports import Member, MemberState
from sim.network import SimNetwork
from sim.process import Process

Arguments = TypeVarTuple("Arguments")

_RUNNING = (MemberState.ALIVE, MemberState.SUSPECT)


class Air:
    """Every gossip endpoint there is, by address."""

    def __init__(self, network: SimNetwork, config: GossipConfig) -> None:
        self.network = network
        self.config = config
        self.endpoints: dict[Address, AirMembership] = {}

    def membership(
        self, process: Process, me: Member, seeds: list[str], rng: random.Random
    ) -> "AirMembership":
        return AirMembership(self, process, me, seeds, rng)

    def calm(self) -> None:
        """Gossip finds out by itself."""

    def find(self, source: Process, address: Address) -> "AirMembership | None":
        """Who would get a packet of ``source`` now."""
        target = self.endpoints.get(address)
        if target is None or not target.process.alive:
            return None
        return None if self.network.is_cut(source.name, target.process.name) else target

    def joins(self, source: Process, address: Address) -> "AirMembership | None":
        """Who would take a stream of ``source`` now."""
        target = self.find(source, address)
        if target is None or self.network.is_cut(target.process.name, source.name):
            return None
        return target


class AirMembership:
    """A ``Membership``: what :class:`quorumlog.discovery.gossip.Gossip` is over sockets."""

    def __init__(
        self, air: Air, process: Process, me: Member, seeds: list[str], rng: random.Random
    ) -> None:
        self.process = process
        self._air = air
        self._loop = air.network.loop
        self._address: Address = (me.address, me.port)
        self._handlers: list[Callable[[Member], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._core = GossipCore(
            name=me.name,
            address=self._address,
            tags=me.tags,
            config=air.config,
            rng=rng,
            now=self._loop.time(),
        )
        air.endpoints[self._address] = self
        self.seeds = SeedFinder(
            seeds,
            exchange=lambda address: self._exchange(address, join=True),
            running=self._running,
            bound=self._address,
            resolver=_Numeric(),
            config=air.config,
        )
        self._loop.spawn(process, self.seeds.run(), "seeds")
        self._drain()

    def members(self) -> list[Member]:
        return self._core.members()

    def set_tags(self, tags: dict[str, str]) -> None:
        self._core.set_tags(tags, self._loop.time())
        self._drain()

    def on_change(self, handler: Callable[[Member], None]) -> None:
        self._handlers.append(handler)

    def _running(self) -> list[Address]:
        running = [
            (member.address, member.port) for member in self.members() if member.state in _RUNNING
        ]
        return [self._address, *(address for address in running if address != self._address)]

    def _drain(self) -> None:
        now = self._loop.time()
        if now >= self._core.deadline:
            self._core.tick(now)
        for output in self._core.take_output():
            self._perform(output)
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._core.deadline
        if not math.isinf(deadline):
            context = self.process.context()
            self._timer = self._loop.call_at(deadline, self._drain, context=context)

    def _perform(self, output: Output) -> None:
        match output:
            case SendPacket(address, data):
                self._send(address, data)
            case OpenExchange(address):
                self._loop.spawn(self.process, self._exchange_quietly(address), "exchange")
            case OpenPing(address, ping, timeout_s):
                self._loop.spawn(self.process, self._ping(address, ping, timeout_s), "ping")
            case MemberChanged(member):
                for handler in self._handlers:
                    handler(member)

    def _send(self, address: Address, data: bytes) -> None:
        network = self._air.network
        target = self._air.find(self.process, address)
        if target is not None and network.rng.random() >= network.quality.loss:
            self._later(target, target._receive, self._address, data)

    def _receive(self, sender: Address, data: bytes) -> None:
        self._core.receive_packet(sender, data, self._loop.time())
        self._drain()

    def _later(
        self,
        target: "AirMembership",
        action: Callable[[*Arguments], None],
        *arguments: *Arguments,
    ) -> None:
        """Call in the process of ``target`` when a message to it has arrived."""
        when_s = self._loop.time() + self._air.network.delay_s()
        self._loop.call_at(when_s, action, *arguments, context=target.process.context())

    # -- streams -------------------------------------------------------------------------------

    async def _exchange_quietly(self, address: Address) -> None:
        try:
            await self._exchange(address, join=False)
        except OSError:
            return

    async def _exchange(self, address: Address, *, join: bool) -> None:
        """Raises ``OSError``, ``TimeoutError`` included."""
        question = _on_the_wire(self._core.local_state(join=join))
        answered: asyncio.Future[PushPull] = self._loop.create_future()
        target = self._air.joins(self.process, address)
        if target is not None:
            self._later(target, target._serve, self, question, answered)
        elif address not in self._air.endpoints or not self._air.endpoints[address].process.alive:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        async with asyncio.timeout(self._air.config.stream_timeout_s):
            answer = await answered
        self._core.receive_push_pull(answer, self._loop.time())
        self._drain()

    def _serve(
        self, source: "AirMembership", question: PushPull, answered: "asyncio.Future[PushPull]"
    ) -> None:
        self._core.receive_push_pull(question, self._loop.time())
        self._drain()
        if self._air.joins(self.process, source._address) is source:
            answer = _on_the_wire(self._core.local_state(join=False))
            self._later(source, _answer, answered, answer)

    async def _ping(self, address: Address, ping: Ping, timeout_s: float) -> None:
        await asyncio.sleep(2 * self._air.network.delay_s())
        target = self._air.joins(self.process, address)
        ack = target._core.answer_ping(ping) if target is not None else None
        if ack is not None:
            self._core.receive_stream_ack(ack, self._loop.time())
            self._drain()


class _Numeric:
    """A ``Resolver`` for addresses that are none but themselves."""

    async def addresses(self, host: str, port: int) -> list[Address]:
        return [(host, port)]

    async def services(self, name: str) -> list[ServiceTarget]:
        raise OSError(f"{name} is no service")

    def require_services(self) -> None:
        """There are none to require."""


def _answer(answered: "asyncio.Future[PushPull]", answer: PushPull) -> None:
    if not answered.done():
        answered.set_result(answer)


def _on_the_wire(state: PushPull) -> PushPull:
    decoded = StreamDecoder().feed(encode_push_pull(state))
    if not isinstance(decoded, PushPull):
        raise TypeError(f"a state became {decoded!r}")
    return decoded
