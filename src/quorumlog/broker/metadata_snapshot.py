"""The metadata group's state as bytes: JSON, its keys sorted, so equal states give equal bytes.

Keys: ``format`` (5), ``applied_index``, ``next_group``, ``next_producer_id``, ``nodes`` (a list of
``[id, name, address, version, standing, presence, absent_since_ms]``), ``removed`` (a list of
ids), ``voters`` (``[index, [id, ...]]``), ``settings`` (every field of :class:`ClusterSettings`),
``free_index`` and ``topics`` (a list of ``{name, replicas, config, partitions}``, ``config``
holding every field of :class:`TopicConfig` and a partition being ``[group, replicas, wanted,
passing, move, settled_index]``, its place its number). Still read: format 4, whose nodes have no
presence; format 3, without ``settings`` and ``free_index``; format 2, whose nodes have no standing
and whose partitions are ``[group, replicas]``; format 1, which also had ``fsync`` in the place of
``config``. Whoever stores the bytes adds a checksum.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from quorumlog.broker.cluster_settings import ClusterSettings
from quorumlog.broker.topic_config import TopicConfig
from quorumlog.broker.topics import NodeInfo, PartitionInfo, Presence, Standing, Topic
from quorumlog.errors import ProtocolError
from quorumlog.types import GroupId, NodeId

FORMAT: Final = 5

_READABLE: Final = (1, 2, 3, 4, FORMAT)

_CONFIG_KEYS: Final = tuple(each.name for each in fields(TopicConfig))


@dataclass(frozen=True, slots=True)
class Contents:
    """Nodes and ids sorted by id, topics by name; ``voters`` as in :class:`NodeTable`."""

    applied_index: int
    next_group: int
    next_producer_id: int
    nodes: tuple[NodeInfo, ...]
    removed: tuple[NodeId, ...]
    voters: tuple[NodeId, ...]
    voters_index: int
    topics: tuple[Topic, ...]
    settings: ClusterSettings = field(default_factory=ClusterSettings)
    free_index: int = 0


def encode(contents: Contents) -> bytes:
    tree = {
        "format": FORMAT,
        "applied_index": contents.applied_index,
        "next_group": contents.next_group,
        "next_producer_id": contents.next_producer_id,
        "nodes": [
            [
                *(node.id, node.name, node.address, node.version, node.standing),
                *(node.presence, node.absent_since_ms),
            ]
            for node in contents.nodes
        ],
        "removed": list(contents.removed),
        "voters": [contents.voters_index, list(contents.voters)],
        "settings": asdict(contents.settings),
        "free_index": contents.free_index,
        "topics": [
            {
                "name": topic.name,
                "replicas": topic.replicas,
                # Every topic at every saved state: `asdict`, which copies deeply, takes longer.
                "config": {key: getattr(topic.config, key) for key in _CONFIG_KEYS},
                "partitions": [_encode_partition(each) for each in topic.partitions],
            }
            for topic in contents.topics
        ],
    }
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def _encode_partition(partition: PartitionInfo) -> list[Any]:
    return [
        partition.group,
        list(partition.replicas),
        list(partition.wanted),
        list(partition.passing),
        partition.move,
        partition.settled_index,
    ]


def decode(encoded: bytes) -> Contents:
    """Raises ProtocolError for anything ``encode`` of this format did not make."""
    try:
        tree = json.loads(encoded)
        if tree["format"] not in _READABLE:
            raise ProtocolError(
                f"metadata snapshot format {tree['format']}; this release knows {_READABLE}"
            )
        if tree["format"] < 4:
            settings = {"settings": asdict(ClusterSettings()), "free_index": 0}
            tree = {"removed": [], "voters": [0, []], **settings, **tree}
        voters_index, voters = tree["voters"]
        return Contents(
            int(tree["applied_index"]),
            int(tree["next_group"]),
            int(tree["next_producer_id"]),
            tuple(_decode_node(*node) for node in tree["nodes"]),
            _ids(tree["removed"]),
            _ids(voters),
            int(voters_index),
            tuple(_decode_topic(topic, tree["format"]) for topic in tree["topics"]),
            ClusterSettings(int(tree["settings"]["replace_failed_after_s"])),
            int(tree["free_index"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"not a metadata snapshot: {error!r}") from error


def _decode_node(
    node_id: str,
    name: str,
    address: str,
    version: str,
    standing: str = Standing.ACTIVE,
    presence: str = Presence.PRESENT,
    absent_since_ms: int = 0,
) -> NodeInfo:
    return NodeInfo(
        NodeId(node_id),
        str(name),
        str(address),
        str(version),
        Standing(standing),
        Presence(presence),
        int(absent_since_ms),
    )


def _decode_topic(tree: dict[str, Any], format_number: int) -> Topic:
    config = TopicConfig(str(tree["fsync"])) if format_number == 1 else _decode_config(tree)
    return Topic(
        str(tree["name"]),
        int(tree["replicas"]),
        config,
        tuple(_decode_partition(number, *each) for number, each in enumerate(tree["partitions"])),
    )


def _decode_partition(
    number: int,
    group: int,
    replicas: list[str],
    wanted: Sequence[str] = (),
    passing: Sequence[str] = (),
    move: int = 0,
    settled_index: int = 0,
) -> PartitionInfo:
    return PartitionInfo(
        number,
        GroupId(group),
        _ids(replicas),
        _ids(wanted),
        _ids(passing),
        int(move),
        int(settled_index),
    )


def _ids(names: Sequence[str]) -> tuple[NodeId, ...]:
    return tuple(NodeId(name) for name in names)


def _decode_config(tree: dict[str, Any]) -> TopicConfig:
    config = tree["config"]
    return TopicConfig(
        str(config["fsync"]),
        int(config["retention_ms"]),
        int(config["retention_bytes"]),
        int(config["retention_records"]),
        int(config["segment_bytes"]),
    )
