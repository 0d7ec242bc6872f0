"""Known bugs of saved states and of deletion, put back."""

from dataclasses import replace
from typing import Any, Final

from quorumlog.broker.broker import Broker
from quorumlog.broker.note_command import RaiseFence
from quorumlog.broker.note_keeper import NoteKeeper
from quorumlog.broker.notes import BLANK
from quorumlog.broker.partition import PartitionMachine
from quorumlog.broker.producers import ProducerTable
from quorumlog.broker.start_command import StartCommand
from quorumlog.log import state_snapshot
from quorumlog.log.batch import BatchHeader, Draft, Kind
from quorumlog.log.log import Log
from quorumlog.replication.saved_state import StateSaver
from quorumlog.replication.state_machine import WHOLE_LOG, LogStart
from quorumlog.replication.trimmer import Trimmer
from sim.mutant import Mutant
from sim.swarm import Swarm

# -- saved states --------------------------------------------------------------------------------


def _state_before_commit(appended: Any) -> Any:
    def eager(self: PartitionMachine, header: BatchHeader) -> None:
        appended(self, header)
        self.producers.applied(header)

    return eager


def _state_of_more(take: Any) -> Any:
    def boastful(self: StateSaver, header: BatchHeader) -> Any:
        return replace(take(self, header), index=header.next_index)

    return boastful


def _state_renamed_unsynced(write: Any) -> Any:
    def lazy(disk: Any, path: str, encoded: bytes) -> None:
        file = disk.open(path, create=True)
        file.truncate(0)
        file.write_at(0, [encoded])
        file.close()

    return lazy


def _state_rots(write: Any) -> Any:
    def rotten(disk: Any, path: str, encoded: bytes) -> None:
        write(disk, path, encoded[:-1] + bytes((encoded[-1] ^ 1,)))

    return rotten


def _state_not_checked(checksum: Any) -> Any:
    return lambda data: 0


# -- deletion ------------------------------------------------------------------------------------


def _start_when_proposed(start_draft: Any) -> Any:
    def eager(self: PartitionMachine, offset: int, free_index: int) -> Any:
        draft = start_draft(self, offset, free_index)
        command = StartCommand.decode(draft.body)
        self._start = LogStart(command.start_offset, command.free_index)
        return draft

    return eager


def _deletes_beyond_watermark(delete_before: Any) -> Any:
    async def obedient(self: Broker, topic: str, partition: int, offset: int) -> int:
        led = self._led(topic, partition)
        await led.propose(led.machine.start_draft(offset, 0))
        return led.replica.log.start_offset

    return obedient


def _notes_not_carried(start_draft: Any) -> Any:
    def forgetful(self: PartitionMachine, offset: int, free_index: int) -> Any:
        command = StartCommand.decode(start_draft(self, offset, free_index).body)
        return Draft.of(replace(command, notes=BLANK).encode(), kind=Kind.COMMAND)

    return forgetful


def _fence_kept_by_the_leader_alone(applied_to: Any) -> Any:
    return lambda self, notes: notes


def _tokens_not_compared(admit: Any) -> Any:
    return lambda self, led, token: None


def _start_not_clamped(move_start: Any) -> Any:
    def trusting(self: PartitionMachine, header: Any, command: StartCommand) -> None:
        self._start = LogStart(command.start_offset, command.free_index)
        self.producers.forget_before(command.start_offset, command.forgotten_through)

    return trusting


def _start_not_restored(restore: Any) -> Any:
    def forgetful(self: PartitionMachine, snapshot: bytes) -> None:
        restore(self, snapshot)
        self._start = WHOLE_LOG

    return forgetful


def _producers_not_pruned(forget_before: Any) -> Any:
    def clinging(self: ProducerTable, offset: int, forgotten_through: int) -> None:
        self.forgotten_through = max(self.forgotten_through, forgotten_through)

    return clinging


def _forgotten_taken_for_new(check: Any) -> Any:
    def naive(self: ProducerTable, *arguments: int) -> Any:
        self.forgotten_through, kept = 0, self.forgotten_through
        try:
            return check(self, *arguments)
        finally:
            self.forgotten_through = kept

    return naive


def _brief(drawn: Swarm) -> Swarm:
    """Many producers of few records, which are deleted while who sent the first one may still wait
    to hear of it."""
    return replace(
        drawn,
        moves=False,
        churns=False,
        replaces=False,
        partitions=1,
        retention_records=2,
        producers=8,
        records_per_producer=6,
        burst=2,
        batch_bytes=1,
        consumers=1,
        faults=("pause", "isolate", "kill", "reset"),
        fault_interval_s=0.15,
        fault_duration_s=5.0,
    )


def _files_go_unasked(remove_deleted: Any) -> Any:
    def hasty(self: Log, through_index: int | None = None) -> int:
        removed: int = remove_deleted(self)
        return removed

    return hasty


def _start_not_followed(follow: Any) -> Any:
    def idle(self: Trimmer) -> None:
        """Only the leader's retention, as it were, moves a start."""

    return idle


STATE_MUTANTS: Final = (
    Mutant(
        "state takes what is not committed", PartitionMachine, "appended", _state_before_commit, 10
    ),
    Mutant("state saved as of a later batch", StateSaver, "_take", _state_of_more, 20),
    Mutant(
        "state renamed before it is synced", state_snapshot, "_write", _state_renamed_unsynced, 100
    ),
    Mutant(
        "damaged state restored",
        state_snapshot,
        "crc32c",
        _state_not_checked,
        50,
        also=Mutant("", state_snapshot, "_write", _state_rots, 0),
    ),
    Mutant("start moved when proposed", PartitionMachine, "start_draft", _start_when_proposed, 10),
    Mutant("start not moved where it was committed", Trimmer, "follow", _start_not_followed, 10),
    Mutant("deletes what is not committed", Broker, "delete_before", _deletes_beyond_watermark, 10),
    Mutant(
        "start taken from a command unchecked",
        PartitionMachine,
        "_move_start",
        _start_not_clamped,
        10,
        also=Mutant("", Broker, "delete_before", _deletes_beyond_watermark, 0),
    ),
    Mutant("notes not carried on", PartitionMachine, "start_draft", _notes_not_carried, 30),
    Mutant("fence not noted", RaiseFence, "applied_to", _fence_kept_by_the_leader_alone, 30),
    Mutant("tokens not compared", NoteKeeper, "admit", _tokens_not_compared, 30),
    Mutant("start not in the saved state", PartitionMachine, "restore", _start_not_restored, 40),
    Mutant("producers not forgotten", ProducerTable, "forget_before", _producers_not_pruned, 60),
    Mutant(
        "forgotten producers taken for new ones",
        ProducerTable,
        "check",
        _forgotten_taken_for_new,
        60,
        shape=_brief,
    ),
    Mutant("files go before they are given free", Log, "remove_deleted", _files_go_unasked, 60),
)
