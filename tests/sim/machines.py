"""All nodes of a simulation: those it began with, those that came, and those that are gone."""

from collections.abc import Callable

from quorumlog.broker.metadata import MetadataState
from quorumlog.types import NodeId
from sim.membership import member
from sim.node import SimNode, World
from sim.swarm import rng_for


def address_of(node: NodeId) -> str:
    return f"{node}:7400"


class Machines:
    """``nodes`` is by name, in the order they came; ``addresses`` and ``servers``, which clients
    are given, grow with it, as by DNS."""

    def __init__(self, world: World, seed: int) -> None:
        """Those that ``world`` begins with; none is started."""
        self.nodes: dict[NodeId, SimNode] = {}
        self.addresses: dict[NodeId, str] = {}
        self.servers: list[str] = []
        self.on_join: Callable[[SimNode], None] = lambda node: None
        """Called with a node that comes, before it starts."""
        self._world = world
        self._seed = seed
        for name in world.voters.voters:
            self._add(name)

    def _add(self, name: NodeId) -> SimNode:
        address = self.addresses[name] = address_of(name)
        self.servers.append(address)
        rng = rng_for(self._seed, f"node {name}")
        node = self.nodes[name] = SimNode(self._world, name, address, rng)
        return node

    @property
    def members(self) -> list[SimNode]:
        """Those that were not removed, by committed metadata."""
        return [node for node in self.nodes.values() if not node.gone]

    @property
    def metadata(self) -> MetadataState:
        """The newest that any of them knows."""
        return max(
            (node.metadata for node in self.nodes.values()),
            key=lambda metadata: metadata.applied_index,
        )

    def join(self) -> NodeId:
        """Start a node on an empty disk, in a moment; its name."""
        node = self._add(NodeId(f"n{len(self.nodes) + 1}"))
        self.on_join(node)
        self._world.roster.join(member(node.node_id, node.address))
        self._world.loop.call_outside(0.0, node.start)
        return node.node_id

    def may_bury(self, name: NodeId) -> bool:
        """Whether every group keeps a majority without it, wherever its change of members stands:
        as any log has it, and as the metadata want it."""
        lost = {node.node_id for node in self.nodes.values() if node.is_lost} | {name}
        metadata = self.metadata
        electorates = [
            metadata.voters,
            *(each.target for topic in metadata.topics() for each in topic.partitions),
        ]
        for node in self.members:
            for replica in node.host.replicas.values() if node.host else ():
                members = replica.core.members
                electorates += [members.voters, members.outgoing]
        return all(2 * len(lost.intersection(each)) < max(1, len(each)) for each in electorates)

    def bury(self, name: NodeId) -> None:
        """Let it die in a moment, and never start again."""
        self._world.loop.call_outside(0.0, self.nodes[name].bury)
