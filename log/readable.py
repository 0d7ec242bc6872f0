"""What a log is asked: where it begins and ends, and what it holds."""

from collections.abc import Iterator
from itertools import chain

from quorumlog.log.batch import Batch, BatchHeader
from quorumlog.log.reader import Fetched
from quorumlog.log.state import LogState
from quorumlog.log.state_snapshot import LogOrigin
from quorumlog.log.view import LogView
from quorumlog.types import Index, Offset, Term


class ReadableLog:
    """The part of :class:`quorumlog.log.log.Log` that changes nothing; who may call when stands
    there."""

    def __init__(self, state: LogState, view: LogView) -> None:
        self._state = state
        self._layout = state.layout
        self._view = view

    # Numbers and facts: memory only.

    @property
    def start_index(self) -> Index:
        """Index of the first batch."""
        return self._layout.segments[0].first_index

    @property
    def next_index(self) -> Index:
        """Index of the next batch to be appended."""
        return self._layout.next_index

    @property
    def last_index(self) -> Index:
        """Index of the last batch; ``start_index - 1`` when there is none."""
        return Index(self._layout.next_index - 1)

    @property
    def memory_index(self) -> Index:
        """What stands from here on is in memory: reading it touches no disk."""
        return Index(self._layout.tail.first_index)

    @property
    def last_term(self) -> Term:
        return self._layout.last_term

    @property
    def origin(self) -> LogOrigin:
        """Where the first segment begins, deleted records included, and what comes before it."""
        header = self._layout.segments[0].header
        return LogOrigin(
            header.first_index,
            header.base_offset,
            header.prev_term,
            header.prev_timestamp_ms,
            self.start_offset,
        )

    @property
    def start_offset(self) -> Offset:
        """The first offset that can be read: see ``advance_start``."""
        return self._state.start_offset

    @property
    def end_offset(self) -> Offset:
        """Offset of the next record to be appended."""
        return self._layout.end_offset

    @property
    def active_base_offset(self) -> Offset:
        """Offset of the first record that stands, or will, in the last segment."""
        return self._layout.segments[-1].header.base_offset

    @property
    def last_timestamp_ms(self) -> int:
        return self._layout.last_timestamp_ms

    @property
    def durable_index(self) -> Index:
        """Every batch through this one is as durable as the ``fsync`` setting promises."""
        return self._layout.written_index

    @property
    def commit_floor(self) -> Index:
        """Nothing through this index can be truncated."""
        return self._state.commit_floor

    @property
    def indexes_rebuilt(self) -> int:
        """Index files that were missing or wrong and have been made again since open."""
        return self._view.indexes_rebuilt

    @property
    def is_fenced(self) -> bool:
        return self._state.fenced_because is not None

    @property
    def is_closed(self) -> bool:
        """Whether nothing is written any more: ``close`` was called, however it ended."""
        return self._state.is_closed

    def check_usable(self) -> None:
        """Raise LogFenced or Closed where the log is that."""
        self._state.check_usable()

    # Reading: from memory near the end, from the files otherwise.

    def term_at(self, index: int) -> Term:
        """The term of batch ``index``, or of the one before the log's first.

        Raises:
            IndexOutOfRange: it is not in ``[start_index - 1, last_index]``.
        """
        return self._view.term_at(index)

    def slice(self, first_index: int, max_bytes: int) -> list[Batch]:
        """Whole batches from ``first_index`` on.

        At least one if there is any, otherwise at most ``max_bytes``; may return fewer than fit.
        Headers and bodies that come from disk are checked.

        Raises:
            IndexOutOfRange: it is before the log's start.
            Corrupt: what is on disk is not what was written.
            StorageError: the disk cannot be read.
        """
        return self._view.slice(first_index, max_bytes)

    def fetch(
        self, offset: int, max_bytes: int, end_offset: int, max_records: int | None = None
    ) -> Fetched:
        """The RECORDS batches that hold ``offset`` and what follows, as bytes.

        Only batches with a base offset before ``end_offset`` (the high watermark), at least one
        if ``offset < end_offset``, at most ``max_bytes`` and ``max_records`` otherwise. Batches of
        other kinds are left out: a log of such, or of what was compacted away, gives no ``data``
        and a ``next_offset`` to go on from. Bodies are not checked here: the consumer does that.

        Raises:
            OffsetOutOfRange: below the log's start or above ``end_offset``.
            Corrupt: a header on disk is not what was written.
            StorageError: the disk cannot be read.
        """
        return self._view.fetch(offset, max_bytes, end_offset, max_records)

    def index_of_offset(self, offset: int) -> Index:
        """Index of the batch that holds record ``offset``.

        Raises:
            OffsetOutOfRange: the log has no such record.
            Corrupt: a header on disk is not what was written.
        """
        return self._view.index_of_offset(offset)

    def headers(self, first_index: int) -> Iterator[BatchHeader]:
        """The headers from ``first_index`` to what is now the last batch, read when asked for.

        Raises:
            IndexOutOfRange: it is before the log's start.
            Corrupt: what is on disk is not what was written.
        """
        return self._view.headers(first_index)

    def batches(self, first_index: int) -> Iterator[Batch]:
        """The batches from ``first_index`` to what is now the last one; errors as ``slice``."""
        return chain.from_iterable(self._view.stream(first_index))

    def stream(self, first_index: int) -> Iterator[list[Batch]]:
        """As ``batches``, in lists of about a MiB.

        The segment that is being read stays readable to its end even when it is removed or
        compacted meanwhile; raises IndexOutOfRange where the next one is gone by then.
        """
        return self._view.stream(first_index)

    def batches_before(self, index: int, max_bytes: int) -> list[Batch]:
        """The batches before ``index``, oldest first: for reading from the end backwards.

        At least one if there is any, otherwise about ``max_bytes`` at most; errors as ``slice``.
        """
        return self._view.batches_before(index, max_bytes)

    def offset_for_time(self, timestamp_ms: int, end_offset: int) -> Offset:
        """The first offset whose timestamp is ``timestamp_ms`` or later; ``end_offset`` if none."""
        return self._view.offset_for_time(timestamp_ms, end_offset)
