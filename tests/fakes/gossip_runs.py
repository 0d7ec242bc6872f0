"""What is measured of gossip in virtual time: each run is a value of (size, loss, fault, seed).

By the definitions of the Lifeguard paper (§V): *first detection* is from the kill until the first
healthy member holds the killed one for failed, *full dissemination* until all do; a *false
positive* (FP) is that any member declares a healthy one failed, FP- that a healthy one does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fakes.gossip_bounds import Bounds
from fakes.gossip_network import GossipNetwork, Node
from quorumlog.discovery.config import GossipConfig
from quorumlog.ports import MemberState

FORM_S: Final = 90.0
ADAPT_S: Final = 20.0
WATCH_S: Final = 30.0
LIMIT_S: Final = 600.0
SUSPECT: Final = MemberState.SUSPECT
FAILED: Final = MemberState.FAILED
_SLICE_S: Final = 60.0

Fault = Callable[[GossipNetwork, Node], float]
"""Befalls a node; returns the seconds that it and the time of health after it take."""


@dataclass(frozen=True)
class Load:
    """A member and second. ``suspicions_h``: an hour and pair of members."""

    packets: float
    packet_bytes: float
    stream_bytes: float
    suspicions_h: float


@dataclass(frozen=True)
class Killed:
    """Seconds since the kill; ``broken`` names the bounds that were not kept."""

    suspected_s: float
    first_s: float
    all_s: float
    load: Load
    false_positives: int
    broken: tuple[str, ...]


@dataclass(frozen=True)
class Verdicts:
    """How often any member, and a healthy one, declared a healthy one failed; packets and their
    bytes a member and second."""

    false_positives: int
    at_healthy: int
    packets: float
    packet_bytes: float


@dataclass(frozen=True)
class Endured:
    """Who was declared failed, though all were well: (second, at which address, name)."""

    hours: float
    failed: list[tuple[float, str, str]]
    suspicions: int


@lru_cache(maxsize=2)
def formed(size: int, config: GossipConfig) -> GossipNetwork:
    """``size`` members that have known each other for a while; copy it, do not run it."""
    network = GossipNetwork(size, config, 0.0)
    network.start_many(size)
    network.run(FORM_S)
    return network


def under_loss(size: int, config: GossipConfig, loss: float, seed: int) -> GossipNetwork:
    """A formed network that has got used to losing so much of UDP and of TCP."""
    network = formed(size, config).copy(seed)
    network.loss = network.stream_loss = loss
    network.run(ADAPT_S)
    return network


def join(size: int, config: GossipConfig, loss: float, seed: int) -> float:
    """Seconds until everybody knows everybody, all of them started at once with one seed."""
    network = GossipNetwork(seed, config, loss, stream_loss=loss)
    nodes = network.start_many(size)
    names = {node.name for node in nodes}
    return _elapsed(network, lambda: network.all_know(names))


def kill_one(size: int, config: GossipConfig, loss: float, seed: int) -> Killed:
    """Watch the members for a while, then kill one of them that nobody suspects just then."""
    network = under_loss(size, config, loss, seed)
    nodes = list(network.nodes.values())
    victim = nodes[network.rng.randrange(size)]
    others = [node for node in nodes if node is not victim]
    load = watch(network, WATCH_S)
    network.run_until(lambda: not some(nodes, victim, SUSPECT), LIMIT_S)
    victim.running = False
    suspected_s = _elapsed(network, lambda: some(others, victim, SUSPECT))
    first_s = suspected_s + _elapsed(network, lambda: some(others, victim, FAILED))
    all_s = first_s + _elapsed(network, lambda: every(others, victim, FAILED))
    wrong = sum(who != victim.name and state is FAILED for _, _, who, state in network.trace)
    broken = Bounds.of(size, config).broken_by(suspected_s, first_s, all_s)
    return Killed(suspected_s, first_s, all_s, load, wrong, tuple(broken))


def watch(network: GossipNetwork, duration_s: float) -> Load:
    """What the members send and suspect from here on."""
    network.forget_trace()
    nodes = list(network.nodes.values())
    before = _sent(nodes)
    network.run(duration_s)
    packets, packet_bytes, stream_bytes = (
        now - then for now, then in zip(_sent(nodes), before, strict=True)
    )
    member_seconds = len(nodes) * duration_s
    suspicions = sum(state is SUSPECT for *_, state in network.trace)
    return Load(
        packets / member_seconds,
        packet_bytes / member_seconds,
        stream_bytes / member_seconds,
        suspicions * 3600 / member_seconds / (len(nodes) - 1),
    )


def endure(size: int, config: GossipConfig, loss: float, seed: int, hours: float) -> Endured:
    """Let healthy members run under loss."""
    network = under_loss(size, config, loss, seed)
    start, end = network.now, network.now + 3600 * hours
    failed: list[tuple[float, str, str]] = []
    suspicions = 0
    while network.now < end:
        network.forget_trace()
        network.run(min(_SLICE_S, end - network.now))
        for at, where, who, state in network.trace:
            if state is FAILED:
                failed.append((at - start, where, who))
            suspicions += state is SUSPECT
    return Endured(hours, failed, suspicions)


def heal(size: int, config: GossipConfig, loss: float, seed: int, cut_s: float) -> float:
    """Seconds from the end of a cut through the middle until everybody knows that all run."""
    network = under_loss(size, config, loss, seed)
    nodes = list(network.nodes.values())
    network.cut(nodes[: size // 2], nodes[size // 2 :])
    network.run(cut_s)
    network.heal()
    names = {node.name for node in nodes}
    return _elapsed(network, lambda: network.all_know(names))


def disturb(network: GossipNetwork, troubled: list[Node], fault: Fault, rounds: int) -> Verdicts:
    """Let ``fault`` befall all of ``troubled``, at once, ``rounds`` times."""
    names = {node.name for node in troubled}
    addresses = {node.address[0] for node in troubled}
    wrong: list[str] = []
    packets = packet_bytes = 0.0
    for _ in range(rounds):
        round_s = max([fault(network, node) for node in troubled])
        load = watch(network, round_s)
        packets += load.packets / rounds
        packet_bytes += load.packet_bytes / rounds
        wrong += [
            where for _, where, who, state in network.trace if state is FAILED and who not in names
        ]
    at_healthy = sum(where not in addresses for where in wrong)
    return Verdicts(len(wrong), at_healthy, packets, packet_bytes)


@dataclass(frozen=True)
class Stops:
    """The process stands still, then runs: it flaps."""

    for_s: float
    runs_s: float

    def __call__(self, network: GossipNetwork, node: Node) -> float:
        network.pause(node, self.for_s)
        return self.for_s + self.runs_s


@dataclass(frozen=True)
class IsSlow:
    """Its messages wait, then flow: the anomaly of the Lifeguard paper."""

    for_s: float
    well_s: float

    def __call__(self, network: GossipNetwork, node: Node) -> float:
        network.hold(node, self.for_s)
        return self.for_s + self.well_s


@dataclass(frozen=True)
class UnheardByAThird:
    """What it sends reaches two thirds of the others only; it hears all."""

    for_s: float

    def __call__(self, network: GossipNetwork, node: Node) -> float:
        others = [other for other in network.nodes.values() if other is not node]
        network.cut([node], others[: max(1, len(others) // 3)], both_ways=False)
        return self.for_s


def slow_latencies(
    network: GossipNetwork, troubled: list[Node], for_s: float
) -> list[tuple[float, float]]:
    """First detection and full dissemination of members whose messages wait so long; those that
    not everybody healthy holds for failed by then are left out."""
    healthy = [node for node in network.nodes.values() if node not in troubled]
    start = network.now
    network.forget_trace()
    for node in troubled:
        network.hold(node, for_s)
    network.run(for_s)
    latencies = []
    for node in troubled:
        known = [
            next(
                (at for at, who, state in one.changes if (who, state) == (node.name, FAILED)), None
            )
            for one in healthy
        ]
        times = [at - start for at in known if at is not None]
        if len(times) == len(healthy):
            latencies.append((min(times), max(times)))
    return latencies


def some(nodes: Iterable[Node], member: Node, state: MemberState) -> bool:
    """Whether one of ``nodes`` believes ``member`` to be in ``state``."""
    return any(node.states.get(member.name) is state for node in nodes)


def every(nodes: Iterable[Node], member: Node, state: MemberState) -> bool:
    return all(node.states.get(member.name) is state for node in nodes)


def _elapsed(network: GossipNetwork, done: Callable[[], bool]) -> float:
    elapsed = network.run_until(done, LIMIT_S)
    if elapsed is None:
        raise AssertionError(f"not within {LIMIT_S} s: {network.now}")
    return elapsed


def _sent(nodes: Iterable[Node]) -> tuple[int, int, int]:
    nodes = list(nodes)
    return (
        sum(node.sent_packets for node in nodes),
        sum(node.sent_bytes for node in nodes),
        sum(node.stream_bytes for node in nodes),
    )
