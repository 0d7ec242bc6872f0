"""Disk work that the log's logical state is ahead by: performed in order by a flush."""

from dataclasses import dataclass, field

from quorumlog.log.batch import Batch, BatchHeader
from quorumlog.log.fast_dataclass import fast_dataclass
from quorumlog.log.segment import Segment
from quorumlog.log.sparse_index import SparseIndex
from quorumlog.types import Index, Offset


@fast_dataclass(frozen=True, slots=True)
class Limits:
    """What the owner says of the log: everything through ``commit_floor`` is committed, and what
    is before ``start_offset`` is deleted."""

    commit_floor: Index
    start_offset: Offset


@dataclass(slots=True)
class AppendWork:
    """Write ``batches`` (never empty) one after the other at ``position`` of ``segment``."""

    segment: Segment
    position: int
    batches: list[Batch] = field(default_factory=list)

    @property
    def next_index(self) -> int:
        """The index after the last one on disk, once this is done."""
        return self.batches[-1].header.index + 1


@dataclass(frozen=True, slots=True)
class RollWork:
    """Seal ``sealed``, which ends at ``end`` and has ``index``; make the file of ``segment``."""

    sealed: Segment
    end: int
    index: SparseIndex
    segment: Segment

    @property
    def next_index(self) -> int:
        return self.segment.first_index


@dataclass(frozen=True, slots=True)
class TruncateWork:
    """Remove the segments ``removed``, cut ``segment`` at ``position``, behind batch ``before``.

    ``removed`` follow ``segment`` in the log and are in order; not all need to be on disk.
    """

    segment: Segment
    position: int
    before: BatchHeader
    removed: tuple[Segment, ...]

    @property
    def next_index(self) -> Index:
        return self.before.next_index


@dataclass(frozen=True, slots=True)
class RemakeWork:
    """Put ``segment`` in the place of the last one, which has no batch and another header."""

    segment: Segment

    @property
    def next_index(self) -> int:
        return self.segment.first_index


Work = AppendWork | RollWork | TruncateWork | RemakeWork
