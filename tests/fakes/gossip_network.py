"""A network of gossip cores in virtual time: one event queue, one seed, real bytes between them."""

import heapq
import math
import pickle
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

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

HANDSHAKE_RETRY_S: Final = 1.0
SEGMENT_BYTES: Final = 1448
SEGMENT_RETRY_S: Final = 0.2
"""After these TCP sends a lost segment again, the first of a connection or another; then after
twice as long (RFC 6298, with Linux's minimum)."""


@dataclass
class Node:
    """One core and what it reported. ``changes`` are (time, member name, state)."""

    name: str
    core: GossipCore
    address: Address
    seeds: tuple[Address, ...]
    rng: random.Random
    """The core's."""
    running: bool = True
    paused_until: float = 0.0
    held_until: float = 0.0
    changes: list[tuple[float, str, MemberState]] = field(default_factory=list)
    states: dict[str, MemberState] = field(default_factory=dict)
    """What was last reported of every member."""
    conflicts: list[NameConflicted] = field(default_factory=list)
    sent_packets: int = 0
    sent_bytes: int = 0
    """Of packets, with the headers of UDP and IPv4."""
    stream_bytes: int = 0
    """Of states sent over TCP, without headers."""
    wake_at: float = math.inf

    def state_of(self, name: str) -> MemberState | None:
        return next((m.state for m in self.core.members() if m.name == name), None)

    def address_of(self, name: str) -> Address | None:
        return next(((m.address, m.port) for m in self.core.members() if m.name == name), None)

    def alive(self) -> set[str]:
        return {m.name for m in self.core.members() if m.state is MemberState.ALIVE}


class GossipNetwork:
    """Packets are lost with probability ``loss`` and take 0.2 to 20 ms.

    Streams work between nodes that can reach each other, and are late by what TCP has to send
    again when it loses ``stream_loss`` of its segments: states, which are given up after their
    timeout, and pings, which the configuration may turn off.
    """

    def __init__(
        self, seed: int, config: GossipConfig, loss: float, stream_loss: float = 0.0
    ) -> None:
        self.rng = random.Random(seed)
        self.config = config
        self.loss = loss
        self.stream_loss = stream_loss
        self.now = 0.0
        self.nodes: dict[Address, Node] = {}
        self.trace: list[tuple[float, str, str, MemberState]] = []
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        self._cuts: set[tuple[Address, Address]] = set()

    def copy(self, seed: int) -> "GossipNetwork":
        """The same network at the same moment, and from there on another future."""
        twin: GossipNetwork = pickle.loads(pickle.dumps(self, pickle.HIGHEST_PROTOCOL))
        twin.rng.seed(seed)
        for node in twin.nodes.values():
            node.rng.seed(twin.rng.random())
        return twin

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
        rng = random.Random(self.rng.random())
        core = GossipCore(
            name=name,
            address=address,
            tags={"id": name} if tags is None else tags,
            config=config or self.config,
            rng=rng,
            now=self.now,
        )
        node = Node(name, core, address, tuple(seed.address for seed in seeds), rng)
        node.states[name] = MemberState.ALIVE
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

    def hold(self, node: Node, duration_s: float) -> None:
        """Let a process go on whose messages do not: until then nothing that it sends leaves, and
        nothing that arrives is read (the slow member of Lifeguard §V)."""
        node.held_until = self.now + duration_s

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
            self.now, _, event, arguments = heapq.heappop(self._events)
            event(*arguments)

    def all_agree(self, names: set[str]) -> bool:
        """Every running node holds exactly ``names`` for alive."""
        return all(node.alive() == names for node in self.nodes.values() if node.running)

    def all_know(self, names: set[str]) -> bool:
        """Every running node was told that ``names`` run, even if it suspects one just now."""
        running = (MemberState.ALIVE, MemberState.SUSPECT)
        return all(
            {name for name, state in node.states.items() if state in running} == names
            for node in self.nodes.values()
            if node.running
        )

    def forget_trace(self) -> None:
        """Free what was noted so far of a long run."""
        self.trace.clear()
        for node in self.nodes.values():
            node.changes.clear()

    def _at(self, time: float, event: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, event, arguments))

    def _join(self, node: Node) -> None:
        if not node.running:
            return
        if node.paused_until > self.now:
            self._at(node.paused_until, self._join, node)
        elif node.seeds and node.core.alone:
            for seed in node.seeds:
                self._exchange(node, seed, True)
            self._at(self.now + JOIN_RETRY_S, self._join, node)

    def _drain(self, node: Node) -> None:
        for output in node.core.take_output():
            self._perform(node, output)
        deadline = node.core.deadline
        if deadline not in (node.wake_at, math.inf):
            node.wake_at = deadline
            self._at(max(deadline, self.now), self._wake, node, deadline)

    def _wake(self, node: Node, deadline: float) -> None:
        """A timer fires, unless it was set again since."""
        if node.wake_at != deadline or not node.running:
            return
        if node.paused_until > self.now:
            self._at(node.paused_until, self._wake, node, deadline)
            return
        node.wake_at = math.inf
        node.core.tick(self.now)
        self._drain(node)

    def _perform(self, node: Node, output: Output) -> None:
        match output:
            case SendPacket(address, data):
                assert len(data) <= self.config.packet_bytes
                node.sent_packets += 1
                node.sent_bytes += len(data) + HEADER_BYTES
                if self.rng.random() >= self.loss:
                    at = max(self.now, node.held_until) + self._delay()
                    self._at(at, self._packet, node.address, address, data)
            case OpenExchange(address):
                self._exchange(node, address, False)
            case OpenPing(address, ping, timeout_s):
                assert timeout_s > 0
                self._stream_ping(node, address, ping, timeout_s)
            case MemberChanged(member):
                node.states[member.name] = member.state
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

    def _waits(self, node: Node, event: Callable[..., None], *arguments: Any) -> bool:
        """Whether ``node`` reads nothing now; ``event`` comes again when it does."""
        reads_at = max(node.paused_until, node.held_until)
        if reads_at > self.now:
            self._at(reads_at, event, *arguments)
        return reads_at > self.now

    def _packet(self, source: Address, address: Address, data: bytes) -> None:
        target = self._reachable(source, address)
        if target is not None and not self._waits(target, self._take, target, source, data):
            self._take(target, source, data)

    def _take(self, target: Node, source: Address, data: bytes) -> None:
        if target.running and not self._waits(target, self._take, target, source, data):
            target.core.receive_packet(source, data, self.now)
            self._drain(target)

    def _exchange(self, source: Node, address: Address, join: bool) -> None:
        question = encode_push_pull(source.core.local_state(join=join))
        source.stream_bytes += len(question)
        start = max(self.now, source.held_until)
        give_up_at = start + self.config.stream_timeout_s
        at = start + self._connected_s() + self._carried_s(question)
        if at < give_up_at:
            self._at(at, self._question, source, address, question, give_up_at)

    def _question(self, source: Node, address: Address, question: bytes, give_up_at: float) -> None:
        target = self._reachable(source.address, address)
        if target is not None and self._reachable(address, source.address):
            self._serve(source, target, question, give_up_at)

    def _serve(self, source: Node, target: Node, question: bytes, give_up_at: float) -> None:
        """It reads what has arrived, also when nobody waits for its answer any more."""
        arguments = (source, target, question, give_up_at)
        if not target.running or self._waits(target, self._serve, *arguments):
            return
        target.core.receive_push_pull(_decoded(question), self.now)
        answer = encode_push_pull(target.core.local_state(join=False))
        target.stream_bytes += len(answer)
        at = self.now + self._carried_s(answer)
        if at < give_up_at:
            self._at(at, self._answer, source, answer, give_up_at)
        self._drain(target)

    def _answer(self, source: Node, answer: bytes, give_up_at: float) -> None:
        if not source.running or self.now >= give_up_at:
            return
        if not self._waits(source, self._answer, source, answer, give_up_at):
            source.core.receive_push_pull(_decoded(answer), self.now)
            self._drain(source)

    def _stream_ping(self, source: Node, address: Address, ping: Ping, timeout_s: float) -> None:
        needed_s = self._connected_s() + self._carried_s(b"ping") + self._carried_s(b"ack")
        at = max(self.now, source.held_until) + needed_s
        if at < self.now + timeout_s:
            self._at(at, self._pinged, source, address, ping)

    def _pinged(self, source: Node, address: Address, ping: Ping) -> None:
        target = self._reachable(source.address, address)
        if target is None or self._reachable(address, source.address) is None:
            return
        silent = target.paused_until > self.now or target.held_until > self.now
        ack = None if silent else target.core.answer_ping(ping)
        if ack is not None:
            source.core.receive_stream_ack(ack, self.now)
            self._drain(source)

    def _connected_s(self) -> float:
        """How long a handshake takes."""
        return sum(self._delay() + self._lost_s(HANDSHAKE_RETRY_S) for _ in range(2))

    def _carried_s(self, data: bytes) -> float:
        """How long ``data`` takes, all its segments sent at once: as long as the last of them."""
        segments = range(math.ceil(len(data) / SEGMENT_BYTES)) if self.stream_loss else ()
        return self._delay() + max((self._lost_s(SEGMENT_RETRY_S) for _ in segments), default=0.0)

    def _lost_s(self, first_retry_s: float) -> float:
        """How late a segment is."""
        late_s, retry_s = 0.0, first_retry_s
        while self.stream_loss and self.rng.random() < self.stream_loss:
            late_s += retry_s
            retry_s *= 2
        return late_s


def _decoded(state: bytes) -> PushPull:
    decoded = StreamDecoder().feed(state)
    assert isinstance(decoded, PushPull)
    return decoded
