"""``quorumlog.v1.Admin``: topics, cluster status, routing, leadership."""

from collections import Counter
from typing import Final

from quorumlog.api._pb import quorumlog_pb2
from quorumlog.api.cluster_changes import ClusterChanges
from quorumlog.api.convert import node_message, settings_message, topic_config, topic_message
from quorumlog.api.proposing import propose
from quorumlog.api.replacements import replacement_message
from quorumlog.api.status import CallContext, aborting
from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.gossip_view import claims_of
from quorumlog.broker.metadata import MetadataState
from quorumlog.broker.moves import resized
from quorumlog.broker.port import BrokerPort, ClusterView
from quorumlog.broker.replacement import Replacement
from quorumlog.broker.safety import check_moves, names_of
from quorumlog.broker.topics import NodeInfo
from quorumlog.errors import InvalidArgument, Unavailable
from quorumlog.ports import Member
from quorumlog.types import NodeId

DEFAULT_REPLICAS: Final = 3


class AdminService(ClusterChanges):
    """Every node answers: changes go by way of the metadata's leader, reads come from here."""

    def __init__(self, broker: BrokerPort) -> None:
        self._broker = broker

    # ------------------------------------------------------------------------------------ topics

    @aborting
    async def CreateTopic(
        self, request: quorumlog_pb2.CreateTopicRequest, context: CallContext
    ) -> quorumlog_pb2.Topic:
        await self._propose(create_topic(self._broker, request))
        return self._describe(request.name)

    @aborting
    async def AlterTopic(
        self, request: quorumlog_pb2.AlterTopicRequest, context: CallContext
    ) -> quorumlog_pb2.Topic:
        alive = candidates = self._broker.alive_nodes()
        if request.replicas:
            metadata, candidates = self._broker.metadata, self._takers(alive)
            topic, takers = metadata.topic(request.name), metadata.takers(candidates)
            moves = resized(metadata.topics(), topic, request.replicas, takers)
            led = await self._broker.led_groups([partition.group for _, partition, _ in moves])
            check_moves(metadata, moves, alive, led)
        command = metadata_pb2.AlterTopic(
            name=request.name,
            partitions=request.partitions,
            config=topic_config(request.config),
            candidates=candidates,
            replicas=request.replicas,
        )
        await self._propose(metadata_pb2.Command(alter_topic=command))
        return self._describe(request.name)

    @aborting
    async def DeleteTopic(
        self, request: quorumlog_pb2.DeleteTopicRequest, context: CallContext
    ) -> quorumlog_pb2.DeleteTopicResponse:
        command = metadata_pb2.DeleteTopic(name=request.name)
        await self._propose(metadata_pb2.Command(delete_topic=command))
        return quorumlog_pb2.DeleteTopicResponse()

    @aborting
    async def DescribeTopic(
        self, request: quorumlog_pb2.DescribeTopicRequest, context: CallContext
    ) -> quorumlog_pb2.Topic:
        return self._describe(request.name)

    @aborting
    async def ListTopics(
        self, request: quorumlog_pb2.ListTopicsRequest, context: CallContext
    ) -> quorumlog_pb2.ListTopicsResponse:
        topics = self._broker.metadata.topics()
        return quorumlog_pb2.ListTopicsResponse(
            topics=[topic_message(self._broker, topic) for topic in topics]
        )

    @aborting
    async def DeleteBefore(
        self, request: quorumlog_pb2.DeleteBeforeRequest, context: CallContext
    ) -> quorumlog_pb2.DeleteBeforeResponse:
        start = await self._broker.delete_before(request.topic, request.partition, request.offset)
        return quorumlog_pb2.DeleteBeforeResponse(log_start_offset=start)

    async def _propose(self, command: metadata_pb2.Command) -> None:
        await propose(self._broker, command)

    def _describe(self, name: str) -> quorumlog_pb2.Topic:
        return topic_message(self._broker, self._broker.metadata.topic(name))

    # ----------------------------------------------------------------------------------- cluster

    @aborting
    async def Status(
        self, request: quorumlog_pb2.ClusterStatusRequest, context: CallContext
    ) -> quorumlog_pb2.ClusterStatus:
        """Answers also while this node knows nothing but its peers: who asks wants to know why."""
        view = self._broker.cluster_status()
        metadata = self._metadata_known()
        topics = metadata.topics()
        partitions = [partition for topic in topics for partition in topic.partitions]
        leaders = [self._broker.partition_status(each.group).leader for each in partitions]
        nodes = nodes_of(view, metadata)
        this_node = next((node for node in nodes if node.id == self._broker.node_id), None)
        leads = Counter(leaders)
        holds = Counter(node for each in partitions for node in each.replicas)
        replacements = await self._replacements()
        for node in nodes:
            if node.id in replacements:
                node.replacement.CopyFrom(replacement_message(replacements[node.id]))
            node.leads = leads[NodeId(node.id)]
            node.replicas = holds[NodeId(node.id)]
        return quorumlog_pb2.ClusterStatus(
            cluster_id=view.cluster_id,
            node_id=self._broker.node_id,
            version=this_node.version if this_node is not None else "",
            nodes=nodes,
            leader=view.leader or "",
            term=view.term,
            commit_index=view.commit_index,
            topics=len(topics),
            partitions=len(partitions),
            partitions_without_leader=leads[None],
            partitions_moving=sum(bool(each.wanted) for each in partitions),
            settings=settings_message(metadata.settings),
            others=others_of(view),
        )

    @aborting
    async def GetMetadata(
        self, request: quorumlog_pb2.MetadataRequest, context: CallContext
    ) -> quorumlog_pb2.Metadata:
        metadata = self._broker.metadata
        view = self._broker.cluster_status()
        names = sorted(set(request.topics)) or [topic.name for topic in metadata.topics()]
        return quorumlog_pb2.Metadata(
            cluster_id=view.cluster_id,
            nodes=nodes_of(view, metadata),
            topics=[self._describe(name) for name in names if metadata.has_topic(name)],
            unknown_topics=[name for name in names if not metadata.has_topic(name)],
        )

    @aborting
    async def TransferLeadership(
        self, request: quorumlog_pb2.TransferLeadershipRequest, context: CallContext
    ) -> quorumlog_pb2.TransferLeadershipResponse:
        metadata = self._broker.metadata
        partition = metadata.partition(request.topic, request.partition)
        target = NodeId(request.target) if request.target else None
        if target is not None and target not in partition.holders:
            raise InvalidArgument(
                f"{names_of(metadata, [target])} has no replica of "
                f"{request.topic}/{request.partition}: its replicas are on "
                f"{names_of(metadata, partition.replicas)}"
            )
        leader = await self._broker.transfer_leadership(request.topic, request.partition, target)
        return quorumlog_pb2.TransferLeadershipResponse(leader=leader)

    async def _replacements(self) -> dict[str, Replacement]:
        """By node; empty where this node knows nothing yet."""
        try:
            return {each.node: each for each in await self._broker.replacements()}
        except Unavailable:
            return {}

    def _metadata_known(self) -> MetadataState:
        """Empty while this node has not caught up: its view is asked for just then."""
        try:
            return self._broker.metadata
        except Unavailable:
            return MetadataState()


def nodes_of(view: ClusterView, metadata: MetadataState) -> list[quorumlog_pb2.Node]:
    """Every node of the cluster, sorted by id: registered, member of the metadata group, or seen.

    What is registered goes before what gossip says; where names or addresses differ both are shown.
    """
    registered = {node.id: node for node in metadata.nodes()}
    claims = claims_of(view.members, view.cluster_id)
    nodes = []
    for node_id in sorted({*registered, *view.roles, *claims}):
        node, claimed = registered.get(node_id), claims.get(node_id, [])
        member = next(iter(claimed), None)
        tags = member.tags if member is not None else {}
        if node is None:
            name = member.name if member is not None else ""
            node = NodeInfo(node_id, name, tags.get("rpc", ""), tags.get("ver", ""))
        message = node_message(node)
        message.role = view.roles.get(node_id, "")
        if node_id in registered:
            message.standing = node.standing
            message.presence = node.presence
            message.absent_since_ms = node.absent_since_ms
        elif metadata.is_removed(node_id):
            message.standing = "removed"
        if member is not None:
            message.gossip_name = member.name if member.name != node.name else ""
            message.state = member.state.value
            message.rack = tags.get("rack", "")
        address = tags.get("rpc", "")
        message.gossip_address = address if address != node.address else ""
        if len(claimed) > 1:
            message.claimed_by.extend(each.name for each in claimed)
        nodes.append(message)
    return nodes


def others_of(view: ClusterView) -> list[quorumlog_pb2.GossipMember]:
    """The members of gossip that :func:`nodes_of` does not show, sorted by name."""
    claims = claims_of(view.members, view.cluster_id).values()
    shown = {member.name for claimed in claims for member in claimed}
    return [
        quorumlog_pb2.GossipMember(
            name=member.name,
            gossip=_gossip_endpoint(member),
            state=member.state.value,
            node_id=member.tags.get("id", ""),
            cluster_id=member.tags.get("cluster", ""),
            address=member.tags.get("rpc", ""),
            version=member.tags.get("ver", ""),
            rack=member.tags.get("rack", ""),
        )
        for member in view.members
        if member.name not in shown
    ]


def _gossip_endpoint(member: Member) -> str:
    host = f"[{member.address}]" if ":" in member.address else member.address
    return f"{host}:{member.port}"


def create_topic(
    broker: BrokerPort, request: quorumlog_pb2.CreateTopicRequest
) -> metadata_pb2.Command:
    """The command, with the defaults in the places of zeros and the candidates of this moment.

    Raises:
        Unavailable: the cluster has nodes enough, and not all of them are up.
    """
    candidates = broker.alive_nodes()
    known = {*broker.cluster_status().roles, *(node.id for node in broker.metadata.nodes())}
    replicas = request.replicas or max(1, min(DEFAULT_REPLICAS, len(known)))
    if len(candidates) < replicas <= len(known):
        raise Unavailable(
            f"{replicas} replicas need as many live nodes, and {len(candidates)} of {len(known)} "
            "are up: try again when the others are, or ask for fewer replicas"
        )
    command = metadata_pb2.CreateTopic(
        name=request.name,
        partitions=request.partitions or 1,
        replicas=replicas,
        config=topic_config(request.config),
        candidates=candidates,
    )
    return metadata_pb2.Command(create_topic=command)
