"""``AsyncClient``: everything a program does with a cluster, in asyncio."""

import random
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.accumulator import DEFAULT_BATCH_BYTES, ProducerIdentity
from quorumlog.client.addresses import parse_address
from quorumlog.client.admin import AdminClient
from quorumlog.client.conditional import ConditionalAppends
from quorumlog.client.consumed import ConsumedBatch
from quorumlog.client.consumer import (
    DEFAULT_FETCH_BYTES,
    DEFAULT_PREFETCH_BYTES,
    DEFAULT_RETRY_TIMEOUT_S,
    Consumer,
    ConsumerOptions,
)
from quorumlog.client.encoding import Item
from quorumlog.client.fetch_calls import FetchCalls
from quorumlog.client.grpc_transport import GrpcConnector
from quorumlog.client.lane import LaneServices
from quorumlog.client.leader_calls import LeaderCalls
from quorumlog.client.link import ProduceLinks
from quorumlog.client.models import OffsetRange, RecordMetadata
from quorumlog.client.nodes import Nodes
from quorumlog.client.note_calls import NoteCalls
from quorumlog.client.producer import (
    DEFAULT_BUFFER_BYTES,
    DEFAULT_DELIVERY_TIMEOUT_S,
    Producer,
    ProducerOptions,
)
from quorumlog.client.reader import ReaderServices
from quorumlog.client.routes import Routes
from quorumlog.client.starts import Start
from quorumlog.client.tasks import Tasks
from quorumlog.client.transport import LOG_SERVICE, Connector
from quorumlog.errors import InvalidArgument
from quorumlog.log.compression import DEFAULT_LEVEL

DEFAULT_SERVER: Final = "127.0.0.1:7400"
DEFAULT_REQUEST_TIMEOUT_S: Final = 30.0
DEFAULT_CONNECT_TIMEOUT_S: Final = 5.0


class AsyncClient(AdminClient):
    """A client of one cluster. Belongs to one event loop; use it as ``async with``.

    Args:
        servers: one or more ``host:port`` of the cluster; any live one will do, the others are
            found.
        connector: the transport; gRPC when not given.
        request_timeout_s: limit of every call but producing and consuming, retries included.
        connect_timeout_s: the same while no node has ever answered.
        rng: for jitter and the choice of nodes; give a seeded one to make a run repeatable.
    """

    def __init__(
        self,
        *servers: str,
        connector: Connector | None = None,
        request_timeout_s: float = DEFAULT_REQUEST_TIMEOUT_S,
        connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S,
        rng: random.Random | None = None,
    ) -> None:
        if not (request_timeout_s > 0 and connect_timeout_s > 0):
            raise InvalidArgument("a timeout is not positive")
        addresses = [parse_address(server) for server in servers or (DEFAULT_SERVER,)]
        self._request_timeout_s = request_timeout_s
        rng = rng or random.Random()
        self._tasks = Tasks()
        self._nodes = Nodes(addresses, connector or GrpcConnector(), rng, connect_timeout_s)
        self._routes = Routes(self._nodes, self._tasks)
        self._leader_calls = LeaderCalls(self._nodes, self._routes, rng)
        super().__init__(self._nodes, self._routes, self._leader_calls, request_timeout_s)
        self._fetches = FetchCalls(self._leader_calls, request_timeout_s)
        self._notes = NoteCalls(self._leader_calls, request_timeout_s)
        self._conditional = ConditionalAppends(
            self._leader_calls, self._fetches, self._new_identity, request_timeout_s
        )
        self._links = ProduceLinks(self._nodes, self._tasks)
        self._lane_services = LaneServices(
            self._links,
            self._routes,
            self._leader_calls,
            self._tasks,
            rng,
            self._new_identity,
            request_timeout_s,
        )
        self._reader_services = ReaderServices(self._nodes, self._routes, self._leader_calls, rng)
        self._producers: dict[Producer, None] = {}
        self._consumers: dict[Consumer, None] = {}

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up what is under way and close all connections; idempotent.

        Close producers before: what they have not got acknowledged fails here.
        """
        for producer in list(self._producers):
            producer.abort()
        for consumer in list(self._consumers):
            await consumer.close()
        self._links.close()
        await self._tasks.close()
        await self._nodes.close()

    # ------------------------------------------------------------------------------ records

    def producer(
        self,
        topic: str,
        *,
        batch_bytes: int = DEFAULT_BATCH_BYTES,
        buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        delivery_timeout_s: float = DEFAULT_DELIVERY_TIMEOUT_S,
        compression: str | None = None,
        compression_level: int = DEFAULT_LEVEL,
        fencing_token: int | None = None,
    ) -> Producer:
        """A producer for one topic; see :class:`ProducerOptions` for what can be set.

        Raises:
            CodecUnavailable: the library for ``compression`` is not installed.
        """
        producer = Producer(
            topic,
            self._lane_services,
            ProducerOptions(
                batch_bytes,
                buffer_bytes,
                delivery_timeout_s,
                compression,
                compression_level,
                fencing_token,
            ),
            lambda closed: self._producers.pop(closed, None),
        )
        self._producers[producer] = None
        return producer

    async def append_at(
        self,
        topic: str,
        partition: int,
        offset: int,
        records: Sequence[Item],
        *,
        fencing_token: int | None = None,
    ) -> RecordMetadata:
        """Append ``records``, all or none, only where the partition ends at ``offset``.

        So the first one gets ``offset``: whoever decided by what stands before it decided by all of
        it. Attempts of one client at a partition follow one another.

        Raises:
            WrongExpectedOffset: somebody else appended; says where the partition ends.
            StaleFencingToken, RecordTooLarge, InvalidArgument: nothing was appended.
            OutcomeUnknown: tried until the time was over; it may or may not have been appended.
        """
        return await self._conditional.append(topic, partition, offset, records, fencing_token)

    def consumer(
        self,
        topic: str,
        *,
        partitions: Sequence[int] | None = None,
        start: Start | Mapping[int, Start] = "earliest",
        follow: bool = True,
        max_bytes: int = DEFAULT_FETCH_BYTES,
        prefetch_bytes: int = DEFAULT_PREFETCH_BYTES,
        retry_timeout_s: float = DEFAULT_RETRY_TIMEOUT_S,
        checkpoint: str | None = None,
    ) -> Consumer:
        """A consumer of all partitions of a topic, or of some; see :class:`ConsumerOptions`.

        Args:
            start: for all partitions, or by partition (those not named begin at ``earliest``).
            checkpoint: a name under which positions are kept: where there is one, reading begins
                there and not at ``start``. ``Consumer.commit`` moves it.
        """
        consumer = Consumer(
            topic,
            partitions,
            start,
            self._reader_services,
            ConsumerOptions(
                follow,
                max_bytes,
                prefetch_bytes,
                retry_timeout_s,
                self._request_timeout_s,
                checkpoint,
            ),
            lambda closed: self._consumers.pop(closed, None),
        )
        self._consumers[consumer] = None
        return consumer

    async def fetch(
        self,
        topic: str,
        partition: int,
        start: Start = "earliest",
        *,
        max_bytes: int = DEFAULT_FETCH_BYTES,
        max_wait_s: float = 0.0,
    ) -> list[ConsumedBatch]:
        """One look at a partition: about ``max_bytes`` of batches from ``start`` on, at least one.

        Waits up to ``max_wait_s`` at the end of the log, then returns nothing.

        Raises:
            UnknownTopic, PartitionOutOfRange, OffsetOutOfRange, ProtocolError (damaged).
        """
        return await self._fetches.fetch(topic, partition, start, max_bytes, max_wait_s)

    async def offset(self, topic: str, partition: int, start: Start) -> int:
        """The offset that ``start`` means in a partition just now."""
        return await self._fetches.offset(topic, partition, start)

    async def offsets(self, topic: str) -> dict[int, OffsetRange]:
        """The records every partition of ``topic`` has, as its leader knows them."""
        return await self._fetches.offsets(topic)

    # ------------------------------------------------------------------------------ notes

    async def fence(self, topic: str, partition: int, token: int) -> int:
        """Have a partition refuse appends that name an older fencing token than ``token``.

        Whoever took a lock calls this with its token before reading where the one before stopped:
        nothing of that one comes behind it any more. Returns the newest token.

        Raises:
            UnknownTopic, PartitionOutOfRange, InvalidArgument, OutcomeUnknown.
            StaleFencingToken: a newer one came before.
        """
        return await self._notes.fence(topic, partition, token)

    async def fencing_token(self, topic: str, partition: int) -> int:
        """The newest that a partition was fenced with, or appended to; 0 without any."""
        return await self._notes.fencing_token(topic, partition)

    async def commit_checkpoint(
        self, topic: str, name: str, positions: Mapping[int, int], *, rewind: bool = False
    ) -> dict[int, int]:
        """Note under ``name`` the next offset to read of some partitions, durably on a majority.

        It goes back only with ``rewind``. Returns where it is then. Each partition is a commit of
        its own: with an error some may be done.

        Raises:
            UnknownTopic, PartitionOutOfRange, OutcomeUnknown.
            InvalidArgument: a name of no or more than 200 bytes; over 1,000 names in a partition.
            OffsetOutOfRange: beyond the last committed record.
        """
        return await self._notes.commit(topic, name, positions, rewind)

    async def checkpoints(self, topic: str) -> dict[str, dict[int, int]]:
        """The checkpoints of a topic: by name, offset by partition. Raises UnknownTopic."""
        return await self._notes.checkpoints(topic)

    async def forget_checkpoint(self, topic: str, name: str) -> None:
        """Forget a checkpoint in all partitions, where there is one. Raises UnknownTopic."""
        await self._notes.forget(topic, name)

    async def _new_identity(self) -> ProducerIdentity:
        response = await self._nodes.call(
            LOG_SERVICE + "InitProducer",
            pb.InitProducerRequest(),
            pb.InitProducerResponse,
            self._request_timeout_s,
        )
        return ProducerIdentity(response.producer_id, response.producer_epoch)
