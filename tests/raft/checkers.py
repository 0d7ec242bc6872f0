"""The properties of figure 3 of the paper, checked at every step of every member."""

from quorumlog.log.batch import Batch
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    VoteRequest,
    VoteResponse,
)
from quorumlog.replication.core.ready import BecameLeader, Ready
from quorumlog.types import Index, NodeId, Term
from raft.member import RaftMember


class SafetyError(AssertionError):
    """One of Raft's safety properties does not hold."""


class SafetyChecker:
    def __init__(self, members: dict[NodeId, RaftMember]) -> None:
        self.committed: list[Batch] = []
        """By index - 1, in the one order that all members have to agree on."""
        self._members = members
        self._committed_in: list[Term] = []
        self._leaders: dict[Term, tuple[NodeId, int]] = {}
        self._votes: dict[tuple[NodeId, Term], NodeId] = {}
        self._batches: dict[tuple[Index, Term], tuple[int, bytes]] = {}
        self._seen: dict[tuple[NodeId, int], tuple[int, int]] = {}

    def observe(self, member: RaftMember, ready: Ready) -> None:
        for event in ready.events:
            if isinstance(event, BecameLeader):
                self._check_leader(member, event.term)
        self._check_log(member)
        self._check_commit(member, ready)

    def sent(self, sender: NodeId, receiver: NodeId, message: Message) -> None:
        """A member votes once per term, restarts or not, and says only what is durable (§5.2)."""
        if isinstance(message, VoteRequest) and not message.pre:
            self._check_vote(sender, message.term, sender)
        elif isinstance(message, VoteResponse) and message.granted and not message.pre:
            self._check_vote(sender, message.term, receiver)
        elif isinstance(message, AppendRequest):
            member = self._members[sender]
            if self._durable_term(member) < message.term:
                raise SafetyError(f"{sender} leads term {message.term} and may forget it")
        elif isinstance(message, AppendResponse) and message.success:
            self._check_acknowledgement(sender, message)

    def _check_acknowledgement(self, sender: NodeId, message: AppendResponse) -> None:
        member = self._members[sender]
        is_durable = (
            self._durable_term(member) >= message.term
            and len(member.durable) >= message.match_index
        )
        # A newer leader may have cut what is acknowledged to an older one.
        if not is_durable and member.core.term == message.term:
            raise SafetyError(f"{sender} acknowledged {message} before it was durable")

    def _durable_term(self, member: RaftMember) -> int:
        """A batch of a term proves the term as well as the file that keeps it."""
        last_term = member.durable[-1].header.term if member.durable else 0
        return max(member.hard_state.term, last_term)

    def _check_vote(self, voter: NodeId, term: Term, candidate: NodeId) -> None:
        if self._votes.setdefault((voter, term), candidate) != candidate:
            raise SafetyError(f"{voter} voted twice in term {term}")
        saved = self._members[voter].hard_state
        if saved.term < term or (saved.term == term and saved.vote != candidate):
            raise SafetyError(f"{voter} voted in term {term} before that was durable")

    def _check_leader(self, member: RaftMember, term: Term) -> None:
        """Election Safety and Leader Completeness."""
        # Alone, it may win a term, lose its memory of that, and win it again: nobody heard of it.
        alone = len(member.core.members.voting) == 1
        me = (member.node_id, 0 if alone else member.incarnation)
        if self._leaders.setdefault(term, me) != me:
            raise SafetyError(f"term {term} has two leaders: {self._leaders[term]} and {me}")
        log = member.log
        for batch, committed_in in zip(self.committed, self._committed_in, strict=True):
            index = batch.header.index
            if committed_in < term and (
                index > log.last_index or log.batches[index - 1].head != batch.head
            ):
                raise SafetyError(f"the leader of term {term} lacks committed batch {index}")

    def _check_log(self, member: RaftMember) -> None:
        """Log Matching: (index, term) names one batch, and one predecessor of it."""
        key = (member.node_id, member.incarnation)
        checked, changes = self._seen.get(key, (0, -1))
        log = member.log
        if changes == log.changes:
            return
        if len(member.core.members.voting) == 1 and self._durable_term(member) < log.last_term:
            # Alone in a term that it may forget: nobody has heard of these batches.
            return
        checked = min(checked, log.last_index)
        # A cut goes back to where nothing is known; 32 batches is more than one input changes.
        for at in range(max(0, checked - 32), len(log.batches)):
            header = log.batches[at].header
            prev_term = log.batches[at - 1].header.term if at else 0
            fact = (prev_term, bytes(log.batches[at].head))
            if self._batches.setdefault((header.index, header.term), fact) != fact:
                raise SafetyError(f"two batches {header.index} of term {header.term}")
        self._seen[key] = (log.last_index, log.changes)

    def _check_commit(self, member: RaftMember, ready: Ready) -> None:
        """State Machine Safety, and that a commit never rests on what is not durable."""
        key = (member.node_id, -1 - member.incarnation)
        applied, _ = self._seen.get(key, (0, 0))
        for index in range(applied + 1, ready.commit_index + 1):
            batch = member.log.batches[index - 1]
            if index <= len(self.committed):
                if self.committed[index - 1].head != batch.head:
                    raise SafetyError(f"{member.node_id} commits another batch {index}")
                continue
            self._check_holders(member.core.members, batch)
            self.committed.append(batch)
            self._committed_in.append(member.core.term)
            if index == ready.commit_index and batch.header.term != member.core.term:
                raise SafetyError(f"batch {index}, of an earlier term, was committed by counting")
        if ready.commit_index < applied:
            raise SafetyError(f"the commit index of {member.node_id} went back to {applied}")
        self._seen[key] = (ready.commit_index, 0)

    def _check_holders(self, members: Members, batch: Batch) -> None:
        for voters in (members.voters, members.outgoing):
            holders = [voter for voter in voters if self._members[voter].has_durably(batch)]
            if voters and 2 * len(holders) <= len(voters):
                raise SafetyError(
                    f"batch {batch.header.index} is committed and durable at {holders} only"
                )
