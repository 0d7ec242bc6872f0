"""The state of one partition: what its log says about producers, beside the records themselves."""

from quorumlog.broker.port import ProduceAck
from quorumlog.broker.producers import PendingProducers, ProducerTable
from quorumlog.log.batch import Batch, BatchHeader, Kind


class PartitionMachine:
    """A replication ``StateMachine``; the result of a RECORDS batch is its :class:`ProduceAck`."""

    def __init__(self) -> None:
        self.producers = ProducerTable()
        self.pending = PendingProducers(self.producers)

    def apply(self, batch: Batch) -> ProduceAck | None:
        header = batch.header
        if header.kind is not Kind.RECORDS:
            return None
        self.producers.applied(header)
        self.pending.applied(header)
        return ProduceAck(header.base_offset, header.timestamp_ms)

    def snapshot(self) -> bytes:
        return self.producers.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """See :meth:`ProducerTable.restore`."""
        self.producers.restore(snapshot)

    def appended(self, header: BatchHeader) -> None:
        if header.kind is Kind.RECORDS:
            self.pending.appended(header)

    def leadership_lost(self) -> None:
        self.pending.clear()
