"""Disk work that the log's logical state is ahead by: performed in order by a flush."""

from dataclasses import dataclass, field

from quorumlog.log.batch import Batch
from quorumlog.log.segment import Segment
from quorumlog.log.sparse_index import SparseIndex
from quorumlog.types import Index


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
    """Remove the segments ``removed``, cut ``segment`` at ``position``, where ``next_index`` stood.

    ``removed`` follow ``segment`` in the log and are in order; not all need to be on disk.
    """

    segment: Segment
    position: int
    next_index: Index
    removed: tuple[Segment, ...]


Work = AppendWork | RollWork | TruncateWork
