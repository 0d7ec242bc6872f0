"""Terms, roles and elections of one member (Raft §5.1, §5.2, §5.4.1; dissertation §4.2.3, §9.6).

The half of :class:`~quorumlog.replication.core.core.RaftCore` that decides who leads. Of the log it
knows the last index and term; what a leader does is the other half's.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from quorumlog.errors import InvariantViolation
from quorumlog.log.hard_state import HardState
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.leadership import Leadership
from quorumlog.replication.core.log_port import RaftLog, Rng
from quorumlog.replication.core.members import Configurations, Members
from quorumlog.replication.core.messages import TimeoutNow, VoteRequest, VoteResponse
from quorumlog.replication.core.outbox import Outbox
from quorumlog.replication.core.quorum import Tally, tally
from quorumlog.replication.core.ready import LeaderChanged, Recovered, SteppedDown
from quorumlog.replication.core.role import TRANSITIONS, Role
from quorumlog.types import Index, NodeId, Term

_MOST_DOUBLINGS: Final = 3
"""How often an election that ends undecided doubles the time of the next one."""

_SPREAD: Final = 4
"""Patience that chance adds to one at most: two who stand within one and a half round trips, which
pre-vote and vote request take, split the votes."""


class Elector(ABC):
    """Whatever is sent from here leaves after term and vote are durable."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        config: RaftConfig,
        log: RaftLog,
        hard_state: HardState,
        members: Members,
        rng: Rng,
        now: float,
        commit_index: int = 0,
        config_entries: Sequence[tuple[Index, Members]] = (),
        recovering: bool = False,
    ) -> None:
        """``log`` and ``hard_state`` are durable as they are now.

        ``members`` is the configuration before the log's first CONFIG batch, ``config_entries``
        are the CONFIG batches of the log. ``commit_index`` is one known from before, or 0.
        ``recovering``: this member has forgotten what it acknowledged, but not its term and vote.
        """
        self.role = Role.FOLLOWER
        self.term = hard_state.term
        self.vote = hard_state.vote
        """Whom this member voted for in ``term``."""
        self.leader_id: NodeId | None = None
        """Who leads ``term``, as far as this member has heard."""
        self.commit_index = Index(max(commit_index, log.start_index - 1))
        self.recovering = recovering
        """It grants no vote and stands for nothing, until :meth:`recovered`."""
        self._node_id = node_id
        self._config = config
        self._log = log
        self._rng = rng
        self._configurations = Configurations(members, config_entries)
        self._configurations.committed(self.commit_index)
        self._durable_index = log.last_index
        self._leadership: Leadership | None = None
        self._votes: dict[NodeId, bool] = {}
        self._votes_from = float("-inf")
        """Until then this member has promised, or may have, to vote for nobody."""
        self._election_timeout_s = 0.0
        self._patience_drawn = 1.0
        """How much of its patience it has this time, by the same chance as its timeout."""
        self._election_at = 0.0
        self.patience_s = 0.0
        """How much longer than its timeouts say it waits for others: what messages take at present,
        beyond what the timeouts allow for. Set by whoever drives it; it touches time alone."""
        self._undecided_elections = 0
        """Of this member, since there was a leader: their time was over before the votes came."""
        self._outbox = Outbox(self.commit_index)
        if log.last_term > self.term:
            # A flush may take batches of a term whose own save was still to come. Nobody relied
            # on that term (neither vote nor acknowledgement left), but it must not come again.
            self._enter_term(log.last_term)
        if self.term > 0 or log.last_index > 0:
            # It may have followed a leader that relies on it, a moment ago.
            self._votes_from = now + config.election_timeout_s
        self._restart_election_timer(now)

    @property
    def members(self) -> Members:
        """The newest configuration in the log, committed or not."""
        return self._configurations.current

    @property
    def _is_voter(self) -> bool:
        """Whether it may stand: also out of the newest configuration until that is committed, since
        its log may be the only one that those who stay cannot do without (dissertation §4.2.2).
        """
        return self._configurations.may_be_voter(self._node_id) and not self.recovering

    def recovered(self) -> None:
        """All that this member ever acknowledged is in its log again, durably: it votes."""
        self.recovering = False
        self._outbox.events.append(Recovered())

    @abstractmethod
    def _start_leading(self, now: float) -> None:
        """The election of ``term`` is won: set ``_leadership`` and open the term."""

    # -- terms and roles (§5.1) ----------------------------------------------------------------

    def _enter_term(self, term: Term) -> None:
        self.term = term
        self.vote = None
        self._outbox.hard_state_changed = True

    def _become(self, role: Role) -> None:
        if role not in TRANSITIONS[self.role]:
            raise InvariantViolation(f"a {self.role.value} cannot become a {role.value}")
        self.role = role

    def _become_follower(self, term: Term, leader: NodeId | None, now: float) -> None:
        """Follow ``leader`` in ``term``, which is this term or a later one."""
        if self._leadership is not None:
            self._leadership = None
            self._outbox.events.append(SteppedDown(self.term))
        if self.role is not Role.FOLLOWER:
            self._become(Role.FOLLOWER)
            self._restart_election_timer(now)
        self._votes = {}
        if term > self.term:
            if leader is not None:
                self.leader_id = None
            self._enter_term(term)
        self._set_leader(leader)

    def _set_leader(self, leader: NodeId | None) -> None:
        if leader != self.leader_id:
            self.leader_id = leader
            self._outbox.events.append(LeaderChanged(leader, self.term))

    def _follow(self, leader: NodeId, term: Term, now: float) -> None:
        """Note that ``leader`` leads ``term``, which is not an old one."""
        known = self.leader_id
        if term == self.term and known is not None and known != leader:
            raise InvariantViolation(f"term {term} has two leaders: {known} and {leader}")
        if term > self.term or self.role is not Role.FOLLOWER or known is None:
            self._become_follower(term, leader, now)
        self._votes_from = now + self._config.election_timeout_s
        self._election_at = now + self._election_timeout_s
        self._undecided_elections = 0

    def _restart_election_timer(self, now: float) -> None:
        timeout_s = self._config.election_timeout_s
        self._election_timeout_s = self._rng.uniform(timeout_s, 2 * timeout_s)
        self._patience_drawn = 1 + _SPREAD * (self._election_timeout_s / timeout_s - 1)
        self._election_at = now + self._election_timeout_s

    # -- elections (§5.2, §5.4.1) --------------------------------------------------------------

    def _election_timed_out(self, now: float) -> None:
        if not self._is_voter:
            self._become_follower(self.term, None, now)
            self._restart_election_timer(now)
            return
        if self.role is Role.CANDIDATE:
            self._undecided_elections += 1
        self._become(Role.PRE_CANDIDATE)
        self._set_leader(None)
        self._restart_election_timer(now)
        self._ask_for_votes(Term(self.term + 1), pre=True, force=False)
        self._count_votes(now)

    def _start_election(self, now: float, *, force: bool) -> None:
        self._become(Role.CANDIDATE)
        self._enter_term(Term(self.term + 1))
        self.vote = self._node_id
        self._set_leader(None)
        # Votes that come too late are lost with their term, and the next term's may be as late.
        self._restart_election_timer(now)
        doublings = min(self._undecided_elections, _MOST_DOUBLINGS)
        self._election_at = now + self._election_timeout_s * 2**doublings
        self._ask_for_votes(self.term, pre=False, force=force)
        self._count_votes(now)

    def _ask_for_votes(self, term: Term, *, pre: bool, force: bool) -> None:
        self._votes = {self._node_id: True}
        request = VoteRequest(term, self._log.last_index, self._log.last_term, pre, force)
        for voter in self.members.voting:
            if voter != self._node_id:
                self._outbox.durable_messages.append((voter, request))

    def _count_votes(self, now: float) -> None:
        result = tally(self.members, self._votes)
        if result is Tally.LOST:
            # The timer is not drawn anew: another candidate may be winning, or nobody is.
            self._election_at = min(self._election_at, now + self._election_timeout_s)
            self._become(Role.FOLLOWER)
            self._votes = {}
        elif result is Tally.WON:
            if self.role is Role.PRE_CANDIDATE:
                self._start_election(now, force=False)
            else:
                self._become(Role.LEADER)
                self._votes = {}
                self._undecided_elections = 0
                self._start_leading(now)

    def _receive_vote_request(self, sender: NodeId, request: VoteRequest, now: float) -> None:
        # Forced ones were ordered by the leader itself, which has no lease any more. One that is
        # late is of an older term than the next leader's, or of its term and so refused below.
        is_free = request.force or self._may_vote(now)
        if request.term > self.term and not is_free:
            # Whoever asks was cut off or removed; it must not disturb the others (§6, last part).
            return
        log = self._log
        is_up_to_date = (request.last_term, request.last_index) >= (log.last_term, log.last_index)
        if request.pre:
            is_granted = request.term > self.term and is_up_to_date and not self.recovering
            term = request.term if is_granted else self.term
        else:
            if request.term > self.term:
                self._become_follower(request.term, None, now)
            may_vote = self.vote == sender or (
                self.vote is None and self.leader_id is None and is_free
            )
            is_granted = request.term == self.term and may_vote and is_up_to_date
            is_granted = is_granted and not self.recovering
            term = self.term
            if is_granted:
                self._grant(sender, now)
        self._outbox.durable_messages.append((sender, VoteResponse(term, is_granted, request.pre)))

    def _grant(self, candidate: NodeId, now: float) -> None:
        if self.vote is None:
            self.vote = candidate
            self._outbox.hard_state_changed = True
        if self.role is Role.PRE_CANDIDATE:
            self._become(Role.FOLLOWER)
        self._restart_election_timer(now)

    def _may_vote(self, now: float) -> bool:
        """Whether no leader relies on it that this member does not (dissertation §4.2.3, §6.4).

        Asked of the time alone: what it has heard since of other terms ends no promise.
        """
        return self.role is not Role.LEADER and now >= self._votes_from

    def _receive_vote_response(self, sender: NodeId, response: VoteResponse, now: float) -> None:
        if response.pre and response.granted:
            is_answer = self.role is Role.PRE_CANDIDATE and response.term == self.term + 1
        elif response.term > self.term:
            self._become_follower(response.term, None, now)
            return
        elif response.pre:
            is_answer = self.role is Role.PRE_CANDIDATE
        else:
            is_answer = self.role is Role.CANDIDATE and response.term == self.term
        if is_answer:
            self._votes.setdefault(sender, response.granted)
            self._count_votes(now)

    def _receive_timeout_now(self, sender: NodeId, order: TimeoutNow, now: float) -> None:
        if order.term < self.term:
            return
        self._follow(sender, order.term, now)
        if self._is_voter:
            self._start_election(now, force=True)
