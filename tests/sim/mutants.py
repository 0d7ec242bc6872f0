"""Known bugs, put back one at a time: the simulator has to find each of them.

A mutant replaces one function of the product while it is applied. LESSONS of other systems and the
pitfalls of the Raft paper are the list to draw from; docs/testing.md shows the table.
"""

import asyncio
from dataclasses import replace
from typing import Any, Final

from quorumlog.broker.broker import Broker
from quorumlog.broker.led_partition import LedPartition
from quorumlog.broker.port import ProduceAck
from quorumlog.broker.producers import Duplicate, PendingProducers, ProducerTable
from quorumlog.errors import WrongExpectedOffset
from quorumlog.log.batch import Draft
from quorumlog.log.config import FSYNC_INTERVAL
from quorumlog.log.flusher import Flusher
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.log import Log
from quorumlog.log.writer import SegmentWriter
from quorumlog.replication.applier import Applier
from quorumlog.replication.core import core as core_module
from quorumlog.replication.core import follower as follower_module
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.election import Elector
from quorumlog.replication.core.leadership import Leadership
from quorumlog.replication.core.role import Role
from quorumlog.replication.persister import Persister
from quorumlog.replication.proposals import Proposals
from quorumlog.replication.replica import Replica
from quorumlog.types import Index
from sim.mutant import Mutant
from sim.mutants_of_members import MEMBER_MUTANTS
from sim.mutants_of_states import STATE_MUTANTS
from sim.swarm import Swarm

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


def _by_interval(drawn: Swarm) -> Swarm:
    """A topic that is synced by interval; nobody loses power before the end then."""
    faults = tuple(fault for fault in drawn.faults if fault != "power")
    return replace(drawn, fsync=FSYNC_INTERVAL, faults=faults)


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


def _overtaken(drawn: Swarm) -> Swarm:
    """All is said twice, and late; many small requests are under way, and the disks are slow."""
    return replace(
        drawn,
        max_append_bytes=256,
        max_inflight_bytes=1 << 20,
        coalesce_bytes=0,
        producers=2,
        records_per_producer=100,
        record_bytes=300,
        burst=20,
        batch_bytes=1,
        link=replace(drawn.link, slow_chance=0.25, slow_s=0.15, duplicate=1.0, reorder=True),
    )


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


def _deposed_keeps_waiting(fail: Any) -> Any:
    def stubborn(self: Proposals, error: Exception) -> None:
        """KurrentDB's way: whoever wrote waits for what another leader has in that place."""

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


def _condition_ignored(append_at: Any) -> Any:
    async def always(
        self: Broker, topic: str, partition: int, draft: Draft, expected_end: int, token: int = 0
    ) -> ProduceAck:
        return await asyncio.shield(self.submit(topic, partition, draft, token))

    return always


def _condition_before_retries(append_at: Any) -> Any:
    async def forgetful(
        self: Broker, topic: str, partition: int, draft: Draft, expected_end: int, token: int = 0
    ) -> ProduceAck:
        end = self._led(topic, partition).replica.log.end_offset
        if end != expected_end:
            raise WrongExpectedOffset(expected_end, end)
        return await asyncio.shield(self.submit(topic, partition, draft, token))

    return forgetful


MUTANTS: Final = (
    Mutant("vote not saved", HardStateFile, "save", _vote_not_saved, 5),
    Mutant("term and vote not saved", HardStateFile, "save", _term_not_saved, 30),
    Mutant("answers before the flush", Persister, "start", _answers_before_flush, 5),
    Mutant("no fdatasync", SegmentWriter, "_sync", _no_fdatasync, 20),
    Mutant(
        "interval sync never due",
        Flusher,
        "_is_sync_due",
        _interval_never_due,
        10,
        shape=_by_interval,
    ),
    Mutant(
        "interval sync forgotten",
        Flusher,
        "_sync_if_due",
        _interval_forgotten,
        10,
        shape=_by_interval,
    ),
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
        5,
        shape=_overtaken,
    ),
    Mutant("previous term not compared", core_module, "accept", _ignores_prev_term, 100),
    Mutant("truncation ignored", Log, "truncate", _truncate_ignored, 60),
    Mutant("deposed leader tells nobody", Proposals, "fail", _deposed_keeps_waiting, 20),
    Mutant("acknowledges when appended", Broker, "_propose", _acknowledges_on_append, 5),
    Mutant("readers see what is not committed", Applier, "apply", _shows_uncommitted, 60),
    Mutant("leader serves before its no-op", Replica, "serving", _serves_at_once, 100),
    Mutant("window to a follower ignored", Leadership, "_collect_for", _window_ignored, 100),
    Mutant("no deduplication", PendingProducers, "check", _no_deduplication, 30),
    Mutant("pending batches not deduplicated", PendingProducers, "check", _pending_not_checked, 60),
    Mutant("condition ignored", Broker, "append_at", _condition_ignored, 30),
    Mutant("condition asked before retries", Broker, "append_at", _condition_before_retries, 60),
    *STATE_MUTANTS,
    *MEMBER_MUTANTS,
)
