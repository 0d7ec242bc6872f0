"""What is committed, on its way into the state: which batches the state machine has, and who waits.

One batch after another, in the order of the log: first the state, then what readers may see, then
whoever proposed it.
"""

from collections.abc import Callable
from typing import Final

import structlog

from quorumlog.errors import InvariantViolation
from quorumlog.log.batch import Batch, Kind
from quorumlog.log.log import Log
from quorumlog.log.state_snapshot import StateSnapshot
from quorumlog.replication.barriers import Barriers
from quorumlog.replication.core.core import RaftCore, Role
from quorumlog.replication.proposals import Proposals
from quorumlog.replication.saved_state import BATCH_COST_BYTES, StateSaver
from quorumlog.replication.state_machine import StateMachine
from quorumlog.replication.trimmer import Trimmer
from quorumlog.replication.watermark import Watermark
from quorumlog.types import GroupId, Index

_log = structlog.get_logger()

_READ_BYTES: Final = 64 * 1024
"""Read and checked at a time: some hundred small batches."""


class Applier:
    """Owned by a replica. Called in the event loop; what it raises fences the replica.

    Attributes:
        applied_index: everything through here is in the state.
        high_watermark: the first offset that is not committed and applied yet.
        restored_index: of the saved state that the state machine was given; 0: none.
        awaited: the state that takes effect when the log passes its index; None: nothing is
            waited for. Until then there is neither a state nor a record that anybody may read.
        serving_term: the newest term whose no-op this node appended as its leader and has applied.
    """

    def __init__(
        self,
        *,
        group: GroupId,
        core: RaftCore,
        log: Log,
        state_machine: StateMachine,
        restored: StateSnapshot | None,
        awaited: StateSnapshot | None,
        saver: StateSaver,
        trimmer: Trimmer,
        proposals: Proposals,
        barriers: Barriers,
        chunk_bytes: int,
        wake: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """``state_machine`` holds the state of ``restored``, or none yet.

        A turn applies about ``chunk_bytes``; ``wake`` has the rest applied in a later one.
        ``failed`` hears of a bug in the saving of the state.
        """
        self._group = group
        self._core = core
        self._log = log
        self._state_machine = state_machine
        self._saver = saver
        self._trimmer = trimmer
        self._proposals = proposals
        self._barriers = barriers
        self._chunk_bytes = chunk_bytes
        self._wake = wake
        self._failed = failed
        self.applied_index = Index(log.start_index - 1)
        self.high_watermark = Watermark(log.start_offset)
        self.restored_index = Index(0)
        if restored is not None:
            self.applied_index = self.restored_index = restored.index
            # What is before the log's start was committed, perhaps after the state was saved.
            self.high_watermark.advance(restored.next_offset)
        self.awaited = awaited
        self.serving_term = -1

    def advance(self) -> None:
        """Take the awaited state if its time has come, and apply what is committed.

        Raises:
            InvariantViolation: the awaited state is of another log.
            What the log, the state machine and the trimmer raise.
        """
        if self.awaited is not None:
            self._take_awaited(self.awaited)
        if self._core.commit_index > self.applied_index:
            self.apply()

    def apply(self) -> None:
        """Apply what is committed, unless a state is awaited; raises as :meth:`advance`."""
        commit_index = self._core.commit_index
        self._log.advance_commit_floor(commit_index)
        if self.awaited is not None:
            return
        applied_bytes = 0
        while self.applied_index < commit_index:
            first = Index(self.applied_index + 1)
            for batch in self._log.slice(first, min(_READ_BYTES, self._chunk_bytes)):
                if batch.header.index > commit_index or applied_bytes >= self._chunk_bytes:
                    break
                self._apply_batch(batch)
                applied_bytes += batch.size_bytes + BATCH_COST_BYTES
            if applied_bytes >= self._chunk_bytes:
                self._wake()
                break
        self._barriers.applied(self.applied_index)

    def _take_awaited(self, awaited: StateSnapshot) -> None:
        """Go on from ``awaited`` if all that is in it is committed here."""
        if self._core.commit_index < awaited.index:
            return
        self._log.advance_commit_floor(self._core.commit_index)
        term = self._log.term_at(awaited.index)
        if term != awaited.term:
            # Not of this log. What the log says is built up by the next start, from its beginning.
            raise InvariantViolation(
                f"group {self._group}: the state of batch {awaited.index} of term {awaited.term} "
                f"came from another replica; here that batch is of term {term}"
            )
        self._state_machine.restore(awaited.state)
        self._saver.restored(awaited)
        self.applied_index, self.awaited = awaited.index, None
        self.restored_index = max(self.restored_index, awaited.index)
        self.high_watermark.advance(awaited.next_offset)
        self._trimmer.follow()
        _log.info("state_taken", group=self._group, index=awaited.index)

    def _apply_batch(self, batch: Batch) -> None:
        header = batch.header
        result = self._state_machine.apply(batch)
        self.applied_index = Index(header.next_index - 1)
        own_noop = header.kind is Kind.NOOP and header.term == self._core.term
        if own_noop and self._core.role is Role.LEADER:
            self.serving_term = header.term
            _log.info("leadership_won", group=self._group, term=header.term)
        self.high_watermark.advance(header.next_offset)
        self._proposals.committed(header, result)
        self._saver.applied(batch, self._failed)
        if header.kind is Kind.COMMAND:
            # Last, for it may find rot: what is known to be applied has to be what was.
            self._trimmer.follow()
