"""Asks one member after the other whether it is there (SWIM §3.1, Lifeguard §IV-A).

A probe is a ping. Without an answer within the probe timeout it is sent again, some other members
are asked to ping in our place, twice each, and TCP is tried; without any answer by the end of the
probe interval it has failed. SWIM and memberlist send each ping once: then one of 130 probes fails
where a tenth of the packets is lost and TCP does not help, now one of 2,600; and each that fails
is news to everybody, so that what a member has to pass on grows with their number.
Every member is probed once in a round, in random order (SWIM §4.3), so a failure is noticed
within two rounds. While this node's own health is doubtful it waits longer.
"""

from dataclasses import dataclass
from typing import Final

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.members import MemberTable, Peer
from quorumlog.discovery.core.outbox import Outbox
from quorumlog.discovery.core.output import OpenPing
from quorumlog.discovery.core.rng import Rng, choose, shuffle
from quorumlog.discovery.core.suspicion import LocalHealth
from quorumlog.discovery.core.versions import (
    NACK_VERSION,
    STREAM_PING_VERSION,
    understood_version,
)
from quorumlog.discovery.wire.messages import (
    Ack,
    Address,
    IndirectPing,
    Nack,
    PacketMessage,
    Ping,
    Status,
    Suspect,
)

MAX_RELAYS: Final = 1024
"""Indirect pings under way for others; further ones are ignored."""

_SEQUENCES: Final = 2**32
_NACK_SHARE: Final = 0.8
"""A relay says that it got no answer after this share of the timeout, in time to count."""

_AGAIN_SHARE: Final = 0.4
"""A relay that has no answer yet after this share of the timeout pings a second time."""


@dataclass(slots=True)
class _Probe:
    peer: Peer
    incarnation: int
    sequence: int
    started_at: float
    try_again_at: float | None
    deadline: float
    nacks_missing: int | None = None
    """Relays that owe a nack; None while no relay was asked for one."""


@dataclass(slots=True)
class _Relay:
    origin: Address
    request: IndirectPing
    again_at: float | None
    nack_at: float | None
    expires_at: float

    @property
    def deadline(self) -> float:
        """The first of them."""
        return self.again_at or self.nack_at or self.expires_at


class Prober:
    """One probe at a time, and the pings relayed for others."""

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        table: MemberTable,
        outbox: Outbox,
        health: LocalHealth,
        config: GossipConfig,
        rng: Rng,
        now: float,
    ) -> None:
        self._name = name
        self._address = address
        self._table = table
        self._outbox = outbox
        self._health = health
        self._config = config
        self._rng = rng
        self._sequence = rng.randrange(_SEQUENCES)
        self._round: list[str] = []
        self._probe: _Probe | None = None
        self._next_at = now + rng.random() * config.probe_interval_s
        self._relays: dict[int, _Relay] = {}

    @property
    def deadline(self) -> float:
        """When ``tick`` has something to do."""
        probe = self._probe
        if probe is None:
            own = self._next_at
        else:
            own = probe.deadline if probe.try_again_at is None else probe.try_again_at
        if not self._relays:
            return own
        return min(own, *(relay.deadline for relay in self._relays.values()))

    def tick(self, now: float) -> Suspect | None:
        """Do what is due; returns the accusation of a member whose probe has failed."""
        self._go_on_relaying(now)
        accusation = None
        probe = self._probe
        if probe is not None and now >= probe.deadline:
            accusation = self._fail(probe, now)
        elif probe is not None and probe.try_again_at is not None and now >= probe.try_again_at:
            probe.try_again_at = None
            self._try_again(probe, now)
        if self._probe is None and now >= self._next_at:
            self._start(now)
        return accusation

    def receive_ack(self, sequence: int, now: float) -> None:
        probe = self._probe
        if probe is not None and sequence == probe.sequence:
            self._health.apply(-1)
            self._finish(max(now, probe.started_at + self._config.probe_interval_s))
            return
        relay = self._relays.pop(sequence, None)
        if relay is not None:
            self._outbox.send(relay.origin, Ack(relay.request.sequence))

    def receive_nack(self, sequence: int) -> None:
        probe = self._probe
        if probe is not None and sequence == probe.sequence and probe.nacks_missing:
            probe.nacks_missing -= 1

    def relay(self, request: IndirectPing, sender: Address, now: float) -> None:
        """Ping ``request.target`` for somebody else."""
        if len(self._relays) >= MAX_RELAYS:
            return
        timeout_s = self._config.probe_timeout_s
        sequence = self._next_sequence()
        self._relays[sequence] = _Relay(
            origin=request.reply_to or sender,
            request=request,
            again_at=now + _AGAIN_SHARE * timeout_s,
            nack_at=now + _NACK_SHARE * timeout_s if request.wants_nack else None,
            expires_at=now + timeout_s,
        )
        self._outbox.send(request.address, self._ping(sequence, request.target))

    def _start(self, now: float) -> None:
        peer = self._next_target()
        if peer is None:
            self._next_at = now + self._config.probe_interval_s
            return
        probe = _Probe(
            peer=peer,
            incarnation=peer.incarnation,
            sequence=self._next_sequence(),
            started_at=now,
            try_again_at=now + self._health.scale(self._config.probe_timeout_s),
            deadline=now + self._health.scale(self._config.probe_interval_s),
        )
        self._probe = probe
        self._send_ping(probe)

    def _send_ping(self, probe: _Probe) -> None:
        peer = probe.peer
        messages: list[PacketMessage] = [self._ping(probe.sequence, peer.name)]
        if peer.status is Status.SUSPECT:
            # The first to hear of the suspicion should be the suspect (Lifeguard's buddy system).
            messages.append(Suspect(peer.name, peer.incarnation, self._name))
        self._outbox.send(peer.address, *messages)

    def _try_again(self, probe: _Probe, now: float) -> None:
        self._send_ping(probe)
        target = probe.peer
        relays = choose(
            self._table.peers,
            self._config.indirect_checks,
            lambda peer: peer.status is Status.ALIVE and peer.name not in (self._name, target.name),
            self._rng,
        )
        for relay in relays:
            wants_nack = understood_version(relay.said) >= NACK_VERSION
            if wants_nack:
                probe.nacks_missing = (probe.nacks_missing or 0) + 1
            request = IndirectPing(
                probe.sequence, target.name, target.address, wants_nack, self._name, self._address
            )
            self._outbox.send(relay.address, request)
        may_stream = understood_version(target.said) >= STREAM_PING_VERSION
        if self._config.stream_probes and may_stream:
            ping = self._ping(probe.sequence, target.name)
            self._outbox.emit(OpenPing(target.address, ping, probe.deadline - now))

    def _fail(self, probe: _Probe, now: float) -> Suspect:
        # Relays that do not even say "no" make it likelier that the fault is here.
        self._health.apply(1 if probe.nacks_missing is None else probe.nacks_missing)
        self._finish(now)
        return Suspect(probe.peer.name, probe.incarnation, self._name)

    def _finish(self, next_at: float) -> None:
        self._probe = None
        self._next_at = next_at

    def _next_target(self) -> Peer | None:
        for _ in range(2):
            while self._round:
                peer = self._table.get(self._round.pop())
                if peer is not None and peer.running and peer.name != self._name:
                    return peer
            self._round = [peer.name for peer in self._table.peers if peer.running]
            shuffle(self._round, self._rng)
        return None

    def _go_on_relaying(self, now: float) -> None:
        for sequence, relay in list(self._relays.items()):
            if relay.again_at is not None and now >= relay.again_at:
                relay.again_at = None
                request = relay.request
                self._outbox.send(request.address, self._ping(sequence, request.target))
            if relay.nack_at is not None and now >= relay.nack_at:
                relay.nack_at = None
                self._outbox.send(relay.origin, Nack(relay.request.sequence))
            if now >= relay.expires_at:
                del self._relays[sequence]

    def _ping(self, sequence: int, target: str) -> Ping:
        return Ping(sequence, target, self._name, self._address)

    def _next_sequence(self) -> int:
        self._sequence = (self._sequence + 1) % _SEQUENCES
        return self._sequence
