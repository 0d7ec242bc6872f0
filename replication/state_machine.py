"""What a Raft group keeps besides its log: a deterministic function of the committed batches."""

from dataclasses import dataclass
from typing import Final, Protocol

from quorumlog.log.batch import Batch, BatchHeader
from quorumlog.types import Index, Offset


@dataclass(frozen=True, slots=True)
class LogStart:
    """Where a group's log begins; neither number ever gets smaller.

    Attributes:
        offset: records before it are deleted: nobody reads them any more.
        free_index: batches through this one may be removed from disk where they hold nothing else
            than deleted records: whoever is to catch up has them.
    """

    offset: Offset
    free_index: Index


WHOLE_LOG: Final = LogStart(Offset(0), Index(0))
"""Nothing is deleted."""


class StateMachine(Protocol):
    """Owned by one :class:`~quorumlog.replication.replica.Replica`; called in its event loop."""

    @property
    def needs_saved_state(self) -> bool:
        """Whether the end of a log says nothing without the state at its begin. Else the state is
        made of whatever the log still has."""
        ...

    def apply(self, batch: Batch) -> object:
        """Take one committed batch, in the order of the log, each exactly once.

        The result goes to whoever proposed the batch on this node. Outcomes that the proposer has
        to hear of are results, not exceptions: an exception fences the replica.
        """
        ...

    @property
    def log_start(self) -> LogStart:
        """Where the log begins, by what was applied; only a COMMAND batch changes it, and never to
        beyond that batch."""
        ...

    def snapshot(self) -> bytes:
        """The state after the last batch that was applied, and of nothing else.

        Every replica that applied the same batches returns the same bytes, restarted or not (one
        that has only the end of the log, as soon as it applied why). They say their own kind and
        version, and are at most ``MAX_STATE_BYTES`` (:mod:`quorumlog.log.state_snapshot`). The
        event loop waits for it, now and then.
        """
        ...

    def restore(self, snapshot: bytes) -> None:
        """Become the state of ``snapshot``, whatever this held before.

        Called before anything is applied, and again where the replica begins anew: with the state
        of another one, or after its own log was damaged.

        Raises:
            ProtocolError: this release cannot read it; nothing changed.
        """
        ...

    def appended(self, header: BatchHeader) -> None:
        """A batch was appended here by this node as the leader; it is not committed yet."""
        ...

    def leadership_lost(self) -> None:
        """What was appended and not applied may never be: forget it."""
        ...
