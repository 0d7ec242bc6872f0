"""What was established of whether a node is there, recorded in the metadata.

Gossip says that a node left, or failed; the metadata's leader has it recorded once it has not heard
the node itself for a while, and that it is back once it is heard. Nobody loses a vote or a replica
by it. Design note 0005, section 6.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.gossip_view import RUNNING, GossipView
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.silence import SilenceWatch
from quorumlog.broker.topics import NodeInfo, Presence
from quorumlog.ports import Clock, MemberState
from quorumlog.replication.replica import Replica

LEFT_AFTER_S: Final = 3.0
"""Not heard for so long, and gossip says that it left. A beat that is late is no farewell."""

FAILED_AFTER_S: Final = 10.0
"""Not heard for so long, and gossip does not see it running. Longer than a restart takes."""

_log = structlog.get_logger()


def presence_of(node: NodeInfo, seen: MemberState | None, silent_s: float | None) -> Presence:
    """What is to be on record of ``node``.

    Args:
        seen: by gossip; None: it has no such member, or has forgotten it.
        silent_s: since this leader heard it; None: it hears it.
    """
    if silent_s is None:
        return Presence.PRESENT
    if seen in RUNNING:
        return node.presence
    if seen is MemberState.LEFT and silent_s >= LEFT_AFTER_S:
        return Presence.LEFT
    if node.presence is Presence.PRESENT and silent_s >= FAILED_AFTER_S:
        return Presence.FAILED
    return node.presence


class PresenceKeeper:
    """One task calls :meth:`tend` about once a second."""

    def __init__(
        self,
        *,
        metadata: MetadataState,
        gossip: GossipView,
        replica: Callable[[], Replica],
        watch: SilenceWatch,
        propose: Callable[[metadata_pb2.Command], Awaitable[object]],
        clock: Clock,
    ) -> None:
        """``replica`` gives that of group 0; ``propose`` applies a command here, as the leader;
        ``watch`` is this keeper's own."""
        self._metadata = metadata
        self._gossip = gossip
        self._replica = replica
        self._watch = watch
        self._propose = propose
        self._clock = clock

    async def tend(self) -> None:
        """Bring the record up to date, if this node leads. Raises what proposing raises."""
        if not self._replica().serving:
            self._watch.stop()
            return
        silent, seen = self._watch.look(), self._gossip.states()
        for node in self._metadata.nodes():
            silent_s = silent.get(node.id)
            presence = presence_of(node, seen.get(node.id), silent_s)
            if presence is not node.presence:
                await self._note(node, presence, silent_s or 0.0)

    async def _note(self, node: NodeInfo, presence: Presence, silent_s: float) -> None:
        since_ms = self._clock.wall_ms() - int(silent_s * 1000)
        if node.presence is not Presence.PRESENT:
            # Failed, and then called one that left: away since the same time.
            since_ms = min(since_ms, node.absent_since_ms)
        is_here = presence is Presence.PRESENT
        message = metadata_pb2.NotePresence(
            node=node.id, presence=presence, absent_since_ms=0 if is_here else max(1, since_ms)
        )
        await self._propose(metadata_pb2.Command(note_presence=message))
        self._watch.went_on()
        _log.info("presence_recorded", node=node.id, name=node.name, presence=presence.value)


def recorded_absence_s(node: NodeInfo, clock: Clock) -> float:
    """For how long ``node`` has been away by the metadata, if this machine's clock and that of the
    leader who had it recorded agree; 0 for one that is there."""
    if node.presence is Presence.PRESENT:
        return 0.0
    return max(0.0, (clock.wall_ms() - node.absent_since_ms) / 1000)


def counted_silence_s(observed_s: float, recorded_s: float, grace_s: float) -> float:
    """For how long a node counts as not heard, ``grace_s`` being what it takes to replace it.

    What this leader observed itself, at least; what is on record lets it be ahead by half of
    ``grace_s`` at most: the other half it has watched in any case.
    """
    return max(observed_s, min(recorded_s, observed_s + grace_s / 2))
