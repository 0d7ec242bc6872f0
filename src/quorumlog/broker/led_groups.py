"""Groups as their leaders see them: who votes in them, and whose replicas do not answer.

The metadata say where replicas are to be, and gossip which nodes are up. Only a group's leader
knows who its voters are while they change, and that a node is up whose replica is fenced or closed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from quorumlog.types import GroupId, NodeId


@dataclass(frozen=True, slots=True)
class LedGroup:
    """What a group's leader in ``term`` sees. ``outgoing``: the voters before, while they change;
    ``silent``: the members, learners too, whose replicas do not answer it."""

    term: int
    voters: tuple[NodeId, ...]
    outgoing: tuple[NodeId, ...] = ()
    silent: frozenset[NodeId] = frozenset()


LedGroups = Mapping[GroupId, LedGroup | None]
"""None: every node that is up says that it does not lead the group. What is not in it is not known:
a node did not answer."""
