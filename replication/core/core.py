"""The Raft state machine of one group member (Raft §5; README.md one folder up is the way in).

It holds no socket, file, timer or task: messages, ticks and proposals go in by plain calls, and
:meth:`RaftCore.take_ready` gives what has to be done about them. The order in which a driver does
that is part of the protocol (:class:`~quorumlog.replication.core.ready.Ready`).
"""

from collections.abc import Sequence
from math import inf

from quorumlog.errors import InvalidArgument, InvariantViolation, NotLeader, Unavailable
from quorumlog.log.batch import Batch, Draft, Kind
from quorumlog.replication.core.follower import accept
from quorumlog.replication.core.leadership import Leadership
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.membership import new_voters, step_towards
from quorumlog.replication.core.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from quorumlog.replication.core.ready import BecameLeader, MembersChanged, ReadAllowed, Ready
from quorumlog.replication.core.role import Role
from quorumlog.replication.core.sleep import Sleeper
from quorumlog.types import Index, NodeId

__all__ = ["RaftCore", "Role"]


class RaftCore(Sleeper):
    """One member of one group. Every ``now`` is in seconds of one clock that never goes back.

    See :class:`Elector` for the constructor and for what can be read: ``role``, ``term``, ``vote``,
    ``leader_id``, ``commit_index``, ``members``.
    """

    @property
    def durable_index(self) -> Index:
        """This node's own log is durable through here."""
        return self._durable_index

    @property
    def members_index(self) -> Index:
        """Where ``members`` stands in the log; 0 when it came from elsewhere."""
        return self._configurations.current_index

    @property
    def leadership(self) -> Leadership | None:
        """What a leader knows of its followers, to be read only; None on every other role."""
        return self._leadership

    @property
    def deadline(self) -> float:
        """When :meth:`tick` has to be called next. It moves with every input, also nearer."""
        if self.asleep:
            return inf
        if self._leadership is not None:
            return self._leadership.deadline
        return self._election_at + self._patience_drawn * self.patience_s

    # -- inputs --------------------------------------------------------------------------------

    def receive(self, sender: NodeId, message: Message, now: float) -> None:
        """Take one message. Any may be lost, late, doubled or out of order.

        Raises:
            InvariantViolation: what no correct group can produce; stop this member.
        """
        if self.is_woken_by(message):
            self.wake(now)
        if isinstance(message, AppendResponse):
            self._receive_append_response(sender, message, now)
        elif isinstance(message, AppendRequest):
            self._receive_append_request(sender, message, now)
        elif isinstance(message, VoteRequest):
            self._receive_vote_request(sender, message, now)
        elif isinstance(message, VoteResponse):
            self._receive_vote_response(sender, message, now)
        else:
            self._receive_timeout_now(sender, message, now)

    def tick(self, now: float) -> None:
        """Do what is due at ``now``; nothing before :attr:`deadline`."""
        if now < self.deadline:
            return
        leadership = self._leadership
        if leadership is None:
            self._election_timed_out(now)
        elif not leadership.hears_quorum(now - self.patience_s):
            self._become_follower(self.term, None, now)
        elif leadership.retire_by is not None and now >= leadership.retire_by:
            self._leave(leadership, now)
        else:
            leadership.tick(now)
            leadership.notify_commit(self.commit_index, now)

    def propose(self, drafts: Sequence[Draft], timestamp_ms: int, now: float) -> tuple[Batch, ...]:
        """Append ``drafts``, all or none; they are durable and safe only once committed.

        ``timestamp_ms`` is raised to that of the log's last batch where it is older.

        Raises:
            NotLeader: this member does not lead, or is handing leadership over.
        """
        leadership = self._leadership
        if leadership is None:
            raise NotLeader()
        if leadership.is_handing_over:
            raise NotLeader("leadership is being handed over")
        self.wake(now)
        leadership.due = True
        return self._append_own(drafts, timestamp_ms)

    def propose_members(self, members: Members, timestamp_ms: int, now: float) -> Batch:
        """Begin the change to ``members`` (Raft §6) with a CONFIG batch, which is returned.

        The batch holds at once and stays once it is committed. When the voters change it is a joint
        one; the one that ends the change is appended, by whoever leads then, as soon as the joint
        one is committed. A leader that is no voter any more leaves after that.

        Raises:
            NotLeader: as :meth:`propose`.
            InvalidArgument: joint, without a voter, or with one that was not a learner before.
            Unavailable: the change before, or the first batch of this term, is not committed yet; a
                new voter has not caught up.
        """
        leadership = self._leadership
        if leadership is None:
            raise NotLeader()
        if leadership.is_handing_over:
            raise NotLeader("leadership is being handed over")
        current = self.members
        settled_from = max(leadership.first_index, self._configurations.current_index)
        if self.commit_index < settled_from or current.outgoing:
            raise Unavailable("the configuration before is not committed yet: try again")
        self.wake(now)
        step = step_towards(members, current)
        for node_id in new_voters(members, current):
            leadership.check_caught_up(node_id, self.commit_index, now)
        return self._append_members(step, timestamp_ms, now)

    def lease_index(self, now: float) -> Index | None:
        """What has to be applied for a read to be current, if that is known without asking anybody.

        None when it is not: another may have been elected; :meth:`read` asks.
        """
        leadership = self._leadership
        if (
            leadership is None
            or self.asleep
            or self.commit_index < leadership.first_index
            or not leadership.holds_lease(now)
        ):
            return None
        return self.commit_index

    def read(self, now: float) -> int:
        """Ask whether this member still leads (dissertation §6.4). The read's number in this term.

        :class:`ReadAllowed` comes when a majority said so. When :class:`SteppedDown` comes first,
        it will not: whoever leads now has to be asked.

        Raises:
            NotLeader, Overloaded.
        """
        leadership = self._leadership
        if leadership is None:
            raise NotLeader()
        self.wake(now)
        number = leadership.read(self.commit_index, now)
        self._allow_reads(leadership)
        return number

    def persisted(self, last_index: int, last_term: int, now: float) -> None:
        """The log is durable through ``last_index``, whose batch was of ``last_term``.

        Ignored when that batch was replaced since: its index says nothing of its successor (a
        flush of that one is still to come).
        """
        if not self._durable_index < last_index <= self._log.last_index:
            return
        if self._log.term_at(last_index) != last_term:
            return
        leadership = self._leadership
        if leadership is not None and self._durable_index < leadership.first_index <= last_index:
            leadership.due = True
        self._durable_index = Index(last_index)
        self._advance_commit(now)

    def campaign(self, now: float) -> None:
        """Stand for election at once, without a pre-vote.

        A leader or learner does nothing, nor one on whose vote a leader may rely.
        """
        self.wake(now)
        if self._is_voter and self._may_vote(now):
            self._start_election(now, force=False)

    def feed(self, peer: NodeId, batches: Sequence[Batch]) -> None:
        """Send ``batches`` of this log, which are committed, to a follower far behind.

        They were read for ``leadership.cold_reads``; where the follower needs others by now,
        nothing happens.
        """
        if self._leadership is not None:
            request = self._leadership.feed(peer, batches, self.commit_index)
            if request is not None:
                self._outbox.messages.append((peer, request))

    def transfer_leadership(self, target: NodeId, now: float) -> None:
        """Hand leadership over to ``target`` (dissertation §3.10), within an election timeout and
        the patience of the moment.

        Proposals are refused meanwhile. When ``target`` does not take over in time, this member
        goes on leading. Nothing happens when ``target`` is this member.

        Raises:
            NotLeader, InvalidArgument: ``target`` is no voter.
        """
        if self._leadership is None:
            raise NotLeader()
        if target not in self.members.voters:
            raise InvalidArgument(f"{target} is not one of the voters {self.members.voters}")
        if target != self._node_id:
            self.wake(now)
            self._leadership.start_transfer(target, now + self.patience_s)

    # -- outputs -------------------------------------------------------------------------------

    @property
    def has_ready(self) -> bool:
        """Whether :meth:`take_ready` would give anything; cheap."""
        leadership = self._leadership
        if leadership is not None and leadership.due:
            return True
        return self._outbox.has_ready(self.commit_index)

    def take_ready(self) -> Ready:
        """Everything that is new since the last call."""
        leadership = self._leadership
        if leadership is not None and leadership.due:
            self._outbox.messages += leadership.collect(self.commit_index, self._durable_index)
        return self._outbox.take(self.term, self.vote, self.commit_index)

    # -- the log (§5.3) ------------------------------------------------------------------------

    def _start_leading(self, now: float) -> None:
        self._leadership = Leadership(
            node_id=self._node_id,
            term=self.term,
            config=self._config,
            log=self._log,
            members=self.members,
            now=now,
        )
        self._leadership.due = True
        self._outbox.events.append(BecameLeader(self.term))
        self._set_leader(self._node_id)
        # Nothing of an earlier term is committed by counting (§5.4.2), so the term gets a batch.
        self._append_own([Draft.of(b"", kind=Kind.NOOP)], self._log.last_timestamp_ms)

    def _append_own(self, drafts: Sequence[Draft], timestamp_ms: int) -> tuple[Batch, ...]:
        log = self._log
        timestamp_ms = max(timestamp_ms, log.last_timestamp_ms)
        index: int = log.next_index
        offset: int = log.end_offset
        batches = []
        for draft in drafts:
            batch = draft.stamp(index, self.term, offset, timestamp_ms)
            batches.append(batch)
            index += 1
            offset += draft.record_count
        log.append(batches)
        return tuple(batches)

    def _receive_append_request(self, sender: NodeId, request: AppendRequest, now: float) -> None:
        if request.term < self.term:
            # Its sender learns from the term in it that it was replaced.
            self._outbox.durable_messages.append((sender, AppendResponse(self.term, False)))
            return
        self._follow(sender, request.term, now)
        before = self.members
        accepted = accept(self._log, self._configurations, self.commit_index, request)
        if accepted.truncated_from is not None:
            self._durable_index = min(self._durable_index, Index(accepted.truncated_from - 1))
        if self.members != before:
            self._outbox.events.append(MembersChanged(self.members))
        response = accepted.response
        if response.success:
            self._set_commit_index(min(request.commit_index, response.match_index))
            if not request.batches and self._log.term_at(self._durable_index) == self.term:
                self._answer_heartbeat(sender, response)
                return
        self._outbox.durable_messages.append((sender, response))

    def _answer_heartbeat(self, sender: NodeId, response: AppendResponse) -> None:
        """Answer at once with what is durable already: a slow disk must not look like a dead node.

        A durable batch of this term is the leader's, so all before it is too (Log Matching), and it
        proves the term as well as the file that keeps it.
        """
        if response.match_index <= self._durable_index:
            self._outbox.messages.append((sender, response))
            return
        known = AppendResponse(self.term, True, self._durable_index, round=response.round)
        self._outbox.messages.append((sender, known))
        self._outbox.durable_messages.append((sender, response))

    # -- commitment (§5.3, §5.4.2) -------------------------------------------------------------

    def _receive_append_response(
        self, sender: NodeId, response: AppendResponse, now: float
    ) -> None:
        if response.term > self.term:
            self._become_follower(response.term, None, now)
        elif response.term == self.term and self._leadership is not None:
            leadership = self._leadership
            leadership.answered(sender, response, now)
            self._allow_reads(leadership)
            if response.match_index > self.commit_index:
                self._advance_commit(now)

    def _advance_commit(self, now: float) -> None:
        leadership = self._leadership
        if leadership is None:
            return
        index = leadership.quorum_match(self._durable_index)
        # Terms never decrease along the log: from the no-op on, every batch is of this term.
        if index > self.commit_index and index >= leadership.first_index:
            self._set_commit_index(index)
            leadership.commit_advanced(index, now)
            self._allow_reads(leadership)
            self._go_on_with_change(leadership, now)

    def _allow_reads(self, leadership: Leadership) -> None:
        for number, index in leadership.take_allowed_reads(self.commit_index):
            self._outbox.events.append(ReadAllowed(number, index))

    # -- members (§6) --------------------------------------------------------------------------

    def _append_members(self, members: Members, timestamp_ms: int, now: float) -> Batch:
        (batch,) = self._append_own([Draft.of(members.encode(), kind=Kind.CONFIG)], timestamp_ms)
        self._configurations.append(batch.header.index, members)
        self._outbox.events.append(MembersChanged(members))
        if self._leadership is not None:
            self._leadership.set_members(members, now)
        return batch

    def _go_on_with_change(self, leadership: Leadership, now: float) -> None:
        """A batch of this term was committed: end the change that is under way, if one is."""
        if self.commit_index < self._configurations.current_index:
            return
        members = self.members
        if members.outgoing:
            self._append_members(members.final, self._log.last_timestamp_ms, now)
            return
        self._outbox.messages += leadership.let_go(self.commit_index)
        if self._node_id not in members.voters:
            # What was proposed before is waited for a moment: its fate would be unknown.
            leadership.retire(now)
            if self.commit_index == self._log.last_index:
                self._leave(leadership, now)

    def _leave(self, leadership: Leadership, now: float) -> None:
        """Tell everybody what is committed, have the next leader elected, and step down.

        The voter with the most of this log has the final configuration, which is committed.
        """
        leadership.notify_all()
        messages = self._outbox.messages
        messages += leadership.collect(self.commit_index, self._durable_index)
        successor = leadership.most_advanced_voter()
        if successor is not None:
            messages.append((successor, TimeoutNow(self.term)))
        self._become_follower(self.term, None, now)

    def _set_commit_index(self, index: Index) -> None:
        if index <= self.commit_index:
            return
        if index > self._log.last_index:
            raise InvariantViolation(
                f"batch {index} is committed and this log ends at {self._log.last_index}"
            )
        self.commit_index = index
        self._configurations.committed(index)
