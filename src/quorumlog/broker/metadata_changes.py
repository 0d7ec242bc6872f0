"""What observers of the metadata hear of."""

from dataclasses import dataclass

from quorumlog.broker.topics import NodeInfo, PartitionInfo, Topic


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node is new, or has another name, address, release, standing or presence."""

    node: NodeInfo


@dataclass(frozen=True, slots=True)
class NodeForgotten:
    """A node was removed for good; ``node`` as it was."""

    node: NodeInfo


@dataclass(frozen=True, slots=True)
class VotersChanged:
    """The metadata group is to have other voters."""


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
class PartitionChanged:
    """Where its replicas are, or are to be, is new; it holds the records it held before."""

    topic: Topic
    partition: PartitionInfo


@dataclass(frozen=True, slots=True)
class TopicChanged:
    """A topic is new or altered; comes before what is new of its partitions."""

    topic: Topic


@dataclass(frozen=True, slots=True)
class TopicRemoved:
    """Comes after the PartitionRemoved of its partitions."""

    topic: Topic


@dataclass(frozen=True, slots=True)
class Applied:
    """Everything up to ``index`` is applied; the last change of every ``apply`` and ``restore``."""

    index: int


Change = (
    NodeChanged
    | NodeForgotten
    | VotersChanged
    | PartitionAdded
    | PartitionChanged
    | PartitionRemoved
    | TopicChanged
    | TopicRemoved
    | Applied
)


def topic_changes(before: dict[str, Topic], after: dict[str, Topic]) -> list[Change]:
    """What turns the topics ``before`` into those ``after``."""
    changes: list[Change] = []
    for name in sorted(before):
        # A topic of the same name but other groups was deleted and created again.
        kept = {each.group for each in after[name].partitions} if name in after else set()
        changes += [
            PartitionRemoved(before[name], each)
            for each in before[name].partitions
            if each.group not in kept
        ]
        if name not in after:
            changes.append(TopicRemoved(before[name]))
    for name in sorted(after):
        if before.get(name) == after[name]:
            continue
        changes.append(TopicChanged(after[name]))
        known = {each.group: each for each in before[name].partitions} if name in before else {}
        for each in after[name].partitions:
            if each.group not in known:
                changes.append(PartitionAdded(after[name], each))
            elif known[each.group] != each:
                changes.append(PartitionChanged(after[name], each))
    return changes


def node_change(node: NodeInfo | None) -> list[Change]:
    """Of a node that has changed; None: of one that has not."""
    return [] if node is None else [NodeChanged(node)]


def node_changes(before: list[NodeInfo], after: list[NodeInfo]) -> list[Change]:
    """What turns the nodes ``before`` into those ``after``; a node is never known anew."""
    known = {node.id: node for node in before}
    staying = {node.id for node in after}
    changed: list[Change] = [NodeChanged(node) for node in after if known.get(node.id) != node]
    return changed + [NodeForgotten(node) for node in before if node.id not in staying]
