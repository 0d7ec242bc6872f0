"""The consumer of ``Client``."""

import contextlib
from collections.abc import Iterator
from types import TracebackType

from quorumlog.client.background import BackgroundLoop
from quorumlog.client.consumed import ConsumedBatch
from quorumlog.client.consumer import Consumer
from quorumlog.client.models import ConsumedRecord
from quorumlog.client.starts import Start
from quorumlog.errors import Closed


class SyncConsumer:
    """See ``Consumer``. Iterating crosses to the client's thread once per batch, not per record.

    One thread may iterate at a time; another one may close it.
    """

    def __init__(self, consumer: Consumer, background: BackgroundLoop) -> None:
        self._consumer = consumer
        self._background = background
        self._batch: ConsumedBatch | None = None
        self._records: list[ConsumedRecord] = []
        self._next_record = 0

    @property
    def topic(self) -> str:
        return self._consumer.topic

    @property
    def partitions(self) -> tuple[int, ...]:
        return self._consumer.partitions

    def __enter__(self) -> "SyncConsumer":
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        self._background.run(self._consumer.open())

    def __iter__(self) -> Iterator[ConsumedRecord]:
        return self

    def __next__(self) -> ConsumedRecord:
        while self._next_record >= len(self._records):
            batch = self._background.run(self._consumer.next_batch())
            if batch is None:
                raise StopIteration
            self._records = batch.records()
            self._next_record = 0
            self._batch = batch
        record = self._records[self._next_record]
        self._next_record += 1
        return record

    def batches(self) -> Iterator[ConsumedBatch]:
        """The same records batch by batch; the position moves when a batch is returned."""
        while (batch := self.next_batch()) is not None:
            yield batch

    def next_batch(self) -> ConsumedBatch | None:
        """The next batch, or None at the end of the log when not following."""
        batch, start = self._batch, self._next_record
        self._drop_current()
        if batch is not None and batch.start + start < batch.next_offset:
            return ConsumedBatch(batch.topic, batch.partition, batch.start + start, batch.batch)
        return self._background.run(self._consumer.next_batch())

    def commit(self, *, rewind: bool = False) -> dict[int, int]:
        """See ``Consumer.commit``."""
        self.open()
        positions = {partition: self.position(partition) for partition in self.partitions}
        return self._background.run(self._consumer.commit_positions(positions, rewind))

    def position(self, partition: int) -> int:
        """The offset of the next record this consumer returns from ``partition``."""
        if self._batch is not None and self._batch.partition == partition:
            return self._batch.start + self._next_record
        return self._consumer.position(partition)

    def seek(self, partition: int, start: Start) -> None:
        self._background.run(self._consumer.seek(partition, start))
        if self._batch is not None and self._batch.partition == partition:
            self._drop_current()

    def close(self) -> None:
        """Stop reading; idempotent. Nothing happens when the client is closed."""
        with contextlib.suppress(Closed):
            self._background.run(self._consumer.close())

    def _drop_current(self) -> None:
        self._batch = None
        self._records = []
        self._next_record = 0
