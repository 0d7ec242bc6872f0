"""Nodes, topics and partitions as the metadata group knows them, and the rules for settings."""

import re
from dataclasses import dataclass
from typing import Final

from quorumlog.broker.topic_config import TopicConfig
from quorumlog.errors import InvalidArgument
from quorumlog.types import GroupId, NodeId

MAX_PARTITIONS_PER_TOPIC: Final = 10_000

MAX_PARTITIONS: Final = 50_000
"""Limit of partitions in a cluster: what one answer about all of them can hold (16 MiB)."""

MAX_NAME_CHARACTERS: Final = 249

_NAME = re.compile(rf"[a-zA-Z0-9._-]{{1,{MAX_NAME_CHARACTERS}}}")


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """``address`` is the ``host:port`` of the node's gRPC endpoint."""

    id: NodeId
    name: str
    address: str
    version: str


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """One partition: the Raft group that holds it and the nodes that replicate it.

    The first replica is the preferred leader.
    """

    partition: int
    group: GroupId
    replicas: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """``partitions[n]`` is partition n; ``replicas`` is how many each partition has."""

    name: str
    replicas: int
    config: TopicConfig
    partitions: tuple[PartitionInfo, ...]


def check_topic_name(name: str) -> None:
    """Raise InvalidArgument unless ``name`` can name a topic (and a directory)."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        shown = name if len(name) <= MAX_NAME_CHARACTERS else name[:MAX_NAME_CHARACTERS] + "…"
        raise InvalidArgument(
            f"{shown!r} is no topic name: use 1 to {MAX_NAME_CHARACTERS} of the characters "
            "a-z A-Z 0-9 . _ - (and not '.' or '..')"
        )


def check_partition_count(partitions: int) -> None:
    if not 1 <= partitions <= MAX_PARTITIONS_PER_TOPIC:
        raise InvalidArgument(
            f"a topic has 1 to {MAX_PARTITIONS_PER_TOPIC} partitions, not {partitions}"
        )


def check_replica_count(replicas: int, candidates: int) -> None:
    """``candidates``: how many nodes can take a replica now."""
    if replicas < 1:
        raise InvalidArgument("a partition has at least 1 replica, not 0")
    if replicas > candidates:
        nodes = "1 node is" if candidates == 1 else f"{candidates} nodes are"
        raise InvalidArgument(
            f"{replicas} replicas need as many live nodes, and {nodes} there: "
            "ask for fewer replicas or start more nodes"
        )
