"""The cluster's metadata as the state machine of group 0."""

from collections.abc import Callable

from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.metadata import MetadataState
from quorumlog.errors import Corrupt
from quorumlog.log.batch import Batch, BatchHeader, Draft, Kind
from quorumlog.replication.state_machine import LogStart
from quorumlog.types import Index, Offset


class MetadataMachine:
    """A replication ``StateMachine`` over :class:`MetadataState`; results are ``Result``
    messages."""

    def __init__(
        self, metadata: MetadataState, directory: str, applied: Callable[[], None]
    ) -> None:
        """``directory`` of the group's log, for what an error names; ``applied`` is called for
        every batch, whatever it holds, and for a restored state."""
        self._metadata = metadata
        self._directory = directory
        self._applied = applied
        self._has_begun = False

    def apply(self, batch: Batch) -> metadata_pb2.Result | None:
        """Raises Corrupt: the log begins here, and no state that was saved for it is whole. The
        replica starts over from its peers."""
        header = batch.header
        if not self._has_begun and header.index != 1:
            raise Corrupt(
                self._directory,
                0,
                "a saved state for the log's begin, or batch 1",
                f"batch {header.index}",
            )
        self._has_begun = True
        self._applied()
        if header.kind is not Kind.COMMAND:
            return None
        return self._metadata.apply(bytes(batch.body), header.index)

    @property
    def needs_saved_state(self) -> bool:
        return True

    @property
    def log_start(self) -> LogStart:
        """There are no records to delete; batches are given free by TrimLog."""
        return LogStart(Offset(0), Index(self._metadata.free_index))

    def snapshot(self) -> bytes:
        return self._metadata.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """See :meth:`MetadataState.restore`."""
        self._metadata.restore(snapshot)
        self._has_begun = True
        self._applied()

    def appended(self, header: BatchHeader) -> None:
        """Nothing depends on what is not committed."""

    def leadership_lost(self) -> None:
        """Nothing was kept of what is not committed."""


def trim_draft(free_index: Index) -> Draft:
    """The command that gives the batches through ``free_index`` free."""
    command = metadata_pb2.Command(trim_log=metadata_pb2.TrimLog(free_index=free_index))
    return Draft.of(command.SerializeToString(deterministic=True), kind=Kind.COMMAND)
