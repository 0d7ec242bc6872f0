"""What the Raft paper says of the log (§5.3), and safety (§5.4), a test each."""

import pytest

from quorumlog.errors import InvariantViolation, NotLeader
from quorumlog.log.batch import Draft, Kind
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.messages import (
    AppendRequest,
    AppendResponse,
    VoteResponse,
)
from quorumlog.replication.core.ready import BecameLeader, LeaderChanged
from quorumlog.types import Index, Term
from raft.memory_log import MemoryLog, batches_of, terms_of
from raft.single import (
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


def propose(core: RaftCore, count: int = 1, now: float = 0.0) -> None:
    core.propose([Draft.of(b"x", 1)] * count, 0, now)


# -- §5.3: log replication -----------------------------------------------------------------------


def test_5_3_a_leader_appends_proposals_and_sends_them_to_everybody() -> None:
    core, log = make_leader()
    (first, second) = core.propose([Draft.of(b"x", 3), Draft.of(b"y", 1)], 77, 0.0)
    assert [first.header.index, second.header.index] == [2, 3]
    assert [first.header.base_offset, second.header.base_offset] == [0, 3]
    assert {first.header.term, second.header.term} == {1}
    assert log.last_timestamp_ms == 77
    request = AppendRequest(Term(1), Index(1), Term(1), Index(0), (first, second))
    ready = core.take_ready()
    assert sent_to(ready, A) == sent_to(ready, B) == [request]
    assert ready.messages[0][1] is ready.messages[1][1]


def test_5_3_timestamps_never_decrease() -> None:
    core, _ = make_leader()
    core.propose([Draft.of(b"x", 1)], 77, 0.0)
    (batch,) = core.propose([Draft.of(b"x", 1)], 33, 0.0)
    assert batch.header.timestamp_ms == 77


def test_5_3_only_a_leader_takes_proposals() -> None:
    core, log = make_core()
    with pytest.raises(NotLeader):
        propose(core)
    assert terms_of(log) == []


def test_5_3_a_batch_is_committed_once_a_majority_has_it_durably() -> None:
    core, _ = make_leader(members=FIVE)
    propose(core)
    core.receive(A, appended(1, 2), 0.0)
    core.receive(B, appended(1, 2), 0.0)
    assert core.commit_index == 1
    core.persisted(2, 1, 0.0)
    assert core.commit_index == 2
    assert core.take_ready().commit_index == 2


def test_5_3_a_majority_of_followers_commits_without_the_leaders_disk() -> None:
    core, _ = make_leader()
    propose(core)
    core.receive(A, appended(1, 2), 0.0)
    assert core.commit_index == 1
    core.receive(B, appended(1, 2), 0.0)
    assert core.commit_index == 2


def test_5_3_committing_commits_all_that_precedes() -> None:
    core, _ = make_leader([1, 1, 1], term=2)
    core.receive(A, appended(2, 4), 0.0)
    assert core.commit_index == 4


def test_5_3_followers_learn_the_commit_index() -> None:
    core, _ = make_core()
    core.receive(A, append_request(1, terms=[1, 1, 1], commit_index=2), 0.0)
    assert core.commit_index == 2


def test_5_3_what_stands_behind_the_request_is_not_committed_by_it() -> None:
    core, _ = make_core([1, 1, 1], term=1)
    core.receive(A, append_request(2, 1, 1, commit_index=3), 0.0)
    assert core.commit_index == 1


def test_5_3_the_commit_index_never_goes_back() -> None:
    core, _ = make_core([1, 1, 1], term=1, commit_index=3)
    core.receive(A, append_request(2, 1, 1, commit_index=1), 0.0)
    assert core.commit_index == 3


@pytest.mark.parametrize(
    ("prev_index", "prev_term", "hint"),
    [(3, 3, (2, 2)), (4, 3, (2, 2)), (2, 1, (1, 1)), (9, 1, (1, 1))],
)
def test_5_3_a_request_whose_previous_batch_is_missing_is_refused(
    prev_index: int, prev_term: int, hint: tuple[int, int]
) -> None:
    core, log = make_core([1, 2], term=3)
    core.receive(A, append_request(3, prev_index, prev_term, [3]), 0.0)
    (response,) = sent_to(core.take_ready(), A)
    assert isinstance(response, AppendResponse)
    assert not response.success
    assert response.rejected_index == prev_index
    assert (response.conflict_index, response.conflict_term) == hint
    assert terms_of(log) == [1, 2]


@pytest.mark.parametrize(
    ("prev", "terms", "expected"),
    [
        ((2, 2), [3], [1, 2, 3]),
        ((1, 1), [3, 4], [1, 3, 4]),
        ((0, 0), [3, 4], [3, 4]),
        ((0, 0), [1], [1, 2]),
        ((0, 0), [1, 2], [1, 2]),
        ((0, 0), [1, 2, 3], [1, 2, 3]),
        ((1, 1), [], [1, 2]),
    ],
)
def test_5_3_a_follower_replaces_what_conflicts_and_keeps_what_does_not(
    prev: tuple[int, int], terms: list[int], expected: list[int]
) -> None:
    core, log = make_core([1, 2], term=2)
    core.receive(A, append_request(4, *prev, terms), 0.0)
    assert terms_of(log) == expected
    assert sent_to(core.take_ready(), A) == [appended(4, prev[0] + len(terms))]


def test_5_3_an_acknowledgement_waits_for_the_disk() -> None:
    core, _ = make_core()
    core.receive(A, append_request(1, terms=[1]), 0.0)
    ready = core.take_ready()
    assert ready.messages == ()
    assert ready.durable_messages == ((A, appended(1, 1)),)


def test_5_3_a_committed_batch_is_never_replaced() -> None:
    core, log = make_core([1, 1], term=1, commit_index=2)
    with pytest.raises(InvariantViolation):
        core.receive(A, append_request(2, 1, 1, [2]), 0.0)
    with pytest.raises(InvariantViolation):
        core.receive(A, append_request(2, 2, 2, [2]), 0.0)
    assert terms_of(log) == [1, 1]


def test_5_3_a_leader_never_cuts_its_own_log() -> None:
    core, log = make_leader([1, 1], term=2)
    core.receive(A, AppendResponse(Term(2), False, rejected_index=Index(2)), 0.0)
    core.receive(A, append_request(1, 0, 0, [1]), 0.0)
    assert terms_of(log) == [1, 1, 2]


def test_5_3_the_leader_goes_back_until_the_logs_agree() -> None:
    core, _ = make_leader([1, 1, 3, 3, 5], term=6)
    refusal = AppendResponse(
        Term(6),
        False,
        rejected_index=Index(5),
        conflict_index=Index(4),
        conflict_term=Term(2),
    )
    core.receive(A, refusal, 0.0)
    assert sent_to(core.take_ready(), A) == [append_request(6, 2, 1)]
    core.receive(A, appended(6, 2), 0.0)
    (request,) = sent_to(core.take_ready(), A)
    assert isinstance(request, AppendRequest)
    assert [batch.header.index for batch in request.batches] == [3, 4, 5, 6]


def test_5_3_a_log_that_starts_later_agrees_on_what_it_no_longer_has() -> None:
    log = MemoryLog(batches_of([2], 5, 4), start_index=5, prev_term=1, start_offset=4)
    core, _ = make_core(log=log, term=2)
    core.receive(A, append_request(2, 2, 1, [1, 1, 2, 2]), 0.0)
    assert log.last_index == 6
    assert sent_to(core.take_ready(), A) == [appended(2, 6)]


def test_5_3_a_follower_behind_the_leaders_log_is_asked_at_every_heartbeat_only() -> None:
    log = MemoryLog(batches_of([2], 5, 4), start_index=5, prev_term=1, start_offset=4)
    core, _ = make_core(log=log, term=2)
    core.campaign(0.0)
    core.receive(A, VoteResponse(Term(3), True), 0.0)
    core.take_ready()
    for _ in range(2):
        core.receive(A, AppendResponse(Term(3), False, rejected_index=Index(5)), 0.0)
        core.receive(A, AppendResponse(Term(3), False, rejected_index=Index(4)), 0.0)
    assert sent_to(core.take_ready(), A) == [append_request(3, 4, 1, commit_index=4)]
    core.receive(A, AppendResponse(Term(3), False, rejected_index=Index(4)), 0.0)
    assert sent_to(core.take_ready(), A) == []
    core.tick(core.deadline)
    assert sent_to(core.take_ready(), A) == [append_request(3, 4, 1, commit_index=4)]


def test_5_3_a_late_request_of_an_earlier_term_says_nothing_of_the_followers_log() -> None:
    leader, _ = make_leader([1, 1, 1], term=2)
    follower, _ = make_core([1, 1, 1], term=2)
    follower.receive(ME, append_request(1, 3, 1), 0.0)
    (answer,) = follower.take_ready().durable_messages
    leader.receive(A, answer[1], 0.0)
    assert sent_to(leader.take_ready(), A) == []
    assert leader.leadership is not None
    assert leader.leadership.behind_start == ()


def test_5_3_a_flush_of_a_batch_that_was_replaced_is_not_the_leaders_own() -> None:
    core, _ = make_core()
    core.receive(A, append_request(1, terms=[1, 1]), 0.0)
    core.receive(B, append_request(2, 1, 1, [2]), 0.0)
    core.persisted(2, 1, 0.0)
    assert core.durable_index == 0
    core.persisted(2, 2, 0.0)
    assert core.durable_index == 2
    core.receive(C, append_request(3, 1, 1, [3, 3]), 0.0)
    assert core.durable_index == 1


# -- §5.4: safety --------------------------------------------------------------------------------


@pytest.mark.parametrize(("last_index", "last_term", "granted"), [
    (3, 2, True), (4, 2, True), (1, 3, True), (2, 2, False), (9, 1, False), (0, 0, False),
])  # fmt: skip
@pytest.mark.parametrize("pre", [False, True])
def test_5_4_1_a_vote_goes_only_to_a_log_at_least_as_up_to_date(
    last_index: int, last_term: int, granted: bool, pre: bool
) -> None:
    core, _ = make_core([1, 1, 2], term=3)
    core.receive(A, vote_request(4, last_index, last_term, pre=pre), 0.0)
    (response,) = sent_to(core.take_ready(), A)
    assert isinstance(response, VoteResponse)
    assert response.granted is granted


def test_5_4_2_batches_of_earlier_terms_are_not_committed_by_counting() -> None:
    core, _ = make_leader([1, 2], term=4)
    core.receive(A, appended(4, 2), 0.0)
    core.receive(B, appended(4, 2), 0.0)
    assert core.commit_index == 0
    core.receive(A, appended(4, 3), 0.0)
    assert core.commit_index == 3


# -- beyond the paper: when followers hear of what is committed --------------------------------


def notices(core: RaftCore, now: float) -> int:
    """How many messages are due to A at ``now`` with nothing proposed."""
    core.tick(now)
    return len(sent_to(core.take_ready(), A))


def commit(core: RaftCore, log: MemoryLog, now: float) -> None:
    propose(core, now=now)
    core.take_ready()
    core.persisted(log.last_index, log.last_term, now)
    core.receive(A, appended(1, log.last_index), now)
    core.receive(B, appended(1, log.last_index), now)


def test_a_steady_leader_tells_what_is_committed_with_the_next_batch_alone() -> None:
    """A message more to every follower for every other record costs what a third of them does."""
    core, log = make_leader()
    notice_s = core._config.commit_notice_s
    step_s = notice_s * 0.4
    told = 0
    for turn in range(1, 20):
        commit(core, log, turn * step_s)
        told += notices(core, turn * step_s)
    assert told == 0


def test_the_last_of_many_commits_is_told_within_twice_the_time() -> None:
    core, log = make_leader()
    notice_s = core._config.commit_notice_s
    commit(core, log, 0.0)
    commit(core, log, notice_s * 0.9)
    assert notices(core, notice_s) == 0
    assert notices(core, 2 * notice_s) == 1


def test_a_commit_that_nothing_follows_is_told_after_its_time() -> None:
    core, log = make_leader()
    commit(core, log, 0.0)
    assert notices(core, core._config.commit_notice_s * 0.9) == 0
    assert notices(core, core._config.commit_notice_s) == 1


def test_8_a_leader_opens_its_term_with_a_no_op() -> None:
    _, log = make_leader([1], term=2)
    assert log.batches[-1].header.kind is Kind.NOOP
    assert log.batches[-1].header.term == 2
    assert log.end_offset == 1


def test_a_leader_reports_its_election_once() -> None:
    core, _ = make_core()
    core.campaign(0.0)
    core.take_ready()
    core.receive(A, VoteResponse(Term(1), True), 0.0)
    core.receive(B, VoteResponse(Term(1), True), 0.0)
    assert core.take_ready().events == (BecameLeader(Term(1)), LeaderChanged(ME, Term(1)))


def test_a_follower_says_what_it_has_and_no_leader_believes_more_than_it_sent() -> None:
    core, _ = make_leader()
    with pytest.raises(InvariantViolation):
        core.receive(A, appended(1, 2), 0.0)
