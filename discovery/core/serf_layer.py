"""What Serf says above memberlist: intents, user events, queries.

Everything new is passed on once. Events go to whoever listens; of queries those are answered that
Serf asks its members itself (``_serf_…``), and every one that wants to know who hears it. Answers
and relayed messages go to running members only, so that nobody can have packets sent to strangers.
"""

import zlib
from collections.abc import Collection, Mapping
from typing import Final

from quorumlog.discovery.core.claims import Claims
from quorumlog.discovery.core.filters import passes
from quorumlog.discovery.core.intents import Intents
from quorumlog.discovery.core.lamport import LamportClock, RecentMessages
from quorumlog.discovery.core.members import MemberTable
from quorumlog.discovery.core.outbox import Outbox
from quorumlog.discovery.core.output import EventReceived, KeyChange, KeysAsked
from quorumlog.discovery.core.rng import Rng, choose
from quorumlog.discovery.wire.messages import Address, Status, User
from quorumlog.discovery.wire.serf_codec import (
    decode_key_request,
    encode_key_answer,
    encode_member,
    encode_serf,
    encode_state,
)
from quorumlog.discovery.wire.serf_messages import (
    NO_FLAGS,
    Intent,
    KeyAnswer,
    Query,
    QueryFlag,
    QueryResponse,
    Relay,
    SerfMessage,
    SerfState,
    UserEvent,
)
from quorumlog.discovery.wire.tags import decode_tags
from quorumlog.errors import ProtocolError

MAX_RELAYED: Final = 1
"""Messages to be sent on, in one packet: who wants that sends each by itself."""

MAX_QUERIES: Final = 16
"""In one packet: each may be answered in six others. In 1,400 bytes there is room for a dozen."""

_CONFLICT: Final = "_serf_conflict"
_KEY_QUERIES: Final[Mapping[str, KeyChange]] = {
    "_serf_install-key": KeyChange.INSTALL,
    "_serf_use-key": KeyChange.USE,
    "_serf_remove-key": KeyChange.REMOVE,
    "_serf_list-keys": KeyChange.LIST,
}
_SERF_STATUS: Final = {Status.ALIVE: 1, Status.SUSPECT: 1, Status.LEFT: 3, Status.DEAD: 4}
_MAX_RELAYS: Final = 5


def check_asked(messages: Collection[object]) -> None:
    """Raises ``ProtocolError`` for a packet of ``messages`` that would make very many."""
    relayed = sum(isinstance(message, Relay) for message in messages)
    queries = sum(isinstance(message, Query) for message in messages)
    if relayed > MAX_RELAYED or queries > MAX_QUERIES:
        raise ProtocolError(f"a gossip packet has {queries} queries and {relayed} relayed messages")


class SerfLayer:
    """One member's part in it."""

    def __init__(
        self,
        name: str,
        *,
        table: MemberTable,
        claims: Claims,
        intents: Intents,
        outbox: Outbox,
        rng: Rng,
    ) -> None:
        self._name = name
        self._table = table
        self._claims = claims
        self._intents = intents
        self._outbox = outbox
        self._rng = rng
        self._clock = LamportClock()
        self._event_clock = LamportClock()
        self._query_clock = LamportClock()
        self._events: RecentMessages[UserEvent] = RecentMessages()
        self._queries: RecentMessages[int] = RecentMessages()

    def announce(self, *, leaves: bool) -> None:
        """Say that this node has joined, or is about to leave."""
        # Whoever merges a state takes the time after the last one known for that of a leave.
        self._clock.advance()
        intent = Intent(self._name, self._clock.advance(), leaves)
        self._intents.take(intent)
        self._spread_intent(intent)

    def send_event(self, name: str, payload: bytes) -> None:
        event = UserEvent(self._event_clock.advance(), name, payload)
        self._receive_event(event)

    def receive(self, message: SerfMessage, at: float) -> None:
        match message:
            case Intent():
                if self._receive_intent(message, at):
                    self._spread_intent(message)
            case UserEvent():
                self._receive_event(message)
            case Query():
                self._receive_query(message)
            case Relay(address, _, payload):
                self._send(address, User(payload))
            case QueryResponse():
                """An answer to a query; this node asks none."""

    def state(self) -> bytes:
        """What goes into a push/pull."""
        names = [peer.name for peer in self._table.peers]
        left = tuple(peer.name for peer in self._table.peers if peer.status is Status.LEFT)
        return encode_state(
            SerfState(
                time=self._clock.time,
                status_times={name: self._intents.time_of(name) for name in names},
                left=left,
                event_time=self._event_clock.time,
                events=tuple(self._events),
                query_time=self._query_clock.time,
            )
        )

    def merge(self, state: SerfState, at: float, *, introduced: bool) -> None:
        """Take a peer's state. Of one that is not ``introduced`` yet the past is none of its
        business: events and queries before now are not taken, also when they come again."""
        # No message with the sender's present time has been sent.
        self._clock.witness(state.time - 1)
        self._event_clock.witness(state.event_time - 1)
        self._query_clock.witness(state.query_time - 1)
        left = set(state.left)
        for name, time in state.status_times.items():
            # A leave has no time of its own here; it came after the last one known.
            leaves = name in left and not self._has_left(name)
            self._receive_intent(Intent(name, time + leaves, name in left), at)
        if not introduced:
            self._events.ignore_before(state.event_time)
            self._queries.ignore_before(state.query_time)
        for event in state.events:
            self._receive_event(event)

    def answer_keys(self, query: Query, answer: KeyAnswer) -> None:
        self._respond(query, NO_FLAGS, encode_key_answer(answer))

    def _receive_intent(self, intent: Intent, at: float) -> bool:
        """Whether it was news."""
        self._clock.witness(intent.time)
        if intent.name == self._name:
            # A join of this node that others know of is not its own last word: in a push/pull the
            # time of a leave comes as that of a join, and the leave itself has to be denied still.
            is_news = intent.time > self._intents.time_of(self._name)
            if intent.leaves and is_news and self._claims.staying:
                self.announce(leaves=False)
            return False
        if not self._intents.take(intent):
            return False
        if intent.leaves:
            self._claims.retire(intent.name, at)
            if intent.prune:
                self._table.forget_left(intent.name)
        return True

    def _receive_event(self, event: UserEvent) -> None:
        self._event_clock.witness(event.time)
        size_bytes = len(event.name) + len(event.payload)
        seen = UserEvent(event.time, event.name, event.payload)
        if self._events.take(event.time, seen, size_bytes, self._event_clock.time):
            subject = f"event {event.time} {event.name} {zlib.crc32(event.payload)}"
            self._outbox.pass_on(subject, encode_serf(event))
            self._outbox.emit(EventReceived(event.name, event.payload, event.time))

    def _receive_query(self, query: Query) -> None:
        self._query_clock.witness(query.time)
        if not self._queries.take(query.time, query.id, 0, self._query_clock.time):
            return
        if QueryFlag.NO_BROADCAST not in query.flags:
            self._outbox.pass_on(f"query {query.time} {query.id}", encode_serf(query))
        if not passes(query.filters, self._name, self._claims.me.tags):
            return
        if QueryFlag.ACK in query.flags:
            self._respond(query, QueryFlag.ACK, b"")
        if query.name == _CONFLICT:
            self._say_where(query)
        elif query.name in _KEY_QUERIES:
            self._ask_for_keys(query, _KEY_QUERIES[query.name])

    def _say_where(self, query: Query) -> None:
        name = query.payload.decode(errors="replace")
        peer = self._table.get(name)
        if peer is not None and name != self._name:
            said = encode_member(peer.said, decode_tags(peer.said.meta), _SERF_STATUS[peer.status])
            self._respond(query, NO_FLAGS, said)

    def _ask_for_keys(self, query: Query, change: KeyChange) -> None:
        try:
            key = b"" if change is KeyChange.LIST else decode_key_request(query.payload)
        except ProtocolError as error:
            self.answer_keys(query, KeyAnswer(False, str(error)))
            return
        self._outbox.emit(KeysAsked(query, change, key))

    def _respond(self, query: Query, flags: QueryFlag, payload: bytes) -> None:
        response = encode_serf(QueryResponse(query.time, query.id, self._name, flags, payload))
        self._send(query.reply_to, response)
        relayed = encode_serf(Relay(query.reply_to, query.source, response.payload))
        relays = min(query.relay_factor, _MAX_RELAYS)
        if self._table.running_count <= relays:
            return
        for peer in choose(
            self._table.peers,
            relays,
            lambda peer: (
                peer.status is Status.ALIVE and peer.name not in (self._name, query.source)
            ),
            self._rng,
        ):
            self._send(peer.address, relayed)

    def _send(self, address: Address, message: User) -> None:
        if self._table.runs_at(address):
            self._outbox.send_if_it_fits(address, message)

    def _has_left(self, name: str) -> bool:
        peer = self._table.get(name)
        return peer is not None and peer.status is Status.LEFT

    def _spread_intent(self, intent: Intent) -> None:
        self._outbox.pass_on(f"intent {intent.name}", encode_serf(intent))
