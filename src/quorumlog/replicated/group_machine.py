"""A user's machine as the state machine of a Raft group."""

import asyncio
import heapq
from itertools import count

from quorumlog.errors import Corrupt, InvariantViolation, Refused
from quorumlog.log.batch import Batch, BatchHeader, Kind
from quorumlog.replicated.command import TrimCommand, UserCommand, decode_command
from quorumlog.replicated.machine import MAX_RESULT_BYTES, Command, Machine
from quorumlog.replicated.outcome import Outcome, Verdict
from quorumlog.replicated.remembered import Remembered
from quorumlog.replicated.state import GroupState, decode_state, encode_state
from quorumlog.replication.state_machine import LogStart
from quorumlog.types import Index, Offset


class GroupMachine:
    """Implements :class:`quorumlog.replication.state_machine.StateMachine`.

    What the user's machine raises becomes an InvariantViolation, whatever it is: it stops the
    replica, and is never taken for a fault of the disk or of a peer.
    """

    def __init__(self, machine: Machine, directory: str) -> None:
        """``directory`` of the group's log, for what an error names."""
        self.machine = machine
        self.index = Index(0)
        """The last batch that is in the state."""
        self._directory = directory
        self._free_index = Index(0)
        self._remembered = Remembered()
        self._waiting: list[tuple[Index, int, asyncio.Future[None]]] = []
        self._numbers = count()

    # -- StateMachine --------------------------------------------------------------------------

    def apply(self, batch: Batch) -> Outcome | None:
        """The outcome of a user's command, None for any other batch.

        Raises:
            Corrupt: what is before this batch is missing: the log begins here and no state that was
                saved for it is whole. The replica starts over from its peers.
            InvariantViolation, ProtocolError.
        """
        header = batch.header
        if header.index != self.index + 1:
            raise Corrupt(
                self._directory,
                0,
                f"a saved state for the log's begin, or batch {self.index + 1}",
                f"batch {header.index}",
            )
        outcome = self._apply_command(batch) if header.kind is Kind.COMMAND else None
        self._advance(header.index)
        return outcome

    def _apply_command(self, batch: Batch) -> Outcome | None:
        command = decode_command(batch.body)
        if isinstance(command, TrimCommand):
            before = Index(batch.header.index - 1)
            self._free_index = max(self._free_index, min(command.free_index, before))
            return None
        known = self._remembered.find(command.request_id)
        if known is not None:
            return known
        if self._remembered.may_have_forgotten(command.since_index):
            return Outcome(Verdict.FORGOTTEN, batch.header.index, b"")
        outcome = self._ask_machine(command, batch.header)
        self._remembered.add(command.request_id, outcome)
        return outcome

    def _ask_machine(self, command: UserCommand, header: BatchHeader) -> Outcome:
        asked = Command(command.body, header.index, header.timestamp_ms)
        try:
            result = self.machine.apply(asked)
        except Refused as refusal:
            return Outcome(Verdict.REFUSED, header.index, str(refusal).encode()[:MAX_RESULT_BYTES])
        except Exception as error:
            raise _failed(f"apply() of command {header.index}", error) from error
        if not isinstance(result, bytes) or len(result) > MAX_RESULT_BYTES:
            raise InvariantViolation(
                f"apply() of command {header.index} returned neither Refused nor bytes, at most "
                f"{MAX_RESULT_BYTES}: {result!r:.100}"
            )
        return Outcome(Verdict.DONE, header.index, result)

    @property
    def needs_saved_state(self) -> bool:
        return True

    @property
    def log_start(self) -> LogStart:
        """There are no records to delete; batches are given free by TRIM."""
        return LogStart(Offset(0), self._free_index)

    def snapshot(self) -> bytes:
        try:
            machine = self.machine.snapshot()
        except Exception as error:
            raise _failed("snapshot()", error) from error
        if not isinstance(machine, bytes):
            raise InvariantViolation(f"snapshot() returned {type(machine).__name__}, not bytes")
        return encode_state(GroupState(self.index, self._free_index, self._remembered, machine))

    def restore(self, snapshot: bytes) -> None:
        """Raises ProtocolError for what is no state; nothing changed."""
        state = decode_state(snapshot)
        try:
            self.machine.restore(state.machine)
        except Exception as error:
            raise _failed(f"restore() of the state at {state.index}", error) from error
        self._free_index, self._remembered = state.free_index, state.remembered
        self._advance(state.index)

    def appended(self, header: BatchHeader) -> None:
        """Nothing depends on what is not committed."""

    def leadership_lost(self) -> None:
        """Nothing was kept of what is not committed."""

    # -- waiting -------------------------------------------------------------------------------

    async def wait_applied(self, index: Index) -> None:
        """Return when everything through ``index`` is in the state here."""
        if index > self.index:
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (index, next(self._numbers), reached))
            await reached

    def _advance(self, index: Index) -> None:
        self.index = index
        while self._waiting and self._waiting[0][0] <= index:
            _, _, reached = heapq.heappop(self._waiting)
            if not reached.done():
                reached.set_result(None)


def _failed(what: str, error: Exception) -> InvariantViolation:
    return InvariantViolation(
        f"the state machine failed in {what}: {type(error).__name__}: {error}; this replica stops, "
        "and so does every other that gets there: mend the machine and start the nodes again"
    )
