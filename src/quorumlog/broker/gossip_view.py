"""What gossip says of the nodes of this cluster: proposals, never facts.

A member claims to be a node by its tags. Members of other clusters, and those that are no nodes
(Serf agents), are left out.
"""

from collections.abc import Callable, Iterable
from typing import Final

from quorumlog.ports import Member, Membership, MemberState
from quorumlog.types import NodeId

LACKS_TAG: Final = "lacks"
"""The tag of a node that lost the list of the groups that it has had: it opens none that it may
have had (:mod:`quorumlog.replication.group_list`), so it cannot take over a replica."""

RUNNING = (MemberState.ALIVE, MemberState.SUSPECT)
"""A suspicion changes nothing: a suspect may refute it."""


def claims_of(members: Iterable[Member], cluster_id: str) -> dict[NodeId, list[Member]]:
    """By node, sorted by name as ``members`` are, the members that claim to be it: those that run,
    and where none does one that did."""
    claims: dict[NodeId, list[Member]] = {}
    for member in members:
        node = member.tags.get("id")
        if node and member.tags.get("cluster") == cluster_id:
            claims.setdefault(NodeId(node), []).append(member)
    return {node: _running(claimed) or _latest(claimed) for node, claimed in claims.items()}


def _running(members: list[Member]) -> list[Member]:
    return [member for member in members if member.state in RUNNING]


def _latest(members: list[Member]) -> list[Member]:
    """Of several names that a node had, that under which it failed: it left under the others."""
    failed = [member for member in members if member.state is MemberState.FAILED]
    return (failed or members)[:1]


class GossipView:
    def __init__(self, membership: Membership, cluster_id: Callable[[], str]) -> None:
        self._membership = membership
        self._cluster_id = cluster_id

    def claims(self) -> dict[NodeId, list[Member]]:
        """See :func:`claims_of`."""
        return claims_of(self._membership.members(), self._cluster_id())

    def states(self) -> dict[NodeId, MemberState]:
        """By node; of several members that claim to be one, one that is alive counts."""
        states: dict[NodeId, MemberState] = {}
        for node, members in self.claims().items():
            found = {member.state for member in members}
            states[node] = next(state for state in MemberState if state in found)
        return states

    def is_alive(self, node: NodeId) -> bool:
        return self.states().get(node) is MemberState.ALIVE

    def lacking(self) -> set[NodeId]:
        """The nodes that say of themselves that they cannot take over a replica."""
        claims = self.claims().items()
        return {node for node, members in claims if any(LACKS_TAG in each.tags for each in members)}

    def address_of(self, node: NodeId) -> str | None:
        """Where the node's gRPC endpoint is; None: it does not run, or two claim to be it."""
        members = self.claims().get(node, [])
        if len(members) != 1 or members[0].state not in RUNNING:
            return None
        return members[0].tags.get("rpc")
