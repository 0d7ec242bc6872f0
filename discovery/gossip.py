"""Membership for a node: the gossip core behind a UDP socket, a TCP socket and a timer.

The shell decides nothing. Every input goes to the core at once; its outputs are performed once per
turn of the event loop, so that all that arrived in a turn is answered together.
"""

import asyncio
import contextlib
import math
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from quorumlog.discovery.audience import Audience
from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.output import (
    ClaimRefused,
    EventReceived,
    KeysAsked,
    MemberChanged,
    NameConflicted,
    OpenExchange,
    OpenPing,
    Output,
    SendPacket,
)
from quorumlog.discovery.core.rng import Rng
from quorumlog.discovery.exchanges import Exchanges
from quorumlog.discovery.key_changes import NOT_ENCRYPTED, change_keys, watch_key_file
from quorumlog.discovery.key_ring import GossipKeys
from quorumlog.discovery.listener import Listener
from quorumlog.discovery.member_events import MemberEvents
from quorumlog.discovery.packets import PacketProtocol
from quorumlog.discovery.rejections import Rejections
from quorumlog.discovery.resolver import Resolver, SystemResolver
from quorumlog.discovery.seeds import SeedFinder
from quorumlog.discovery.sockets import bind_pair, bound_address, check_port, reachable_host
from quorumlog.discovery.supervisor import Supervisor
from quorumlog.discovery.wire.envelope import Envelope
from quorumlog.discovery.wire.messages import Address
from quorumlog.discovery.wire.seal import Seal
from quorumlog.discovery.wire.serf_messages import KeyAnswer
from quorumlog.errors import (
    Closed,
    ConfigError,
    DuplicateNode,
    InvariantViolation,
    QuorumlogError,
)
from quorumlog.ports import Member, MemberState

_log = structlog.get_logger(__name__)


class Gossip:
    """This node among the others; implements ``ports.Membership``.

    Made by :meth:`start`, belongs to the event loop it was started in. ``address`` is the one
    bound, ``advertised`` the one that others are told.
    """

    seeds: SeedFinder
    """Whom it was told of, and whether they were tried."""

    def __init__(
        self,
        core: GossipCore,
        envelope: Envelope,
        *,
        keys: GossipKeys | None,
        bound: Address,
        advertised: Address,
        config: GossipConfig,
    ) -> None:
        self.address = bound
        self.advertised = advertised
        self._core = core
        self._envelope = envelope
        self._keys = keys if envelope.is_closed else None
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._audience = Audience()
        # Answers in the order of the questions.
        self._key_lock = asyncio.Lock()
        self._packets: PacketProtocol | None = None
        self._listener: Listener | None = None
        self._tasks = Supervisor(self._release)
        self._left = asyncio.Event()
        # Nothing is performed before the tasks have a group to run in.
        self._drain_is_due = True
        self._timer: asyncio.TimerHandle | None = None
        self._rejections = Rejections()
        self._exchanges = Exchanges(
            core,
            envelope,
            config=config,
            rejections=self._rejections,
            spawn=self._tasks.spawn,
            changed=self._schedule_drain,
        )

    @staticmethod
    async def start(
        *,
        name: str,
        bind: tuple[str, int],
        advertise: tuple[str, int] | None = None,
        seeds: Sequence[str] = (),
        tags: Mapping[str, str],
        config: GossipConfig | None = None,
        keys: GossipKeys | None = None,
        resolver: Resolver | None = None,
        rng: Rng,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> "Gossip":
        """Bind, and begin to look for the others; returns without waiting for them.

        ``name`` is unique in the cluster. ``bind`` port 0 takes any free port. ``advertise`` is
        where others reach this node (port 0: the bound one), by default the bound address.
        ``seeds`` are ``HOST:PORT`` of any members, or names in DNS (``parse_seed``), resolved again
        at every try by ``resolver`` (the machine's own). With ``keys`` everything is encrypted,
        with nonces from ``random_bytes``.
        Raises ``AddressInUse``, ``ConfigError`` (an address or seed that cannot be), and
        ``InvalidArgument`` (a name or tags that do not fit).
        """
        config = config or GossipConfig.lan()
        resolver = resolver or SystemResolver()
        envelope = Envelope(
            label=config.label,
            seal=None if keys is None else Seal(keys, random_bytes),
            verify_incoming=config.verify_incoming,
            verify_outgoing=config.verify_outgoing,
        )
        packets, stream = bind_pair(*bind)
        try:
            bound = bound_address(packets)
            advertised = await _advertised(bound, advertise, resolver)
            core = GossipCore(
                name=name,
                address=advertised,
                tags=tags,
                config=replace(config, packet_bytes=config.packet_bytes - envelope.overhead_bytes),
                rng=rng,
                now=asyncio.get_running_loop().time(),
            )
            gossip = Gossip(
                core, envelope, keys=keys, bound=bound, advertised=advertised, config=config
            )
            finder = SeedFinder(
                seeds,
                exchange=gossip._exchanges.join,
                running=gossip._running,
                bound=bound,
                resolver=resolver,
                config=config,
            )
            gossip.seeds = finder
            try:
                await gossip._run(packets, stream, finder)
            except BaseException:
                await gossip.close()
                raise
            if keys is not None and keys.path:
                gossip._tasks.spawn(watch_key_file(keys, config.key_check_interval_s))
        except BaseException:
            packets.close()
            stream.close()
            raise
        _log.info("gossip_started", name=name, bound=bound, advertised=advertised)
        return gossip

    @property
    def failure(self) -> QuorumlogError | None:
        """Why gossip ended by itself, which only a bug or the loss of a socket brings about. There
        is no news then, and what is to do something raises this."""
        return self._tasks.failure

    def members(self) -> list[Member]:
        """All known members, this node included, sorted by name."""
        return self._core.members()

    @property
    def rejected(self) -> Mapping[str, int]:
        """How many packets and streams were not taken, by kind (``Rejections``); none of them
        changed anything."""
        return self._rejections.counts

    @property
    def rejected_packets(self) -> int:
        """All that were not taken."""
        return self._rejections.counts.total()

    @property
    def unsent_packets(self) -> int:
        """How many packets there was no way for, as to an IPv6 address from an IPv4 socket."""
        return 0 if self._packets is None else self._packets.unsent

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Say ``tags`` of this node from now on, unless it has left.

        Raises ``InvalidArgument`` when they take more than 512 bytes; the old ones stay.
        """
        self._check_open()
        self._core.set_tags(tags, self._loop.time())
        self._schedule_drain()

    def on_change(self, handler: Callable[[Member], None]) -> None:
        """Call ``handler`` in the event loop when a member's state, address or tags change."""
        self._audience.on_change.append(handler)

    def events(self) -> MemberEvents:
        """``async for`` over what becomes of the members, this node included.

        Begins with a JOINED for each that runs now (FAILED and LEFT for the others) and ends with
        ``close``, or by raising ``failure``. Each call is a reader of its own; one that is behind
        gets the newest of each member (``MemberEvents``). Raises ``Closed``.
        """
        self._check_open()
        reader = MemberEvents(self.members, self._config.max_members)
        self._audience.readers.add(reader)
        return reader

    def on_conflict(self, handler: Callable[[DuplicateNode], None]) -> None:
        """Call ``handler`` when another live node is found to use this node's name."""
        self._audience.on_conflict.append(handler)

    def on_failure(self, handler: Callable[[QuorumlogError], None]) -> None:
        """Call ``handler`` with ``failure`` should gossip end by itself."""
        self._audience.on_failure.append(handler)

    def send_event(self, name: str, payload: bytes = b"") -> None:
        """Send a Serf event to everybody, this node included; it may be lost, and come once.

        Raises ``InvalidArgument`` when name and payload have more than 512 bytes.
        """
        self._check_open()
        self._core.send_event(name, payload, self._loop.time())
        self._schedule_drain()

    def on_event(self, handler: Callable[[EventReceived], None]) -> None:
        """Call ``handler`` in the event loop for every event that anybody sends from now on."""
        self._audience.on_event.append(handler)

    async def leave(self) -> None:
        """Tell the others that this node leaves on purpose; returns when they have been sent it.

        At most ``leave_timeout_s``. The node goes on answering until ``close``.
        """
        self._check_open()
        self._core.leave(self._loop.time())
        self._schedule_drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.leave_timeout_s):
                await self._left.wait()

    async def close(self) -> None:
        """Stop at once; to the others this node has failed unless it left before. Idempotent."""
        await self._tasks.stop()

    async def _run(self, packets: socket.socket, stream: socket.socket, finder: SeedFinder) -> None:
        _, self._packets = await self._loop.create_datagram_endpoint(
            lambda: PacketProtocol(packets, receive=self._receive_packet, lost=self._tasks.fail),
            sock=packets,
        )
        await self._tasks.start(finder.run())
        self._listener = Listener(stream, take=self._take_stream, lost=self._tasks.fail)
        self._drain_is_due = False
        self._schedule_drain()

    async def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.close()
        if self._packets is not None:
            await self._packets.close()
        self._audience.ended(self.failure)

    def _take_stream(self, connection: socket.socket, peer: Address) -> None:
        if self._tasks.stopping:
            # What holds the end up may take a second, and nothing new is begun in it.
            connection.close()
        else:
            self._exchanges.accept(connection, peer)

    def _receive_packet(self, data: bytes, sender: Address) -> None:
        if self._tasks.stopping:
            return
        try:
            self._core.receive_packet(sender, self._envelope.open_packet(data), self._loop.time())
        except InvariantViolation as error:
            self._tasks.fail(error)
        except Exception as error:
            self._rejections.count(sender, error, self._loop.time())
        self._schedule_drain()

    def _schedule_drain(self) -> None:
        if not self._drain_is_due and not self._tasks.stopping:
            self._drain_is_due = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Perform what the core wants, and set the timer for when it wants to be called again."""
        self._drain_is_due = False
        if self._tasks.stopping:
            return
        try:
            self._turn()
        except Exception as error:
            # To go on would be to stand still: without a timer nobody is ever found to have failed.
            self._tasks.fail(error)

    def _turn(self) -> None:
        now = self._loop.time()
        if now >= self._core.deadline:
            self._core.tick(now)
        for output in self._core.take_output():
            self._perform(output)
        if self._core.leave_is_spread:
            self._left.set()
        if self._timer is not None:
            self._timer.cancel()
        deadline = self._core.deadline
        if not math.isinf(deadline):
            self._timer = self._loop.call_at(deadline, self._schedule_drain)

    def _perform(self, output: Output) -> None:
        match output:
            case SendPacket(address, data):
                self._send(address, data)
            case OpenExchange(address):
                self._exchanges.open_exchange(address)
            case OpenPing(address, message, timeout_s):
                self._exchanges.open_ping(address, message, timeout_s)
            case MemberChanged(member):
                self._audience.member_changed(member)
            case ClaimRefused(_, address, _):
                self._rejections.count(address, output.error(), self._loop.time())
            case NameConflicted():
                self._audience.name_conflicted(output, self._loop.time())
            case EventReceived():
                self._audience.event_received(output)
            case KeysAsked():
                self._tasks.spawn(self._change_keys(output))

    def _send(self, address: Address, data: bytes) -> None:
        if self._packets is not None:
            self._packets.send(self._envelope.wrap_packet(data), address)

    async def _change_keys(self, asked: KeysAsked) -> None:
        async with self._key_lock:
            answer = KeyAnswer(False, NOT_ENCRYPTED)
            if self._keys is not None:
                answer = await change_keys(self._keys, asked.change, asked.key)
            self._core.answer_keys(asked.query, answer, self._loop.time())
        self._schedule_drain()

    def _running(self) -> list[Address]:
        """Where the running members are, this node first."""
        running = (MemberState.ALIVE, MemberState.SUSPECT)
        found = [(m.address, m.port) for m in self.members() if m.state in running]
        return [self.advertised, *(address for address in found if address != self.advertised)]

    def _check_open(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._tasks.stopping:
            raise Closed("this gossip member is closed")


async def _advertised(bound: Address, advertise: Address | None, resolver: Resolver) -> Address:
    if advertise is None:
        return reachable_host(bound[0]), bound[1]
    check_port(*advertise)
    try:
        addresses = await resolver.addresses(advertise[0], advertise[1] or bound[1])
    except OSError as error:
        raise ConfigError(f"the address to advertise, {advertise[0]}, is unknown") from error
    return addresses[0]
