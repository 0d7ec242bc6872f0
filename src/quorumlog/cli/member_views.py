"""What gossip and the metadata say of the nodes, and where they do not say the same."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quorumlog.client.models import ClusterInfo, GossipMemberInfo, NodeInfo

_ABSENT = ("failed", "left")
_RUNNING = ("alive", "suspect")


def difference(node: "NodeInfo", info: "ClusterInfo") -> str | None:
    """Where gossip and the metadata do not say the same of ``node``; None: nowhere."""
    found = [
        _presence(node),
        f"gossip has {node.gossip_address}" if node.gossip_address else None,
        f"gossip calls it {node.gossip_name}" if node.gossip_name else None,
        _taken_name(node, info),
    ]
    return "; ".join(each for each in found if each) or None


def kind(member: "GossipMemberInfo", info: "ClusterInfo") -> str:
    """What a member of gossip is that is not among the nodes: agent, unformed, foreign, former."""
    if not member.id:
        return "agent"
    if not member.cluster_id:
        return "unformed"
    return "former" if member.cluster_id == info.cluster_id else "foreign"


def explanation(member: "GossipMemberInfo", info: "ClusterInfo") -> str:
    """Why it is not among the nodes."""
    node = next((each.name for each in info.nodes if each.id == member.id), member.id)
    return {
        "agent": "no node: a Serf agent, or another program",
        "unformed": "a node that is in no cluster yet",
        "foreign": f"a node of another cluster, {member.cluster_id}",
        "former": f"an earlier name of {node}",
    }[kind(member, info)]


def _presence(node: "NodeInfo") -> str | None:
    """Whether it is there, by both."""
    if node.standing == "removed":
        return "removed, and still runs" if node.state in _RUNNING else None
    if not node.standing:
        return "not registered yet"
    if node.claimed_by:
        return f"{' and '.join(node.claimed_by)} claim to be it: stop all but one"
    if node.presence not in _ABSENT:
        if node.state == "suspect":
            return "gossip suspects that it failed"
        return None if node.state == "alive" else "registered, and not there"
    if node.state in ("unknown", node.presence):
        # Gossip forgets who is gone for long: it says nothing else.
        return None
    if node.state == "alive":
        return f"on record as {node.presence}"
    return f"on record as {node.presence}, and gossip says {node.state}"


def _taken_name(node: "NodeInfo", info: "ClusterInfo") -> str | None:
    """Whether gossip has somebody else under its name: a machine that was emptied, above all."""
    if node.state in _RUNNING or not node.standing or node.standing == "removed":
        return None
    members = [(each.id, each.gossip_name or each.name, each.state) for each in info.nodes]
    members += [(each.id, each.name, each.state) for each in info.others]
    ids = [
        other or "no node"
        for other, name, state in members
        if state in _RUNNING and name == node.name and other != node.id
    ]
    return f"gossip has {' and '.join(ids)} under its name" if ids else None
