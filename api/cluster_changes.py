"""The calls of ``quorumlog.v1.Admin`` that change who belongs to what."""

from collections.abc import Iterable

from quorumlog.api._pb import quorumlog_pb2, quorumlog_pb2_grpc
from quorumlog.api.convert import settings_message, topic_message
from quorumlog.api.proposing import propose
from quorumlog.api.status import CallContext, aborting
from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.moves import Assignment, evacuation
from quorumlog.broker.port import BrokerPort
from quorumlog.broker.safety import (
    check_metadata_voters,
    check_moves,
    names_of,
    voters_without,
)
from quorumlog.broker.topics import NodeInfo, Standing
from quorumlog.errors import InvalidArgument, NotFound, UnsafeChange
from quorumlog.types import METADATA_GROUP, NodeId


class ClusterChanges(quorumlog_pb2_grpc.AdminServicer):
    """A part of :class:`~quorumlog.api.admin_service.AdminService`.

    Each call checks what is safe by this node's view, has the metadata decide, and returns: the
    moving itself is done by the leaders, in their own time. All may be repeated.
    """

    _broker: BrokerPort

    @aborting
    async def AssignReplicas(
        self, request: quorumlog_pb2.AssignReplicasRequest, context: CallContext
    ) -> quorumlog_pb2.Topic:
        metadata = self._broker.metadata
        partition = metadata.partition(request.topic, request.partition)
        wanted = tuple(known_node(metadata, node).id for node in request.replicas)
        if not wanted or len(set(wanted)) != len(wanted):
            raise InvalidArgument(
                f"name each node that is to have a replica of {request.topic}/{request.partition}, "
                f"at least one and each once, not {', '.join(request.replicas) or 'none'}"
            )
        self._check_takes([node for node in wanted if node not in partition.target])
        topic = metadata.topic(request.topic)
        led = await self._broker.led_groups([partition.group])
        check_moves(metadata, [(topic, partition, wanted)], self._broker.alive_nodes(), led)
        message = metadata_pb2.AssignReplicas(group=partition.group, wanted=wanted)
        await propose(self._broker, metadata_pb2.Command(assign_replicas=message))
        return topic_message(self._broker, metadata.topic(request.topic))

    @aborting
    async def AddVoter(
        self, request: quorumlog_pb2.AddVoterRequest, context: CallContext
    ) -> quorumlog_pb2.AddVoterResponse:
        metadata = self._broker.metadata
        node = known_node(metadata, request.node)
        voters = self._metadata_voters()
        if node.id in voters:
            return quorumlog_pb2.AddVoterResponse(voters=voters)
        if node.standing is not Standing.ACTIVE:
            raise InvalidArgument(f"node {node.name or node.id} is {node.standing}")
        wanted = tuple(sorted([*voters, node.id]))
        led = await self._broker.led_groups([METADATA_GROUP])
        check_metadata_voters(metadata, voters, wanted, self._broker.alive_nodes(), led)
        message = metadata_pb2.SetVoters(voters=wanted, voters_index=metadata.voters_index)
        await propose(self._broker, metadata_pb2.Command(set_voters=message))
        return quorumlog_pb2.AddVoterResponse(voters=wanted)

    @aborting
    async def RemoveNode(
        self, request: quorumlog_pb2.RemoveNodeRequest, context: CallContext
    ) -> quorumlog_pb2.RemoveNodeResponse:
        metadata, alive = self._broker.metadata, self._broker.alive_nodes()
        if metadata.is_removed(NodeId(request.node)):
            return quorumlog_pb2.RemoveNodeResponse()
        node = known_node(metadata, request.node)
        replacement = None
        if request.replacement:
            replacement = known_node(metadata, request.replacement).id
            if replacement == node.id:
                raise InvalidArgument(f"{node.name or node.id} cannot take its own place")
            if replacement not in alive:
                raise UnsafeChange(f"node {request.replacement} is not up: start it first")
            self._check_takes([replacement])
        moves = await self._evacuation(node, alive, replacement)
        present = self._metadata_voters()
        voters: tuple[NodeId, ...] = ()
        if node.id in present:
            led = await self._broker.led_groups([METADATA_GROUP])
            voters = voters_without(metadata, present, node.id, replacement, alive, led)
            check_metadata_voters(metadata, present, voters, alive, led)
        message = metadata_pb2.RemoveNode(
            node=node.id,
            replacement=replacement or "",
            candidates=self._takers(alive),
            voters=voters,
            voters_index=metadata.voters_index,
        )
        await propose(self._broker, metadata_pb2.Command(remove_node=message))
        return quorumlog_pb2.RemoveNodeResponse(moving=len(moves))

    @aborting
    async def DrainNode(
        self, request: quorumlog_pb2.DrainNodeRequest, context: CallContext
    ) -> quorumlog_pb2.DrainNodeResponse:
        metadata, alive = self._broker.metadata, self._broker.alive_nodes()
        node = known_node(metadata, request.node)
        moves: list[Assignment] = []
        if not request.undo:
            others = [each for each in alive if each != node.id and metadata.may_lead(each)]
            if not others:
                raise UnsafeChange("no other node is up that could lead: start one first")
            moves = await self._evacuation(node, alive, None) if request.replicas else []
        message = metadata_pb2.DrainNode(
            node=node.id,
            undo=request.undo,
            replicas=request.replicas,
            candidates=self._takers(alive),
        )
        await propose(self._broker, metadata_pb2.Command(drain_node=message))
        return quorumlog_pb2.DrainNodeResponse(moving=len(moves))

    @aborting
    async def AlterCluster(
        self, request: quorumlog_pb2.AlterClusterRequest, context: CallContext
    ) -> quorumlog_pb2.ClusterSettings:
        message = metadata_pb2.SetCluster()
        if request.HasField("replace_failed_after_s"):
            message.replace_failed_after_s = request.replace_failed_after_s
        await propose(self._broker, metadata_pb2.Command(set_cluster=message))
        return settings_message(self._broker.metadata.settings)

    async def _evacuation(
        self, node: NodeInfo, alive: Iterable[NodeId], replacement: NodeId | None
    ) -> list[Assignment]:
        """What the metadata will make of it, if nothing changes meanwhile; safe."""
        metadata, up = self._broker.metadata, list(alive)
        takers = metadata.takers(self._takers(up))
        moves = evacuation(metadata.topics(), node.id, takers, replacement)
        led = await self._broker.led_groups([partition.group for _, partition, _ in moves])
        check_moves(metadata, moves, up, led)
        return moves

    def _takers(self, alive: Iterable[NodeId]) -> list[NodeId]:
        """Those of ``alive`` that can take over a replica, as far as they say themselves."""
        lacking = self._broker.lacking_nodes()
        return [node for node in alive if node not in lacking]

    def _check_takes(self, nodes: Iterable[NodeId]) -> None:
        """Raise UnsafeChange where one of ``nodes`` cannot take over a replica."""
        lacking = self._broker.lacking_nodes()
        unable = [node for node in nodes if node in lacking]
        if unable:
            names = names_of(self._broker.metadata, unable)
            raise UnsafeChange(
                f"{names} lost the list of the partitions that it has had, and takes none that it "
                "may have had: choose another node, or replace this one by a new one"
            )

    def _metadata_voters(self) -> tuple[NodeId, ...]:
        """Who votes on the metadata, or is to. Sorted."""
        roles = self._broker.cluster_status().roles
        now = sorted(node for node, role in roles.items() if role == "voter")
        return self._broker.metadata.voters or tuple(NodeId(node) for node in now)


def known_node(metadata: MetadataState, name_or_id: str) -> NodeInfo:
    """The node of that id, or the only one of that name.

    Raises:
        NotFound: there is none; says which there are.
        InvalidArgument: several have the name.
    """
    by_id = metadata.node(NodeId(name_or_id))
    if by_id is not None:
        return by_id
    found = [node for node in metadata.nodes() if node.name == name_or_id]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidArgument(
            f"{len(found)} nodes are called {name_or_id}: name the id, one of "
            + ", ".join(node.id for node in found)
        )
    known = ", ".join(node.name or node.id for node in metadata.nodes())
    raise NotFound(f"there is no node {name_or_id!r}; there are {known}")
