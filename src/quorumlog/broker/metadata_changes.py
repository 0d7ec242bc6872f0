"""What observers of the metadata hear of."""

from dataclasses import dataclass

from quorumlog.broker.topics import NodeInfo, PartitionInfo, Topic


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node is new, or has another name, address or release."""

    node: NodeInfo


@dataclass(frozen=True, slots=True)
class PartitionAdded:
    topic: Topic
    partition: PartitionInfo


@dataclass(frozen=True, slots=True)
class PartitionRemoved:
    """``topic`` is the topic as it was."""

    topic: Topic
    partition: PartitionInfo


@dataclass(frozen=True, slots=True)
class TopicChanged:
    """A topic is new or altered; comes before the PartitionAdded of its new partitions."""

    topic: Topic


@dataclass(frozen=True, slots=True)
class TopicRemoved:
    """Comes after the PartitionRemoved of its partitions."""

    topic: Topic


@dataclass(frozen=True, slots=True)
class Applied:
    """Everything up to ``index`` is applied; the last change of every ``apply`` and ``restore``."""

    index: int


Change = NodeChanged | PartitionAdded | PartitionRemoved | TopicChanged | TopicRemoved | Applied


def topic_changes(before: dict[str, Topic], after: dict[str, Topic]) -> list[Change]:
    """What turns the topics ``before`` into those ``after``."""
    changes: list[Change] = []
    for name in sorted(before):
        # A topic of the same name but other groups was deleted and created again.
        kept = set(after[name].partitions) if name in after else set()
        changes += [
            PartitionRemoved(before[name], each)
            for each in before[name].partitions
            if each not in kept
        ]
        if name not in after:
            changes.append(TopicRemoved(before[name]))
    for name in sorted(after):
        if before.get(name) == after[name]:
            continue
        changes.append(TopicChanged(after[name]))
        known = set(before[name].partitions) if name in before else set()
        changes += [
            PartitionAdded(after[name], each)
            for each in after[name].partitions
            if each not in known
        ]
    return changes
