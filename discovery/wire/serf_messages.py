"""Serf's messages as values: what the layer above memberlist says.

Times are Lamport times: one clock for intents, one for events, one for queries, each the largest
time heard of and one more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Final

from quorumlog.discovery.wire.messages import Address

MAX_LAMPORT: Final = 2**62
MAX_EVENT_BYTES: Final = 9 * 1024
"""Longest payload of an event or query, as in Serf; its default is 512."""

MAX_FILTERS: Final = 64
MAX_TIMES: Final = 16_384
"""Most names in a state, and events in it."""


class SerfType(IntEnum):
    """The first byte behind memberlist's USER."""

    LEAVE = 0
    JOIN = 1
    STATE = 2
    EVENT = 3
    QUERY = 4
    RESPONSE = 5
    CONFLICT = 6
    KEY_REQUEST = 7
    KEY_RESPONSE = 8
    RELAY = 9


class QueryFlag(IntFlag):
    ACK = 1
    """Whoever hears it says so at once."""
    NO_BROADCAST = 2
    """It is not passed on."""


NO_FLAGS: Final = QueryFlag(0)


@dataclass(frozen=True, slots=True)
class Intent:
    """``name`` joined, or is about to leave; ``prune``: forget it then."""

    name: str
    time: int
    leaves: bool
    prune: bool = False


@dataclass(frozen=True, slots=True)
class UserEvent:
    """An event that a user sent to everybody. ``coalesce``: of several the last one will do."""

    time: int
    name: str
    payload: bytes
    coalesce: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """Asks all members, or those that pass every filter; the answers go to ``reply_to``."""

    time: int
    id: int
    reply_to: Address
    source: str
    name: str
    payload: bytes = b""
    filters: tuple[bytes, ...] = ()
    flags: QueryFlag = NO_FLAGS
    relay_factor: int = 0
    timeout_ns: int = 0


@dataclass(frozen=True, slots=True)
class QueryResponse:
    time: int
    id: int
    source: str
    flags: QueryFlag = NO_FLAGS
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Relay:
    """``payload`` is a Serf message to be sent on to ``address``."""

    address: Address
    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class SerfState:
    """What Serf adds to a push/pull: the clocks, when members joined or left, recent events."""

    time: int
    status_times: Mapping[str, int] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    event_time: int = 0
    events: tuple[UserEvent, ...] = ()
    query_time: int = 0


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """The result of a key query at one member; ``keys`` and ``primary`` in Base64, when listed."""

    done: bool
    message: str = ""
    keys: tuple[str, ...] = ()
    primary: str = ""


SerfMessage = Intent | UserEvent | Query | QueryResponse | Relay
