"""The gossip protocol as one object: packets, states and ticks in, outputs out.

It holds no socket, timer or task. A shell feeds it, performs ``take_output`` in order after every
input, and calls ``tick`` at ``deadline``. ``now`` never goes back.
"""

import math
from collections.abc import Mapping
from typing import Final

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.claims import Claims
from quorumlog.discovery.core.intents import Intents
from quorumlog.discovery.core.members import MemberTable, Peer
from quorumlog.discovery.core.outbox import Outbox
from quorumlog.discovery.core.output import OpenExchange, Output
from quorumlog.discovery.core.prober import Prober
from quorumlog.discovery.core.rng import Rng, choose
from quorumlog.discovery.core.serf_layer import SerfLayer, check_asked
from quorumlog.discovery.core.suspicion import LocalHealth
from quorumlog.discovery.wire.fields import utf8
from quorumlog.discovery.wire.messages import (
    MAX_NAME_BYTES,
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    Nack,
    PacketMessage,
    Ping,
    PushPull,
    Status,
    Suspect,
    User,
)
from quorumlog.discovery.wire.packet import decode_packet
from quorumlog.discovery.wire.serf_codec import decode_serf, decode_state
from quorumlog.discovery.wire.serf_messages import Intent, KeyAnswer, Query, SerfMessage
from quorumlog.discovery.wire.tags import encode_tags
from quorumlog.errors import InvalidArgument
from quorumlog.ports import Member

MAX_OWN_EVENT_BYTES: Final = 512
"""Longest name and payload of an event that is sent from here, as in Serf."""

_PUSH_PULL_SCALE: Final = 32
"""Above this many members push/pulls become rarer by the logarithm (memberlist's scale)."""


class GossipCore:
    """One member's protocol state.

    ``address`` is what others are told to reach this node at. Raises ``InvalidArgument`` for a
    name or for tags that do not fit.
    """

    def __init__(
        self,
        *,
        name: str,
        address: Address,
        tags: Mapping[str, str],
        config: GossipConfig,
        rng: Rng,
        now: float,
    ) -> None:
        if not 0 < len(utf8(name, "member name")) <= MAX_NAME_BYTES or "\0" in name:
            raise InvalidArgument(f"the member name {name!r} has to have 1 to 128 bytes, none zero")
        self._name = name
        self._config = config
        self._rng = rng
        self._meta = encode_tags(tags)
        self._table = MemberTable(config.max_members)
        self._outbox = Outbox(config, self._table)
        health = LocalHealth(config.awareness_max)
        me = Alive(name, 1, address, self._meta)
        intents = Intents(self._table, 2 * config.max_members)
        self._claims = Claims(
            me,
            table=self._table,
            outbox=self._outbox,
            health=health,
            intents=intents,
            config=config,
            now=now,
        )
        self._serf = SerfLayer(
            name,
            table=self._table,
            claims=self._claims,
            intents=intents,
            outbox=self._outbox,
            rng=rng,
        )
        self._prober = Prober(
            name,
            address,
            table=self._table,
            outbox=self._outbox,
            health=health,
            config=config,
            rng=rng,
            now=now,
        )
        self._health = health
        self._lost_s = 0.0
        self._gossip_at = now
        self._push_pull_at = now + rng.random() * config.push_pull_interval_s
        self._reconnect_at = now + rng.random() * config.reconnect_interval_s
        self._introduced = False
        self._depart_at: float | None = None

    @property
    def deadline(self) -> float:
        """When ``tick`` is to be called next; infinite once there is nothing left to do."""
        return self._due() + self._lost_s

    @property
    def health_score(self) -> int:
        """0 while this node is well, up to ``awareness_max`` - 1."""
        return self._health.score

    @property
    def alone(self) -> bool:
        """No other member is known to run."""
        return self._table.running_count <= 1

    @property
    def leave_is_spread(self) -> bool:
        """This node has left, and everybody who can be told has been sent the news."""
        me_left = self._claims.me.status is Status.LEFT
        return me_left and (self._table.running_count == 0 or not self._outbox.has_news)

    def members(self) -> list[Member]:
        return self._table.members()

    def set_tags(self, tags: Mapping[str, str], now: float) -> None:
        """Raises ``InvalidArgument`` when they do not fit, and keeps the old ones. After ``leave``
        nobody is told: who has left would be back."""
        meta = encode_tags(tags)
        if self._depart_at is None and meta != self._claims.me.said.meta:
            self._claims.announce(meta, self._advance(now))

    def leave(self, now: float) -> None:
        """Begin to leave: tell the others; ``leave_is_spread`` says when that is done.

        The intent goes one round ahead, so that Serf takes what follows for no failure.
        """
        if self._depart_at is None:
            at = self._advance(now)
            self._depart_at = at + self._config.gossip_interval_s
            self._serf.announce(leaves=True)

    def receive_packet(self, sender: Address, data: bytes, now: float) -> None:
        """Take one UDP packet. Raises ``ProtocolError``, and then nothing of it was taken."""
        messages = decode_packet(data)
        said = [decode_serf(m.payload) if isinstance(m, User) else m for m in messages]
        check_asked(said)
        at = self._advance(now)
        for message in said:
            if message is not None:
                self._receive(message, sender, at)

    def receive_push_pull(self, state: PushPull, now: float) -> None:
        """Merge a peer's state. Raises ``ProtocolError``, and then nothing of it was taken."""
        serf = decode_state(state.user_state)
        at = self._advance(now)
        for record in state.records:
            self._claims.record(record, at)
        if serf is not None:
            self._serf.merge(serf, at, introduced=self._introduced)
        if not self._introduced and not self.alone:
            self._introduced = True
            self._serf.announce(leaves=False)

    def local_state(self, *, join: bool) -> PushPull:
        """All that is known here, for a push/pull."""
        return PushPull(self._table.records(), join, self._serf.state())

    def answer_ping(self, ping: Ping) -> Ack | None:
        """The answer to a ping, unless it means a member of another name."""
        return Ack(ping.sequence) if ping.target in ("", self._name) else None

    def send_event(self, name: str, payload: bytes, now: float) -> None:
        """Send an event to everybody, this node's own listeners included.

        Raises ``InvalidArgument`` when it has more than ``MAX_OWN_EVENT_BYTES``.
        """
        if len(utf8(name, "event name")) + len(payload) > MAX_OWN_EVENT_BYTES:
            raise InvalidArgument(
                f"the event {name!r:.40} has more than {MAX_OWN_EVENT_BYTES} bytes: send where to "
                "find the rest"
            )
        self._advance(now)
        self._serf.send_event(name, payload)

    def answer_keys(self, query: Query, answer: KeyAnswer, now: float) -> None:
        """The result of a ``KeysAsked``."""
        self._advance(now)
        self._serf.answer_keys(query, answer)

    def receive_stream_ack(self, ack: Ack, now: float) -> None:
        """The answer to an ``OpenPing``."""
        self._prober.receive_ack(ack.sequence, self._advance(now))

    def tick(self, now: float) -> None:
        at = self._advance(now)
        if self._depart_at is not None:
            if at >= self._depart_at and self._claims.me.status is not Status.LEFT:
                self._claims.depart(at)
        else:
            self._claims.expire(at)
            accusation = self._prober.tick(at)
            if accusation is not None:
                self._claims.suspect(accusation, at)
            self._call_others(at)
        if at >= self._gossip_at and self._outbox.has_news:
            self._gossip_at = at + self._config.gossip_interval_s
            self._gossip(at)

    def take_output(self) -> list[Output]:
        """What is to be done since the last call, in order."""
        return self._outbox.take()

    def _advance(self, now: float) -> float:
        """This node's own time, which stops while the node does not run.

        After a pause everybody else's silence would look like failure, and answers that came
        in the meantime are still unread; so what was due in the pause is due now, not overdue.
        """
        at = now - self._lost_s
        due = self._due()
        if at > due + self._config.probe_interval_s:
            self._lost_s += at - due
            self._health.apply(1)
            return due
        if now >= due + self._lost_s:
            # Rounding must not make what is due now due in a moment, for ever.
            at = max(at, due)
        if not self._outbox.has_news:
            self._gossip_at = max(self._gossip_at, at)
        return at

    def _due(self) -> float:
        due = self._gossip_at if self._outbox.has_news else math.inf
        if self._depart_at is not None:
            staying = self._claims.me.status is not Status.LEFT
            return min(due, self._depart_at) if staying else due
        due = min(due, self._prober.deadline, self._push_pull_at, self._reconnect_at)
        suspicion = self._claims.deadline
        return due if suspicion is None else min(due, suspicion)

    def _receive(self, message: PacketMessage | SerfMessage, sender: Address, at: float) -> None:
        # What comes most stands first.
        match message:
            case Alive():
                self._claims.alive(message, at)
            case Intent():
                self._serf.receive(message, at)
            case Ping():
                ack = self.answer_ping(message)
                if ack is not None:
                    self._outbox.send(message.reply_to or sender, ack)
            case Ack(sequence):
                self._prober.receive_ack(sequence, at)
            case Suspect():
                self._claims.suspect(message, at)
            case Dead():
                self._claims.dead(message, at)
            case IndirectPing():
                self._prober.relay(message, sender, at)
            case Nack(sequence):
                self._prober.receive_nack(sequence)
            case User():
                """Was decoded, into one of Serf's messages."""
            case _:
                self._serf.receive(message, at)

    def _gossip(self, at: float) -> None:
        horizon = at - self._config.gossip_to_the_dead_s

        def wanted(peer: Peer) -> bool:
            recent = peer.status is Status.DEAD and peer.changed_at > horizon
            return peer.name != self._name and (peer.running or recent)

        fanout = self._config.gossip_fanout
        for peer in choose(self._table.peers, fanout, wanted, self._rng):
            if not self._outbox.send_news(peer.address):
                return

    def _call_others(self, at: float) -> None:
        """Open the exchanges that are due: with one running member, with one failed one."""
        if at >= self._push_pull_at:
            self._push_pull_at = at + self._push_pull_interval_s()
            self._table.forget(at - self._config.forget_after_s)
            self._exchange_with_one(Status.ALIVE)
        if at >= self._reconnect_at:
            self._reconnect_at = at + self._config.reconnect_interval_s
            self._exchange_with_one(Status.DEAD)

    def _exchange_with_one(self, status: Status) -> None:
        def wanted(peer: Peer) -> bool:
            return peer.status is status and peer.name != self._name

        for peer in choose(self._table.peers, 1, wanted, self._rng):
            self._outbox.emit(OpenExchange(peer.address))

    def _push_pull_interval_s(self) -> float:
        members = self._table.running_count
        if members <= _PUSH_PULL_SCALE:
            return self._config.push_pull_interval_s
        steps = math.ceil(math.log2(members / _PUSH_PULL_SCALE)) + 1
        return steps * self._config.push_pull_interval_s
