"""A log in memory that satisfies ``RaftLog``: a list, checked at every append."""

from collections.abc import Sequence

from quorumlog.errors import InvariantViolation
from quorumlog.log.batch import Batch, Draft, Kind
from quorumlog.types import Index, Offset, Term


class MemoryLog:
    """``batches`` may be shared with others that never change them."""

    def __init__(
        self,
        batches: Sequence[Batch] = (),
        start_index: int = 1,
        prev_term: int = 0,
        start_offset: int = 0,
    ) -> None:
        self.batches: list[Batch] = []
        self.changes = 0
        self._start_index = start_index
        self._prev_term = prev_term
        self._start_offset = start_offset
        self.append(batches)

    @property
    def start_index(self) -> Index:
        return Index(self._start_index)

    @property
    def next_index(self) -> Index:
        return Index(self._start_index + len(self.batches))

    @property
    def last_index(self) -> Index:
        return Index(self._start_index + len(self.batches) - 1)

    @property
    def memory_index(self) -> Index:
        return self.start_index

    @property
    def last_term(self) -> Term:
        return self.batches[-1].header.term if self.batches else Term(self._prev_term)

    @property
    def end_offset(self) -> Offset:
        return self.batches[-1].header.next_offset if self.batches else Offset(self._start_offset)

    @property
    def last_timestamp_ms(self) -> int:
        return self.batches[-1].header.timestamp_ms if self.batches else 0

    def term_at(self, index: int) -> Term:
        if index == self._start_index - 1:
            return Term(self._prev_term)
        if not self._start_index <= index <= self.last_index:
            raise InvariantViolation(
                f"no term at {index}: [{self._start_index}, {self.next_index})"
            )
        return self.batches[index - self._start_index].header.term

    def append(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            header = batch.header
            if header.index != self.next_index or header.base_offset != self.end_offset:
                raise InvariantViolation(f"{header} does not continue at {self.next_index}")
            if header.term < self.last_term or header.timestamp_ms < self.last_timestamp_ms:
                raise InvariantViolation(f"{header}: term or time decreases")
            self.batches.append(batch)
        self.changes += 1

    def truncate(self, from_index: int) -> None:
        if not self._start_index <= from_index <= self.last_index:
            raise InvariantViolation(f"cannot cut at {from_index}")
        del self.batches[from_index - self._start_index :]
        self.changes += 1

    def slice(self, first_index: int, max_bytes: int) -> list[Batch]:
        if not self._start_index <= first_index <= self.last_index:
            raise InvariantViolation(f"no batch at {first_index}")
        chosen: list[Batch] = []
        for batch in self.batches[first_index - self._start_index :]:
            max_bytes -= batch.size_bytes
            if chosen and max_bytes < 0:
                break
            chosen.append(batch)
        return chosen


def batches_of(terms: Sequence[int], start_index: int = 1, start_offset: int = 0) -> list[Batch]:
    """One batch of one record for each term, as the figures of the paper draw logs."""
    return [
        Draft.of(f"{term}".encode(), 1, Kind.RECORDS).stamp(
            start_index + number, term, start_offset + number, 0
        )
        for number, term in enumerate(terms)
    ]


def terms_of(log: MemoryLog) -> list[int]:
    return [batch.header.term for batch in log.batches]
