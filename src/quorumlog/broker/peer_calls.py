"""What the metadata's nodes ask of each other, beside replication."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from quorumlog.broker.led_groups import LedGroup
from quorumlog.broker.replacement import Replacement
from quorumlog.types import GroupId, NodeId


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who a process says it is; ``cluster_id`` is empty before it is in a cluster, ``address`` is
    where it means to be reached."""

    node: NodeId
    cluster_id: str
    address: str


class PeerCalls(Protocol):
    """Requests between nodes."""

    async def propose(self, peer: NodeId, command: bytes) -> bytes:
        """Send a metadata command to ``peer``; an encoded ``Result``.

        Raises NotLeader, Unavailable (it never arrived), OutcomeUnknown.
        """
        ...

    async def replacements(self, peer: NodeId) -> Sequence[Replacement]:
        """What ``peer`` makes of nodes that it does not hear, if it leads the metadata group.

        Raises Unavailable, or what ``peer`` answers; within about a second.
        """
        ...

    async def led_groups(
        self, peer: NodeId, groups: Sequence[GroupId]
    ) -> Mapping[GroupId, LedGroup]:
        """Those of ``groups`` that ``peer`` leads; raises as :meth:`replacements`."""
        ...

    async def identify(self, address: str) -> Introduction:
        """Who answers at ``address``, whoever was meant.

        Raises QuorumlogError where nobody does; within about a second.
        """
        ...
