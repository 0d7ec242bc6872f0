"""How long nodes take to hear each other at present, measured by their beats.

Every beat names the newest one that came from its receiver, and how long ago. So each node knows
how long a beat to another and what comes back for it take: on the wire, and, what is more on a busy
machine, behind everything else that waits for the two processes. No silence shorter than that says
anything (Raft §5.6: the broadcast time is to be far below the election timeout). What is above a
heartbeat is the *patience* of this node: added to every timeout by which it holds others for gone,
as a TCP sender waits by what round trips take (RFC 6298).

Without it a node with many groups that is short of time once never gets out of it: elections that
nobody can answer in time are followed by more of them.
"""

from collections import deque
from typing import Final

from quorumlog.types import NodeId

_DECAY: Final = 0.98
"""Of what was measured, once a heartbeat: half of it is forgotten after 34.

Who gets the processor in bursts is late every second or so, and not in between."""

_REMEMBERED: Final = 256
"""Beats to one node whose answer is still taken for a measure."""


class _Way:
    """To one node and back."""

    def __init__(self) -> None:
        self.incarnation: int | None = None
        self.heard: int | None = None
        """The newest sequence that came from that process."""
        self.heard_at = 0.0
        self.sent: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self.delay_s = 0.0


class Delays:
    """Plain calls; times are of one clock, in seconds."""

    def __init__(self, normal_s: float, most_s: float) -> None:
        """Up to ``normal_s`` needs no patience; more than ``most_s`` is never had."""
        self._normal_s = normal_s
        self._most_s = most_s
        self._ways: dict[NodeId, _Way] = {}
        self.patience_s = 0.0
        """How much longer than its timeouts say this node waits for others at present."""

    def sending(self, node: NodeId, sequence: int, now: float) -> tuple[int, float] | None:
        """The beat ``sequence`` leaves. The newest that came from ``node``, and how long ago."""
        way = self._way(node)
        way.sent.append((sequence, now))
        return None if way.heard is None else (way.heard, now - way.heard_at)

    def received(
        self,
        node: NodeId,
        incarnation: int,
        sequence: int,
        echo: tuple[int, float] | None,
        now: float,
    ) -> None:
        """A beat came from ``node``: any may be lost, late, doubled or out of order."""
        way = self._way(node)
        if incarnation != way.incarnation:
            way.incarnation, way.heard = incarnation, None
        if way.heard is not None and sequence <= way.heard:
            return
        way.heard, way.heard_at = sequence, now
        if echo is None:
            return
        echoed, held_s = echo
        while way.sent and way.sent[0][0] < echoed:
            way.sent.popleft()
        if way.sent and way.sent[0][0] == echoed:
            way.delay_s = max(way.delay_s, now - way.sent[0][1] - held_s)
            self._weigh()

    def beaten(self) -> None:
        """A heartbeat's time has passed."""
        for way in self._ways.values():
            way.delay_s *= _DECAY
        self._weigh()

    def patience_with(self, node: NodeId) -> float:
        """By how much longer than usual messages to ``node`` and back take at present."""
        way = self._ways.get(node)
        return 0.0 if way is None else self._beyond_normal(way.delay_s)

    def _weigh(self) -> None:
        slowest_s = max((way.delay_s for way in self._ways.values()), default=0.0)
        self.patience_s = self._beyond_normal(slowest_s)

    def _beyond_normal(self, delay_s: float) -> float:
        return min(max(0.0, delay_s - self._normal_s), self._most_s)

    def _way(self, node: NodeId) -> _Way:
        way = self._ways.get(node)
        if way is None:
            way = self._ways[node] = _Way()
        return way
