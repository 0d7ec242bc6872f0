"""Nodes, topics and partitions as the metadata group knows them, and the rules for settings."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from quorumlog.broker.topic_config import TopicConfig
from quorumlog.errors import InvalidArgument
from quorumlog.types import GroupId, NodeId

MAX_PARTITIONS_PER_TOPIC: Final = 10_000

MAX_PARTITIONS: Final = 50_000
"""Limit of partitions in a cluster: what one answer about all of them can hold (16 MiB)."""

MAX_REPLICAS: Final = 0xFFFF
"""Limit of a partition: what a Raft configuration can hold; there are fewer nodes."""

MAX_NAME_CHARACTERS: Final = 249

_NAME = re.compile(rf"[a-zA-Z0-9._-]{{1,{MAX_NAME_CHARACTERS}}}")


class Standing(StrEnum):
    """What the cluster has in mind with a node; not whether it is up, which gossip sees."""

    ACTIVE = "active"
    DRAINING = "draining"
    """It is to lead nothing, and gets no new replicas."""
    LEAVING = "leaving"
    """It is being removed: what it holds moves to others."""


class Presence(StrEnum):
    """What was established of whether a node is there; see :mod:`quorumlog.broker.presence`."""

    PRESENT = "present"
    LEFT = "left"
    """It said that it leaves, and is not heard any more."""
    FAILED = "failed"
    """It is gone without a word, and for longer than a restart takes."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """``address`` is the ``host:port`` of the node's gRPC endpoint."""

    id: NodeId
    name: str
    address: str
    version: str
    standing: Standing = Standing.ACTIVE
    presence: Presence = Presence.PRESENT
    absent_since_ms: int = 0
    """When it was last heard, in ms since 1970; 0 while it is present."""

    def says_the_same_as(self, other: "NodeInfo") -> bool:
        """Whether both are one node with one name, address and release."""
        mine = (self.id, self.name, self.address, self.version)
        return mine == (other.id, other.name, other.address, other.version)


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """One partition: the Raft group that holds it and the nodes that replicate it.

    The first replica is the preferred leader. Between an order to move and the report that it is
    done, the group's members may be any of :attr:`holders`.
    """

    partition: int
    group: GroupId
    replicas: tuple[NodeId, ...]
    """The group's voters, as its leader last reported."""
    wanted: tuple[NodeId, ...] = ()
    """What they are to be; empty while nothing is to be changed."""
    passing: tuple[NodeId, ...] = ()
    """Sorted: wanted by an earlier order of the same move, and perhaps members by now."""
    move: int = 0
    """Index of the metadata command that ordered the last move; 0: never moved."""
    settled_index: int = 0
    """Through this index of the group's log ``replicas`` is the newest configuration; 0: as the
    partition was made."""

    @property
    def target(self) -> tuple[NodeId, ...]:
        """Where the replicas stay, or are moving to."""
        return self.wanted or self.replicas

    @property
    def holders(self) -> tuple[NodeId, ...]:
        """Sorted: the nodes that have to keep what they have of it."""
        if not self.wanted:
            return tuple(sorted(self.replicas))
        return tuple(sorted({*self.replicas, *self.wanted, *self.passing}))


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
