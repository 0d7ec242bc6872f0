"""The producer of ``Client``."""

import asyncio
import concurrent.futures
import contextlib
import itertools
from collections.abc import Iterable, Mapping
from types import TracebackType

from quorumlog.client.background import BackgroundLoop
from quorumlog.client.encoding import Item
from quorumlog.client.models import RecordMetadata, SendSummary
from quorumlog.client.producer import CHUNK_RECORDS, BulkSend, Producer
from quorumlog.errors import Closed


class SyncProducer:
    """See ``Producer``. Threads may share it: each one's records keep their order."""

    def __init__(self, producer: Producer, background: BackgroundLoop) -> None:
        self._producer = producer
        self._background = background

    @property
    def topic(self) -> str:
        return self._producer.topic

    def __enter__(self) -> "SyncProducer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def send(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> RecordMetadata:
        return self._background.run(
            self._producer.send(value, key=key, headers=headers, partition=partition)
        )

    def submit(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
    ) -> "concurrent.futures.Future[RecordMetadata]":
        """Queue one record and return once it is in the buffer; the future ends with its
        acknowledgement. For many records :meth:`send_many` is far cheaper."""

        acknowledged: concurrent.futures.Future[RecordMetadata] = concurrent.futures.Future()

        async def queue() -> None:
            future = await self._producer.submit(
                value, key=key, headers=headers, partition=partition
            )
            future.add_done_callback(lambda done: _copy(done, acknowledged))

        self._background.run(queue())
        return acknowledged

    def send_many(self, records: Iterable[Item], *, partition: int | None = None) -> SendSummary:
        """``records`` is iterated in the calling thread, no faster than it can be sent."""
        bulk = BulkSend(self._producer, partition)
        remaining = iter(records)
        while not bulk.failed and (chunk := list(itertools.islice(remaining, CHUNK_RECORDS))):
            self._background.run(bulk.add(chunk))
        return self._background.run(bulk.finish())

    def flush(self) -> None:
        self._background.run(self._producer.flush())

    def close(self) -> None:
        self._background.run(self._producer.close())

    def abort(self) -> None:
        """Give up what is not acknowledged, at once; nothing happens when the client is closed."""

        async def give_up() -> None:
            self._producer.abort()

        with contextlib.suppress(Closed):
            self._background.run(give_up())


def _copy(
    source: "asyncio.Future[RecordMetadata]",
    target: "concurrent.futures.Future[RecordMetadata]",
) -> None:
    if not target.set_running_or_notify_cancel():
        return
    error = source.exception()
    if error is not None:
        target.set_exception(error)
    else:
        target.set_result(source.result())
