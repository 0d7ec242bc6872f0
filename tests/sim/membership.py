"""Gossip that is always right about who is there, and never says that anybody died."""

import random
from collections.abc import Callable, Sequence
from typing import Final

from quorumlog.ports import Member, MemberState
from quorumlog.types import NodeId
from sim.loop import SimLoop
from sim.process import Process

CLUSTER_ID = "simulated"

_NEWS_S: Final = 0.5
"""Within it every process hears of a node that joined."""


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

    def __init__(self, loop: SimLoop, rng: random.Random, members: Sequence[Member]) -> None:
        self._loop = loop
        self._rng = rng
        self._members = list(members)
        self._handlers: list[tuple[Process, Callable[[Member], None]]] = []

    @property
    def members(self) -> list[Member]:
        return sorted(self._members, key=lambda each: each.name)

    def join(self, newcomer: Member) -> None:
        """``newcomer`` is there; handlers hear of it a little later, each in its own process."""
        self._members.append(newcomer)
        self._handlers = [each for each in self._handlers if each[0].alive]
        for process, handler in self._handlers:
            delay_s = self._rng.uniform(0, _NEWS_S)
            self._loop.call_later(delay_s, handler, newcomer, context=process.context())

    def seen_by(self, process: Process) -> "RosterMembership":
        return RosterMembership(self, process)

    def subscribe(self, process: Process, handler: Callable[[Member], None]) -> None:
        self._handlers.append((process, handler))


class RosterMembership:
    """A ``Membership`` for one process: members come, and never seem to go."""

    def __init__(self, roster: Roster, process: Process) -> None:
        self._roster = roster
        self._process = process

    def members(self) -> list[Member]:
        return self._roster.members

    def set_tags(self, tags: dict[str, str]) -> None:
        """Nobody would hear of it."""

    def on_change(self, handler: Callable[[Member], None]) -> None:
        self._roster.subscribe(self._process, handler)
