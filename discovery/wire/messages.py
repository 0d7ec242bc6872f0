"""memberlist's messages as values, with the bounds every one of them keeps.

An *incarnation* orders what is said of one member: only the member itself raises it, to refute
a suspicion or to announce new tags or a new address (SWIM §4.2). Addresses are numeric.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

Address = tuple[str, int]
"""A numeric IPv4 or IPv6 address and a port."""

MAX_NAME_BYTES: Final = 128
"""Longest member name, as in Serf."""

MAX_META_BYTES: Final = 512
"""Most bytes a member may say of itself (memberlist's MetaMaxSize)."""

MAX_INCARNATION: Final = 2**32 - 1

VERSION_BYTES: Final = 6

VERSIONS: Final = bytes([1, 5, 2, 2, 5, 4])
"""Lowest and highest version of memberlist's protocol that this node understands and the one it
speaks, then the same of Serf's layer."""

UNSAID_VERSIONS: Final = bytes([1, 2, 2, 2, 5, 4])
"""Of a member that says none: only what every member in one cluster with this node has to know."""


class MessageType(IntEnum):
    """The first byte of every message."""

    PING = 0
    INDIRECT_PING = 1
    ACK = 2
    SUSPECT = 3
    ALIVE = 4
    DEAD = 5
    PUSH_PULL = 6
    COMPOUND = 7
    USER = 8
    COMPRESS = 9
    ENCRYPT = 10
    NACK = 11
    CRC = 12
    ERROR = 13


class Status(IntEnum):
    """A member's state as it stands in a push/pull; at one incarnation the greater one wins."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks ``target`` for an :class:`Ack`, sent to ``reply_to`` or else where this came from."""

    sequence: int
    target: str
    source: str = ""
    reply_to: Address | None = None


@dataclass(frozen=True, slots=True)
class IndirectPing:
    """Asks the receiver to ping ``target`` at ``address`` (SWIM §3.1), and for a
    :class:`Nack` when no answer comes in time (Lifeguard §IV-A)."""

    sequence: int
    target: str
    address: Address
    wants_nack: bool
    source: str = ""
    reply_to: Address | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    sequence: int


@dataclass(frozen=True, slots=True)
class Nack:
    """The relay is well, the target did not answer it."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Suspect:
    name: str
    incarnation: int
    accuser: str


@dataclass(frozen=True, slots=True)
class Alive:
    """What a member says of itself. ``meta`` are its tags, see ``wire.tags``."""

    name: str
    incarnation: int
    address: Address
    meta: bytes
    versions: bytes = VERSIONS


@dataclass(frozen=True, slots=True)
class Dead:
    """``name`` failed, or left where it is its own accuser."""

    name: str
    incarnation: int
    accuser: str

    @property
    def left(self) -> bool:
        return self.name == self.accuser


@dataclass(frozen=True, slots=True)
class User:
    """A message of the layer above memberlist: Serf's events, intents and queries."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """One member in a push/pull."""

    alive: Alive
    status: Status


@dataclass(frozen=True, slots=True)
class PushPull:
    """Everything its sender knows; ``user_state`` belongs to the layer above."""

    records: tuple[MemberRecord, ...]
    join: bool
    user_state: bytes = b""


@dataclass(frozen=True, slots=True)
class RemoteError:
    """The peer's reason to refuse a stream."""

    text: str


PacketMessage = Ping | IndirectPing | Ack | Nack | Suspect | Alive | Dead | User
StreamMessage = PushPull | Ping | Ack | User | RemoteError
