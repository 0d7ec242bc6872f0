"""What ``AsyncClient`` is asked about topics, nodes and who leads: the operator's half."""

from collections.abc import Sequence

from quorumlog.client.cluster_calls import ClusterCalls
from quorumlog.client.leader_calls import LeaderCalls
from quorumlog.client.models import ClusterInfo, ClusterSettings, TopicInfo
from quorumlog.client.nodes import Nodes
from quorumlog.client.routes import Routes
from quorumlog.client.topic_calls import TopicCalls, TopicSettings


class AdminClient:
    """Base of :class:`~quorumlog.client.client.AsyncClient`; not for use alone."""

    def __init__(
        self, nodes: Nodes, routes: Routes, leader_calls: LeaderCalls, request_timeout_s: float
    ) -> None:
        self._topics = TopicCalls(nodes, routes, leader_calls, request_timeout_s)
        self._cluster = ClusterCalls(nodes, leader_calls, request_timeout_s)

    async def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replicas: int = 0,
        fsync: str = "always",
        exist_ok: bool = False,
        *,
        retention_ms: int | None = None,
        retention_bytes: int | None = None,
        retention_records: int | None = None,
        segment_bytes: int | None = None,
        cleanup: str | None = None,
    ) -> TopicInfo:
        """Create a topic and return it once it can be used.

        Args:
            replicas: 0 takes 3, or as many as there are nodes when these are fewer.
            fsync: ``always`` (an acknowledged record is on the disks of a majority) or
                ``interval``.
            exist_ok: return the topic as it is when there is one of that name.
            retention_ms, retention_bytes, retention_records: what of each partition has to stay:
                records of the last so many milliseconds, the newest so many bytes of segments, the
                newest so many records. Older segments go as soon as one limit lets them go. -1 or
                None: no limit.
            segment_bytes: size of a file, and so of what is deleted at once; -1 or None: what the
                nodes are set to.
            cleanup: ``delete``; ``compact`` is refused.

        Raises:
            TopicExists, InvalidArgument.
            OutcomeUnknown: tried until the time was over; it may have been created.
        """
        settings = TopicSettings(
            fsync, retention_ms, retention_bytes, retention_records, segment_bytes, cleanup
        )
        return await self._topics.create(name, partitions, replicas, settings, exist_ok)

    async def alter_topic(
        self,
        name: str,
        partitions: int | None = None,
        fsync: str | None = None,
        *,
        retention_ms: int | None = None,
        retention_bytes: int | None = None,
        retention_records: int | None = None,
        segment_bytes: int | None = None,
        cleanup: str | None = None,
        replicas: int | None = None,
    ) -> TopicInfo:
        """Change what is given (see :meth:`create_topic`; -1 takes a limit off), leave the rest.

        Partitions can only be added. More of them move keys: a record's partition is its key modulo
        their number. Replicas are made, and taken away, in the background.
        """
        settings = TopicSettings(
            fsync, retention_ms, retention_bytes, retention_records, segment_bytes, cleanup
        )
        return await self._topics.alter(name, partitions or 0, settings, replicas or 0)

    async def delete_topic(self, name: str) -> None:
        """Delete a topic and all of its records, for good. Raises UnknownTopic."""
        await self._topics.delete(name)

    async def delete_before(self, topic: str, partition: int, offset: int) -> int:
        """Delete a partition's records before ``offset``, for good, on all of its replicas.

        Returns where the partition begins then: at ``offset``, or behind it where that was so
        before. Nobody reads the records any more; their space is given back in the background.

        Raises:
            UnknownTopic, PartitionOutOfRange.
            OffsetOutOfRange: ``offset`` is beyond the last committed record; nothing was deleted.
            OutcomeUnknown: tried until the time was over; it may happen yet.
        """
        return await self._topics.delete_before(topic, partition, offset)

    async def describe_topic(self, name: str) -> TopicInfo:
        """Raises UnknownTopic. Offsets are exact where the answering node leads."""
        return await self._topics.describe(name)

    async def list_topics(self) -> list[TopicInfo]:
        """All topics, sorted by name."""
        return await self._topics.list()

    async def cluster_status(self) -> ClusterInfo:
        """The cluster as one of its nodes knows it."""
        return await self._cluster.status()

    async def assign_replicas(
        self, topic: str, partition: int, replicas: Sequence[str]
    ) -> TopicInfo:
        """Have a partition's replicas on these nodes (names or ids), the first preferred to lead.

        Returns when that is decided; ``describe_topic`` shows ``wanted`` until it is done.

        Raises:
            UnknownTopic, PartitionOutOfRange, NotFound, InvalidArgument.
            UnsafeChange: a majority of the replicas is not up, now or then.
        """
        return await self._cluster.assign_replicas(topic, partition, replicas)

    async def add_voter(self, node: str) -> tuple[str, ...]:
        """Let ``node`` (name or id) vote on the cluster's metadata; the ids of all who then do."""
        return await self._cluster.add_voter(node)

    async def remove_node(self, node: str, replacement: str | None = None) -> int:
        """Take ``node`` (name or id) out of the cluster for good; what it holds moves to
        ``replacement``, or to the nodes that hold least.

        Returns when that is decided: the number of partitions that move because of it. The node is
        gone when ``cluster_status`` does not list it any more; its id never comes back.

        Raises:
            NotFound.
            UnsafeChange: a partition would be lost or has no majority, there is nowhere to move
                to, or it is the last voter; says what to do.
        """
        return await self._cluster.remove_node(node, replacement)

    async def drain_node(self, node: str, *, undo: bool = False, replicas: bool = False) -> int:
        """Keep leaderships off ``node`` (name or id), and with ``replicas`` move its replicas to
        others; ``undo`` lets it lead, and take replicas, again. How many partitions move.

        Raises:
            NotFound. UnsafeChange: as :meth:`remove_node`.
        """
        return await self._cluster.drain_node(node, undo, replicas)

    async def alter_cluster(self, *, replace_failed_after_s: int | None = None) -> ClusterSettings:
        """Change what is given, leave the rest; the settings of the cluster then.

        Args:
            replace_failed_after_s: a node that the metadata's leader did not hear for so many
                seconds has its replicas made anew on others; 0: never. 5 to 604,800.
        """
        return await self._cluster.alter(replace_failed_after_s)

    async def transfer_leadership(
        self, topic: str, partition: int, target: str | None = None
    ) -> str:
        """Have a partition's leader hand over to node ``target`` (None: its best follower).

        Returns the new leader's node id.
        """
        return await self._cluster.transfer(topic, partition, target)
