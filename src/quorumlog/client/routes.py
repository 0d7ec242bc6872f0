"""Which node leads which partition: a cache, refreshed when it turns out to be wrong.

A leader is learned from metadata (any node answers, what it says of partitions it has no replica of
is a guess) and from ``NotLeader`` errors, which name it. When the node believed to lead cannot be
reached the partition's other replicas are asked in turn: one of them leads or knows who does. They
go on naming it until their election, so a node is left alone for a moment once it was not reached.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.nodes import Nodes
from quorumlog.client.retry import surely_leads, worth_another_attempt
from quorumlog.client.tasks import Tasks
from quorumlog.client.transport import ADMIN_SERVICE
from quorumlog.errors import (
    Closed,
    NotLeader,
    PartitionOutOfRange,
    QuorumlogError,
    Unavailable,
    UnknownTopic,
)

METADATA_TIMEOUT_S: Final = 2.0
"""Limit of one metadata call: another node will answer when this one hangs."""

UNREACHED_S: Final = 0.25
"""For so long another replica is asked instead of a node that could not be reached, if one can."""


@dataclass(slots=True)
class _Partition:
    leader: str | None
    replicas: tuple[str, ...]
    turn: int = 0


@dataclass(slots=True)
class _Topic:
    partitions: list[_Partition] = field(default_factory=list)


class Routes:
    def __init__(self, nodes: Nodes, tasks: Tasks) -> None:
        self._nodes = nodes
        self._tasks = tasks
        self._topics: dict[str, _Topic] = {}
        self._unreached: dict[str, float] = {}
        """Addresses, with the time of the loop until which they are left alone."""
        self._refreshing: dict[str, asyncio.Task[QuorumlogError | None]] = {}

    async def partition_count(self, topic: str) -> int:
        """Raises UnknownTopic, or Unavailable when no node can say."""
        known = self._topics.get(topic)
        if known is None:
            await self.refresh(topic)
            known = self._topics[topic]
        return len(known.partitions)

    async def leader(self, topic: str, partition: int, avoid: str | None = None) -> str:
        """The address of the partition's leader, as far as this client knows.

        Args:
            avoid: an address that did not answer just now; another replica is named if there is
                one.

        Raises:
            UnknownTopic, PartitionOutOfRange.
            Unavailable: no replica of the partition is known.
        """
        known = self._topics.get(topic)
        if (
            known is None
            or partition >= len(known.partitions)
            or known.partitions[partition].leader in (None, avoid)
        ):
            await self.refresh(topic, avoid)
            known = self._topics[topic]
        if not 0 <= partition < len(known.partitions):
            raise PartitionOutOfRange(topic, partition, len(known.partitions))
        entry = known.partitions[partition]
        if entry.leader not in (None, avoid) and self._is_reachable(entry.leader):
            return entry.leader
        others = [replica for replica in entry.replicas if replica != avoid]
        others = [replica for replica in others if self._is_reachable(replica)] or others
        if not others:
            if avoid is not None and avoid in entry.replicas:
                return avoid
            raise Unavailable(f"no node is known to have partition {partition} of {topic!r}")
        entry.turn += 1
        return others[entry.turn % len(others)]

    def known_leader(self, topic: str, partition: int) -> str | None:
        """What :meth:`leader` would say without asking anybody."""
        known = self._topics.get(topic)
        if known is None or partition >= len(known.partitions):
            return None
        return known.partitions[partition].leader

    def failed(self, topic: str, partition: int, address: str, error: QuorumlogError) -> None:
        """Note that ``address`` did not serve the partition: the next look-up asks anew.

        A ``NotLeader`` that names the leader is believed at once.
        """
        if type(error) is Unavailable:
            self._unreached[address] = asyncio.get_running_loop().time() + UNREACHED_S
        known = self._topics.get(topic)
        if known is None or partition >= len(known.partitions):
            return
        entry = known.partitions[partition]
        hint = error.leader if isinstance(error, NotLeader) else None
        if hint is not None and hint != address:
            entry.leader = hint
        elif entry.leader == address and not surely_leads(error):
            entry.leader = None

    def _is_reachable(self, address: str) -> bool:
        return self._unreached.get(address, 0.0) <= asyncio.get_running_loop().time()

    def forget(self, topic: str) -> None:
        self._topics.pop(topic, None)

    def learn(self, message: pb.Topic) -> None:
        """Take in what a node says of one topic."""
        partitions: list[_Partition] = []
        for item in message.partitions:
            addresses = (self._nodes.address_of(replica) for replica in item.replicas)
            partitions.append(
                _Partition(
                    self._nodes.address_of(item.leader),
                    tuple(address for address in addresses if address),
                )
            )
        self._topics[message.name] = _Topic(partitions)

    async def refresh(self, topic: str, avoid: str | None = None) -> None:
        """Ask the cluster about ``topic``. Callers at the same time share one question.

        Args:
            avoid: an address to ask only after all others.

        Raises:
            UnknownTopic: a majority of the nodes do not know it. A single node is not believed: it
                may be behind.
            Unavailable: too few nodes answered.
        """
        task = self._refreshing.get(topic)
        if task is None:
            task = self._tasks.start(self._refresh(topic, avoid), f"refresh-{topic}")
            self._refreshing[topic] = task
            task.add_done_callback(lambda _: self._refreshing.pop(topic, None))
        try:
            outcome = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Closed("this client is closed") from None
            raise
        if outcome is not None:
            raise outcome

    async def _refresh(self, topic: str, avoid: str | None) -> QuorumlogError | None:
        """None when the topic was found: the outcome is a value, as the task has many readers."""
        unknown = 0
        last_error: QuorumlogError = Unavailable("no server is known")
        asked: set[str] = set()
        while candidates := [item for item in self._nodes.candidates() if item not in asked]:
            address = next((item for item in candidates if item != avoid), candidates[0])
            asked.add(address)
            try:
                metadata = await self._nodes.ask(
                    address,
                    ADMIN_SERVICE + "GetMetadata",
                    pb.MetadataRequest(topics=[topic]),
                    pb.Metadata,
                    METADATA_TIMEOUT_S,
                )
            except QuorumlogError as error:
                if not worth_another_attempt(error):
                    return error
                last_error = error
                continue
            if not metadata.nodes:
                last_error = Unavailable(f"{address} has not joined its cluster yet")
                continue
            self._nodes.learn({node.id: node.address for node in metadata.nodes})
            for message in metadata.topics:
                if message.name == topic:
                    self.learn(message)
                    return None
            # A node asked by another name than its own would count twice.
            if self._nodes.known == 1 or self._nodes.is_node(address):
                unknown += 1
            if unknown * 2 > self._nodes.known:
                self._topics.pop(topic, None)
                return UnknownTopic(topic)
        return self._nodes.exhausted(last_error)
