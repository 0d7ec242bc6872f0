"""What the Raft paper says of terms and elections (§5.1, §5.2), one statement a test.

Also of Ongaro's dissertation: leadership transfer (§3.10), disruptive servers (§4.2.3),
check-quorum (§6.2), pre-vote (§9.6).
"""

import pytest

from quorumlog.errors import InvalidArgument, InvariantViolation, NotLeader
from quorumlog.log.batch import Draft
from quorumlog.log.hard_state import HardState
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.core import RaftCore, Role
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from quorumlog.replication.core.ready import SteppedDown
from quorumlog.types import Index, NodeId, Term
from raft.memory_log import terms_of
from raft.single import (
    CONFIG,
    FIVE,
    ME,
    A,
    B,
    C,
    append_request,
    appended,
    make_core,
    make_leader,
    sent_to,
    vote_request,
)

SOON = CONFIG.election_timeout_s / 2
LATER = 2 * CONFIG.election_timeout_s


def propose(core: RaftCore, count: int = 1, now: float = 0.0) -> None:
    core.propose([Draft.of(b"x", 1)] * count, 0, now)


# -- §5.1: terms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        vote_request(5),
        VoteResponse(Term(5), False),
        append_request(5),
        AppendResponse(Term(5), False),
        TimeoutNow(Term(5)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_5_1_a_newer_term_is_adopted_and_saved(message: Message) -> None:
    core, _ = make_core(term=2, vote=A)
    core.receive(A, message, 0.0)
    hard_state = core.take_ready().hard_state
    assert hard_state is not None
    assert hard_state.term >= 5


@pytest.mark.parametrize(
    "message", [append_request(5), AppendResponse(Term(5), False), VoteResponse(Term(5), False)]
)
def test_5_1_a_leader_whose_term_is_out_of_date_becomes_a_follower(message: Message) -> None:
    core, _ = make_leader(term=2)
    core.receive(A, message, 0.0)
    assert core.role is Role.FOLLOWER
    assert SteppedDown(Term(2)) in core.take_ready().events


def test_5_1_a_request_with_a_stale_term_is_rejected_with_the_newer_one() -> None:
    core, log = make_core([1], term=3)
    core.receive(A, append_request(2, 1, 1, [2]), 0.0)
    core.receive(A, vote_request(2, 9, 9), 0.0)
    assert sent_to(core.take_ready(), A) == [
        AppendResponse(Term(3), False),
        VoteResponse(Term(3), False),
    ]
    assert terms_of(log) == [1]
    assert core.leader_id is None


def test_5_1_stale_answers_are_ignored() -> None:
    core, _ = make_leader([1, 1], term=3)
    core.receive(A, appended(1, 2), 0.0)
    core.receive(A, appended(2, 3), 0.0)
    assert core.commit_index == 0
    assert core.term == 3


# -- dissertation §4.2.3: disruptive servers -----------------------------------------------------


@pytest.mark.parametrize("pre", [False, True])
def test_4_2_3_a_vote_request_is_ignored_while_the_leader_is_alive(pre: bool) -> None:
    core, _ = make_core(term=1)
    core.receive(A, append_request(1), 0.0)
    core.take_ready()
    core.receive(B, vote_request(2, pre=pre), SOON)
    assert not core.has_ready
    assert core.term == 1
    core.receive(B, vote_request(2, pre=pre), CONFIG.election_timeout_s)
    assert sent_to(core.take_ready(), B) == [VoteResponse(Term(2), True, pre)]
    leader, _ = make_leader()
    leader.receive(B, vote_request(2, 9, 9, pre=pre), 0.0)
    assert leader.role is Role.LEADER


# -- §5.2: elections -----------------------------------------------------------------------------


def test_5_2_servers_start_as_followers() -> None:
    core, _ = make_core(term=4, vote=ME)
    assert core.role is Role.FOLLOWER
    assert not core.has_ready


def test_5_2_a_candidate_increments_its_term_votes_for_itself_and_asks_everybody() -> None:
    core, _ = make_core([1, 2], term=2)
    core.campaign(0.0)
    ready = core.take_ready()
    assert ready.hard_state == HardState(Term(3), ME)
    request = vote_request(3, 2, 2)
    assert ready.durable_messages == ((A, request), (B, request))
    assert ready.messages == ()


@pytest.mark.parametrize(("granted", "refused", "role"), [
    ((A, B), (), Role.LEADER),
    ((A,), (), Role.CANDIDATE),
    ((), (), Role.CANDIDATE),
    ((A,), (B, C), Role.CANDIDATE),
    ((), (A, B, C), Role.FOLLOWER),
])  # fmt: skip
def test_5_2_a_candidate_wins_with_a_majority_of_the_full_cluster(
    granted: tuple[NodeId, ...], refused: tuple[NodeId, ...], role: Role
) -> None:
    core, _ = make_core(members=FIVE)
    core.campaign(0.0)
    for voter in granted:
        core.receive(voter, VoteResponse(Term(1), True), 0.0)
    for voter in refused:
        core.receive(voter, VoteResponse(Term(1), False), 0.0)
    assert core.role is role


def test_5_2_a_voter_counts_once_and_a_stranger_never() -> None:
    core, _ = make_core(members=FIVE)
    core.campaign(0.0)
    for voter in (A, A, NodeId("stranger")):
        core.receive(voter, VoteResponse(Term(1), True), 0.0)
    assert core.role is Role.CANDIDATE


def test_5_2_votes_of_another_term_or_of_a_pre_vote_do_not_elect() -> None:
    core, _ = make_core(term=3)
    core.campaign(0.0)
    core.receive(A, VoteResponse(Term(3), True), 0.0)
    core.receive(A, VoteResponse(Term(5), True, pre=True), 0.0)
    assert core.role is Role.CANDIDATE


def test_5_2_a_server_votes_for_at_most_one_candidate_a_term() -> None:
    core, _ = make_core()
    core.receive(A, vote_request(1), 0.0)
    core.receive(B, vote_request(1), 0.0)
    core.receive(A, vote_request(1), 0.0)
    ready = core.take_ready()
    assert ready.hard_state == HardState(Term(1), A)
    assert [message.granted for _, message in ready.durable_messages] == [True, False, True]  # type: ignore[union-attr]
    assert ready.messages == ()


def test_5_2_the_vote_is_remembered_over_a_restart() -> None:
    core, _ = make_core(term=1, vote=A)
    core.receive(B, vote_request(1), 0.0)
    assert sent_to(core.take_ready(), B) == [VoteResponse(Term(1), False)]


def test_5_2_a_candidate_returns_to_follower_when_another_leads_its_term() -> None:
    core, _ = make_core()
    core.campaign(0.0)
    core.receive(A, append_request(1), 0.0)
    assert (core.role, core.leader_id) == (Role.FOLLOWER, A)


def test_5_2_a_candidate_stays_when_an_older_leader_calls() -> None:
    core, _ = make_core(term=4)
    core.campaign(0.0)
    core.receive(A, append_request(4), 0.0)
    assert core.role is Role.CANDIDATE


def test_5_2_a_leader_sends_heartbeats() -> None:
    core, _ = make_leader()
    assert core.deadline == CONFIG.heartbeat_s
    core.tick(core.deadline)
    ready = core.take_ready()
    assert sent_to(ready, A) == sent_to(ready, B) == [append_request(1, 1, 1)]
    assert core.deadline == 2 * CONFIG.heartbeat_s


def test_5_2_a_follower_that_hears_its_leader_does_not_stand() -> None:
    core, _ = make_core()
    now = 0.0
    for _ in range(20):
        now += SOON
        core.receive(A, append_request(1), now)
        core.tick(now)
    assert core.role is Role.FOLLOWER


def test_5_2_granting_a_vote_restarts_the_election_timer_and_refusing_does_not() -> None:
    granting, _ = make_core()
    granting.receive(A, vote_request(1), 0.2)
    assert granting.deadline == 0.2 + CONFIG.election_timeout_s
    refusing, _ = make_core([1], term=1)
    refusing.receive(A, vote_request(2), 0.2)
    assert refusing.deadline == CONFIG.election_timeout_s


def test_5_2_two_leaders_in_a_term_are_noticed() -> None:
    core, _ = make_core()
    core.receive(A, append_request(1), 0.0)
    with pytest.raises(InvariantViolation):
        core.receive(B, append_request(1), 0.0)
    leader, _ = make_leader()
    with pytest.raises(InvariantViolation):
        leader.receive(A, append_request(1), 0.0)


# -- dissertation §3.10: leadership transfer -----------------------------------------------------


def test_3_10_timeout_now_starts_an_election_that_live_leaders_do_not_hinder() -> None:
    core, _ = make_core(term=1)
    core.receive(A, append_request(1), 0.0)
    core.take_ready()
    core.receive(A, TimeoutNow(Term(1)), 0.0)
    assert sent_to(core.take_ready(), B) == [vote_request(2, force=True)]
    other, _ = make_core(term=1)
    other.receive(A, append_request(1), 0.0)
    other.take_ready()
    other.receive(B, vote_request(2, force=True), 0.0)
    assert sent_to(other.take_ready(), B) == [VoteResponse(Term(2), True)]


def test_3_10_an_old_timeout_now_is_ignored() -> None:
    core, _ = make_core(term=2)
    core.receive(A, TimeoutNow(Term(1)), 0.0)
    assert core.role is Role.FOLLOWER


def test_3_10_only_a_voter_can_be_the_target_and_only_a_leader_transfers() -> None:
    core, _ = make_leader()
    with pytest.raises(InvalidArgument):
        core.transfer_leadership(NodeId("stranger"), 0.0)
    core.transfer_leadership(ME, 0.0)
    propose(core)
    follower, _ = make_core()
    with pytest.raises(NotLeader):
        follower.transfer_leadership(A, 0.0)


def test_3_10_a_target_that_is_up_to_date_is_told_at_once_and_only_once() -> None:
    core, _ = make_leader()
    core.receive(A, appended(1, 1), 0.0)
    core.transfer_leadership(A, 0.0)
    assert sent_to(core.take_ready(), A) == [TimeoutNow(Term(1))]
    core.receive(A, appended(1, 1), 0.0)
    assert sent_to(core.take_ready(), A) == []
    with pytest.raises(NotLeader):
        propose(core)


def test_3_10_a_target_that_lacks_batches_gets_them_first() -> None:
    core, _ = make_leader()
    core.receive(A, appended(1, 1), 0.0)
    propose(core)
    core.transfer_leadership(A, 0.0)
    (request,) = sent_to(core.take_ready(), A)
    assert isinstance(request, AppendRequest)
    assert len(request.batches) == 1
    core.receive(A, appended(1, 2), 0.0)
    assert sent_to(core.take_ready(), A)[-1] == TimeoutNow(Term(1))


def test_3_10_a_transfer_is_given_up_after_an_election_timeout() -> None:
    core, _ = make_leader()
    core.receive(A, appended(1, 1), 0.0)
    core.transfer_leadership(B, 0.0)
    now = 0.0
    while now < CONFIG.election_timeout_s:
        with pytest.raises(NotLeader):
            propose(core, now=now)
        now = core.deadline
        core.receive(A, appended(1, 1), now)
        core.tick(now)
    assert now == CONFIG.election_timeout_s
    assert core.role is Role.LEADER
    propose(core, now=now)


def test_3_10_the_target_of_a_transfer_may_be_changed() -> None:
    core, _ = make_leader()
    core.receive(A, appended(1, 1), 0.0)
    core.transfer_leadership(B, 0.0)
    assert TimeoutNow(Term(1)) not in sent_to(core.take_ready(), B)
    core.transfer_leadership(A, 0.1)
    assert sent_to(core.take_ready(), A)[-1] == TimeoutNow(Term(1))


# -- dissertation §6.2: check-quorum, §9.6: pre-vote ----------------------------------------------


def test_6_2_a_leader_steps_down_when_no_majority_answered_for_an_election_timeout() -> None:
    core, _ = make_leader(members=FIVE)
    now = 0.0
    while now < LATER:
        now = core.deadline
        for voter in (A, B):
            core.receive(voter, appended(1, 1), now)
        core.tick(now)
    assert core.role is Role.LEADER
    quiet_since = now
    while core.role is Role.LEADER:
        now = core.deadline
        core.receive(A, appended(1, 1), now)
        core.tick(now)
    assert CONFIG.election_timeout_s <= now - quiet_since <= CONFIG.election_timeout_s + 0.06
    assert core.leader_id is None


def test_9_6_a_pre_vote_changes_nothing_on_either_side() -> None:
    voter, _ = make_core(term=3)
    voter.receive(A, vote_request(4, pre=True), 0.0)
    voter.receive(B, vote_request(4, pre=True), 0.0)
    ready = voter.take_ready()
    assert ready.hard_state is None
    assert sent_to(ready, A) == sent_to(ready, B) == [VoteResponse(Term(4), True, True)]
    asker, _ = make_core(term=3)
    asker.tick(LATER)
    ready = asker.take_ready()
    assert (asker.role, asker.term, ready.hard_state) == (Role.PRE_CANDIDATE, 3, None)
    assert sent_to(ready, A) == [VoteRequest(Term(4), Index(0), Term(0), True, False)]


def test_9_6_a_majority_of_pre_votes_starts_the_election() -> None:
    core, _ = make_core(term=3)
    core.tick(LATER)
    core.take_ready()
    core.receive(A, VoteResponse(Term(4), True, pre=True), LATER)
    assert (core.role, core.term) == (Role.CANDIDATE, 4)
    assert sent_to(core.take_ready(), B) == [vote_request(4)]


def test_9_6_a_refused_pre_vote_teaches_the_newer_term() -> None:
    core, _ = make_core(term=7)
    core.receive(A, vote_request(4, pre=True), 0.0)
    (refusal,) = sent_to(core.take_ready(), A)
    assert refusal == VoteResponse(Term(7), False, True)
    asker, _ = make_core(term=3)
    asker.tick(LATER)
    asker.receive(B, refusal, LATER)
    assert (asker.role, asker.term) == (Role.FOLLOWER, 7)


def test_9_6_who_comes_back_with_an_old_term_learns_the_newer_and_does_not_raise_it() -> None:
    core, _ = make_core(term=3)
    for now in (LATER, 3 * LATER, 5 * LATER):
        core.tick(now)
        assert (core.role, core.term) == (Role.PRE_CANDIDATE, 3)
    core.receive(A, append_request(3), 5 * LATER)
    assert (core.role, core.term, core.leader_id) == (Role.FOLLOWER, 3, A)


def test_9_6_pre_votes_of_a_minority_start_nothing() -> None:
    core, _ = make_core(members=FIVE, term=3)
    core.tick(LATER)
    core.receive(A, VoteResponse(Term(4), True, pre=True), LATER)
    core.receive(A, VoteResponse(Term(4), True, pre=True), LATER)
    assert (core.role, core.term) == (Role.PRE_CANDIDATE, 3)
    for voter in (B, C, NodeId("d")):
        core.receive(voter, VoteResponse(Term(3), False, pre=True), LATER)
    assert (core.role, core.term) == (Role.FOLLOWER, 3)


# -- durability of the term -----------------------------------------------------------------------


def test_a_single_voter_commits_and_speaks_only_when_its_disk_did() -> None:
    core, _ = make_core(members=Members((ME,), (A,)))
    core.tick(LATER)
    assert core.role is Role.LEADER
    ready = core.take_ready()
    assert (ready.hard_state, ready.messages, ready.commit_index) == (
        HardState(Term(1), ME),
        (),
        0,
    )
    core.persisted(1, 1, LATER)
    ready = core.take_ready()
    assert ready.commit_index == 1
    assert len(sent_to(ready, A)) == 1


def test_a_log_ahead_of_the_saved_term_raises_it() -> None:
    core, _ = make_core([1, 4], term=3, vote=A)
    assert core.take_ready().hard_state == HardState(Term(4), None)


def test_a_learner_never_stands_for_election() -> None:
    core, _ = make_core(members=Members((A, B), (ME,)))
    core.campaign(0.0)
    core.tick(LATER)
    core.receive(A, append_request(1), LATER)
    core.receive(A, TimeoutNow(Term(1)), LATER)
    core.tick(4 * LATER)
    assert (core.role, core.term, core.leader_id) == (Role.FOLLOWER, 1, None)
    assert core.deadline > 4 * LATER


def test_impossible_settings_are_refused() -> None:
    for settings in (
        {"heartbeat_s": 0.2},
        {"heartbeat_s": 0.0},
        {"commit_notice_s": 0.1},
        {"max_append_bytes": 0},
        {"max_append_bytes": 1 << 30, "max_inflight_bytes": 1 << 31},
        {"max_inflight_bytes": 1},
        {"max_inflight_messages": 0},
    ):
        with pytest.raises(InvalidArgument):
            RaftConfig(**settings)


# -- beyond the paper: elections that take longer than their time ----------------------------------


def stand(core: RaftCore) -> float:
    """Have ``core`` win its pre-vote and stand for election; how long it gives that."""
    core.tick(core.deadline)
    assert core.role is Role.PRE_CANDIDATE
    now = core.deadline - CONFIG.election_timeout_s / 2
    core.receive(A, VoteResponse(Term(core.term + 1), True, pre=True), now)
    assert core.role is Role.CANDIDATE
    return core.deadline - now


def test_an_election_that_ends_undecided_gives_the_next_one_twice_the_time() -> None:
    """Votes from slow disks would be late for every term that is no longer than the one before."""
    core, _ = make_core()
    timeout_s = CONFIG.election_timeout_s
    times = [stand(core) for _ in range(6)]
    assert times == pytest.approx([timeout_s * factor for factor in (1, 2, 4, 8, 8, 8)])


def test_a_leader_ends_the_patience_of_undecided_elections() -> None:
    core, _ = make_core()
    for _ in range(4):
        stand(core)
    now = core.deadline - 0.01
    core.receive(B, append_request(core.term + 1), now)
    assert core.deadline == pytest.approx(now + CONFIG.election_timeout_s)
    assert stand(core) == pytest.approx(CONFIG.election_timeout_s)


def test_an_election_that_is_lost_is_tried_again_as_soon_as_ever() -> None:
    core, _ = make_core()
    for _ in range(4):
        stand(core)
    now = core.deadline - 1.0
    for voter in (A, B):
        core.receive(voter, VoteResponse(core.term, False), now)
    assert core.role is Role.FOLLOWER
    assert core.deadline == pytest.approx(now + CONFIG.election_timeout_s)


# -- beyond the paper: a broadcast time that is not far below the election timeout (§5.6) ----------


def test_a_patient_follower_stands_later_by_one_to_five_times_its_patience() -> None:
    core, _ = make_core()
    core.receive(B, append_request(1), 0.0)
    due = core.deadline
    core.patience_s = 1.0
    later_s = 1 + 4 * (due / CONFIG.election_timeout_s - 1)
    assert 1.0 <= later_s < 5.0
    assert core.deadline == pytest.approx(due + later_s)
    core.tick(due + 0.9 * later_s)
    assert core.role is Role.FOLLOWER
    core.tick(core.deadline)
    assert core.role is Role.PRE_CANDIDATE


def test_a_patient_leader_waits_as_much_longer_for_a_majority() -> None:
    core, _ = make_leader(members=FIVE)
    core.patience_s = 1.0
    while core.role is Role.LEADER:
        now = core.deadline
        core.tick(now)
    timeout_s = CONFIG.election_timeout_s
    assert 1.0 + timeout_s <= now <= 1.0 + timeout_s + 2 * CONFIG.heartbeat_s


def test_patience_extends_no_promise_to_a_leader() -> None:
    follower, _ = make_core()
    follower.receive(B, append_request(1), 0.0)
    follower.patience_s = 1.0
    follower.receive(A, VoteRequest(Term(2), Index(9), Term(1)), CONFIG.election_timeout_s)
    assert follower.vote == A
