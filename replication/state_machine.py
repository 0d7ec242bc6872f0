"""What a Raft group keeps besides its log: a deterministic function of the committed batches."""

from typing import Protocol

from quorumlog.log.batch import Batch, BatchHeader


class StateMachine(Protocol):
    """Owned by one :class:`~quorumlog.replication.replica.Replica`; called in its event loop."""

    def apply(self, batch: Batch) -> object:
        """Take one committed batch, in the order of the log, each exactly once.

        The result goes to whoever proposed the batch on this node. Outcomes that the proposer has
        to hear of are results, not exceptions: an exception fences the replica.
        """
        ...

    def snapshot(self) -> bytes:
        """The state after the last batch that was applied, and of nothing else.

        Every replica that applied the same batches returns the same bytes, restarted or not. They
        say their own kind and version, and are at most ``MAX_STATE_BYTES``
        (:mod:`quorumlog.log.state_snapshot`). The event loop waits for it, now and then.
        """
        ...

    def restore(self, snapshot: bytes) -> None:
        """Become the state of ``snapshot``; called at most once, before anything is applied.

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
