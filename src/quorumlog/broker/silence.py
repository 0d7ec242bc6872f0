"""How long the metadata's leader has not heard each node, by nothing but its own observation.

It hears every node by Raft's answers and beats. What it counts begins when it began to lead, and
anew after a break of its own: what a process did not hear while it stood still says nothing.
"""

from collections.abc import Callable
from typing import Final

from quorumlog.broker.metadata import MetadataState
from quorumlog.ports import Clock
from quorumlog.replication.replica import Replica
from quorumlog.types import NodeId

MAX_GAP_S: Final = 3.0
"""From one look, or command that was carried out, to the next; after a longer one counting begins
anew."""


class SilenceWatch:
    """One task calls :meth:`look` about once a second while this node leads."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        metadata: MetadataState,
        replica: Callable[[], Replica],
        hears: Callable[[NodeId], bool],
        clock: Clock,
    ) -> None:
        """``replica`` gives that of group 0; ``hears`` says whether there was a sign of life of a
        node within an election timeout."""
        self._node_id = node_id
        self._metadata = metadata
        self._replica = replica
        self._hears = hears
        self._clock = clock
        self._term = -1
        self._since_s = 0.0
        """What was heard before counts as heard then."""
        self._looked_at_s = float("-inf")

    @property
    def term(self) -> int:
        """That of the last look; -1: there was none."""
        return self._term

    def look(self) -> dict[NodeId, float]:
        """The registered nodes that are not heard, and for how many seconds, as far as counted."""
        replica, now = self._replica(), self._clock.monotonic_s()
        if replica.core.term != self._term or now - self._looked_at_s > MAX_GAP_S:
            self._term, self._since_s = replica.core.term, now
        self._looked_at_s = now
        silent: dict[NodeId, float] = {}
        for node in self._metadata.nodes():
            if node.id != self._node_id and not self._hears(node.id):
                heard_at = replica.heard_at(node.id)
                since_s = self._since_s if heard_at is None else max(heard_at, self._since_s)
                silent[node.id] = now - since_s
        return silent

    def has_heard(self, node: NodeId) -> bool:
        """Whether ``node`` was heard since counting began."""
        heard_at = self._replica().heard_at(node)
        return heard_at is not None and heard_at > self._since_s

    def went_on(self) -> None:
        """A command was carried out: in time it is as good as a look, since this process runs."""
        now = self._clock.monotonic_s()
        if now - self._looked_at_s <= MAX_GAP_S:
            self._looked_at_s = now

    def stop(self) -> None:
        """This node does not lead: it counts anew when it does again."""
        self._term = -1
