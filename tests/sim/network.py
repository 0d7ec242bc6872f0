"""The network between simulated processes: delays, losses, cuts; and the nodes' messages on it.

Nothing is shared across it: a message is bytes, and who receives it runs in its own process.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from quorumlog.types import Buffer, GroupId, NodeId
from sim.loop import SimLoop
from sim.process import Process
from sim.trace import Trace

MessageHandler = Callable[[NodeId, GroupId, memoryview], None]
Tap = Callable[[str, str, GroupId, bytes], None]


@dataclass(frozen=True, slots=True)
class LinkQuality:
    """How every link behaves. Delays in seconds, one way; the rest are chances per message.

    Without ``reorder`` messages between two processes arrive in the order they were sent, which is
    what TCP gives and more than Raft asks for.
    """

    shortest_s: float = 0.0002
    longest_s: float = 0.002
    slow_chance: float = 0.0
    slow_s: float = 0.3
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: bool = False
    stream_break: float = 0.0
    """Per message of a client's call: the connection breaks, the message does not arrive."""


class SimNetwork:
    def __init__(
        self, loop: SimLoop, rng: random.Random, trace: Trace, quality: LinkQuality
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.quality = quality
        self.sent = 0
        self.delivered = 0
        self.trace = trace
        self._cuts: dict[tuple[str, str], None] = {}
        self._last_arrival_s: dict[tuple[str, str], float] = {}
        self._transports: dict[str, SimTransport] = {}
        self._taps: list[Tap] = []

    # -- links ---------------------------------------------------------------------------------

    def cut(self, source: str, target: str) -> None:
        """Nothing sent from ``source`` to ``target`` from now on arrives."""
        self._cuts[source, target] = None

    def heal(self) -> None:
        self._cuts.clear()

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self._cuts

    def delay_s(self) -> float:
        """How long the next message takes."""
        quality, rng = self.quality, self.rng
        if quality.slow_chance and rng.random() < quality.slow_chance:
            return rng.uniform(quality.longest_s, quality.slow_s)
        return rng.uniform(quality.shortest_s, quality.longest_s)

    def in_order(self, link: tuple[str, str], when_s: float) -> float:
        """``when_s``, or later so that nothing is overtaken on ``link``."""
        when_s = max(when_s, self._last_arrival_s.get(link, 0.0))
        self._last_arrival_s[link] = when_s
        return when_s

    # -- messages between nodes ----------------------------------------------------------------

    def attach(self, node_id: NodeId, process: Process) -> "SimTransport":
        """The transport of a node's present process; takes the place of the one before."""
        transport = SimTransport(self, node_id, process)
        self._transports[node_id] = transport
        return transport

    def tap(self, tap: Tap) -> None:
        """Call ``tap(source, target, group, payload)`` for every message, lost ones too."""
        self._taps.append(tap)

    def send(self, source: NodeId, target: NodeId, group: GroupId, payload: Buffer) -> None:
        self.sent += 1
        raw = bytes(payload)
        for tap in self._taps:
            tap(source, target, group, raw)
        quality, rng = self.quality, self.rng
        if self.is_cut(source, target) or (quality.loss and rng.random() < quality.loss):
            return
        copies = 2 if quality.duplicate and rng.random() < quality.duplicate else 1
        for _ in range(copies):
            when_s = self.loop.time() + self.delay_s()
            if not quality.reorder:
                when_s = self.in_order((source, target), when_s)
            self._deliver_at(when_s, source, target, group, raw)

    def _deliver_at(
        self, when_s: float, source: NodeId, target: NodeId, group: GroupId, raw: bytes
    ) -> None:
        transport = self._transports.get(target)
        if transport is not None and transport.process.alive:
            context = transport.process.context()
            self.loop.call_at(when_s, self._deliver, source, target, group, raw, context=context)

    def _deliver(self, source: NodeId, target: NodeId, group: GroupId, raw: bytes) -> None:
        self.delivered += 1
        self.trace.add(f"{target} < {source} group {group} type {raw[0]} bytes {len(raw)}")
        transport = self._transports[target]
        if transport.refuses(source):
            self._refuse(transport, source)
        else:
            transport.handler(source, group, memoryview(raw))

    def _refuse(self, transport: "SimTransport", source: NodeId) -> None:
        """``source`` hears that it does not belong here, if it can."""
        refused = self._transports.get(source)
        if refused is not None and not self.is_cut(transport.node_id, source):
            context = refused.process.context()
            self.loop.call_later(self.delay_s(), refused.on_refused, context=context)


def _nobody(node: NodeId) -> bool:
    return False


def _unheard(sender: NodeId, group: GroupId, payload: memoryview) -> None:
    """Arrived before anybody listens."""


class SimTransport:
    """A ``PeerTransport``; weaker than its promise when the link's quality says so."""

    def __init__(self, network: SimNetwork, node_id: NodeId, process: Process) -> None:
        self.process = process
        self.node_id = node_id
        self.handler: MessageHandler = _unheard
        self.refuses: Callable[[NodeId], bool] = _nobody
        """Of whom nothing is taken: nodes that were removed from the cluster."""
        self.on_refused: Callable[[], None] = lambda: None
        """Called when another node refuses this one."""
        self._network = network

    def send(self, peer: NodeId, group: GroupId, payload: Buffer) -> None:
        self._network.send(self.node_id, peer, group, payload)

    def on_message(self, handler: MessageHandler) -> None:
        self.handler = handler
