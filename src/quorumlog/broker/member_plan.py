"""The way of a group from the members it has to those it is to have: pure.

New voters are learners first. The change of the voters is one step (joint consensus, Raft §6),
taken once all of the new ones have caught up, and only where a majority of the voters then is up:
a group never waits for who is not there.
"""

from collections.abc import Callable, Collection

from quorumlog.replication.core.members import Members
from quorumlog.types import NodeId


def next_members(
    current: Members,
    voters: Collection[NodeId],
    learners: Collection[NodeId],
    has_caught_up: Callable[[NodeId], bool],
    is_alive: Callable[[NodeId], bool],
) -> Members | None:
    """The configuration to ask for now; None when there is nothing to do, or to wait for.

    Args:
        current: the group's, committed.
        voters: those it is to have in the end; not empty.
        learners: those who are to follow it besides; who becomes a voter need not be named.
        has_caught_up: asked of learners that are to vote.
        is_alive: asked of ``voters``.
    """
    if current.outgoing:
        return None
    joining = [node for node in voters if node not in current.voters]
    besides = {node for node in learners if node not in voters}
    if joining:
        following = tuple(sorted({*joining, *besides} - set(current.voters)))
        if following != current.learners:
            return Members(current.voters, following)
        if not all(has_caught_up(node) for node in joining):
            return None
    alive = sum(is_alive(node) for node in voters)
    if set(voters) != set(current.voters) and alive <= len(voters) // 2:
        return None
    target = Members(tuple(voters), tuple(besides))
    return target if target != current else None
