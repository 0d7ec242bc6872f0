"""What the Raft paper (§8) and the dissertation (§6.4) say of reads, one statement a test."""

import pytest

from quorumlog.errors import ConfigError, InvariantViolation, NotLeader, Overloaded
from quorumlog.log.batch import Draft
from quorumlog.log.hard_state import HardState
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.core import RaftCore, Role
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import (
    AppendRequest,
    AppendResponse,
    TimeoutNow,
    VoteResponse,
)
from quorumlog.replication.core.ready import ReadAllowed, Ready, SteppedDown
from quorumlog.types import Index, NodeId, Term
from raft.memory_log import MemoryLog, batches_of
from raft.script import FixedRng
from raft.single import (
    CONFIG,
    FIVE,
    ME,
    THREE,
    A,
    B,
    C,
    append_request,
    make_core,
    make_leader,
    sent_to,
    vote_request,
)

TIMEOUT = CONFIG.election_timeout_s
LEASE = 0.75 * TIMEOUT


def answer(term: int, match_index: int, round_number: int) -> AppendResponse:
    return AppendResponse(Term(term), True, Index(match_index), round=round_number)


def round_of(ready: Ready, peer: NodeId) -> int:
    message = sent_to(ready, peer, rounds=True)[-1]
    assert isinstance(message, AppendRequest)
    return message.round


def allowed(core: RaftCore) -> list[ReadAllowed]:
    return [event for event in core.take_ready().events if isinstance(event, ReadAllowed)]


def settled(members: Members = THREE) -> RaftCore:
    """Leads term 1; its no-op, sent at 0.0 in round 1, is committed, and it knows no round."""
    core, _ = make_leader(members=members)
    for peer in members.voters:
        if peer != ME:
            core.receive(peer, answer(1, 1, 0), 0.0)
    core.take_ready()
    return core


# -- §8, dissertation §6.4: ReadIndex ----------------------------------------------------------


def test_6_4_a_read_waits_for_a_majority_that_answers_a_round_begun_after_it() -> None:
    core = settled(FIVE)
    assert core.lease_index(0.1) is None
    number = core.read(0.1)
    asked = round_of(core.take_ready(), A)
    core.receive(A, answer(1, 1, asked), 0.1)
    core.receive(B, answer(1, 1, asked - 1), 0.1)
    assert allowed(core) == []
    core.receive(B, answer(1, 1, asked), 0.1)
    assert allowed(core) == [ReadAllowed(number, Index(1))]


def test_6_4_reads_of_one_turn_share_a_round_and_later_ones_do_not() -> None:
    core = settled()
    one, two = core.read(0.1), core.read(0.1)
    ready = core.take_ready()
    assert len(sent_to(ready, A)) == 1
    later = core.read(0.1)
    assert round_of(core.take_ready(), A) == round_of(ready, A) + 1
    core.receive(A, answer(1, 1, round_of(ready, A)), 0.1)
    assert [event.number for event in allowed(core)] == [one, two]
    core.receive(A, answer(1, 1, round_of(ready, A) + 1), 0.1)
    assert [event.number for event in allowed(core)] == [later]


def test_6_4_a_read_sees_what_was_committed_when_it_came() -> None:
    core = settled()
    core.propose([Draft.of(b"x", 1)], 0, 0.1)
    core.persisted(2, 1, 0.1)
    core.take_ready()
    core.receive(A, answer(1, 2, 0), 0.1)
    number = core.read(0.1)
    asked = round_of(core.take_ready(), B)
    core.receive(B, answer(1, 1, asked), 0.1)
    assert allowed(core) == [ReadAllowed(number, Index(2))]


def test_6_4_no_read_before_a_batch_of_the_term_is_committed() -> None:
    core, _ = make_leader([1, 1], term=2)
    number = core.read(0.0)
    asked = round_of(core.take_ready(), A)
    refusal = AppendResponse(Term(2), False, rejected_index=Index(2), round=asked)
    core.receive(A, refusal, 0.0)
    core.receive(B, refusal, 0.0)
    assert allowed(core) == []
    assert core.lease_index(0.0) is None
    core.receive(A, answer(2, 3, asked), 0.0)
    assert allowed(core) == [ReadAllowed(number, Index(3))]
    assert core.lease_index(0.0) == 3


def test_6_4_a_deposed_leader_answers_no_read() -> None:
    core = settled()
    core.read(0.1)
    asked = round_of(core.take_ready(), A)
    core.receive(A, AppendResponse(Term(2), False), 0.1)
    core.receive(B, answer(1, 1, asked), 0.1)
    events = core.take_ready().events
    assert SteppedDown(Term(1)) in events
    assert not any(isinstance(event, ReadAllowed) for event in events)
    assert core.lease_index(0.1) is None
    with pytest.raises(NotLeader):
        core.read(0.1)


def test_6_4_answers_to_the_leader_of_another_term_confirm_nothing() -> None:
    core, _ = make_leader([1], term=2)
    core.receive(A, answer(2, 2, 0), 0.0)
    core.read(0.0)
    asked = round_of(core.take_ready(), A)
    core.receive(B, answer(1, 1, asked), 0.0)
    assert allowed(core) == []
    core.receive(B, answer(2, 2, asked), 0.0)
    assert len(allowed(core)) == 1


def test_6_4_a_read_takes_a_majority_of_both_while_members_change() -> None:
    core = settled(Members((ME, A, B), (C,)))
    core.receive(C, answer(1, 1, 0), 0.0)
    core.propose_members(Members((ME, C)), 0, 0.1)
    core.read(0.1)
    asked = round_of(core.take_ready(), A)
    core.receive(A, answer(1, 1, asked), 0.1)
    assert allowed(core) == []
    core.receive(C, answer(1, 1, asked), 0.1)
    assert len(allowed(core)) == 1


def test_6_4_patience_extends_no_lease() -> None:
    core = settled()
    core.patience_s = 1.0
    core.read(0.1)
    core.receive(A, answer(1, 1, round_of(core.take_ready(), A)), 0.1)
    assert core.lease_index(0.2) is not None
    assert core.lease_index(0.1 + CONFIG.election_timeout_s) is None


def test_6_4_a_learner_confirms_nothing() -> None:
    core = settled(Members((ME, A, B), (C,)))
    core.read(0.1)
    asked = round_of(core.take_ready(), A)
    core.receive(C, answer(1, 1, asked), 0.1)
    assert allowed(core) == []
    assert core.lease_index(0.1) is None


def test_6_4_a_leader_alone_is_sure_of_itself() -> None:
    core, _ = make_leader(members=Members((ME,)))
    assert core.lease_index(100.0) == 1
    careful, _ = make_core(
        members=Members((ME,)), config=RaftConfig(coalesce_bytes=0, lease_fraction=0)
    )
    careful.campaign(0.0)
    careful.persisted(1, 1, 0.0)
    assert careful.lease_index(0.0) is None
    number = careful.read(0.0)
    assert allowed(careful) == [ReadAllowed(number, Index(1))]


def test_6_4_reads_that_wait_are_bounded() -> None:
    core = settled()
    for _ in range(CONFIG.max_waiting_reads):
        core.read(0.1)
    with pytest.raises(Overloaded):
        core.read(0.1)


def test_6_4_an_answer_to_a_round_that_never_was_is_noticed() -> None:
    core = settled()
    with pytest.raises(InvariantViolation):
        core.receive(A, answer(1, 1, 9), 0.0)


def test_6_4_a_follower_gives_back_the_round_whatever_it_says() -> None:
    core, _ = make_core([1], term=1)
    for request in (
        AppendRequest(Term(2), Index(1), Term(1), Index(0), (), 7),
        AppendRequest(Term(2), Index(9), Term(1), Index(0), (), 7),
        AppendRequest(Term(2), Index(1), Term(1), Index(0), tuple(batches_of([2], 2, 1)), 7),
        AppendRequest(Term(2), Index(2), Term(2), Index(0), (), 7),
    ):
        core.receive(A, request, 0.0)
        (response,) = sent_to(core.take_ready(), A, rounds=True)
        assert isinstance(response, AppendResponse)
        assert response.round == 7


# -- dissertation §6.4.1: the lease --------------------------------------------------------------


def test_6_4_1_the_lease_counts_from_when_the_round_was_opened() -> None:
    core = settled()
    core.receive(A, answer(1, 1, 1), 0.2)
    assert core.lease_index(LEASE - 0.001) == 1
    assert core.lease_index(LEASE) is None


def test_6_4_1_each_heartbeat_that_a_majority_answers_renews_it() -> None:
    core = settled(FIVE)
    now = 0.0
    for _ in range(20):
        now = core.deadline
        core.tick(now)
        asked = round_of(core.take_ready(), A)
        core.receive(A, answer(1, 1, asked), now)
        core.receive(B, answer(1, 1, asked), now)
    assert core.lease_index(now + LEASE - 0.001) == 1
    assert core.lease_index(now + LEASE) is None


def test_6_4_1_a_minority_renews_nothing() -> None:
    core = settled(FIVE)
    core.receive(A, answer(1, 1, 1), 0.0)
    assert core.lease_index(0.0) is None


def test_6_4_1_whoever_sent_timeout_now_has_no_lease_in_that_term() -> None:
    core = settled()
    core.receive(A, answer(1, 1, 1), 0.0)
    assert core.lease_index(0.0) == 1
    core.transfer_leadership(A, 0.0)
    assert TimeoutNow(Term(1)) in sent_to(core.take_ready(), A)
    assert core.lease_index(0.0) is None
    now = 0.0
    for _ in range(20):
        now = core.deadline
        core.tick(now)
        asked = round_of(core.take_ready(), A)
        core.receive(A, answer(1, 1, asked), now)
    assert core.role is Role.LEADER
    assert core.lease_index(now) is None


@pytest.mark.parametrize("pre", [False, True])
def test_6_4_1_whoever_restarts_votes_for_nobody_for_an_election_timeout(pre: bool) -> None:
    core = _restarted()
    core.receive(A, vote_request(3, 5, 2, pre=pre), 10.0 + TIMEOUT - 0.001)
    assert not core.has_ready
    core.receive(A, vote_request(3, 5, 2, pre=pre), 10.0 + TIMEOUT)
    assert sent_to(core.take_ready(), A) == [VoteResponse(Term(3), True, pre)]


def test_6_4_1_nor_in_the_term_that_it_knows() -> None:
    core = _restarted()
    core.receive(A, vote_request(2, 5, 2), 10.0)
    assert sent_to(core.take_ready(), A) == [VoteResponse(Term(2), False)]


def test_6_4_1_it_votes_when_the_leader_itself_ordered_the_election() -> None:
    core = _restarted()
    core.receive(A, vote_request(3, 5, 2, force=True), 10.0)
    assert sent_to(core.take_ready(), A) == [VoteResponse(Term(3), True)]


def test_6_4_1_it_does_not_stand_either() -> None:
    core = _restarted()
    core.campaign(10.0)
    assert core.role is Role.FOLLOWER
    assert core.deadline >= 10.0 + TIMEOUT


def test_6_4_1_one_without_a_past_owes_nothing_and_one_that_is_alone_does() -> None:
    """Alone in what is not committed yet, it may follow the leader of the configuration before."""
    new, _ = make_core()
    new.campaign(0.0)
    assert new.role is Role.CANDIDATE
    alone = _restarted(Members((ME,), (A,)))
    alone.campaign(10.0)
    assert alone.role is Role.FOLLOWER
    alone.campaign(10.0 + TIMEOUT)
    assert alone.role is Role.LEADER


def test_6_4_1_what_is_heard_of_other_terms_ends_no_promise() -> None:
    core, _ = make_core(term=1)
    core.receive(A, append_request(1), 1.0)
    core.receive(B, VoteResponse(Term(5), False, pre=True), 1.1)
    core.take_ready()
    assert (core.term, core.leader_id) == (5, None)
    core.receive(B, vote_request(6), 1.2)
    assert not core.has_ready
    core.receive(B, vote_request(5), 1.2)
    assert sent_to(core.take_ready(), B) == [VoteResponse(Term(5), False)]
    core.receive(B, vote_request(6), 1.0 + TIMEOUT)
    assert sent_to(core.take_ready(), B) == [VoteResponse(Term(6), True)]


def test_6_4_1_a_follower_of_a_leader_does_not_campaign() -> None:
    core, _ = make_core(term=1)
    core.receive(A, append_request(1), 1.0)
    core.campaign(1.1)
    assert (core.role, core.term) == (Role.FOLLOWER, 1)
    core.campaign(1.0 + TIMEOUT)
    assert (core.role, core.term) == (Role.CANDIDATE, 2)


@pytest.mark.parametrize("heard_at", [0.0, None])
def test_6_4_1_nor_one_that_slept_whenever_its_leaders_node_was_heard(
    heard_at: float | None,
) -> None:
    core, _ = make_core()
    core.receive(A, append_request(1, terms=[1], commit_index=1), 1.0)
    core.take_ready()
    core.persisted(1, 1, 1.0)
    assert core.sleep_following(A, 1, 1)
    core.wake(1.0, heard_at)
    assert core.deadline >= 1.0 + TIMEOUT
    core.receive(B, vote_request(2, 9, 1), 1.0 + 0.99 * TIMEOUT)
    assert core.term == 1


def test_6_4_1_a_lease_longer_than_clocks_allow_is_refused() -> None:
    for settings in ({"lease_fraction": 0.8}, {"lease_fraction": -0.1}, {"max_waiting_reads": 0}):
        with pytest.raises(ConfigError):
            RaftConfig(**settings)  # type: ignore[arg-type]


def _restarted(members: Members = THREE) -> RaftCore:
    return RaftCore(
        node_id=ME,
        config=CONFIG,
        log=MemoryLog(batches_of([1, 1, 2])),
        hard_state=HardState(Term(2)),
        members=members,
        rng=FixedRng(0.0),
        now=10.0,
    )
