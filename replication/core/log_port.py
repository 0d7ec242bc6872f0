"""What the core needs of the log, and of chance."""

from collections.abc import Sequence
from typing import Protocol

from quorumlog.log.batch import Batch
from quorumlog.types import Index, Offset, Term


class RaftLog(Protocol):
    """The logical log: every call takes effect at once, in memory.

    What was appended or cut becomes durable later; the core hears of it by
    :meth:`~quorumlog.replication.core.core.RaftCore.persisted`. ``quorumlog.log.log.Log`` is one.
    """

    @property
    def start_index(self) -> Index:
        """The first index that is kept; what stood before it was committed."""
        ...

    @property
    def next_index(self) -> Index: ...

    @property
    def last_index(self) -> Index:
        """``next_index - 1``; ``start_index - 1`` when the log is empty."""
        ...

    @property
    def memory_index(self) -> Index:
        """``slice`` and ``term_at`` from here on touch no disk."""
        ...

    @property
    def last_term(self) -> Term: ...

    @property
    def end_offset(self) -> Offset: ...

    @property
    def last_timestamp_ms(self) -> int: ...

    def term_at(self, index: int) -> Term:
        """The term of the batch at ``index``, which is in [start_index - 1, last_index]."""
        ...

    def append(self, batches: Sequence[Batch]) -> None: ...

    def truncate(self, from_index: int) -> None:
        """Drop [from_index, next_index)."""
        ...

    def slice(self, first_index: int, max_bytes: int) -> list[Batch]:
        """Whole batches from ``first_index`` on: at least one, else at most ``max_bytes``."""
        ...


class Rng(Protocol):
    """Where the randomised timeouts come from (Raft §5.2), such as a seeded ``random.Random``."""

    def uniform(self, a: float, b: float, /) -> float: ...
