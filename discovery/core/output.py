"""What the core wants done: values, performed by a shell in the order they stand."""

from dataclasses import dataclass
from enum import Enum

from quorumlog.discovery.wire.messages import Address, Ping
from quorumlog.discovery.wire.serf_messages import Query
from quorumlog.errors import IncompatibleMember
from quorumlog.ports import Member


@dataclass(frozen=True, slots=True)
class SendPacket:
    """Send ``data`` over UDP, at most ``packet_bytes``; it may be lost."""

    address: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class OpenExchange:
    """Exchange state over TCP: ``local_state`` out, the answer into ``receive_push_pull``."""

    address: Address


@dataclass(frozen=True, slots=True)
class OpenPing:
    """Send ``ping`` over TCP and give an answer within ``timeout_s`` to ``receive_stream_ack``."""

    address: Address
    ping: Ping
    timeout_s: float


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A member came, or its state, address or tags changed."""

    member: Member


@dataclass(frozen=True, slots=True)
class NameConflicted:
    """``claimant`` is a live node at another address that uses the name of ``member``.

    ``ours`` when the name is this node's own: one of the two has to be renamed or stopped.
    """

    member: Member
    claimant: Address
    ours: bool


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """The member ``name`` at ``address`` was not taken: its ``versions`` (``wire.messages``) do not
    go together with those of the others."""

    name: str
    address: Address
    versions: bytes

    def error(self) -> IncompatibleMember:
        return IncompatibleMember(
            f"the versions {list(self.versions)} of member {self.name!r} do not go together with "
            "those of the others"
        )


class KeyChange(Enum):
    """What a Serf agent wants done with everybody's keys."""

    INSTALL = "install"
    USE = "use"
    REMOVE = "remove"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class KeysAsked:
    """Do ``change`` with ``key`` and give the result to ``answer_keys``."""

    query: Query
    change: KeyChange
    key: bytes


@dataclass(frozen=True, slots=True)
class EventReceived:
    """Somebody sent an event to everybody, at a Lamport ``time``."""

    name: str
    payload: bytes
    time: int


Output = (
    SendPacket
    | OpenExchange
    | OpenPing
    | MemberChanged
    | NameConflicted
    | ClaimRefused
    | KeysAsked
    | EventReceived
)
