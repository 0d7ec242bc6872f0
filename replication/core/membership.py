"""The way from one configuration to the next (Raft §6).

::

    C_old ---> joint (C_new, C_old) ---> C_new
               appended on request       appended by whoever leads once the joint one is committed

When the voters stay as they are there is nothing to join: C_new is appended at once.
"""

from quorumlog.errors import InvalidArgument
from quorumlog.replication.core.members import Members
from quorumlog.types import NodeId


def step_towards(target: Members, current: Members) -> Members:
    """The configuration to append on the way from ``current``, a final one, to ``target``.

    Raises:
        InvalidArgument: ``target`` is no final configuration, has no voters, or makes a voter of
            somebody who is not even a learner.
    """
    if target.outgoing:
        raise InvalidArgument("a change names where it leads to: voters and learners only")
    if not target.voters:
        raise InvalidArgument("a group needs at least one voter")
    for node_id in new_voters(target, current):
        if node_id not in current.learners:
            raise InvalidArgument(f"{node_id} has to be a learner before it becomes a voter")
    if target.voters == current.voters:
        return target
    return Members(target.voters, target.learners, current.voters)


def new_voters(target: Members, current: Members) -> tuple[NodeId, ...]:
    return tuple(node_id for node_id in target.voters if node_id not in current.voters)
