"""What a Raft group keeps besides its log: a deterministic function of the committed batches."""

from typing import Protocol

from quorumlog.log.batch import Batch, BatchHeader


class StateMachine(Protocol):
    """Owned by one :class:`~quorumlog.replication.replica.Replica`; called in its event loop."""

    def apply(self, batch: Batch) -> object:
        """Take one committed batch, in the order of the log, each exactly once per process.

        The result goes to whoever proposed the batch on this node. Outcomes that the proposer has
        to hear of are results, not exceptions: an exception fences the replica.
        """
        ...

    def appended(self, header: BatchHeader) -> None:
        """A batch was appended here by this node as the leader; it is not committed yet."""
        ...

    def leadership_lost(self) -> None:
        """What was appended and not applied may never be: forget it."""
        ...
