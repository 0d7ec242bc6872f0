"""Collects what is to be done, and fills every packet with the news that still fits."""

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.broadcasts import BroadcastQueue
from quorumlog.discovery.core.members import MemberTable
from quorumlog.discovery.core.output import Output, SendPacket
from quorumlog.discovery.wire.codec import encode_message
from quorumlog.discovery.wire.messages import Address, PacketMessage
from quorumlog.discovery.wire.packet import (
    COMPOUND_OVERHEAD_BYTES,
    CRC_OVERHEAD_BYTES,
    MAX_PARTS,
    PART_OVERHEAD_BYTES,
    encode_packet,
)


class Outbox:
    """Outputs in order, and the queue of news that rides on them.

    The queue holds a piece of news per member, and a few of this node's own.
    """

    def __init__(self, config: GossipConfig, table: MemberTable) -> None:
        self._news = BroadcastQueue(config.retransmit_multiplier, config.max_members + 2)
        self._table = table
        self._space_bytes = config.packet_bytes - CRC_OVERHEAD_BYTES - COMPOUND_OVERHEAD_BYTES
        self._outputs: list[Output] = []

    @property
    def has_news(self) -> bool:
        return len(self._news) > 0

    def emit(self, output: Output) -> None:
        self._outputs.append(output)

    def spread(self, subject: str, message: PacketMessage) -> None:
        """Pass ``message`` on in the rounds to come; it replaces older news of ``subject``."""
        self._news.put(subject, encode_message(message))

    def spreads(self, subject: str) -> bool:
        return self._news.holds(subject)

    def send(self, address: Address, *messages: PacketMessage) -> None:
        """Send ``messages`` now, and news in the rest of the packet."""
        parts = [encode_message(message) for message in messages]
        used = sum(len(part) + PART_OVERHEAD_BYTES for part in parts)
        parts += self._take(self._space_bytes - used, MAX_PARTS - len(parts))
        self.emit(SendPacket(address, encode_packet(parts)))

    def send_news(self, address: Address) -> bool:
        """Send a packet of nothing but news; False when there is none."""
        parts = self._take(self._space_bytes, MAX_PARTS)
        if parts:
            self.emit(SendPacket(address, encode_packet(parts)))
        return bool(parts)

    def take(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def _take(self, space_bytes: int, max_parts: int) -> list[bytes]:
        return self._news.take(space_bytes, max_parts, self._table.running_count)
