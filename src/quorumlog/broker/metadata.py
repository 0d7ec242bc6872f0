"""The state machine of the metadata group (group 0): nodes, topics, placement, producer ids.

A function of the group's COMMAND batches alone: every node that applied the same ones has the same
state. Commands: ``_pb/metadata.proto``.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from quorumlog.broker import metadata_snapshot
from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.metadata_changes import (
    Applied,
    Change,
    NodeChanged,
    PartitionAdded,
    PartitionRemoved,
    TopicChanged,
    TopicRemoved,
    topic_changes,
)
from quorumlog.broker.metadata_command import check_command, parse_command
from quorumlog.broker.metadata_snapshot import Contents
from quorumlog.broker.placement import Load, place
from quorumlog.broker.topic_config import TopicConfig
from quorumlog.broker.topics import (
    MAX_PARTITIONS,
    NodeInfo,
    PartitionInfo,
    Topic,
    check_replica_count,
)
from quorumlog.errors import (
    InvalidArgument,
    InvariantViolation,
    NotFound,
    PartitionOutOfRange,
    TopicExists,
    UnknownTopic,
)
from quorumlog.rpc_status import error_from
from quorumlog.types import GroupId, NodeId


def raise_for(result: metadata_pb2.Result) -> metadata_pb2.Result:
    """``result`` when the command was done; otherwise raise the error it tells, of its own type."""
    if result.error:
        raise error_from(result.error, result.message, result.details)
    return result


class MetadataState:
    """Apply commands in log order; read at any time; observe what changed.

    ``next_group`` and ``next_producer_id`` are the ids given out next: from 1, never used again.
    """

    def __init__(self) -> None:
        self.applied_index = 0
        self.next_group = 1
        self.next_producer_id = 1
        self._nodes: dict[NodeId, NodeInfo] = {}
        self._topics: dict[str, Topic] = {}
        self._groups: dict[GroupId, PartitionInfo] = {}
        self._observers: list[Callable[[Change], None]] = []

    # ------------------------------------------------------------------------------------- reads

    def topic(self, name: str) -> Topic:
        """Raises UnknownTopic."""
        topic = self._topics.get(name)
        if topic is None:
            raise UnknownTopic(name)
        return topic

    def partition(self, topic: str, partition: int) -> PartitionInfo:
        """Raises UnknownTopic, PartitionOutOfRange."""
        partitions = self.topic(topic).partitions
        if not 0 <= partition < len(partitions):
            raise PartitionOutOfRange(topic, partition, len(partitions))
        return partitions[partition]

    def group(self, group: GroupId) -> PartitionInfo | None:
        """The partition that ``group`` holds, if there is one; one look-up."""
        return self._groups.get(group)

    def has_topic(self, name: str) -> bool:
        return name in self._topics

    def topics(self) -> list[Topic]:
        """Sorted by name."""
        return [self._topics[name] for name in sorted(self._topics)]

    def node(self, node_id: NodeId) -> NodeInfo | None:
        return self._nodes.get(node_id)

    def nodes(self) -> list[NodeInfo]:
        """Sorted by id."""
        return [self._nodes[node_id] for node_id in sorted(self._nodes)]

    def groups_of(self, node_id: NodeId) -> list[tuple[Topic, PartitionInfo]]:
        """The partitions ``node_id`` has a replica of, sorted by group. Looks at all partitions."""
        held = [
            (topic, partition)
            for topic in self._topics.values()
            for partition in topic.partitions
            if node_id in partition.replicas
        ]
        return sorted(held, key=lambda pair: pair[1].group)

    def on_change(self, observer: Callable[[Change], None]) -> Callable[[], None]:
        """Call ``observer`` for each change, after the state has it; returns how to stop that."""
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    # ------------------------------------------------------------------------------------ writes

    def apply(self, command: bytes, index: int) -> metadata_pb2.Result:
        """Apply the command at ``index``; a refused one changes nothing and says why.

        Raises:
            InvariantViolation: the command is not one this release knows in full. Other releases
                would apply it, so going on would part this node's state from theirs. (The
                leader refuses such a command before it is in the log: :func:`check_command`.)
        """
        try:
            parsed = parse_command(command)
        except InvalidArgument as error:
            raise InvariantViolation(
                f"the metadata command at index {index} cannot be applied by this release, "
                f"upgrade this node: {error}"
            ) from error
        result = metadata_pb2.Result(index=index)
        changes: list[Change] = []
        try:
            check_command(parsed)
            changes = self._dispatch(parsed, result)
        except (InvalidArgument, NotFound, TopicExists) as error:
            result = metadata_pb2.Result(
                error=error.reason, message=str(error), details=error.details(), index=index
            )
        self.applied_index = index
        self._notify([*changes, Applied(index)])
        return result

    def _dispatch(self, command: metadata_pb2.Command, result: metadata_pb2.Result) -> list[Change]:
        match command.WhichOneof("command"):
            case "register_node":
                return self._register_node(command.register_node.node)
            case "create_topic":
                return self._create_topic(command.create_topic)
            case "alter_topic":
                return self._alter_topic(command.alter_topic)
            case "delete_topic":
                return self._delete_topic(command.delete_topic)
            case "allocate_producer":
                result.producer_id = self.next_producer_id
                self.next_producer_id += 1
                return []
            case other:
                raise InvariantViolation(f"metadata command {other} has no rule")

    def _register_node(self, message: metadata_pb2.Node) -> list[Change]:
        node = NodeInfo(NodeId(message.id), message.name, message.address, message.version)
        if self._nodes.get(node.id) == node:
            return []
        self._nodes[node.id] = node
        return [NodeChanged(node)]

    def _create_topic(self, message: metadata_pb2.CreateTopic) -> list[Change]:
        if message.name in self._topics:
            raise TopicExists(message.name)
        config = TopicConfig().changed_by(message.config)
        topic = Topic(message.name, message.replicas, config, ())
        return self._grow(topic, message.partitions, message.candidates)

    def _alter_topic(self, message: metadata_pb2.AlterTopic) -> list[Change]:
        topic = self.topic(message.name)
        partitions = message.partitions or len(topic.partitions)
        if partitions < len(topic.partitions):
            raise InvalidArgument(
                f"topic {topic.name!r} has {len(topic.partitions)} partitions and cannot have "
                f"fewer: records would be lost"
            )
        altered = replace(topic, config=topic.config.changed_by(message.config))
        if altered == topic and partitions == len(topic.partitions):
            return []
        return self._grow(altered, partitions, message.candidates)

    def _grow(self, topic: Topic, partitions: int, candidates: Iterable[str]) -> list[Change]:
        """Store ``topic`` with as many new partitions as it lacks of ``partitions``."""
        missing = partitions - len(topic.partitions)
        added: list[PartitionInfo] = []
        if missing:
            total = sum(len(each.partitions) for each in self._topics.values())
            if total + missing > MAX_PARTITIONS:
                raise InvalidArgument(
                    f"the cluster has {total} partitions and can have {MAX_PARTITIONS}"
                )
            nodes = [NodeId(node) for node in candidates]
            check_replica_count(topic.replicas, len(set(nodes)))
            added = [
                PartitionInfo(len(topic.partitions) + at, GroupId(self.next_group + at), replicas)
                for at, replicas in enumerate(place(missing, topic.replicas, nodes, self._load()))
            ]
            self.next_group += missing
        grown = replace(topic, partitions=(*topic.partitions, *added))
        self._topics[topic.name] = grown
        self._groups.update((each.group, each) for each in added)
        return [TopicChanged(grown), *(PartitionAdded(grown, each) for each in added)]

    def _load(self) -> Load:
        load = Load()
        for topic in self._topics.values():
            for partition in topic.partitions:
                load.add(partition.replicas)
        return load

    def _delete_topic(self, message: metadata_pb2.DeleteTopic) -> list[Change]:
        topic = self.topic(message.name)
        del self._topics[topic.name]
        for each in topic.partitions:
            del self._groups[each.group]
        removed: list[Change] = [PartitionRemoved(topic, each) for each in topic.partitions]
        return [*removed, TopicRemoved(topic)]

    # --------------------------------------------------------------------------------- snapshots

    def snapshot(self) -> bytes:
        """The whole state; equal states give equal bytes."""
        return metadata_snapshot.encode(
            Contents(
                self.applied_index,
                self.next_group,
                self.next_producer_id,
                tuple(self.nodes()),
                tuple(self.topics()),
            )
        )

    def restore(self, snapshot: bytes) -> None:
        """Become the state of ``snapshot``; observers hear what is different from before.

        Raises:
            ProtocolError: it is not a snapshot this release can read; nothing changed.
        """
        contents = metadata_snapshot.decode(snapshot)
        nodes, topics = self._nodes, self._topics
        self.applied_index = contents.applied_index
        self.next_group = contents.next_group
        self.next_producer_id = contents.next_producer_id
        self._nodes = {node.id: node for node in contents.nodes}
        self._topics = {topic.name: topic for topic in contents.topics}
        self._groups = {each.group: each for topic in contents.topics for each in topic.partitions}
        changes: list[Change] = [
            NodeChanged(node) for node in contents.nodes if nodes.get(node.id) != node
        ]
        changes += topic_changes(topics, self._topics)
        self._notify([*changes, Applied(self.applied_index)])

    def _notify(self, changes: Iterable[Change]) -> None:
        for change in changes:
            for observer in tuple(self._observers):
                observer(change)
