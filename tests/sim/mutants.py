"""Known bugs, put back one at a time: the simulator has to find each of them.

A mutant replaces one function of the product while it is applied. LESSONS of other systems and the
pitfalls of the Raft paper are the list to draw from; docs/testing.md shows the table.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from quorumlog.broker.broker import Broker
from quorumlog.broker.keeper import PartitionKeeper
from quorumlog.broker.led_partition import LedPartition
from quorumlog.broker.mover import Mover
from quorumlog.broker.note_command import RaiseFence
from quorumlog.broker.note_keeper import NoteKeeper
from quorumlog.broker.notes import BLANK
from quorumlog.broker.partition import PartitionMachine
from quorumlog.broker.producers import Duplicate, PendingProducers, ProducerTable
from quorumlog.broker.start_command import StartCommand
from quorumlog.broker.topics import PartitionInfo
from quorumlog.log import state_snapshot
from quorumlog.log.batch import BatchHeader, Draft, Kind
from quorumlog.log.config import FSYNC_INTERVAL
from quorumlog.log.flusher import Flusher
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.log import Log
from quorumlog.log.state_snapshot import StateSnapshot
from quorumlog.log.writer import SegmentWriter
from quorumlog.replication.applier import Applier
from quorumlog.replication.catch_up.recovery import Recovery
from quorumlog.replication.core import core as core_module
from quorumlog.replication.core import follower as follower_module
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.election import Elector
from quorumlog.replication.core.leadership import Leadership
from quorumlog.replication.core.role import Role
from quorumlog.replication.persister import Persister
from quorumlog.replication.proposals import Proposals
from quorumlog.replication.replica import Replica
from quorumlog.replication.saved_state import StateSaver
from quorumlog.replication.sleep.ledger import Ledger
from quorumlog.replication.state_machine import WHOLE_LOG, LogStart
from quorumlog.replication.trimmer import Trimmer
from quorumlog.types import GroupId, Index
from sim.simulation import SimulationFailed, run


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    target: Any
    """The class or module that has the function."""
    attribute: str
    make: Callable[[Any], Any]
    """The wrong function, from the right one."""
    within: int
    """Of so many seeds, from 0, at least one has to fail."""
    also: "Mutant | None" = None
    """A second defence that has to fall with the first."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        right = self.target.__dict__[self.attribute]
        with patch.object(self.target, self.attribute, self.make(right)), ExitStack() as stack:
            if self.also is not None:
                stack.enter_context(self.also.applied())
            yield


def hunt(mutant: Mutant, seeds: int | None = None) -> tuple[int, str] | None:
    """The first seed that finds ``mutant`` and what it says; None when all of them pass."""
    with mutant.applied():
        for seed in range(seeds or mutant.within):
            try:
                run(seed)
            except SimulationFailed as failure:
                return seed, str(failure).splitlines()[0]
    return None


# -- durability ----------------------------------------------------------------------------------


def _vote_not_saved(save: Any) -> Any:
    def forgetful(self: HardStateFile, state: HardState) -> None:
        save(self, replace(state, vote=None))

    return forgetful


def _term_not_saved(save: Any) -> Any:
    def forgetful(self: HardStateFile, state: HardState) -> None:
        """PySyncObj's way: term and vote live in memory."""

    return forgetful


def _answers_before_flush(start: Any) -> Any:
    def hasty(self: Persister) -> None:
        messages, self._messages = self._messages, []
        self._owner.durable(messages, None)
        start(self)

    return hasty


def _no_fdatasync(sync: Any) -> Any:
    def lazy(self: SegmentWriter, file: object) -> None:
        """As with proglog, and JetStream by default."""

    return lazy


def _interval_never_due(is_sync_due: Any) -> Any:
    def patient(self: Flusher) -> bool:
        due: bool = is_sync_due(self)
        return due and self._state.config.fsync != FSYNC_INTERVAL

    return patient


def _interval_forgotten(sync_if_due: Any) -> Any:
    def absent_minded(self: Flusher, floor: Index, sync: bool) -> None:
        if sync or self._state.config.fsync != FSYNC_INTERVAL:
            sync_if_due(self, floor, sync)

    return absent_minded


def _counts_unflushed(quorum_match: Any) -> Any:
    def hopeful(self: Leadership, durable_index: Index) -> Index:
        match: Index = quorum_match(self, self._log.last_index)
        return match

    return hopeful


# -- elections -----------------------------------------------------------------------------------


def _votes_for_anybody(receive: Any) -> Any:
    def generous(self: RaftCore, sender: Any, request: Any, now: float) -> None:
        flattered = replace(request, last_term=1 << 40, last_index=1 << 40)
        receive(self, sender, flattered, now)

    return generous


def _votes_again(receive: Any) -> Any:
    def fickle(self: RaftCore, sender: Any, request: Any, now: float) -> None:
        if request.term == self.term and self.role is not Role.LEADER and not request.pre:
            self.vote = None
            self.leader_id = None
        receive(self, sender, request, now)

    return fickle


# -- replication ---------------------------------------------------------------------------------


def _commits_old_terms(advance: Any) -> Any:
    def eager(self: RaftCore, now: float) -> None:
        leadership = self._leadership
        if leadership is not None:
            index = leadership.quorum_match(self._durable_index)
            if index > self.commit_index:
                self._set_commit_index(index)
                leadership.commit_advanced(index, now)

    return eager


def _believes_commit_index(receive: Any) -> Any:
    def trusting(self: RaftCore, sender: Any, request: Any, now: float) -> None:
        receive(self, sender, request, now)
        if request.term == self.term:
            self._set_commit_index(Index(min(request.commit_index, self._log.last_index)))

    return trusting


def _answers_with_log_end(accept: Any) -> Any:
    def boastful(log: Any, configurations: Any, commit_index: Any, request: Any) -> Any:
        accepted = accept(log, configurations, commit_index, request)
        if accepted.response.success:
            response = replace(accepted.response, match_index=log.last_index)
            accepted = replace(accepted, response=response)
        return accepted

    return boastful


def _cuts_at_every_request(append_new: Any) -> Any:
    def rash(log: Any, configurations: Any, commit_index: Any, batches: Any) -> Any:
        if batches and commit_index < batches[0].header.index <= log.last_index:
            log.truncate(batches[0].header.index)
        return append_new(log, configurations, commit_index, batches)

    return rash


def _ignores_prev_term(accept: Any) -> Any:
    def careless(log: Any, configurations: Any, commit_index: Any, request: Any) -> Any:
        if log.start_index <= request.prev_index <= log.last_index:
            request = replace(request, prev_term=log.term_at(request.prev_index))
        return accept(log, configurations, commit_index, request)

    return careless


def _truncate_ignored(truncate: Any) -> Any:
    def deaf(self: Log, from_index: int) -> None:
        """What conflicts stays; the append that follows it is refused or, worse, is not."""

    return deaf


# -- acknowledgements and reads --------------------------------------------------------------------


def _acknowledges_by_index(committed: Any) -> Any:
    def positional(self: Proposals, header: BatchHeader, result: object) -> None:
        index = header.index if header.kind is Kind.RECORDS else 0
        for number, proposal in enumerate(self._waiting):
            if proposal.index == index:
                self._waiting[number] = replace(proposal, term=header.term)
        committed(self, header, result)

    return positional


def _deposed_keeps_waiting(fail: Any) -> Any:
    def stubborn(self: Proposals, error: Exception) -> None:
        """KurrentDB's way, with :func:`_acknowledges_by_index` in one."""

    return stubborn


def _acknowledges_on_append(propose: Any) -> Any:
    def hasty(self: Broker, led: LedPartition, draft: Any) -> Any:
        offset = led.replica.log.end_offset
        outcome = propose(self, led, draft)
        outcome.cancel()
        return self._acknowledged(Duplicate(offset, 0))

    return hasty


def _shows_uncommitted(apply: Any) -> Any:
    def open_hearted(self: Applier) -> None:
        apply(self)
        self.high_watermark.advance(self._log.end_offset)

    return open_hearted


def _serves_at_once(serving: Any) -> Any:
    return property(lambda self: self.core.role is Role.LEADER and self.failure is None)


# -- sleep ---------------------------------------------------------------------------------------


def _silence_not_noticed(check: Any) -> Any:
    def deaf(self: Ledger, now: float, interval_s: float) -> None:
        """Beats are taken, and nobody minds when they do not come."""

    return deaf


# -- bounds --------------------------------------------------------------------------------------


def _window_ignored(collect_for: Any) -> Any:
    def greedy(self: Leadership, *arguments: Any) -> None:
        self._config = replace(self._config, max_inflight_bytes=1 << 30)
        collect_for(self, *arguments)

    return greedy


# -- exactly once --------------------------------------------------------------------------------


def _no_deduplication(check: Any) -> Any:
    def trusting(self: PendingProducers, *arguments: int) -> None:
        """Every retry is a new batch."""

    return trusting


def _pending_not_checked(check: Any) -> Any:
    def forgetful(self: PendingProducers, *arguments: int) -> Any:
        return ProducerTable.check(self._table, *arguments)

    return forgetful


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


def _files_go_unasked(remove_deleted: Any) -> Any:
    def hasty(self: Log, through_index: int | None = None) -> int:
        removed: int = remove_deleted(self)
        return removed

    return hasty


def _start_not_followed(follow: Any) -> Any:
    def idle(self: Trimmer) -> None:
        """Only the leader's retention, as it were, moves a start."""

    return idle


# -- catching up, damage -------------------------------------------------------------------------


def _votes_though_it_forgot(receive: Any) -> Any:
    def trusting(self: RaftCore, sender: Any, request: Any, now: float) -> None:
        recovering, self.recovering = self.recovering, False
        receive(self, sender, request, now)
        self.recovering = recovering

    return trusting


def _whole_at_once(compare: Any) -> Any:
    def hasty(self: Recovery, end: Index) -> None:
        """A leader was heard: that has to do."""
        self._is_whole = True
        self._whole()

    return hasty


def _state_applied_twice(take: Any) -> Any:
    def thorough(self: Applier, awaited: StateSnapshot) -> None:
        take(self, awaited)
        if self.awaited is None:
            self.applied_index = Index(self._log.start_index - 1)

    return thorough


def _moves_reported_at_once(look_at: Any) -> Any:
    def hasty(self: Mover, replica: Replica, partition: PartitionInfo, **rest: Any) -> Any:
        is_there = set(replica.core.members.voters) == set(partition.target)
        if partition.wanted and replica.serving and is_there:
            return self._settled(replica, partition)
        return look_at(self, replica, partition, **rest)

    return hasty


def _let_go_when_ordered(is_not_held: Any) -> Any:
    def eager(self: PartitionKeeper, group: GroupId) -> bool:
        partition = self._metadata.group(group)
        return partition is not None and self._node_id not in partition.target

    return eager


def _settled_without_asking(settled_without: Any) -> Any:
    def careless(self: PartitionKeeper, replica: Replica) -> Index:
        return Index(1)

    return careless


MUTANTS: Final = (
    Mutant("silence of a node not noticed", Ledger, "check", _silence_not_noticed, 5),
    Mutant("vote not saved", HardStateFile, "save", _vote_not_saved, 200),
    Mutant("term and vote not saved", HardStateFile, "save", _term_not_saved, 30),
    Mutant("answers before the flush", Persister, "start", _answers_before_flush, 5),
    Mutant("no fdatasync", SegmentWriter, "_sync", _no_fdatasync, 20),
    Mutant("interval sync never due", Flusher, "_is_sync_due", _interval_never_due, 30),
    Mutant("interval sync forgotten", Flusher, "_sync_if_due", _interval_forgotten, 30),
    Mutant("own log counted unflushed", Leadership, "quorum_match", _counts_unflushed, 20),
    Mutant("votes not compared", Elector, "_receive_vote_request", _votes_for_anybody, 100),
    Mutant("votes twice in a term", Elector, "_receive_vote_request", _votes_again, 50),
    Mutant("commits old terms by counting", RaftCore, "_advance_commit", _commits_old_terms, 30),
    Mutant(
        "follower believes the commit index",
        RaftCore,
        "_receive_append_request",
        _believes_commit_index,
        100,
    ),
    Mutant(
        "follower answers with its log's end", core_module, "accept", _answers_with_log_end, 100
    ),
    Mutant(
        "follower cuts at every request",
        follower_module,
        "_append_new",
        _cuts_at_every_request,
        100,
    ),
    Mutant("previous term not compared", core_module, "accept", _ignores_prev_term, 100),
    Mutant("truncation ignored", Log, "truncate", _truncate_ignored, 60),
    Mutant(
        "deposed leader acknowledges by index",
        Proposals,
        "fail",
        _deposed_keeps_waiting,
        1500,
        also=Mutant("", Proposals, "committed", _acknowledges_by_index, 0),
    ),
    Mutant("acknowledges when appended", Broker, "_propose", _acknowledges_on_append, 5),
    Mutant("readers see what is not committed", Applier, "apply", _shows_uncommitted, 60),
    Mutant("leader serves before its no-op", Replica, "serving", _serves_at_once, 100),
    Mutant("window to a follower ignored", Leadership, "_collect_for", _window_ignored, 60),
    Mutant("no deduplication", PendingProducers, "check", _no_deduplication, 30),
    Mutant("pending batches not deduplicated", PendingProducers, "check", _pending_not_checked, 60),
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
    Mutant("start not in the saved state", PartitionMachine, "restore", _start_not_restored, 30),
    Mutant("producers not forgotten", ProducerTable, "forget_before", _producers_not_pruned, 60),
    Mutant(
        "forgotten producers taken for new ones",
        ProducerTable,
        "check",
        _forgotten_taken_for_new,
        60,
    ),
    Mutant("files go before they are given free", Log, "remove_deleted", _files_go_unasked, 30),
    Mutant("installed state applied twice", Applier, "_take_awaited", _state_applied_twice, 50),
    Mutant(
        "recovering member votes",
        Elector,
        "_receive_vote_request",
        _votes_though_it_forgot,
        100,
    ),
    Mutant("recovered once a leader was heard", Recovery, "_compare", _whole_at_once, 700),
    Mutant("moves reported at once", Mover, "_look_at", _moves_reported_at_once, 20),
    Mutant(
        "replica deleted when the move is ordered",
        PartitionKeeper,
        "_is_not_held",
        _let_go_when_ordered,
        20,
        also=Mutant("", PartitionKeeper, "_settled_without", _settled_without_asking, 0),
    ),
)
