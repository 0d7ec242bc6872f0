"""What one Raft group has done so far, as an omniscient observer knows it."""

from bisect import bisect_left
from dataclasses import dataclass, field
from operator import attrgetter

from quorumlog.broker._pb.metadata_pb2 import Command
from quorumlog.broker.note_command import is_note_command
from quorumlog.broker.start_command import StartCommand
from quorumlog.log.batch import Batch, Kind
from quorumlog.log.records import decode_records
from quorumlog.replication.state_machine import WHOLE_LOG, LogStart
from quorumlog.types import METADATA_GROUP, Index
from sim.loop import SimulationError


class Violation(SimulationError):
    """A promise of the system was broken."""


@dataclass(slots=True)
class GroupHistory:
    """Everything is kept: a run is short."""

    group: int
    leaders: dict[int, str] = field(default_factory=dict)
    """By term."""
    votes: dict[tuple[str, int], str] = field(default_factory=dict)
    """By voter and term."""
    committed: list[Batch] = field(default_factory=list)
    """By index - 1."""
    committed_in: list[int] = field(default_factory=list)
    """The term of the leader that committed each of them first."""
    records: list[bytes] = field(default_factory=list)
    """Values of the committed records, by offset."""
    starts: list[LogStart] = field(default_factory=lambda: [WHOLE_LOG])
    """Where the log begins once so many batches are applied; of a partition."""
    _seen: dict[tuple[int, int], tuple[bytes, int]] = field(default_factory=dict)
    _offset_of: dict[bytes, int] = field(default_factory=dict)
    _last_number: dict[bytes, int] = field(default_factory=dict)

    def elected(self, node: str, term: int) -> None:
        """Election safety (Raft §5.2)."""
        before = self.leaders.setdefault(term, node)
        if before != node:
            raise Violation(f"group {self.group}: {before} and {node} both lead in term {term}")

    def voted(self, voter: str, term: int, candidate: str) -> None:
        """One vote a term, restarts or not (Raft §5.2)."""
        before = self.votes.setdefault((voter, term), candidate)
        if before != candidate:
            raise Violation(
                f"group {self.group}: {voter} votes for {candidate} in term {term} "
                f"and has voted for {before}"
            )

    def appended(self, node: str, batch: Batch, prev_term: int) -> None:
        """Log matching (Raft §5.3): by induction over the batch before."""
        header = batch.header
        identity = (bytes(batch.head), prev_term)
        before = self._seen.setdefault((header.index, header.term), identity)
        if before != identity:
            raise Violation(
                f"group {self.group}: batch {header.index} of term {header.term} at {node} is not "
                f"what it is elsewhere: {header}, after a batch of term {prev_term}"
            )

    def commit(self, node: str, term: int, batch: Batch) -> None:
        """State machine safety (Raft §5.4.3): the next batch that ``node``, in ``term``, says is
        committed; also that indexes and offsets are dense and timestamps never go back."""
        header = batch.header
        number = header.index - 1
        if number < len(self.committed):
            if bytes(self.committed[number].head) != bytes(batch.head):
                raise Violation(
                    f"group {self.group}: {node} commits {header} and "
                    f"{self.committed[number].header} was committed"
                )
            return
        self._check_continues(node, batch)
        self.committed.append(batch)
        self.committed_in.append(term)
        self.starts.append(self._start_after(node, batch))
        if header.kind is Kind.RECORDS:
            for record in decode_records(header, batch.body):
                self._add_record(record.offset, record.value or b"")

    def _start_after(self, node: str, batch: Batch) -> LogStart:
        """Nobody deletes what was not committed, or gives free what was not applied."""
        header, before = batch.header, self.starts[-1]
        if header.kind is not Kind.COMMAND:
            return before
        if self.group == METADATA_GROUP:
            return self._metadata_start_after(node, batch)
        if is_note_command(batch.body):
            return before
        command = StartCommand.decode(batch.body)
        if command.start_offset > header.base_offset or command.free_index >= header.index:
            raise Violation(f"group {self.group}: {node} commits {command} as {header}")
        return LogStart(
            max(before.offset, command.start_offset), max(before.free_index, command.free_index)
        )

    def _metadata_start_after(self, node: str, batch: Batch) -> LogStart:
        header, before = batch.header, self.starts[-1]
        free_index = Command.FromString(bytes(batch.body)).trim_log.free_index
        if free_index >= header.index:
            raise Violation(f"{node} gives the metadata free through {free_index} as {header}")
        return LogStart(before.offset, max(before.free_index, Index(free_index)))

    def complete_from(self, start_index: int) -> int:
        """A state made from a log that begins there is that of the whole log from this index on."""
        if start_index == 1:
            return 0
        before = self.committed[min(start_index - 1, len(self.committed)) - 1].header
        # Neither of the two ever goes back.
        index = max(
            bisect_left(self.starts, before.index, key=attrgetter("free_index")),
            bisect_left(self.starts, before.next_offset, key=attrgetter("offset")),
        )
        if index < len(self.starts):
            return index
        raise Violation(
            f"group {self.group}: a log begins behind {before}, and commands only got to "
            f"{self.starts[-1]}"
        )

    def _check_continues(self, node: str, batch: Batch) -> None:
        header = batch.header
        if self.committed:
            last = self.committed[-1].header
            continues = (
                header.index == last.index + 1
                and header.base_offset == last.next_offset
                and header.timestamp_ms >= last.timestamp_ms
                and header.term >= last.term
            )
        else:
            continues = header.index == 1 and header.base_offset == 0
        if not continues:
            raise Violation(
                f"group {self.group}: {node} commits {header} after {self.committed[-1:]}"
            )

    def _add_record(self, offset: int, value: bytes) -> None:
        if offset != len(self.records):
            raise Violation(f"group {self.group}: offset {offset} follows {len(self.records) - 1}")
        if value in self._offset_of:
            raise Violation(
                f"group {self.group}: {value!r} stands at offset {offset} "
                f"and at {self._offset_of[value]}"
            )
        self._offset_of[value] = offset
        self.records.append(value)
        self._check_order(value)

    def _check_order(self, value: bytes) -> None:
        """A producer's records stand in the order it sent them; a value is ``producer/number``."""
        producer, _, number = value.rstrip(b".").partition(b"/")
        if not number:
            return
        if int(number) <= self._last_number.get(producer, -1):
            raise Violation(
                f"group {self.group}: {value!r} stands behind number {self._last_number[producer]}"
            )
        self._last_number[producer] = int(number)

    def check_complete(self, node: str, term: int, log: list[Batch]) -> None:
        """Leader completeness (Raft §5.4): a leader has what earlier terms committed."""
        for number, committed in enumerate(self.committed):
            if self.committed_in[number] >= term:
                return
            if number >= len(log) or bytes(log[number].head) != bytes(committed.head):
                raise Violation(
                    f"group {self.group}: {node} leads in term {term} without batch {number + 1}, "
                    f"committed in term {self.committed_in[number]}"
                )

    def acknowledged(self, offset: int | None, value: bytes) -> None:
        """An acknowledged record is committed, and where the acknowledgement says."""
        at = self._offset_of.get(value)
        if at is None or (offset is not None and offset != at):
            raise Violation(
                f"group {self.group}: {value!r} was acknowledged at offset {offset} "
                f"and {'is not committed' if at is None else f'stands at {at}'}"
            )
