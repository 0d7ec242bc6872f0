"""The state of one partition: what its log says about its start, its producers and what clients
noted there, beside the records themselves."""

from quorumlog.broker.note_command import NoteCommand, decode_note, is_note_command
from quorumlog.broker.notes import BLANK, Notes
from quorumlog.broker.partition_snapshot import PartitionState
from quorumlog.broker.port import ProduceAck
from quorumlog.broker.producers import PendingProducers, ProducerTable
from quorumlog.broker.start_command import StartCommand
from quorumlog.errors import InvariantViolation, ProtocolError
from quorumlog.log.batch import Batch, BatchHeader, Draft, Kind
from quorumlog.replication.state_machine import WHOLE_LOG, LogStart
from quorumlog.types import Index, Offset


class PartitionMachine:
    """A replication ``StateMachine``; the result of a RECORDS batch is its :class:`ProduceAck`,
    that of a command the :class:`LogStart` or the :class:`Notes` from there on.

    One that was made anew from a log whose first segments are removed equals the one that saw them
    as soon as it has applied a command that deletes them all and gives them free: there always is
    one in what is left.
    """

    def __init__(self) -> None:
        self.producers = ProducerTable()
        self.pending = PendingProducers(self.producers)
        self.notes = BLANK
        self._start = WHOLE_LOG
        self._appended_notes: Notes | None = None

    @property
    def needs_saved_state(self) -> bool:
        return False

    @property
    def log_start(self) -> LogStart:
        return self._start

    @property
    def latest_notes(self) -> Notes:
        """At the leader: as they are at the end of its log, whether that is committed or not.

        All that stands there was applied before it served, or proposed by itself.
        """
        return self.notes if self._appended_notes is None else self._appended_notes

    def note_appended(self, command: NoteCommand) -> None:
        """As the leader: ``command`` was appended just now."""
        self._appended_notes = command.applied_to(self.latest_notes)

    def apply(self, batch: Batch) -> ProduceAck | LogStart | Notes | None:
        header = batch.header
        if header.kind is Kind.COMMAND:
            return self._command(batch)
        if header.kind is not Kind.RECORDS:
            return None
        self.producers.applied(header)
        self.pending.applied(header)
        return ProduceAck(header.base_offset, header.timestamp_ms)

    def start_draft(self, offset: int, free_index: int) -> Draft:
        """The command of a leader whose state this is, and who has applied through
        ``free_index``."""
        start = self._start
        offset, free_index = max(offset, start.offset), max(free_index, start.free_index)
        forgotten_through = max(
            self.producers.forgotten_through, self.producers.largest_id_before(offset)
        )
        command = StartCommand(
            Offset(offset), Index(free_index), forgotten_through, self.latest_notes
        )
        return Draft.of(command.encode(), kind=Kind.COMMAND)

    def _command(self, batch: Batch) -> LogStart | Notes:
        try:
            if is_note_command(batch.body):
                self.notes = decode_note(batch.body).applied_to(self.notes)
                return self.notes
            command = StartCommand.decode(batch.body)
        except ProtocolError as error:
            raise InvariantViolation(
                f"the command at index {batch.header.index} cannot be applied by this release, "
                f"upgrade this node: {error}"
            ) from error
        self._move_start(batch.header, command)
        return self._start

    def _move_start(self, header: BatchHeader, command: StartCommand) -> None:
        before = self._start
        # What precedes a committed batch is committed. No leader asks for more; none may get it.
        self._start = LogStart(
            max(before.offset, min(command.start_offset, header.base_offset)),
            max(before.free_index, min(command.free_index, Index(header.index - 1))),
        )
        self.producers.forget_before(self._start.offset, command.forgotten_through)
        # What was noted before, for a state that is made from the end of a log.
        self.notes = command.notes

    def snapshot(self) -> bytes:
        producers = self.producers
        return PartitionState(
            self._start, producers.forgotten_through, producers.snapshot(), self.notes
        ).encode()

    def restore(self, snapshot: bytes) -> None:
        """See :meth:`ProducerTable.restore`."""
        state = PartitionState.decode(snapshot)
        self.producers.restore(state.producers, state.forgotten_through)
        self._start = state.start
        self.notes = state.notes

    def appended(self, header: BatchHeader) -> None:
        if header.kind is Kind.RECORDS:
            self.pending.appended(header)

    def leadership_lost(self) -> None:
        self.pending.clear()
        self._appended_notes = None
