"""Gossip that is always right about who is there. That somebody died it says where it is asked to,
and a moment late; elsewhere never: Raft has to do without."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from quorumlog.ports import Member, MemberState
from quorumlog.types import NodeId
from sim.loop import SimLoop
from sim.process import Process

CLUSTER_ID = "simulated"

_NEWS_S: Final = 0.5
"""Within it every process hears of a node that joined, or is found dead, or back."""

_FOUND_DEAD_S: Final = 1.0
"""After so long a node that is down is found dead."""


def member(node_id: NodeId, address: str) -> Member:
    host, _, port = address.partition(":")
    tags = {"id": node_id, "cluster": CLUSTER_ID, "rpc": address, "ver": "0"}
    return Member(node_id, host, int(port), MemberState.ALIVE, tags)


class StaticMembership:
    """A ``Membership`` in which nothing ever changes, not even when a node dies: Raft has to do
    without gossip's suspicions."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = sorted(members, key=lambda each: each.name)

    def members(self) -> list[Member]:
        return list(self._members)

    def set_tags(self, tags: dict[str, str]) -> None:
        """Nobody would hear of it."""

    def on_change(self, handler: Callable[[Member], None]) -> None:
        """There is no change to call ``handler`` for."""


class Roster:
    """The members of a simulated cluster, to whom more may come."""

    def __init__(
        self,
        loop: SimLoop,
        rng: random.Random,
        members: Sequence[Member],
        *,
        finds_dead: bool = False,
    ) -> None:
        """``finds_dead``: members whose node is down for a while are said to have failed."""
        self._loop = loop
        self._rng = rng
        self._members = list(members)
        self._finds_dead = finds_dead
        self._died_at_s: dict[NodeId, float] = {}
        """Those that are down."""
        self._handlers: list[tuple[Process, Callable[[Member], None]]] = []

    @property
    def members(self) -> list[Member]:
        return sorted(self._members, key=lambda each: each.name)

    def join(self, newcomer: Member) -> None:
        """``newcomer`` is there; handlers hear of it a little later, each in its own process."""
        self._members.append(newcomer)
        self._tell(newcomer)

    def started(self, node: NodeId) -> None:
        self._died_at_s.pop(node, None)
        self._set_state(node, MemberState.ALIVE)

    def died(self, node: NodeId) -> None:
        died_at_s = self._died_at_s[node] = self._loop.time()
        if self._finds_dead:
            self._loop.call_outside(_FOUND_DEAD_S, self._found_dead, node, died_at_s)

    def _found_dead(self, node: NodeId, died_at_s: float) -> None:
        if self._died_at_s.get(node) == died_at_s:
            self._set_state(node, MemberState.FAILED)

    def _set_state(self, node: NodeId, state: MemberState) -> None:
        for place, known in enumerate(self._members):
            if known.name == node and known.state is not state:
                self._members[place] = replace(known, state=state)
                self._tell(self._members[place])

    def _tell(self, news: Member) -> None:
        self._handlers = [each for each in self._handlers if each[0].alive]
        for process, handler in self._handlers:
            delay_s = self._rng.uniform(0, _NEWS_S)
            self._loop.call_later(delay_s, handler, news, context=process.context())

    def seen_by(self, process: Process) -> "RosterMembership":
        return RosterMembership(self, process)

    def subscribe(self, process: Process, handler: Callable[[Member], None]) -> None:
        self._handlers.append((process, handler))


class RosterMembership:
    """A ``Membership`` for one process."""

    def __init__(self, roster: Roster, process: Process) -> None:
        self._roster = roster
        self._process = process

    def members(self) -> list[Member]:
        return self._roster.members

    def set_tags(self, tags: dict[str, str]) -> None:
        """Nobody would hear of it."""

    def on_change(self, handler: Callable[[Member], None]) -> None:
        self._roster.subscribe(self._process, handler)
