"""``Client``: the same as ``AsyncClient``, for programs without asyncio.

Each call runs in the event loop of one background thread and waits for it; what it does, returns
and raises is said at the call of the same name in ``AsyncClient``. Safe to use from many threads.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType

from quorumlog.client.accumulator import DEFAULT_BATCH_BYTES
from quorumlog.client.background import BackgroundLoop
from quorumlog.client.client import (
    DEFAULT_CONNECT_TIMEOUT_S,
    DEFAULT_REQUEST_TIMEOUT_S,
    AsyncClient,
)
from quorumlog.client.consumed import ConsumedBatch
from quorumlog.client.consumer import (
    DEFAULT_FETCH_BYTES,
    DEFAULT_PREFETCH_BYTES,
    DEFAULT_RETRY_TIMEOUT_S,
)
from quorumlog.client.encoding import Item
from quorumlog.client.models import (
    ClusterInfo,
    ClusterSettings,
    OffsetRange,
    RecordMetadata,
    TopicInfo,
)
from quorumlog.client.producer import DEFAULT_BUFFER_BYTES, DEFAULT_DELIVERY_TIMEOUT_S
from quorumlog.client.starts import Start
from quorumlog.client.sync_consumer import SyncConsumer
from quorumlog.client.sync_producer import SyncProducer
from quorumlog.client.transport import Connector
from quorumlog.log.compression import DEFAULT_LEVEL


class Client:
    """A synchronous client of one cluster; use it as ``with``. See ``AsyncClient``."""

    def __init__(
        self,
        *servers: str,
        connector: Connector | None = None,
        request_timeout_s: float = DEFAULT_REQUEST_TIMEOUT_S,
        connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S,
    ) -> None:
        client = AsyncClient(
            *servers,
            connector=connector,
            request_timeout_s=request_timeout_s,
            connect_timeout_s=connect_timeout_s,
        )
        self._client = client
        self._background = BackgroundLoop()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is under way and end the thread, within seconds; idempotent.

        Calls that other threads are in end with ``Closed``.
        """
        self._background.close(self._client.close())

    def create_topic(
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
        return self._background.run(
            self._client.create_topic(
                name,
                partitions,
                replicas,
                fsync,
                exist_ok,
                retention_ms=retention_ms,
                retention_bytes=retention_bytes,
                retention_records=retention_records,
                segment_bytes=segment_bytes,
                cleanup=cleanup,
            )
        )

    def alter_topic(
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
        return self._background.run(
            self._client.alter_topic(
                name,
                partitions,
                fsync,
                retention_ms=retention_ms,
                retention_bytes=retention_bytes,
                retention_records=retention_records,
                segment_bytes=segment_bytes,
                cleanup=cleanup,
                replicas=replicas,
            )
        )

    def delete_topic(self, name: str) -> None:
        self._background.run(self._client.delete_topic(name))

    def delete_before(self, topic: str, partition: int, offset: int) -> int:
        return self._background.run(self._client.delete_before(topic, partition, offset))

    def describe_topic(self, name: str) -> TopicInfo:
        return self._background.run(self._client.describe_topic(name))

    def list_topics(self) -> list[TopicInfo]:
        return self._background.run(self._client.list_topics())

    def cluster_status(self) -> ClusterInfo:
        return self._background.run(self._client.cluster_status())

    def assign_replicas(self, topic: str, partition: int, replicas: Sequence[str]) -> TopicInfo:
        return self._background.run(self._client.assign_replicas(topic, partition, replicas))

    def add_voter(self, node: str) -> tuple[str, ...]:
        return self._background.run(self._client.add_voter(node))

    def remove_node(self, node: str, replacement: str | None = None) -> int:
        return self._background.run(self._client.remove_node(node, replacement))

    def drain_node(self, node: str, *, undo: bool = False, replicas: bool = False) -> int:
        return self._background.run(self._client.drain_node(node, undo=undo, replicas=replicas))

    def alter_cluster(self, *, replace_failed_after_s: int | None = None) -> ClusterSettings:
        return self._background.run(
            self._client.alter_cluster(replace_failed_after_s=replace_failed_after_s)
        )

    def transfer_leadership(self, topic: str, partition: int, target: str | None = None) -> str:
        return self._background.run(self._client.transfer_leadership(topic, partition, target))

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
    ) -> SyncProducer:
        producer = self._client.producer(
            topic,
            batch_bytes=batch_bytes,
            buffer_bytes=buffer_bytes,
            delivery_timeout_s=delivery_timeout_s,
            compression=compression,
            compression_level=compression_level,
            fencing_token=fencing_token,
        )
        return SyncProducer(producer, self._background)

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
    ) -> SyncConsumer:
        return SyncConsumer(
            self._client.consumer(
                topic,
                partitions=partitions,
                start=start,
                follow=follow,
                max_bytes=max_bytes,
                prefetch_bytes=prefetch_bytes,
                retry_timeout_s=retry_timeout_s,
                checkpoint=checkpoint,
            ),
            self._background,
        )

    def fetch(
        self,
        topic: str,
        partition: int,
        start: Start = "earliest",
        *,
        max_bytes: int = DEFAULT_FETCH_BYTES,
        max_wait_s: float = 0.0,
    ) -> list[ConsumedBatch]:
        return self._background.run(
            self._client.fetch(topic, partition, start, max_bytes=max_bytes, max_wait_s=max_wait_s)
        )

    def append_at(
        self,
        topic: str,
        partition: int,
        offset: int,
        records: Sequence[Item],
        *,
        fencing_token: int | None = None,
    ) -> RecordMetadata:
        return self._background.run(
            self._client.append_at(topic, partition, offset, records, fencing_token=fencing_token)
        )

    def fence(self, topic: str, partition: int, token: int) -> int:
        return self._background.run(self._client.fence(topic, partition, token))

    def fencing_token(self, topic: str, partition: int) -> int:
        return self._background.run(self._client.fencing_token(topic, partition))

    def commit_checkpoint(
        self, topic: str, name: str, positions: Mapping[int, int], *, rewind: bool = False
    ) -> dict[int, int]:
        return self._background.run(
            self._client.commit_checkpoint(topic, name, positions, rewind=rewind)
        )

    def checkpoints(self, topic: str) -> dict[str, dict[int, int]]:
        return self._background.run(self._client.checkpoints(topic))

    def forget_checkpoint(self, topic: str, name: str) -> None:
        self._background.run(self._client.forget_checkpoint(topic, name))

    def offset(self, topic: str, partition: int, start: Start) -> int:
        return self._background.run(self._client.offset(topic, partition, start))

    def offsets(self, topic: str) -> dict[int, OffsetRange]:
        return self._background.run(self._client.offsets(topic))
