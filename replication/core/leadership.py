"""What a leader keeps and does while it leads (Raft §5.3, §5.4.2; dissertation §3.10, §6.2).

Exists from winning an election to stepping down. Requests are made in :meth:`Leadership.collect`,
once per turn of the driver: all that was appended in the turn shares one request per follower.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quorumlog.errors import InvariantViolation, Unavailable
from quorumlog.log.batch import Batch
from quorumlog.replication.core.backtracking import newest_not_after
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.log_port import RaftLog
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import AppendRequest, AppendResponse, Message, TimeoutNow
from quorumlog.replication.core.progress import Progress
from quorumlog.replication.core.quorum import agreed
from quorumlog.replication.core.reads import Reads
from quorumlog.replication.core.transfer import Transfer
from quorumlog.types import Index, NodeId, Term


@dataclass(frozen=True, slots=True)
class ColdRead:
    """Batches for a follower that are not in memory any more: for the driver to read."""

    first_index: Index
    max_bytes: int


class Leadership:
    def __init__(
        self,
        *,
        node_id: NodeId,
        term: Term,
        config: RaftConfig,
        log: RaftLog,
        members: Members,
        now: float,
    ) -> None:
        """``log`` ends before the no-op that opens ``term``."""
        self.first_index = log.next_index
        """The no-op of this term: once it is committed, so is everything before it."""
        self.transfer: Transfer | None = None
        self.retire_by: float | None = None
        """When a leader that is no voter any more leaves at the latest; None while it stays."""
        self.due = False
        """There may be something to collect."""
        self.cold_reads: dict[NodeId, ColdRead] = {}
        """What followers far behind get next; the driver brings it to :meth:`RaftCore.feed`."""
        self._node_id = node_id
        self._term = term
        self._config = config
        self._log = log
        self._members = members
        self._elected_alone = members.voting == (node_id,)
        self._reads = Reads(
            now, keep_s=config.election_timeout_s, max_waiting=config.max_waiting_reads
        )
        self._lease_ended = False
        self._heartbeat_at = now + config.heartbeat_s
        self._commit_notice: tuple[float, Index] | None = None
        self._peers: dict[NodeId, Progress] = {}
        self._leaving: dict[NodeId, Progress] = {}
        # Most followers have all that precedes the no-op, so it is sent to all without a question.
        self._set_peers(now, probing=False)

    def progress_of(self, peer: NodeId) -> Progress | None:
        return self._peers.get(peer)

    @property
    def is_handing_over(self) -> bool:
        """Whether somebody else is to lead soon: nothing is proposed any more."""
        return self.transfer is not None or self.retire_by is not None

    @property
    def is_busy(self) -> bool:
        """Something is under way that takes more than its followers' having all of the log."""
        return self.due or self.is_handing_over or self._reads.are_waiting

    @property
    def deadline(self) -> float:
        deadline = self._heartbeat_at
        if self.retire_by is not None:
            deadline = min(deadline, self.retire_by)
        if self._commit_notice is not None:
            deadline = min(deadline, self._commit_notice[0])
        if self.transfer is not None:
            deadline = min(deadline, self.transfer.deadline)
        return deadline

    # -- inputs --------------------------------------------------------------------------------

    def set_members(self, members: Members, now: float) -> None:
        """``members`` holds from the log's last batch on.

        Those who leave with it are sent that batch, and that it is committed (:meth:`let_go`): who
        knows stands for nothing.
        """
        self._members = members
        before = self._peers
        self._set_peers(now, probing=True)
        self._leaving = {peer: before[peer] for peer in before if peer not in self._peers}
        for progress in self._leaving.values():
            progress.notice_due = True
        if self.transfer is not None and self.transfer.target not in members.voters:
            self.transfer = None
        self.due = True

    def tick(self, now: float) -> None:
        if self.transfer is not None and now >= self.transfer.deadline:
            self.transfer = None
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self._config.heartbeat_s
            self._reads.open_round(now)
            self.notify_all()

    def notify_commit(self, commit_index: Index, now: float) -> None:
        """Tell whom no request told of a commit whose time has come; a newer one has its own."""
        if self._commit_notice is None or now < self._commit_notice[0]:
            return
        overdue_index, self._commit_notice = self._commit_notice[1], None
        for progress in self._peers.values():
            if progress.sent_commit_index < overdue_index:
                progress.notice_due = True
                self.due = True
        if overdue_index < commit_index:
            self.commit_advanced(commit_index, now)

    def commit_advanced(self, commit_index: Index, now: float) -> None:
        if self._commit_notice is None and self._peers:
            self._commit_notice = now + self._config.commit_notice_s, commit_index

    def answered(self, peer: NodeId, response: AppendResponse, now: float) -> None:
        """Take an answer of this term. One from a node that was removed meanwhile is ignored.

        Raises:
            InvariantViolation: the peer claims to have what this leader does not, or a round.
        """
        progress = self._peers.get(peer)
        if progress is None:
            return
        progress.heard_at = now
        self._note_round(peer, progress, response.round)
        if response.success:
            if response.match_index > self._log.last_index:
                raise InvariantViolation(
                    f"{peer} has batch {response.match_index} of term {self._term}, "
                    f"its leader's log ends at {self._log.last_index}"
                )
            progress.accepted(response.match_index)
        elif not progress.is_refusal_stale(response.rejected_index):
            if progress.probing and response.rejected_index == progress.match_index:
                # Asked for just what it acknowledged, it has not got it: it lost power, and its
                # log does not sync each batch. Nothing that is committed becomes less so.
                progress.lost()
            agreement = newest_not_after(self._log, response.conflict_index, response.conflict_term)
            progress.probe(max(agreement, progress.match_index) + 1)
            if response.rejected_index == self._log.start_index - 1:
                progress.needs_state = True
        if progress.notice_due or progress.next_index <= self._log.last_index:
            self.due = True
        if self.transfer is not None and self.transfer.target == peer:
            self.due = True

    def _note_round(self, peer: NodeId, progress: Progress, answered: int) -> None:
        if answered > self._reads.round:
            raise InvariantViolation(
                f"{peer} answers round {answered} of term {self._term}, which never was"
            )
        if answered > progress.confirmed_round:
            progress.confirmed_round = answered
            progress.confirmed_at = self._reads.opened_at(answered)

    def read(self, commit_index: Index, now: float) -> int:
        """Ask everybody whether this node still leads. The read's number; raises Overloaded."""
        # Before the no-op is committed, this leader may not know what is (dissertation §6.4).
        number = self._reads.wait(max(commit_index, self.first_index), now)
        self.notify_all()
        return number

    def take_allowed_reads(self, commit_index: Index) -> list[tuple[int, Index]]:
        """The reads that a majority has confirmed since: (number, index)."""
        reads = self._reads
        if not reads.are_waiting:
            return []
        peers = self._peers
        confirmed_round = agreed(
            self._members,
            lambda voter: reads.round if voter == self._node_id else peers[voter].confirmed_round,
        )
        return reads.take_allowed(confirmed_round, commit_index)

    def start_transfer(self, target: NodeId, since: float) -> None:
        """Hand over to ``target``, a voter, not this node; tried for an election timeout."""
        self.transfer = Transfer(target, since + self._config.election_timeout_s)
        self.due = True

    def let_go(self, commit_index: Index) -> list[tuple[NodeId, Message]]:
        """The configuration is committed: the last that those are told who left with it."""
        leaving, self._leaving = self._leaving, {}
        start_index = self._log.start_index
        return [
            (peer, self._request(max(progress.next_index, start_index), commit_index, []))
            for peer, progress in leaving.items()
        ]

    def retire(self, now: float) -> None:
        """This node is no voter any more: leave within an election timeout."""
        if self.retire_by is None:
            self.retire_by = now + self._config.election_timeout_s
            self.transfer = None

    def notify_all(self) -> None:
        """Everybody gets a request with the next :meth:`collect`."""
        for progress in self._peers.values():
            progress.notice_due = True
        self.due = True

    # -- questions -----------------------------------------------------------------------------

    @property
    def behind_start(self) -> tuple[NodeId, ...]:
        """The followers that lack what stood before the start of this leader's log."""
        return tuple(peer for peer, progress in self._peers.items() if progress.needs_state)

    def most_advanced_voter(self) -> NodeId | None:
        """The other voter with the most of this leader's log, heard of last; None without any."""
        peers = self._peers
        return max(
            (voter for voter in self._members.voters if voter in peers),
            key=lambda voter: (peers[voter].match_index, peers[voter].heard_at),
            default=None,
        )

    def check_caught_up(self, peer: NodeId, commit_index: Index, now: float) -> None:
        """Refuse a voter that the group would have to wait for.

        It may lack what is on its way to it, ``max_inflight_bytes`` at most, as every follower does
        under a steady load. It has acknowledged the batch that opened the term: before, this leader
        only supposes what it has. Raises Unavailable, which says how far it is.
        """
        progress = self._peers[peer]
        is_alive = progress.heard_at > now - self._config.election_timeout_s
        is_behind = progress.probing or progress.next_index <= commit_index
        if is_behind or progress.match_index < self.first_index or not is_alive:
            silence = "" if is_alive else " and does not answer"
            raise Unavailable(
                f"{peer} has not caught up: it has {progress.match_index} of {commit_index} batches"
                f"{silence}; try again later"
            )

    def quorum_match(self, durable_index: Index) -> Index:
        """The last index that is durable at a majority, this node's log through ``durable_index``.

        It is committed only if its batch is of this term (§5.4.2).
        """
        peers = self._peers
        return Index(
            agreed(
                self._members,
                lambda voter: durable_index if voter == self._node_id else peers[voter].match_index,
            )
        )

    def holds_lease(self, now: float) -> bool:
        """Whether nobody else can have been elected yet (:mod:`.reads`)."""
        peers = self._peers
        confirmed_at = agreed(
            self._members,
            lambda voter: now if voter == self._node_id else peers[voter].confirmed_at,
        )
        lease_s = self._config.lease_fraction * self._config.election_timeout_s
        return not self._lease_ended and now < confirmed_at + lease_s

    def hears_quorum(self, now: float) -> bool:
        """Whether a majority, itself included, answered within the last election timeout."""
        peers = self._peers
        heard_at = agreed(
            self._members, lambda voter: now if voter == self._node_id else peers[voter].heard_at
        )
        return heard_at > now - self._config.election_timeout_s

    # -- outputs -------------------------------------------------------------------------------

    def collect(self, commit_index: Index, durable_index: Index) -> list[tuple[NodeId, Message]]:
        """The requests to send now. Followers at the same place share one request object."""
        self.due = False
        if self._elected_alone and durable_index < self.first_index:
            # Elected by itself: no message has proved its term durable yet, so nobody may hear of
            # this term before the no-op on disk does. (persisted() makes this due again.)
            return []
        messages: list[tuple[NodeId, Message]] = []
        shared: dict[tuple[int, int], AppendRequest] = {}
        for peer, progress in self._peers.items():
            self._collect_for(peer, progress, commit_index, shared, messages)
        for peer, progress in self._leaving.items():
            if progress.notice_due:
                self._collect_for(peer, progress, commit_index, shared, messages)
        if messages:
            self._reads.sent()
        transfer = self.transfer
        if transfer is not None and not transfer.ordered:
            transfer.ordered = self._peers[transfer.target].match_index == self._log.last_index
            if transfer.ordered:
                self._lease_ended = True
                messages.append((transfer.target, TimeoutNow(self._term)))
        return messages

    def _collect_for(
        self,
        peer: NodeId,
        progress: Progress,
        commit_index: Index,
        shared: dict[tuple[int, int], AppendRequest],
        messages: list[tuple[NodeId, Message]],
    ) -> None:
        log = self._log
        self.cold_reads.pop(peer, None)
        if progress.next_index < log.start_index:
            # What it needs is gone here. Asking at the log's start keeps it a live follower.
            progress.probe(log.start_index)
        has_sent = False
        while not progress.probing and progress.next_index <= log.last_index:
            room_bytes = self._config.max_inflight_bytes - progress.inflight_bytes
            if room_bytes <= 0 or progress.inflight_messages >= self._config.max_inflight_messages:
                break
            first_index = progress.next_index
            limit_bytes = min(room_bytes, self._config.max_append_bytes)
            if first_index < min(log.memory_index, commit_index + 1):
                self.cold_reads[peer] = ColdRead(first_index, limit_bytes)
                break
            request = shared.get((first_index, limit_bytes))
            if request is None:
                batches = log.slice(first_index, limit_bytes)
                request = self._request(first_index, commit_index, batches)
                shared[first_index, limit_bytes] = request
            last_index = request.prev_index + len(request.batches)
            size_bytes = sum([batch.size_bytes for batch in request.batches])
            if self._may_wait(progress, last_index, size_bytes):
                break
            progress.sent(last_index, size_bytes)
            messages.append((peer, request))
            has_sent = True
        if progress.notice_due and not has_sent:
            messages.append((peer, self._request(progress.next_index, commit_index, [])))
            has_sent = True
        progress.notice_due = False
        if has_sent:
            progress.sent_commit_index = commit_index

    def feed(self, peer: NodeId, batches: Sequence[Batch], commit_index: Index) -> Message | None:
        """The request for ``peer`` that has ``batches``, read for its entry of ``cold_reads``.

        None when they are not what it needs any more.
        """
        progress = self._peers.get(peer)
        if progress is None or progress.probing or not batches:
            return None
        first_index = batches[0].header.index
        if first_index != progress.next_index or first_index < self._log.start_index:
            return None
        progress.sent(batches[-1].header.index, sum(batch.size_bytes for batch in batches))
        progress.sent_commit_index = commit_index
        self.due = True
        return self._request(first_index, commit_index, batches)

    def _may_wait(self, progress: Progress, last_index: int, size_bytes: int) -> bool:
        """Whether so little is better sent with what comes until the follower's next answer."""
        return (
            progress.inflight_messages > 0
            and not progress.notice_due
            and last_index == self._log.last_index
            and size_bytes < self._config.coalesce_bytes
        )

    def _request(
        self, first_index: int, commit_index: Index, batches: Sequence[Batch]
    ) -> AppendRequest:
        prev_index = Index(first_index - 1)
        return AppendRequest(
            self._term,
            prev_index,
            self._log.term_at(prev_index),
            commit_index,
            tuple(batches),
            self._reads.round,
        )

    def _set_peers(self, now: float, *, probing: bool) -> None:
        members = self._members
        next_index = self._log.next_index
        self._peers = {
            peer: self._peers.get(peer) or Progress(next_index, now, probing=probing)
            for peer in members.everybody
            if peer != self._node_id
        }
