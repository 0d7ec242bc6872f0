"""Idempotent producers: which batches of whom this partition has, so that a retry appends nothing.

:class:`ProducerTable` is a function of the partition's committed log, equal on every replica.
:class:`PendingProducers` lays over it what the leader has appended and not yet applied. A producer
keeps one sequence of record numbers per partition and epoch, from 0 and without gaps; each batch
has to begin where the one before it ended.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from quorumlog.broker.producer_snapshot import (
    AppliedBatch,
    batches_of,
    epoch_and_next_sequence,
    join_entries,
    next_offset_of,
    split_entries,
    with_batch,
    without_batches_before,
)
from quorumlog.errors import (
    DuplicateSequence,
    OutOfOrderSequence,
    ProducerFenced,
    ProducerForgotten,
    SequenceError,
)
from quorumlog.log.batch import BatchHeader, Kind
from quorumlog.types import Index

MAX_PRODUCERS: Final = 10_000
"""Producers remembered per partition; then the one whose last batch is the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The batch is committed: acknowledge it again as it was acknowledged first."""

    base_offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class InFlight:
    """The batch is in the log at ``index`` and not yet committed: wait for that one."""

    index: Index


class ProducerTable:
    """What the committed log says of each producer.

    Memory: at most ``max_producers`` entries (:mod:`quorumlog.broker.producer_snapshot`).

    What it holds follows from the batches at and behind the log's start alone: the producers of the
    newest ``max_producers`` different ids, and of each its last batches in a row. So a table made
    anew from there is equal, also where producers were evicted.
    """

    def __init__(self, max_producers: int = MAX_PRODUCERS) -> None:
        self.forgotten_through = 0
        """A producer that is not known, with an id up to this, may have been forgotten."""
        self._max_producers = max_producers
        # The order is that of each producer's last batch in the log: the same on every replica.
        self._producers: OrderedDict[int, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._producers)

    def applied(self, header: BatchHeader) -> None:
        """Take note of a committed batch. The log is the truth: this never refuses one."""
        if header.producer_id == 0 or header.kind is not Kind.RECORDS:
            return
        entry = self._producers.get(header.producer_id, b"")
        if entry and epoch_and_next_sequence(entry)[0] != header.producer_epoch:
            entry = b""
        batch = AppliedBatch(
            header.sequence, header.record_count, header.base_offset, header.timestamp_ms
        )
        self._producers[header.producer_id] = with_batch(
            entry, header.producer_id, header.producer_epoch, batch
        )
        self._producers.move_to_end(header.producer_id)
        if len(self._producers) > self._max_producers:
            self._producers.popitem(last=False)

    def largest_id_before(self, offset: int) -> int:
        """The largest id of the producers that ``forget_before(offset)`` forgets; 0: of none."""
        forgotten = takewhile(
            lambda known: next_offset_of(known[1]) <= offset, self._producers.items()
        )
        return max((producer_id for producer_id, _ in forgotten), default=0)

    def forget_before(self, offset: int, forgotten_through: int) -> None:
        """Forget every batch whose last record stands before ``offset``, and all of a producer
        that has no other. ``forgotten_through``: the largest id of all that were ever forgotten so.
        """
        self.forgotten_through = max(self.forgotten_through, forgotten_through)
        self._producers = OrderedDict(
            (producer_id, kept)
            for producer_id, entry in self._producers.items()
            if (kept := without_batches_before(entry, offset))
        )

    def check(
        self, producer_id: int, epoch: int, sequence: int, record_count: int
    ) -> Duplicate | None:
        """None when the batch is the producer's next one (or has no producer: id 0).

        A producer that is not known, new or evicted, begins at sequence 0; so does a new epoch.

        Raises:
            OutOfOrderSequence: batches before it are missing.
            ProducerForgotten: its batches may have been deleted, with this one among them.
            DuplicateSequence: committed before, and its offset is forgotten.
            ProducerFenced: there is a newer epoch.
            SequenceError: it holds committed and new records together.
        """
        if producer_id == 0:
            return None
        entry = self._producers.get(producer_id)
        if entry is None:
            if producer_id <= self.forgotten_through:
                raise ProducerForgotten(0, sequence)
            _check_next(0, sequence)
            return None
        known_epoch, next_sequence = epoch_and_next_sequence(entry)
        _check_epoch(producer_id, known_epoch, epoch)
        if epoch > known_epoch:
            next_sequence = 0
        if sequence >= next_sequence:
            _check_next(next_sequence, sequence)
            return None
        found = self.find(producer_id, epoch, sequence, record_count)
        if found is None:
            raise _past_error(next_sequence, sequence, record_count)
        return found

    def find(
        self, producer_id: int, epoch: int, sequence: int, record_count: int
    ) -> Duplicate | None:
        """The batch, where it is one of the producer's last ones."""
        entry = self._producers.get(producer_id)
        if entry is not None and epoch_and_next_sequence(entry)[0] == epoch:
            for batch in batches_of(entry):
                if (batch.sequence, batch.record_count) == (sequence, record_count):
                    return Duplicate(batch.base_offset, batch.timestamp_ms)
        return None

    def snapshot(self) -> bytes:
        """The whole table; equal tables give equal bytes."""
        return join_entries(self._producers.values())

    def restore(self, snapshot: bytes, forgotten_through: int = 0) -> None:
        """Become the table of ``snapshot``, which does not say ``forgotten_through``.

        Raises:
            ProtocolError: it is not a snapshot this release can read; nothing changed.
        """
        self._producers = OrderedDict(split_entries(snapshot))
        self.forgotten_through = forgotten_through


@dataclass(frozen=True, slots=True)
class _Pending:
    epoch: int
    sequence: int
    record_count: int
    index: Index


class PendingProducers:
    """The leader's view: the table and, over it, its own batches that are not applied yet.

    Bounded by the replica's bound on uncommitted bytes: one small entry per batch.
    """

    def __init__(self, table: ProducerTable) -> None:
        self._table = table
        self._pending: dict[int, deque[_Pending]] = {}

    def __len__(self) -> int:
        return sum(len(batches) for batches in self._pending.values())

    def appended(self, header: BatchHeader) -> None:
        """A batch that ``check`` let pass is in this leader's log."""
        if header.producer_id == 0 or header.kind is not Kind.RECORDS:
            return
        self._pending.setdefault(header.producer_id, deque()).append(
            _Pending(header.producer_epoch, header.sequence, header.record_count, header.index)
        )

    def applied(self, header: BatchHeader) -> None:
        """The table has this batch now, and with it all before it."""
        batches = self._pending.get(header.producer_id)
        if batches is None:
            return
        while batches and batches[0].index <= header.index:
            batches.popleft()
        if not batches:
            del self._pending[header.producer_id]

    def clear(self) -> None:
        """Leadership is lost: whether what is pending will be committed is not known here."""
        self._pending.clear()

    def check(
        self, producer_id: int, epoch: int, sequence: int, record_count: int
    ) -> Duplicate | InFlight | None:
        """As :meth:`ProducerTable.check`, with what is pending counted as appended."""
        batches = self._pending.get(producer_id)
        if batches is None:
            return self._table.check(producer_id, epoch, sequence, record_count)
        last = batches[-1]
        _check_epoch(producer_id, last.epoch, epoch)
        next_sequence = last.sequence + last.record_count if epoch == last.epoch else 0
        if sequence >= next_sequence:
            _check_next(next_sequence, sequence)
            return None
        for batch in batches:
            if (batch.epoch, batch.sequence, batch.record_count) == (epoch, sequence, record_count):
                return InFlight(batch.index)
        # Not check(): the table may have forgotten this producer since, and must not start it anew.
        found = self._table.find(producer_id, epoch, sequence, record_count)
        if found is None:
            raise _past_error(next_sequence, sequence, record_count)
        return found


def _check_epoch(producer_id: int, current: int, epoch: int) -> None:
    if epoch < current:
        raise ProducerFenced(
            f"producer {producer_id} has gone on to epoch {current}, this batch is of {epoch}: "
            "another process took over"
        )


def _check_next(next_sequence: int, sequence: int) -> None:
    if sequence != next_sequence:
        raise OutOfOrderSequence(next_sequence, sequence)


def _past_error(next_sequence: int, sequence: int, record_count: int) -> SequenceError:
    """Why a batch that begins before ``next_sequence`` and is not a known one is refused."""
    end = sequence + record_count
    if end > next_sequence:
        # Not a DuplicateSequence: the producer would take the new records for committed ones.
        return SequenceError(
            f"records [{sequence}, {next_sequence}) of this batch were appended before and "
            f"[{next_sequence}, {end}) were not: a batch is sent again as it was"
        )
    return DuplicateSequence(
        f"records [{sequence}, {end}) of this producer were appended before, too long ago to "
        "know at which offset"
    )
