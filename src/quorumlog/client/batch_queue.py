"""The batches of one producer and partition: their order, numbers and fate. No input, no output.

The rules. At most five batches are unanswered. A batch goes out when nothing is under way,
otherwise records gather until it is full or the way is free. Every batch keeps its (producer id,
sequence) through all attempts, and after any trouble all unacknowledged batches are sent again from
the first: the log answers for those it has and refuses those that would leave a gap.

A batch that is given up leaves a gap in the sequence; what follows goes on under a new producer id.
That doubles nothing: behind the gap the log refuses everything of the old id for ever. It is done
only when the batch given up is surely not in the log; otherwise those sent after it are in doubt
too, and all of them fail with ``OutcomeUnknown``.
"""

from collections import deque
from typing import Final

from quorumlog.client.accumulator import OpenBatch, ProducerIdentity, SealedBatch
from quorumlog.errors import InvariantViolation, OutcomeUnknown, QuorumlogError

MAX_IN_FLIGHT: Final = 5
"""Unanswered batches of a partition: what the log remembers of each producer."""


class BatchQueue:
    """``open`` takes records, ``waiting`` is to be sent, ``in_flight`` is unanswered; in order."""

    def __init__(self, batch_bytes: int, compression_level: int | None = None) -> None:
        """``compression_level``: of zstd, with which batches are compressed; None: they are not."""
        self.identity: ProducerIdentity | None = None
        self.open: OpenBatch | None = None
        self.waiting: deque[SealedBatch] = deque()
        self.in_flight: deque[SealedBatch] = deque()
        self.attempt = 0
        self._batch_bytes = batch_bytes
        self._compression_level = compression_level
        self._next_sequence = 0

    @property
    def empty(self) -> bool:
        return self.open is None and not self.waiting and not self.in_flight

    @property
    def first(self) -> SealedBatch | OpenBatch | None:
        """The oldest batch that is not acknowledged."""
        if self.in_flight:
            return self.in_flight[0]
        return self.waiting[0] if self.waiting else self.open

    def has_room(self, size_bytes: int, record_count: int) -> bool:
        return self.open is not None and self.open.has_room(
            size_bytes, record_count, self._batch_bytes
        )

    def seal(self) -> None:
        if self.open is not None:
            self.waiting.append(self.open.seal(self._compression_level))
            self.open = None

    def adopt(self, identity: ProducerIdentity) -> None:
        self.identity = identity
        self._next_sequence = 0

    def may_send(self) -> bool:
        if self.waiting:
            return len(self.in_flight) < MAX_IN_FLIGHT
        return self.open is not None and not self.in_flight

    def take(self) -> SealedBatch:
        """The next batch to send, numbered. Only after :meth:`may_send`, with an identity."""
        if self.identity is None:
            raise InvariantViolation("a batch without a producer id would not be deduplicated")
        self.seal_if_nothing_waits()
        batch = self.waiting.popleft()
        if batch.identity is None:
            batch.identity = self.identity
            batch.sequence = self._next_sequence
            self._next_sequence += batch.record_count
        self.in_flight.append(batch)
        return batch

    def seal_if_nothing_waits(self) -> None:
        if not self.waiting:
            self.seal()

    def rewind(self) -> None:
        """Put everything unanswered back in front; answers to earlier attempts are now stale."""
        self.attempt += 1
        while self.in_flight:
            batch = self.in_flight.pop()
            batch.in_doubt = batch.in_doubt or batch.answer is None
            batch.answer = None
            self.waiting.appendleft(batch)

    def start_anew(self) -> None:
        """Forget the numbers of all that wait: a new producer id will number them."""
        self.identity = None
        for batch in self.waiting:
            batch.identity = None
            batch.in_doubt = False

    def give_up_first(self, error: QuorumlogError) -> list[tuple[SealedBatch, QuorumlogError]]:
        """Remove the first batch, and with it those whose fate hangs on it; each with its error.

        Nothing may be in flight (:meth:`rewind` first).
        """
        self.seal_if_nothing_waits()
        first = self.waiting.popleft()
        if not first.in_doubt:
            if first.identity is not None:
                self.start_anew()
            return [(first, error)]
        lost = [first]
        while self.waiting and self.waiting[0].identity is not None:
            lost.append(self.waiting.popleft())
        self.start_anew()
        return [(batch, _doubt(batch, error)) for batch in lost]

    def give_up_all(self, error: QuorumlogError) -> list[tuple[SealedBatch, QuorumlogError]]:
        """Remove everything; what may be in the log fails with OutcomeUnknown, the rest as said."""
        self.rewind()
        self.seal()
        lost = list(self.waiting)
        self.waiting.clear()
        self.start_anew()
        return [(batch, _doubt(batch, error) if batch.in_doubt else error) for batch in lost]


def _doubt(batch: SealedBatch, error: QuorumlogError) -> OutcomeUnknown:
    doubt = OutcomeUnknown(
        f"{batch.record_count} records were sent and not acknowledged, they may or may not be "
        f"in the log: {error}"
    )
    doubt.__cause__ = error
    return doubt
