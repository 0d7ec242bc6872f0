"""Majorities: the one place that knows how many voters it takes."""

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
    """The largest value that a majority of the voters, of whom there is one at least, reached."""
    values = sorted([value_of(voter) for voter in members.voters], reverse=True)
    return values[len(values) // 2]


def tally(members: Members, votes: Mapping[NodeId, bool]) -> Tally:
    """Count ``votes`` (True: granted); those of nodes that are no voters do not count."""
    needed = len(members.voters) // 2 + 1
    granted = refused = 0
    for voter in members.voters:
        vote = votes.get(voter)
        granted += vote is True
        refused += vote is False
    if granted >= needed:
        return Tally.WON
    return Tally.LOST if refused > len(members.voters) - needed else Tally.PENDING
