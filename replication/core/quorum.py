"""Majorities: the one place that knows how many voters it takes.

In a joint configuration it takes a majority of the new voters and one of the old (Raft §6): no two
majorities of adjacent configurations are without a common member.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeVar

from quorumlog.replication.core.members import Members
from quorumlog.types import NodeId

Value = TypeVar("Value", int, float)


class Tally(Enum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def agreed(members: Members, value_of: Callable[[NodeId], Value]) -> Value:
    """The largest value that every majority needed has reached; there is a voter at least."""
    value = _reached(members.voters, value_of)
    if members.outgoing:
        value = min(value, _reached(members.outgoing, value_of))
    return value


def tally(members: Members, votes: Mapping[NodeId, bool]) -> Tally:
    """Count ``votes`` (True: granted); those of nodes that are no voters do not count."""
    results = [_count(members.voters, votes)]
    if members.outgoing:
        results.append(_count(members.outgoing, votes))
    for result in (Tally.LOST, Tally.PENDING):
        if result in results:
            return result
    return Tally.WON


def _reached(voters: tuple[NodeId, ...], value_of: Callable[[NodeId], Value]) -> Value:
    values = sorted([value_of(voter) for voter in voters], reverse=True)
    return values[len(values) // 2]


def _count(voters: tuple[NodeId, ...], votes: Mapping[NodeId, bool]) -> Tally:
    needed = len(voters) // 2 + 1
    granted = refused = 0
    for voter in voters:
        vote = votes.get(voter)
        granted += vote is True
        refused += vote is False
    if granted >= needed:
        return Tally.WON
    return Tally.LOST if refused > len(voters) - needed else Tally.PENDING
