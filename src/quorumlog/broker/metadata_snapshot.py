"""The metadata group's state as bytes: JSON, its keys sorted, so equal states give equal bytes.

Keys: ``format`` (2), ``applied_index``, ``next_group``, ``next_producer_id``, ``nodes`` (a list of
``[id, name, address, version]``) and ``topics`` (a list of ``{name, replicas, config,
partitions}``, ``config`` holding every field of :class:`TopicConfig` and a partition being
``[group, [node, ...]]``, its place its number). Format 1 had ``fsync`` in the place of ``config``,
and is still read. Whoever stores the bytes adds a checksum.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from quorumlog.broker.topic_config import TopicConfig
from quorumlog.broker.topics import NodeInfo, PartitionInfo, Topic
from quorumlog.errors import ProtocolError
from quorumlog.types import GroupId, NodeId

FORMAT: Final = 2

_READABLE: Final = (1, FORMAT)


@dataclass(frozen=True, slots=True)
class Contents:
    """Nodes sorted by id, topics by name."""

    applied_index: int
    next_group: int
    next_producer_id: int
    nodes: tuple[NodeInfo, ...]
    topics: tuple[Topic, ...]


def encode(contents: Contents) -> bytes:
    tree = {
        "format": FORMAT,
        "applied_index": contents.applied_index,
        "next_group": contents.next_group,
        "next_producer_id": contents.next_producer_id,
        "nodes": [[node.id, node.name, node.address, node.version] for node in contents.nodes],
        "topics": [
            {
                "name": topic.name,
                "replicas": topic.replicas,
                "config": asdict(topic.config),
                "partitions": [[each.group, list(each.replicas)] for each in topic.partitions],
            }
            for topic in contents.topics
        ],
    }
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def decode(encoded: bytes) -> Contents:
    """Raises ProtocolError for anything ``encode`` of this format did not make."""
    try:
        tree = json.loads(encoded)
        if tree["format"] not in _READABLE:
            raise ProtocolError(
                f"metadata snapshot format {tree['format']}; this release knows {_READABLE}"
            )
        return Contents(
            int(tree["applied_index"]),
            int(tree["next_group"]),
            int(tree["next_producer_id"]),
            tuple(
                NodeInfo(NodeId(node_id), str(name), str(address), str(version))
                for node_id, name, address, version in tree["nodes"]
            ),
            tuple(_decode_topic(topic, tree["format"]) for topic in tree["topics"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"not a metadata snapshot: {error!r}") from error


def _decode_topic(tree: dict[str, Any], format_number: int) -> Topic:
    config = TopicConfig(str(tree["fsync"])) if format_number == 1 else _decode_config(tree)
    return Topic(
        str(tree["name"]),
        int(tree["replicas"]),
        config,
        tuple(
            PartitionInfo(number, GroupId(group), tuple(NodeId(node) for node in replicas))
            for number, (group, replicas) in enumerate(tree["partitions"])
        ),
    )


def _decode_config(tree: dict[str, Any]) -> TopicConfig:
    config = tree["config"]
    return TopicConfig(
        str(config["fsync"]),
        int(config["retention_ms"]),
        int(config["retention_bytes"]),
        int(config["retention_records"]),
        int(config["segment_bytes"]),
    )
