"""The state machine of the metadata group (group 0): nodes, topics, placement, producer ids.

A function of the group's COMMAND batches alone: every node that applied the same ones has the same
state. Commands: ``_pb/metadata.proto``.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from quorumlog.broker import metadata_snapshot
from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.cluster_settings import ClusterSettings
from quorumlog.broker.metadata_changes import (
    Applied,
    Change,
    NodeForgotten,
    VotersChanged,
    node_change,
    node_changes,
    topic_changes,
)
from quorumlog.broker.metadata_command import check_command, parse_command
from quorumlog.broker.metadata_snapshot import Contents
from quorumlog.broker.moves import Assignment, assigned, evacuation, load_of, moved, resized
from quorumlog.broker.node_table import NodeTable
from quorumlog.broker.partition_table import PartitionTable
from quorumlog.broker.placement import place
from quorumlog.broker.topic_config import TopicConfig
from quorumlog.broker.topics import (
    MAX_PARTITIONS,
    NodeInfo,
    PartitionInfo,
    Presence,
    Standing,
    Topic,
    check_replica_count,
)
from quorumlog.errors import (
    InvalidArgument,
    InvariantViolation,
    NodeRemoved,
    NotFound,
    PartitionOutOfRange,
    TopicExists,
    UnknownTopic,
    UnsafeChange,
)
from quorumlog.types import GroupId, NodeId


class MetadataState:
    """Apply commands in log order; read at any time; observe what changed.

    ``next_group`` and ``next_producer_id`` are the ids given out next: from 1, never used again.
    Batches through ``free_index`` may be removed from the log: nobody needs them any more.
    """

    def __init__(self) -> None:
        self.applied_index = 0
        self.next_group = 1
        self.next_producer_id = 1
        self.free_index = 0
        self.settings = ClusterSettings()
        self._nodes = NodeTable()
        self._partitions = PartitionTable()
        self._observers: list[Callable[[Change], None]] = []

    # ------------------------------------------------------------------------------------- reads

    def topic(self, name: str) -> Topic:
        """Raises UnknownTopic."""
        topic = self._partitions.topics.get(name)
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
        return self._partitions.partition(group)

    def topic_of(self, group: GroupId) -> Topic:
        """The topic of a group that there is."""
        return self._partitions.topic_of(group)

    def has_topic(self, name: str) -> bool:
        return name in self._partitions.topics

    def topics(self) -> list[Topic]:
        """Sorted by name."""
        return self._partitions.all()

    def node(self, node_id: NodeId) -> NodeInfo | None:
        return self._nodes.get(node_id)

    def nodes(self) -> list[NodeInfo]:
        """Sorted by id."""
        return self._nodes.all()

    @property
    def removed_nodes(self) -> frozenset[NodeId]:
        """The ids that are refused for ever."""
        return frozenset(self._nodes.removed)

    def is_removed(self, node_id: NodeId) -> bool:
        return node_id in self._nodes.removed

    def takers(self, candidates: Iterable[NodeId]) -> list[NodeId]:
        """Those of ``candidates`` that may get replicas."""
        return self._nodes.takers(candidates)

    def may_lead(self, node_id: NodeId) -> bool:
        """Whether leaderships are to be given to the node."""
        node = self._nodes.get(node_id)
        return node is None or node.standing is Standing.ACTIVE

    @property
    def voters(self) -> tuple[NodeId, ...]:
        """Who is to vote in this group; empty: whoever did when it was formed."""
        return self._nodes.voters

    @property
    def voters_index(self) -> int:
        """Of the command that set :attr:`voters`; 0: none did."""
        return self._nodes.voters_index

    def groups_of(self, node_id: NodeId) -> list[tuple[Topic, PartitionInfo]]:
        """The partitions ``node_id`` has to keep what it has of, sorted by group. Looks at all
        partitions."""
        return self._partitions.held_by(node_id)

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
            changes = self._dispatch(parsed, result, index)
        except (InvalidArgument, NotFound, TopicExists, NodeRemoved, UnsafeChange) as error:
            result = metadata_pb2.Result(
                error=error.reason, message=str(error), details=error.details(), index=index
            )
        self.applied_index = index
        self._notify([*changes, Applied(index)])
        return result

    def _dispatch(
        self, command: metadata_pb2.Command, result: metadata_pb2.Result, index: int
    ) -> list[Change]:
        match command.WhichOneof("command"):
            case "register_node":
                return self._register_node(command.register_node.node)
            case "note_presence":
                return self._note_presence(command.note_presence)
            case "create_topic":
                return self._create_topic(command.create_topic)
            case "alter_topic":
                return self._alter_topic(command.alter_topic, index)
            case "delete_topic":
                return self._delete_topic(command.delete_topic)
            case "allocate_producer":
                result.producer_id = self.next_producer_id
                self.next_producer_id += 1
                return []
            case "assign_replicas":
                return self._assign_replicas(command.assign_replicas, index)
            case "replicas_moved":
                return self._replicas_moved(command.replicas_moved)
            case "drain_node":
                return self._drain_node(command.drain_node, index)
            case "remove_node":
                return self._remove_node(command.remove_node, index)
            case "forget_node":
                return self._forget_node(command.forget_node)
            case "set_voters":
                self._nodes.check_voters(command.set_voters.voters, command.set_voters.voters_index)
                return self._set_voters(command.set_voters.voters, index)
            case "set_cluster":
                self.settings = self.settings.changed_by(command.set_cluster)
                return []
            case "trim_log":
                # What precedes a committed batch is committed.
                self.free_index = max(self.free_index, min(command.trim_log.free_index, index - 1))
                return []
            case other:
                raise InvariantViolation(f"metadata command {other} has no rule")

    # ------------------------------------------------------------------------------------- nodes

    def _register_node(self, message: metadata_pb2.Node) -> list[Change]:
        node = NodeInfo(NodeId(message.id), message.name, message.address, message.version)
        return node_change(self._nodes.register(node))

    def _note_presence(self, message: metadata_pb2.NotePresence) -> list[Change]:
        presence = Presence(message.presence)
        node = NodeId(message.node)
        return node_change(self._nodes.note(node, presence, message.absent_since_ms))

    def _drain_node(self, message: metadata_pb2.DrainNode, index: int) -> list[Change]:
        node = self._nodes.known(NodeId(message.node))
        if message.undo:
            return self._stand(node.id, Standing.ACTIVE)
        moves: list[Assignment] = []
        if message.replicas:
            takers = self._nodes.takers(message.candidates)
            moves = evacuation(self.topics(), node.id, takers, None)
        is_leaving = node.standing is Standing.LEAVING
        standing = Standing.LEAVING if is_leaving else Standing.DRAINING
        return [*self._stand(node.id, standing), *self._move(moves, index)]

    def _remove_node(self, message: metadata_pb2.RemoveNode, index: int) -> list[Change]:
        if NodeId(message.node) in self._nodes.removed:
            return []
        node = self._nodes.known(NodeId(message.node))
        takers = self._nodes.takers(message.candidates)
        replacement = NodeId(message.replacement) if message.replacement else None
        if replacement is not None:
            self._nodes.known(replacement)
            if replacement == node.id or replacement not in self._nodes.takers([replacement]):
                raise InvalidArgument(f"node {replacement} cannot take the place of {node.id}")
        moves = evacuation(self.topics(), node.id, takers, replacement)
        if message.voters or node.id in self._nodes.voters:
            self._nodes.check_voters(message.voters, message.voters_index)
            if node.id in message.voters:
                raise InvalidArgument(f"node {node.id} cannot go and stay a voter")
        changes = [*self._stand(node.id, Standing.LEAVING), *self._move(moves, index)]
        return changes + (self._set_voters(message.voters, index) if message.voters else [])

    def _forget_node(self, message: metadata_pb2.ForgetNode) -> list[Change]:
        """Refused while it holds anything: what it holds would count as lost."""
        if NodeId(message.node) in self._nodes.removed:
            return []
        node = self._nodes.known(NodeId(message.node))
        if node.standing is not Standing.LEAVING or node.id in self._nodes.voters:
            raise InvalidArgument(f"node {node.id} is not being removed")
        if self._partitions.held_by(node.id):
            raise InvalidArgument(f"node {node.id} has replicas still")
        return [NodeForgotten(self._nodes.forget(node.id))]

    def _stand(self, node_id: NodeId, standing: Standing) -> list[Change]:
        return node_change(self._nodes.stand(node_id, standing))

    def _set_voters(self, voters: Iterable[str], index: int) -> list[Change]:
        self._nodes.set_voters(tuple(voters), index)
        return [VotersChanged()]

    # ------------------------------------------------------------------------------------- moves

    def _assign_replicas(self, message: metadata_pb2.AssignReplicas, index: int) -> list[Change]:
        partition = self._partitions.partition(GroupId(message.group))
        if partition is None:
            raise NotFound(f"no partition is held by group {message.group}: it was deleted")
        wanted = tuple(NodeId(node) for node in message.wanted)
        for node in wanted:
            standing = self._nodes.known(node).standing
            if standing is not Standing.ACTIVE and node not in partition.target:
                raise InvalidArgument(f"node {node} is {standing} and takes no replicas")
        topic = self._partitions.topic_of(partition.group)
        return self._move([(topic, partition, wanted)], index)

    def _replicas_moved(self, message: metadata_pb2.ReplicasMoved) -> list[Change]:
        changed: list[PartitionInfo] = []
        for each in message.moved:
            partition = self._partitions.partition(GroupId(each.group))
            if partition is not None:
                replicas = [NodeId(node) for node in each.replicas]
                changed.append(moved(partition, each.move, replicas, each.settled_index))
        return self._partitions.replace(changed)

    def _move(self, moves: Iterable[Assignment], index: int) -> list[Change]:
        return self._partitions.replace(
            [assigned(partition, wanted, index) for _, partition, wanted in moves]
        )

    # ------------------------------------------------------------------------------------ topics

    def _create_topic(self, message: metadata_pb2.CreateTopic) -> list[Change]:
        if message.name in self._partitions.topics:
            raise TopicExists(message.name)
        config = TopicConfig().changed_by(message.config)
        topic = Topic(message.name, message.replicas, config, ())
        return self._grow(topic, message.partitions, message.candidates)

    def _alter_topic(self, message: metadata_pb2.AlterTopic, index: int) -> list[Change]:
        topic = self.topic(message.name)
        partitions = message.partitions or len(topic.partitions)
        if partitions < len(topic.partitions):
            raise InvalidArgument(
                f"topic {topic.name!r} has {len(topic.partitions)} partitions and cannot have "
                f"fewer: records would be lost"
            )
        replicas = message.replicas or topic.replicas
        config = topic.config.changed_by(message.config)
        altered = replace(topic, config=config, replicas=replicas)
        moves: list[Assignment] = []
        if message.replicas:
            takers = self._nodes.takers(message.candidates)
            moves = resized(self.topics(), topic, replicas, takers)
        if altered == topic and partitions == len(topic.partitions) and not moves:
            return []
        grown = self._grow(altered, partitions, message.candidates)
        return [*grown, *self._move(moves, index)]

    def _grow(self, topic: Topic, partitions: int, candidates: Iterable[str]) -> list[Change]:
        """Store ``topic`` with as many new partitions as it lacks of ``partitions``."""
        missing = partitions - len(topic.partitions)
        added: list[PartitionInfo] = []
        if missing:
            total = self._partitions.count
            if total + missing > MAX_PARTITIONS:
                raise InvalidArgument(
                    f"the cluster has {total} partitions and can have {MAX_PARTITIONS}"
                )
            nodes = self._nodes.takers(candidates)
            check_replica_count(topic.replicas, len(set(nodes)))
            added = [
                PartitionInfo(len(topic.partitions) + at, GroupId(self.next_group + at), replicas)
                for at, replicas in enumerate(
                    place(missing, topic.replicas, nodes, load_of(self.topics()))
                )
            ]
            self.next_group += missing
        return self._partitions.grow(topic, added)

    def _delete_topic(self, message: metadata_pb2.DeleteTopic) -> list[Change]:
        return self._partitions.drop(self.topic(message.name))

    # --------------------------------------------------------------------------------- snapshots

    def snapshot(self) -> bytes:
        """The whole state; equal states give equal bytes."""
        return metadata_snapshot.encode(
            Contents(
                self.applied_index,
                self.next_group,
                self.next_producer_id,
                tuple(self.nodes()),
                tuple(sorted(self._nodes.removed)),
                self._nodes.voters,
                self._nodes.voters_index,
                tuple(self.topics()),
                self.settings,
                self.free_index,
            )
        )

    def restore(self, snapshot: bytes) -> None:
        """Become the state of ``snapshot``; observers hear what is different from before.

        Raises:
            ProtocolError: it is not a snapshot this release can read; nothing changed.
        """
        contents = metadata_snapshot.decode(snapshot)
        nodes, topics = self._nodes, self._partitions.topics
        self.applied_index = contents.applied_index
        self.next_group = contents.next_group
        self.next_producer_id = contents.next_producer_id
        self.settings, self.free_index = contents.settings, contents.free_index
        self._nodes = NodeTable(
            contents.nodes, contents.removed, contents.voters, contents.voters_index
        )
        self._partitions = PartitionTable(contents.topics)
        changes = node_changes(nodes.all(), self._nodes.all())
        if nodes.voters_index != self._nodes.voters_index:
            changes.append(VotersChanged())
        changes += topic_changes(topics, self._partitions.topics)
        self._notify([*changes, Applied(self.applied_index)])

    def _notify(self, changes: Iterable[Change]) -> None:
        for change in changes:
            for observer in tuple(self._observers):
                observer(change)
