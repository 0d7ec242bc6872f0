"""The results of the last requests, so that a request that comes again is not done again.

Part of the replicated state: what is forgotten, and when, follows from the log alone. So the bounds
are not settings.
"""

from collections.abc import Iterator
from typing import Final

from quorumlog.replicated.outcome import Outcome
from quorumlog.types import Index

MAX_REQUESTS: Final = 16_384
MAX_BYTES: Final = 8 * 1024 * 1024
"""Of ids and results together."""


class Remembered:
    """In the order of the log. The oldest goes when a bound is passed."""

    def __init__(self) -> None:
        self.forgotten_index = Index(0)
        """Where the newest request that was forgotten had its place; 0: none was."""
        self._outcomes: dict[bytes, Outcome] = {}
        self._bytes = 0

    def find(self, request_id: bytes) -> Outcome | None:
        return self._outcomes.get(request_id)

    def may_have_forgotten(self, since_index: Index) -> bool:
        """Whether a request that was first made when ``since_index`` was applied may be one that
        was done and forgotten."""
        return since_index < self.forgotten_index

    def add(self, request_id: bytes, outcome: Outcome) -> None:
        """``request_id`` is not known yet."""
        outcomes = self._outcomes
        outcomes[request_id] = outcome
        self._bytes += len(request_id) + len(outcome.payload)
        while len(outcomes) > MAX_REQUESTS or self._bytes > MAX_BYTES:
            oldest = next(iter(outcomes))
            forgotten = outcomes.pop(oldest)
            self._bytes -= len(oldest) + len(forgotten.payload)
            self.forgotten_index = forgotten.index

    def __len__(self) -> int:
        return len(self._outcomes)

    def __iter__(self) -> Iterator[tuple[bytes, Outcome]]:
        """The oldest first."""
        return iter(self._outcomes.items())
