"""What a client asks about topics as a whole; the public names stand in ``AsyncClient``."""

from dataclasses import asdict, dataclass

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.leader_calls import LeaderCalls
from quorumlog.client.models import TopicInfo, topic_info
from quorumlog.client.nodes import Doubt, Nodes
from quorumlog.client.routes import Routes
from quorumlog.client.transport import ADMIN_SERVICE
from quorumlog.errors import InvalidArgument, TopicExists, UnknownTopic

_LIMITS = ("retention_ms", "retention_bytes", "retention_records", "segment_bytes")


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """Settings as they are asked for; None: not named. The meanings: ``AsyncClient.create_topic``.

    Raises:
        InvalidArgument: a number that does not fit its field on the wire.
    """

    fsync: str | None = None
    retention_ms: int | None = None
    retention_bytes: int | None = None
    retention_records: int | None = None
    segment_bytes: int | None = None
    cleanup: str | None = None

    def __post_init__(self) -> None:
        for name in _LIMITS:
            number = getattr(self, name)
            is_number = isinstance(number, int) and not isinstance(number, bool)
            if number is not None and not (is_number and -(1 << 63) <= number < 1 << 63):
                raise InvalidArgument(f"{name} is {number!r}, not a whole number of 64 bits")

    def message(self) -> pb.TopicConfig:
        named = {name: value for name, value in asdict(self).items() if value is not None}
        return pb.TopicConfig(**named)

    def are_those_of(self, topic: TopicInfo) -> bool:
        """Whether a new topic with these settings would be kept as ``topic`` is."""
        limits = all((getattr(self, name) or -1) == getattr(topic, name) for name in _LIMITS)
        return limits and (self.fsync or "always") == topic.fsync


class TopicCalls:
    def __init__(
        self, nodes: Nodes, routes: Routes, leader_calls: LeaderCalls, request_timeout_s: float
    ) -> None:
        self._nodes = nodes
        self._routes = routes
        self._leader_calls = leader_calls
        self._request_timeout_s = request_timeout_s

    async def create(
        self, name: str, partitions: int, replicas: int, settings: TopicSettings, exist_ok: bool
    ) -> TopicInfo:
        """See ``AsyncClient.create_topic``."""
        doubt = Doubt()
        try:
            topic = await self._nodes.call(
                ADMIN_SERVICE + "CreateTopic",
                pb.CreateTopicRequest(
                    name=name,
                    partitions=count_of(partitions, "partitions"),
                    replicas=count_of(replicas, "replicas"),
                    config=settings.message(),
                ),
                pb.Topic,
                self._request_timeout_s,
                doubt,
            )
        except TopicExists:
            existing = await self.describe(name)
            # When the answer to an earlier attempt was lost, it may be our own topic that exists.
            ours = len(existing.partitions) == partitions and settings.are_those_of(existing)
            if exist_ok or (doubt.exists and ours and replicas in (0, existing.replicas)):
                return existing
            raise
        self._routes.forget(name)
        return topic_info(topic)

    async def alter(
        self, name: str, partitions: int, settings: TopicSettings, replicas: int
    ) -> TopicInfo:
        """See ``AsyncClient.alter_topic``; 0 partitions or replicas: as many as there are."""
        topic = await self._nodes.call(
            ADMIN_SERVICE + "AlterTopic",
            pb.AlterTopicRequest(
                name=name,
                partitions=count_of(partitions, "partitions"),
                config=settings.message(),
                replicas=count_of(replicas, "replicas"),
            ),
            pb.Topic,
            self._request_timeout_s,
        )
        self._routes.forget(name)
        return topic_info(topic)

    async def delete(self, name: str) -> None:
        """See ``AsyncClient.delete_topic``."""
        doubt = Doubt()
        try:
            await self._nodes.call(
                ADMIN_SERVICE + "DeleteTopic",
                pb.DeleteTopicRequest(name=name),
                pb.DeleteTopicResponse,
                self._request_timeout_s,
                doubt,
            )
        except UnknownTopic:
            if not doubt.exists:
                raise
        self._routes.forget(name)

    async def delete_before(self, name: str, partition: int, offset: int) -> int:
        """See ``AsyncClient.delete_before``."""
        if not isinstance(offset, int) or not 0 <= offset < 1 << 63:
            raise InvalidArgument(f"offset {offset!r} is not between 0 and 2^63")
        response = await self._leader_calls.call(
            name,
            partition,
            ADMIN_SERVICE + "DeleteBefore",
            pb.DeleteBeforeRequest(
                topic=name, partition=count_of(partition, "partition"), offset=offset
            ),
            pb.DeleteBeforeResponse,
            self._request_timeout_s,
        )
        return response.log_start_offset

    async def describe(self, name: str) -> TopicInfo:
        """See ``AsyncClient.describe_topic``."""
        topic = await self._nodes.call(
            ADMIN_SERVICE + "DescribeTopic",
            pb.DescribeTopicRequest(name=name),
            pb.Topic,
            self._request_timeout_s,
        )
        return topic_info(topic)

    async def list(self) -> list[TopicInfo]:
        """See ``AsyncClient.list_topics``."""
        response = await self._nodes.call(
            ADMIN_SERVICE + "ListTopics",
            pb.ListTopicsRequest(),
            pb.ListTopicsResponse,
            self._request_timeout_s,
        )
        topics = [topic_info(topic) for topic in response.topics]
        return sorted(topics, key=lambda topic: topic.name)


def count_of(number: int, name: str) -> int:
    """``number`` when it fits its field on the wire; raises InvalidArgument."""
    if not isinstance(number, int) or not 0 <= number < 1 << 32:
        raise InvalidArgument(f"{name} is {number!r}, not a number from 0 to 2^32 - 1")
    return number
