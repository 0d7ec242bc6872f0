"""A network of gossip cores in virtual time: one event queue, one seed, real bytes between them."""

import heapq
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.output import (
    MemberChanged,
    NameConflicted,
    OpenExchange,
    OpenPing,
    Output,
    SendPacket,
)
from quorumlog.discovery.wire.codec import encode_push_pull
from quorumlog.discovery.wire.messages import Address, Ping, PushPull
from quorumlog.discovery.wire.stream import StreamDecoder
from quorumlog.ports import MemberState

JOIN_RETRY_S = 1.0
LOOK_EVERY_S = 0.01
HEADER_BYTES = 28


@dataclass
class Node:
    """One core and what it reported. ``changes`` are (time, member name, state)."""

    core: GossipCore
    address: Address
    seeds: tuple[Address, ...]
    running: bool = True
    paused_until: float = 0.0
    changes: list[tuple[float, str, MemberState]] = field(default_factory=list)
    conflicts: list[NameConflicted] = field(default_factory=list)
    sent_packets: int = 0
    sent_bytes: int = 0
    """Of packets, with the headers of UDP and IPv4."""
    wake_at: float = math.inf

    def state_of(self, name: str) -> MemberState | None:
        return next((m.state for m in self.core.members() if m.name == name), None)

    def alive(self) -> set[str]:
        return {m.name for m in self.core.members() if m.state is MemberState.ALIVE}


class GossipNetwork:
    """Packets are lost with probability ``loss`` and take 0.2 to 20 ms; streams are reliable
    between nodes that can reach each other, and used for states only, unless the configuration
    allows stream probes."""

    def __init__(self, seed: int, config: GossipConfig, loss: float) -> None:
        self.rng = random.Random(seed)
        self.config = config
        self.loss = loss
        self.now = 0.0
        self.nodes: dict[Address, Node] = {}
        self.trace: list[tuple[float, str, str, MemberState]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._cuts: set[tuple[Address, Address]] = set()

    def start(
        self,
        name: str,
        *,
        seeds: Iterable[Node] = (),
        tags: Mapping[str, str] | None = None,
        config: GossipConfig | None = None,
    ) -> Node:
        """A node at an address never used before, calling its seeds until it has company."""
        index = len(self.nodes) + 1
        address = (f"10.0.{index // 250}.{index % 250 + 1}", 7946)
        core = GossipCore(
            name=name,
            address=address,
            tags={"id": name} if tags is None else tags,
            config=config or self.config,
            rng=random.Random(self.rng.random()),
            now=self.now,
        )
        node = Node(core, address, tuple(seed.address for seed in seeds))
        self.nodes[address] = node
        self._join(node)
        self._drain(node)
        return node

    def start_many(self, count: int) -> list[Node]:
        """``count`` nodes at once, all of them joining by the first."""
        first = self.start("n000")
        return [first, *(self.start(f"n{i:03}", seeds=[first]) for i in range(1, count))]

    def do(self, node: Node, action: Callable[[GossipCore], None]) -> None:
        action(node.core)
        self._drain(node)

    def pause(self, node: Node, duration_s: float) -> None:
        """Stop the process: what arrives waits, timers are late."""
        node.paused_until = self.now + duration_s

    def resume(self, node: Node) -> None:
        """Run a node again that was not ``running``."""
        node.running = True
        node.wake_at = math.inf
        self._drain(node)

    def cut(self, some: Iterable[Node], others: Iterable[Node], *, both_ways: bool = True) -> None:
        others = list(others)
        for one in some:
            for other in others:
                self._cuts.add((one.address, other.address))
                if both_ways:
                    self._cuts.add((other.address, one.address))

    def heal(self) -> None:
        self._cuts.clear()

    def run(self, duration_s: float) -> None:
        end = self.now + duration_s
        self.run_until(lambda: False, duration_s)
        self.now = end

    def run_until(self, done: Callable[[], bool], limit_s: float) -> float | None:
        """Seconds until ``done``, or None when it was not within ``limit_s``."""
        start = look_at = self.now
        while True:
            if self.now >= look_at:
                if done():
                    return self.now - start
                look_at = self.now + LOOK_EVERY_S
            if not self._events or self._events[0][0] > start + limit_s:
                return self.now - start if done() else None
            self.now, _, event = heapq.heappop(self._events)
            event()

    def all_agree(self, names: set[str]) -> bool:
        """Every running node holds exactly ``names`` for alive."""
        return all(node.alive() == names for node in self.nodes.values() if node.running)

    def all_know(self, names: set[str]) -> bool:
        """Every running node knows ``names`` to run, even if it suspects one just now."""
        running = (MemberState.ALIVE, MemberState.SUSPECT)
        return all(
            {m.name for m in node.core.members() if m.state in running} == names
            for node in self.nodes.values()
            if node.running
        )

    def _at(self, time: float, event: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, event))

    def _when_awake(self, node: Node, action: Callable[[], None]) -> None:
        if not node.running:
            return
        if node.paused_until > self.now:
            self._at(node.paused_until, lambda: self._when_awake(node, action))
            return
        action()
        self._drain(node)

    def _join(self, node: Node) -> None:
        if node.seeds and node.core.alone:
            for seed in node.seeds:
                self._exchange(node, seed, join=True)
            again = self.now + JOIN_RETRY_S
            self._at(again, lambda: self._when_awake(node, lambda: self._join(node)))

    def _drain(self, node: Node) -> None:
        for output in node.core.take_output():
            self._perform(node, output)
        deadline = node.core.deadline
        if deadline not in (node.wake_at, math.inf):
            node.wake_at = deadline
            self._at(max(deadline, self.now), lambda: self._wake(node, deadline))

    def _wake(self, node: Node, deadline: float) -> None:
        """A timer fires, unless it was set again since."""
        if node.wake_at == deadline:
            node.wake_at = math.inf
            self._when_awake(node, lambda: node.core.tick(self.now))

    def _perform(self, node: Node, output: Output) -> None:
        match output:
            case SendPacket(address, data):
                assert len(data) <= self.config.packet_bytes
                node.sent_packets += 1
                node.sent_bytes += len(data) + HEADER_BYTES
                if self.rng.random() >= self.loss:
                    self._deliver(node, address, data)
            case OpenExchange(address):
                self._exchange(node, address, join=False)
            case OpenPing(address, ping, timeout_s):
                assert timeout_s > 0
                self._stream_ping(node, address, ping)
            case MemberChanged(member):
                node.changes.append((self.now, member.name, member.state))
                self.trace.append((self.now, node.address[0], member.name, member.state))
            case NameConflicted():
                node.conflicts.append(output)

    def _delay(self) -> float:
        return self.rng.uniform(0.0002, 0.02)

    def _reachable(self, source: Address, target: Address) -> Node | None:
        node = self.nodes.get(target)
        if node is None or not node.running or (source, target) in self._cuts:
            return None
        return node

    def _deliver(self, source: Node, address: Address, data: bytes) -> None:
        def arrive() -> None:
            target = self._reachable(source.address, address)
            if target is not None:
                self._when_awake(
                    target, lambda: target.core.receive_packet(source.address, data, self.now)
                )

        self._at(self.now + self._delay(), arrive)

    def _exchange(self, source: Node, address: Address, *, join: bool) -> None:
        question = _on_the_wire(source.core.local_state(join=join))

        def arrive() -> None:
            target = self._reachable(source.address, address)
            if target is not None and self._reachable(address, source.address):
                self._when_awake(target, lambda: serve(target))

        def serve(target: Node) -> None:
            target.core.receive_push_pull(question, self.now)
            answer = _on_the_wire(target.core.local_state(join=False))
            self._at(
                self.now + self._delay(),
                lambda: self._when_awake(
                    source, lambda: source.core.receive_push_pull(answer, self.now)
                ),
            )

        self._at(self.now + self._delay(), arrive)

    def _stream_ping(self, source: Node, address: Address, ping: Ping) -> None:
        def arrive() -> None:
            target = self._reachable(source.address, address)
            if target is not None and self._reachable(address, source.address):
                ack = target.core.answer_ping(ping)
                if ack is not None:
                    source.core.receive_stream_ack(ack, self.now)
                    self._drain(source)

        self._at(self.now + 2 * self._delay(), arrive)


def _on_the_wire(state: PushPull) -> PushPull:
    decoded = StreamDecoder().feed(encode_push_pull(state))
    assert isinstance(decoded, PushPull)
    return decoded
