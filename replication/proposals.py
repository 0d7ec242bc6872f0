"""What a leader has appended for somebody and not yet seen committed."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from quorumlog.errors import NotLeader
from quorumlog.log.batch import Batch, BatchHeader
from quorumlog.types import Index


@dataclass(frozen=True, slots=True)
class _Proposal:
    index: Index
    term: int
    size_bytes: int
    outcome: "asyncio.Future[Any]"


class Proposals:
    """In the order of the log. Acknowledged by (term, index), never by index alone."""

    def __init__(self) -> None:
        self.pending_bytes = 0
        self._waiting: deque[_Proposal] = deque()

    def add(self, batch: Batch) -> "asyncio.Future[Any]":
        """Wait for ``batch``; the future may be left alone, also when it fails."""
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(_note)
        header, size_bytes = batch.header, batch.size_bytes
        self._waiting.append(_Proposal(header.index, header.term, size_bytes, outcome))
        self.pending_bytes += size_bytes
        return outcome

    def committed(self, header: BatchHeader, result: object) -> None:
        """The batch of ``header`` is committed and applied, with ``result``."""
        waiting = self._waiting
        while waiting and waiting[0].index <= header.index:
            proposal = waiting.popleft()
            self.pending_bytes -= proposal.size_bytes
            if proposal.outcome.done():
                continue
            if (proposal.index, proposal.term) == (header.index, header.term):
                proposal.outcome.set_result(result)
            else:
                proposal.outcome.set_exception(
                    NotLeader("another leader's batch was committed in place of this one")
                )

    def fail(self, error: Exception) -> None:
        """Nothing more will be heard of any of them here."""
        waiting, self._waiting = self._waiting, deque()
        self.pending_bytes = 0
        for proposal in waiting:
            if not proposal.outcome.done():
                proposal.outcome.set_exception(error)


def _note(outcome: "asyncio.Future[Any]") -> None:
    """Look at the exception: whoever proposed may be gone, which is nothing to complain about."""
    if not outcome.cancelled():
        outcome.exception()
