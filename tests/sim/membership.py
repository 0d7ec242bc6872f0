"""Gossip that is always right: a fixed list of members, all alive."""

from collections.abc import Callable, Sequence

from quorumlog.ports import Member, MemberState
from quorumlog.types import NodeId

CLUSTER_ID = "simulated"


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
