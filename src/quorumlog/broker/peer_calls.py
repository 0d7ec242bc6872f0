"""What the metadata's nodes ask of each other, beside replication."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quorumlog.broker.replacement import Replacement
from quorumlog.types import NodeId


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

    async def identify(self, address: str) -> Introduction:
        """Who answers at ``address``, whoever was meant.

        Raises QuorumlogError where nobody does; within about a second.
        """
        ...
