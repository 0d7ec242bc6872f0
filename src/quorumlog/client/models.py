"""What the client's calls return: plain values, free of protobuf."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.types import Offset


@dataclass(frozen=True, slots=True)
class RecordMetadata:
    """Where an acknowledged record stands.

    ``offset`` is None when the log has the record for certain, but this was acknowledged so long
    ago that the broker no longer knows where (a retry behind many later batches).
    """

    topic: str
    partition: int
    offset: int | None
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class RunMetadata:
    """Where an acknowledged run of records stands: ``[base_offset, base_offset + record_count)``.

    ``base_offset`` is None as in :class:`RecordMetadata`.
    """

    topic: str
    partition: int
    base_offset: int | None
    record_count: int
    timestamp_ms: int

    @property
    def last_offset(self) -> int | None:
        return None if self.base_offset is None else self.base_offset + self.record_count - 1


@dataclass(frozen=True, slots=True)
class SendSummary:
    """What ``send_many`` did: every one of ``record_count`` records is acknowledged."""

    record_count: int
    last_offsets: Mapping[int, int | None]
    """The offset of the last record of this call, by partition."""


class ConsumedRecord(NamedTuple):
    """A record and where it came from; the first five fields are those of ``Record``."""

    offset: Offset
    value: bytes | None
    key: bytes | None
    headers: Mapping[str, bytes]
    timestamp_ms: int
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """The records a partition has: ``[start, end)``."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """A partition as the answering node knows it; offsets are ``exact`` when that is its leader.

    ``leader``, ``replicas`` and ``wanted`` are node ids; ``leader`` is None while there is none
    known, ``wanted`` is where the replicas are moving to, empty when they stay.
    """

    partition: int
    leader: str | None
    replicas: tuple[str, ...]
    term: int
    log_start_offset: int
    high_watermark: int
    exact: bool
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic and its settings; what they mean: ``AsyncClient.create_topic``.

    A limit of -1 is none; ``segment_bytes`` -1 is what the nodes are set to.
    """

    name: str
    replicas: int
    fsync: str
    partitions: tuple[PartitionInfo, ...]
    retention_ms: int = -1
    retention_bytes: int = -1
    retention_records: int = -1
    segment_bytes: int = -1


@dataclass(frozen=True, slots=True)
class ReplacementInfo:
    """A node that the metadata's leader does not hear: how far its replacement is.

    ``stage`` is counting (``remaining_s`` to go), moving, refused (``reason`` says why) or
    replaced. ``silent_s`` is by that leader's own observation; ``partitions`` are those that the
    node has a replica of still.
    """

    stage: str
    silent_s: float
    remaining_s: float
    partitions: int
    reason: str


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node of the cluster: ``address`` is its gRPC endpoint, ``state`` what gossip sees.

    ``standing`` is what the metadata say: active, draining, leaving, removed, or empty.
    ``replacement`` is set while failed nodes are replaced and this one is not heard. ``rack`` is
    what gossip has of it, empty where it says none. ``presence`` is what the metadata have on
    record: present, left or failed, or empty; ``absent_since_ms`` when it was last heard, in ms
    since 1970, 0 while it is present. ``claimed_by`` names the members of gossip that claim to be
    this node, where several run. ``gossip_address`` and ``gossip_name`` are what gossip has, where
    that is something else.
    """

    id: str
    name: str
    address: str
    role: str
    state: str
    version: str
    leads: int
    replicas: int
    gossip_address: str
    standing: str = ""
    replacement: ReplacementInfo | None = None
    rack: str = ""
    presence: str = ""
    absent_since_ms: int = 0
    claimed_by: tuple[str, ...] = ()
    gossip_name: str = ""


@dataclass(frozen=True, slots=True)
class GossipMemberInfo:
    """A member of gossip that is no node of this cluster, or was one under this name.

    ``gossip`` is its endpoint there. What it says of itself is empty where it says nothing: ``id``
    of its node (a Serf agent has none), ``cluster_id`` (a node in no cluster yet has none),
    ``address`` of its gRPC endpoint, ``version``, ``rack``.
    """

    id: str
    name: str
    address: str
    state: str
    version: str
    rack: str
    cluster_id: str
    gossip: str


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What holds for the whole cluster; see ``AsyncClient.alter_cluster``."""

    replace_failed_after_s: int = 0


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """The cluster as node ``node_id`` knows it; ``leader`` is that of the metadata group.
    ``others`` are members of its gossip that ``nodes`` do not show."""

    cluster_id: str
    node_id: str
    version: str
    leader: str | None
    term: int
    commit_index: int
    topics: int
    partitions: int
    partitions_without_leader: int
    nodes: tuple[NodeInfo, ...] = field(default_factory=tuple)
    partitions_moving: int = 0
    settings: ClusterSettings = field(default_factory=ClusterSettings)
    others: tuple[GossipMemberInfo, ...] = ()


def partition_info(message: pb.Partition) -> PartitionInfo:
    return PartitionInfo(
        message.partition,
        message.leader or None,
        tuple(message.replicas),
        message.term,
        message.log_start_offset,
        message.high_watermark,
        message.exact,
        tuple(message.wanted),
    )


def topic_info(message: pb.Topic) -> TopicInfo:
    config = message.config
    return TopicInfo(
        message.name,
        message.replicas,
        config.fsync,
        tuple(partition_info(partition) for partition in message.partitions),
        config.retention_ms if config.HasField("retention_ms") else -1,
        config.retention_bytes if config.HasField("retention_bytes") else -1,
        config.retention_records if config.HasField("retention_records") else -1,
        config.segment_bytes if config.HasField("segment_bytes") else -1,
    )


def cluster_info(message: pb.ClusterStatus) -> ClusterInfo:
    return ClusterInfo(
        message.cluster_id,
        message.node_id,
        message.version,
        message.leader or None,
        message.term,
        message.commit_index,
        message.topics,
        message.partitions,
        message.partitions_without_leader,
        tuple(
            NodeInfo(
                node.id,
                node.name,
                node.address,
                node.role,
                node.state,
                node.version,
                node.leads,
                node.replicas,
                node.gossip_address,
                node.standing,
                _replacement_info(node.replacement) if node.HasField("replacement") else None,
                node.rack,
                node.presence,
                node.absent_since_ms,
                tuple(node.claimed_by),
                node.gossip_name,
            )
            for node in message.nodes
        ),
        message.partitions_moving,
        cluster_settings(message.settings),
        tuple(_gossip_member_info(each) for each in message.others),
    )


def _gossip_member_info(message: pb.GossipMember) -> GossipMemberInfo:
    return GossipMemberInfo(
        message.node_id,
        message.name,
        message.address,
        message.state,
        message.version,
        message.rack,
        message.cluster_id,
        message.gossip,
    )


def cluster_settings(message: pb.ClusterSettings) -> ClusterSettings:
    return ClusterSettings(message.replace_failed_after_s)


def _replacement_info(message: pb.Replacement) -> ReplacementInfo:
    return ReplacementInfo(
        message.stage,
        message.silent_s,
        message.remaining_s,
        message.partitions,
        message.reason,
    )
