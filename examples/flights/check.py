"""The check: what is in the log against what was sent. Pure: records in, verdict out."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from examples.flights.dataset import Flight
from quorumlog.client.models import ConsumedRecord
from quorumlog.types import Record

_MAX_EXAMPLES = 5


@dataclass
class Verdict:
    """What a replay found. ``passed`` when nothing at all is wrong."""

    records: int = 0
    size_bytes: int = 0
    """Of keys and values."""
    lost: int = 0
    """Flights that are in no partition."""
    doubled: int = 0
    """Records beyond the first of a flight."""
    damaged: int = 0
    """Records that were never sent, or have another flight's key."""
    misplaced: int = 0
    """Records before an earlier one of their key, or not in its partition; gaps in offsets."""
    examples: list[str] = field(default_factory=list)
    """The first few findings, for people."""

    @property
    def passed(self) -> bool:
        return not (self.lost or self.doubled or self.damaged or self.misplaced)


class ReplayCheck:
    """Takes every partition's records in the order of the log, partitions in any interleaving."""

    def __init__(self, flights: Sequence[Flight]) -> None:
        self._flights = flights
        self._number_of = {flight.value: number for number, flight in enumerate(flights)}
        self._seen = bytearray(len(flights))
        self._next_offsets: dict[int, int] = {}
        self._last_of_key: dict[bytes, tuple[int, int]] = {}
        self._verdict = Verdict()

    def add(self, partition: int, records: Sequence[Record | ConsumedRecord]) -> None:
        """The next records of ``partition``."""
        for record in records:
            self._check_offset(partition, record)
            self._check_record(partition, record)

    def finish(self) -> Verdict:
        """The verdict, once everything has been added."""
        for number, seen in enumerate(self._seen):
            if not seen:
                self._verdict.lost += 1
                self._note(f"lost: flight {number}, {self._flights[number].value!r}")
        return self._verdict

    def _check_offset(self, partition: int, record: Record | ConsumedRecord) -> None:
        expected = self._next_offsets.get(partition, 0)
        if record.offset != expected:
            self._verdict.misplaced += 1
            self._note(f"partition {partition}: offset {record.offset} instead of {expected}")
        self._next_offsets[partition] = record.offset + 1

    def _check_record(self, partition: int, record: Record | ConsumedRecord) -> None:
        verdict = self._verdict
        where = f"partition {partition}, offset {record.offset}"
        value = record.value or b""
        verdict.records += 1
        verdict.size_bytes += len(value) + len(record.key or b"")
        number = self._number_of.get(value)
        if number is None or self._flights[number].key != record.key:
            verdict.damaged += 1
            self._note(f"{where}: not a record that was sent: {record.key!r} {value!r}")
            return
        if self._seen[number]:
            verdict.doubled += 1
            self._note(f"{where}: flight {number} for the second time")
            return
        self._seen[number] = 1
        if record.key is not None:
            last_partition, last_number = self._last_of_key.get(record.key, (partition, -1))
            if last_partition != partition or last_number > number:
                verdict.misplaced += 1
                self._note(f"{where}: {record.key!r} is out of order")
            self._last_of_key[record.key] = (partition, number)

    def _note(self, finding: str) -> None:
        if len(self._verdict.examples) < _MAX_EXAMPLES:
            self._verdict.examples.append(finding)
