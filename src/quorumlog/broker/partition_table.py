"""The topics and their partitions as the metadata group knows them, by name and by group."""

from collections.abc import Iterable
from dataclasses import replace

from quorumlog.broker.metadata_changes import (
    Change,
    PartitionAdded,
    PartitionChanged,
    PartitionRemoved,
    TopicChanged,
    TopicRemoved,
)
from quorumlog.broker.topics import PartitionInfo, Topic
from quorumlog.types import GroupId, NodeId


class PartitionTable:
    """A part of :class:`~quorumlog.broker.metadata.MetadataState`; a change of it gives what
    observers are to hear."""

    def __init__(self, topics: Iterable[Topic] = ()) -> None:
        self.topics: dict[str, Topic] = {topic.name: topic for topic in topics}
        self._groups: dict[GroupId, PartitionInfo] = {}
        self._names: dict[GroupId, str] = {}
        for topic in self.topics.values():
            self._enter(topic.name, topic.partitions)

    def all(self) -> list[Topic]:
        """Sorted by name."""
        return [self.topics[name] for name in sorted(self.topics)]

    def partition(self, group: GroupId) -> PartitionInfo | None:
        return self._groups.get(group)

    def topic_of(self, group: GroupId) -> Topic:
        return self.topics[self._names[group]]

    @property
    def count(self) -> int:
        """Of all partitions."""
        return len(self._groups)

    def held_by(self, node_id: NodeId) -> list[tuple[Topic, PartitionInfo]]:
        """Those the node has to keep what it has of, sorted by group. Looks at all."""
        return [
            (self.topic_of(group), self._groups[group])
            for group in sorted(self._groups)
            if node_id in self._groups[group].holders
        ]

    def grow(self, topic: Topic, added: Iterable[PartitionInfo]) -> list[Change]:
        """Store ``topic`` with the partitions ``added`` behind those it has."""
        new = tuple(added)
        grown = replace(topic, partitions=(*topic.partitions, *new))
        self.topics[topic.name] = grown
        self._enter(topic.name, new)
        return [TopicChanged(grown), *(PartitionAdded(grown, each) for each in new)]

    def drop(self, topic: Topic) -> list[Change]:
        del self.topics[topic.name]
        for each in topic.partitions:
            del self._groups[each.group], self._names[each.group]
        removed: list[Change] = [PartitionRemoved(topic, each) for each in topic.partitions]
        return [*removed, TopicRemoved(topic)]

    def replace(self, partitions: Iterable[PartitionInfo]) -> list[Change]:
        """Store those of ``partitions``, of groups that there are, that are not as they were."""
        new = {each.group: each for each in partitions if self._groups[each.group] != each}
        self._groups.update(new)
        changes: list[Change] = []
        for name in sorted({self._names[group] for group in new}):
            before = self.topics[name]
            topic = replace(
                before, partitions=tuple(self._groups[each.group] for each in before.partitions)
            )
            self.topics[name] = topic
            changes.append(TopicChanged(topic))
            changes += [
                PartitionChanged(topic, each) for each in topic.partitions if each.group in new
            ]
        return changes

    def _enter(self, name: str, partitions: Iterable[PartitionInfo]) -> None:
        for each in partitions:
            self._groups[each.group] = each
            self._names[each.group] = name
