"""The newest batches of a log, in memory: all that is not written yet, and some that is."""

from bisect import bisect_left, bisect_right

from quorumlog.log.batch import Batch
from quorumlog.types import Index


class Tail:
    """Consecutive batches up to the end of the log, with their sizes added up.

    Not safe for threads: the log's lock guards it. What it hands out is a copy of references.
    """

    __slots__ = ("_batches", "_ends", "_start", "first_index")

    def __init__(self, next_index: Index) -> None:
        """Empty; the next batch has ``next_index``."""
        self.first_index: int = next_index
        self._batches: list[Batch] = []
        self._ends: list[int] = []
        self._start = 0

    def __len__(self) -> int:
        return len(self._batches)

    def append(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._ends.append((self._ends[-1] if self._ends else self._start) + batch.size_bytes)

    def get(self, index: int) -> Batch:
        """Batch ``index``, which is in the tail."""
        return self._batches[index - self.first_index]

    def bytes_between(self, begin_index: int, end_index: int) -> int:
        """Bytes of the batches ``begin_index`` to ``end_index - 1``, all in the tail."""
        return self._end_before(end_index) - self._end_before(begin_index)

    def slice(self, first_index: int, last_index: int, max_bytes: int) -> list[Batch]:
        """Batches from ``first_index`` to ``last_index``, at most ``max_bytes``, at least one."""
        begin = first_index - self.first_index
        end = bisect_right(self._ends, self._end_before(first_index) + max_bytes, lo=begin)
        end = min(max(end, begin + 1), last_index + 1 - self.first_index)
        return self._batches[begin:end]

    def slice_before(self, last_index: int, max_bytes: int) -> list[Batch]:
        """Batches that end with ``last_index``, at most ``max_bytes``, at least one."""
        end = last_index + 1 - self.first_index
        from_byte = self._ends[end - 1] - max_bytes
        begin = 0
        if self._start < from_byte:
            begin = min(bisect_left(self._ends, from_byte, hi=end) + 1, end - 1)
        return self._batches[begin:end]

    def find_offset(self, offset: int) -> int | None:
        """Index of the last batch whose base offset is at or before ``offset``, if it is here."""
        at = bisect_right(self._batches, offset, key=_base_offset) - 1
        return None if at < 0 else self.first_index + at

    def cut(self, index: int) -> None:
        """Forget the batches from ``index`` on; an index before the tail leaves it empty there."""
        if index < self.first_index:
            self._start, self.first_index = 0, index
            self._batches, self._ends = [], []
            return
        del self._batches[index - self.first_index :]
        del self._ends[index - self.first_index :]

    def evict(self, written_index: int, keep_bytes: int) -> None:
        """Forget the oldest batches through ``written_index`` while over ``keep_bytes``.

        Does nothing until the excess is an eighth, since it moves all that stay.
        """
        if not self._ends:
            return
        excess = self._ends[-1] - self._start - keep_bytes
        if excess <= keep_bytes >> 3:
            return
        count = bisect_right(self._ends, self._start + excess - 1) + 1
        self._forget_first(min(count, written_index + 1 - self.first_index))

    def forget(self, written_index: int) -> None:
        """Forget the batches through ``written_index``: their segment says something else now."""
        self._forget_first(min(written_index + 1 - self.first_index, len(self._batches)))

    def _forget_first(self, count: int) -> None:
        if count > 0:
            # One statement without a call: a signal handler's exception cannot leave half of it.
            self._start, self._batches, self._ends, self.first_index = (
                self._ends[count - 1],
                self._batches[count:],
                self._ends[count:],
                self.first_index + count,
            )

    def _end_before(self, index: int) -> int:
        at = index - self.first_index
        return self._ends[at - 1] if at else self._start


def _base_offset(batch: Batch) -> int:
    return batch.header.base_offset
