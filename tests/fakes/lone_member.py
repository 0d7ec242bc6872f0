"""One gossip core by itself, in its own time: the test is all the others."""

import random
from dataclasses import replace
from typing import Final, TypeVar

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.gossip_core import GossipCore
from quorumlog.discovery.core.output import MemberChanged, OpenExchange, SendPacket
from quorumlog.discovery.wire.codec import encode_message
from quorumlog.discovery.wire.messages import Address, Alive, PacketMessage, Ping
from quorumlog.discovery.wire.packet import decode_packet, encode_packet
from quorumlog.ports import MemberState

UDP_ALONE: Final = replace(GossipConfig.lan(), stream_probes=False)

_MAX_TICKS: Final = 10_000

M = TypeVar("M", bound=PacketMessage)


class LoneMember:
    """A member named ``me`` that was told that ``others`` run, each at ``address_of`` it.

    ``sent`` are (when, where to, message), ``called`` (when, whose state is asked for), ``changes``
    (when, name, state).
    """

    def __init__(self, *others: str, config: GossipConfig = UDP_ALONE) -> None:
        self.now = 0.0
        self.core = GossipCore(
            name="me",
            address=address_of("me"),
            tags={"id": "me"},
            config=config,
            rng=random.Random(1),
            now=0.0,
        )
        self.sent: list[tuple[float, Address, PacketMessage]] = []
        self.called: list[tuple[float, Address]] = []
        self.changes: list[tuple[float, str, MemberState]] = []
        for name in others:
            self.hear(Alive(name, 1, address_of(name), b""))

    def hear(self, *messages: PacketMessage) -> None:
        """Receive them in one packet."""
        data = encode_packet([encode_message(message) for message in messages])
        self.core.receive_packet(address_of("sender"), data, self.now)
        self._collect()

    def run_to(self, until: float) -> None:
        """Do all that is due until then, each thing in time."""
        for _ in range(_MAX_TICKS):
            if self.core.deadline > until:
                self.now = until
                return
            self.now = max(self.now, self.core.deadline)
            self.core.tick(self.now)
            self._collect()
        raise AssertionError(f"at {self.now} something is due again and again")

    def next_probe(self) -> tuple[float, Ping]:
        """Run until it pings somebody; when that was, and the ping."""
        pings = len(self.said(Ping))
        while len(self.said(Ping)) == pings:
            self.run_to(self.core.deadline)
        return self.now, self.said(Ping)[pings]

    def said(self, kind: type[M]) -> list[M]:
        """All messages of a kind that were sent."""
        return [message for _, _, message in self.sent if isinstance(message, kind)]

    def state_of(self, name: str) -> MemberState | None:
        return next((m.state for m in self.core.members() if m.name == name), None)

    def _collect(self) -> None:
        for output in self.core.take_output():
            match output:
                case SendPacket(address, data):
                    self.sent += [(self.now, address, said) for said in decode_packet(data)]
                case OpenExchange(address):
                    self.called.append((self.now, address))
                case MemberChanged(member):
                    self.changes.append((self.now, member.name, member.state))


def address_of(name: str) -> Address:
    """An address for every name of one byte or two, and for the member itself."""
    first, second = (name.encode() + b"\0\0")[:2]
    return (f"10.0.{first}.{second}", 7946)
