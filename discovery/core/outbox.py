"""Collects what is to be done, and fills every packet with the news that still fits."""

from typing import Final

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.broadcasts import BroadcastQueue
from quorumlog.discovery.core.members import MemberTable
from quorumlog.discovery.core.output import Output, SendPacket
from quorumlog.discovery.wire.codec import encode_message
from quorumlog.discovery.wire.messages import Address, PacketMessage, User
from quorumlog.discovery.wire.packet import (
    COMPOUND_OVERHEAD_BYTES,
    CRC_OVERHEAD_BYTES,
    MAX_PARTS,
    PART_OVERHEAD_BYTES,
    encode_packet,
)

MAX_PASSED_ON: Final = 1024
"""Serf's messages waiting to be passed on; then the one sent most is dropped."""


class Outbox:
    """Outputs in order, and what rides on them: news of members first, then Serf's messages.

    The first queue holds a piece of news per member, the second ``MAX_PASSED_ON`` messages.
    """

    def __init__(self, config: GossipConfig, table: MemberTable) -> None:
        self._news = BroadcastQueue(config.retransmit_multiplier, config.max_members)
        self._passed_on = BroadcastQueue(config.retransmit_multiplier, MAX_PASSED_ON)
        self._table = table
        self._space_bytes = config.packet_bytes - CRC_OVERHEAD_BYTES - COMPOUND_OVERHEAD_BYTES
        self._outputs: list[Output] = []

    @property
    def has_news(self) -> bool:
        return self._news.waiting or self._passed_on.waiting

    def emit(self, output: Output) -> None:
        self._outputs.append(output)

    def spread(self, subject: str, message: PacketMessage) -> None:
        """Pass ``message`` on in the rounds to come; it replaces older news of ``subject``."""
        self._news.put(subject, encode_message(message))

    def pass_on(self, subject: str, message: User) -> None:
        """The same with one of Serf's messages; one that fits into no packet is not passed on."""
        data = encode_message(message)
        if len(data) + PART_OVERHEAD_BYTES <= self._space_bytes:
            self._passed_on.put(subject, data)

    def spreads(self, subject: str) -> bool:
        return self._news.holds(subject)

    def send(self, address: Address, *messages: PacketMessage) -> None:
        """Send ``messages`` now; to an address of somebody known news in the rest of the packet.

        Where an answer goes anybody can say: it must not be much longer than the question.
        """
        parts = [encode_message(message) for message in messages]
        if self._table.anybody_at(address):
            used = sum(len(part) + PART_OVERHEAD_BYTES for part in parts)
            parts += self._take(self._space_bytes - used, MAX_PARTS - len(parts))
        self._emit_packet(address, parts)

    def send_if_it_fits(self, address: Address, message: User) -> None:
        """Send ``message``, unless it is too long for a packet."""
        if len(encode_message(message)) + PART_OVERHEAD_BYTES <= self._space_bytes:
            self.send(address, message)

    def send_news(self, address: Address) -> bool:
        """Send a packet of nothing but news; False when there is none."""
        parts = self._take(self._space_bytes, MAX_PARTS)
        if parts:
            self._emit_packet(address, parts)
        return bool(parts)

    def take(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def _emit_packet(self, address: Address, parts: list[bytes]) -> None:
        # Versions below 5 know no checksums; of a stranger nothing is known, as in memberlist.
        checksum = self._table.checks_at(address)
        self.emit(SendPacket(address, encode_packet(parts, checksum=checksum)))

    def _take(self, space_bytes: int, max_parts: int) -> list[bytes]:
        if not self.has_news:
            return []
        members = self._table.running_count
        parts = self._news.take(space_bytes, max_parts, members)
        space_bytes -= sum(len(part) + PART_OVERHEAD_BYTES for part in parts)
        return parts + self._passed_on.take(space_bytes, max_parts - len(parts), members)
