"""What the Raft paper (§6) and the dissertation (§4) say of changing members, a test each."""

import pytest

from quorumlog.errors import InvalidArgument, NotLeader, Unavailable
from quorumlog.log.batch import Batch, Draft, Kind
from quorumlog.log.hard_state import HardState
from quorumlog.replication.core.core import RaftCore, Role
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import AppendRequest, TimeoutNow, VoteResponse
from quorumlog.replication.core.ready import MembersChanged, SteppedDown
from quorumlog.types import Index, NodeId, Term
from raft.memory_log import MemoryLog
from raft.script import FixedRng
from raft.single import (
    CONFIG,
    ME,
    THREE,
    A,
    B,
    C,
    D,
    append_request,
    appended,
    make_core,
    make_leader,
    sent_to,
    vote_request,
)

LATER = 2 * CONFIG.election_timeout_s


def config_batch(members: Members, index: int, term: int = 1, offset: int = 0) -> Batch:
    return Draft.of(members.encode(), kind=Kind.CONFIG).stamp(index, term, offset, 0)


def settled(members: Members = THREE) -> RaftCore:
    """Leads term 1, whose no-op everybody has, and is committed."""
    core, _ = make_leader(members=members)
    for peer in members.everybody:
        if peer != ME:
            core.receive(peer, appended(1, 1), 0.0)
    core.take_ready()
    return core


def change(core: RaftCore, members: Members) -> int:
    """Propose it; this member's disk is done with it. The index of its batch."""
    index = core.propose_members(members, 0, 0.0).header.index
    core.persisted(index, 1, 0.0)
    return index


# -- §6: the two steps of a change -----------------------------------------------------------------


def test_6_a_change_of_voters_begins_with_the_joint_configuration() -> None:
    core = settled(Members((ME, A, B), (C,)))
    batch = core.propose_members(Members((ME, A, C)), 0, 0.0)
    joint = Members((ME, A, C), (), (ME, A, B))
    assert Members.decode(batch.body) == core.members == joint
    ready = core.take_ready()
    assert MembersChanged(joint) in ready.events
    assert [peer for peer in (A, B, C) if sent_to(ready, peer)] == [A, B, C]


def test_6_a_change_of_learners_needs_no_joint_configuration() -> None:
    core = settled()
    batch = core.propose_members(Members(THREE.voters, (C,)), 0, 0.0)
    assert Members.decode(batch.body) == core.members == Members(THREE.voters, (C,))


@pytest.mark.parametrize(("who", "committed"), [
    ((A, B), False), ((C, D), False), ((A, C), True), ((B, D), True),
])  # fmt: skip
def test_6_joint_agreement_takes_a_majority_of_both(
    who: tuple[NodeId, ...], committed: bool
) -> None:
    core = settled(Members((ME, A, B), (C, D)))
    index = change(core, Members((ME, C, D)))
    for peer in who:
        core.receive(peer, appended(1, index), 0.0)
    assert (core.commit_index == index) is committed
    assert core.members == (
        Members((ME, C, D)) if committed else Members((ME, C, D), (), (ME, A, B))
    )


@pytest.mark.parametrize(("who", "role"), [
    ((A, B), Role.CANDIDATE), ((C, D), Role.CANDIDATE), ((B, C), Role.LEADER),
])  # fmt: skip
def test_6_a_joint_election_takes_a_majority_of_both(who: tuple[NodeId, ...], role: Role) -> None:
    core, _ = make_core(members=Members((ME, C, D), (), (ME, A, B)))
    core.campaign(0.0)
    for peer in who:
        core.receive(peer, VoteResponse(Term(1), True), 0.0)
    assert core.role is role


def test_6_a_joint_election_asks_the_voters_of_both() -> None:
    core, _ = make_core(members=Members((ME, C), (), (ME, A, B)))
    core.campaign(0.0)
    asked = [peer for peer, _ in core.take_ready().durable_messages]
    assert asked == [A, B, C]


def test_6_a_leader_of_a_joint_configuration_steps_down_without_either_majority() -> None:
    core = settled(Members((ME, A, B), (C, D)))
    change(core, Members((ME, C, D)))
    now = 0.0
    while core.role is Role.LEADER and now < 5 * LATER:
        now = core.deadline
        for peer in (A, B):
            core.receive(peer, appended(1, 1), now)
        core.tick(now)
    assert core.role is Role.FOLLOWER


def test_6_the_final_configuration_follows_once_the_joint_one_is_committed() -> None:
    core = settled(Members((ME, A, B), (C,)))
    index = change(core, Members((ME, A, C)))
    core.receive(B, appended(1, index), 0.0)
    assert core.members.outgoing == (A, B, ME)
    core.receive(A, appended(1, index), 0.0)
    assert core.members == Members((ME, A, C))
    (request,) = sent_to(core.take_ready(), C)[-1:]
    assert isinstance(request, AppendRequest)
    assert Members.decode(request.batches[-1].body) == Members((ME, A, C))


def test_6_another_leader_ends_the_change_once_its_no_op_is_committed() -> None:
    joint = Members((ME, A, C), (), (ME, A, B))
    log = MemoryLog([config_batch(joint, 1)])
    core = RaftCore(
        node_id=ME,
        config=CONFIG,
        log=log,
        hard_state=HardState(Term(1)),
        members=Members((ME, A, B), (C,)),
        config_entries=[(Index(1), joint)],
        rng=FixedRng(0.0),
        now=0.0,
    )
    core.campaign(LATER)
    for peer in (A, B):
        core.receive(peer, VoteResponse(Term(2), True), LATER)
    core.persisted(2, 2, LATER)
    core.receive(A, appended(2, 1), LATER)
    assert core.members == joint
    core.receive(A, appended(2, 2), LATER)
    assert core.members == Members((ME, A, C))


def test_6_a_change_is_over_before_the_next_begins() -> None:
    core = settled(Members((ME, A, B), (C,)))
    index = change(core, Members((ME, A, C)))
    back = Members((ME, A, B), (C,))
    with pytest.raises(Unavailable):
        core.propose_members(back, 0, 0.0)
    core.receive(A, appended(1, index), 0.0)
    assert not core.members.outgoing
    with pytest.raises(Unavailable):
        core.propose_members(back, 0, 0.0)
    core.persisted(index + 1, 1, 0.0)
    core.receive(A, appended(1, index + 1), 0.0)
    core.propose_members(Members((ME, A, C), (B,)), 0, 0.0)


def test_4_no_change_before_a_batch_of_the_term_is_committed() -> None:
    core, _ = make_leader()
    with pytest.raises(Unavailable):
        core.propose_members(Members((ME, A)), 0, 0.0)
    core.receive(A, appended(1, 1), 0.0)
    core.propose_members(Members((ME, A)), 0, 0.0)


def test_6_only_a_leader_that_stays_changes_members() -> None:
    follower, _ = make_core()
    with pytest.raises(NotLeader):
        follower.propose_members(Members((ME, A)), 0, 0.0)
    core = settled()
    core.transfer_leadership(A, 0.0)
    with pytest.raises(NotLeader):
        core.propose_members(Members((ME, A)), 0, 0.0)


@pytest.mark.parametrize(
    "impossible",
    [Members(()), Members((), (ME, A, B)), Members((ME, A, C)), Members((ME, A), (), (ME, A, B))],
)
def test_6_a_change_that_cannot_be_is_refused_and_changes_nothing(impossible: Members) -> None:
    core = settled()
    with pytest.raises(InvalidArgument):
        core.propose_members(impossible, 0, 0.0)
    assert core.members == THREE
    assert not core.has_ready


# -- §6, the newest configuration in the log holds -------------------------------------------------


def test_6_a_server_uses_the_newest_configuration_in_its_log_committed_or_not() -> None:
    core, _ = make_core()
    joint = Members((ME, C), (), (ME, A, B))
    request = AppendRequest(Term(1), Index(0), Term(0), Index(0), (config_batch(joint, 1),))
    core.receive(A, request, 0.0)
    assert (core.members, core.commit_index) == (joint, 0)
    assert MembersChanged(joint) in core.take_ready().events


def test_6_a_configuration_that_is_cut_gives_way_to_the_one_before() -> None:
    core, _ = make_core()
    joint = Members((ME, C), (), (ME, A, B))
    request = AppendRequest(Term(1), Index(0), Term(0), Index(0), (config_batch(joint, 1),))
    core.receive(A, request, 0.0)
    core.receive(B, append_request(2, 0, 0, [2]), LATER)
    assert core.members == THREE
    assert MembersChanged(THREE) in core.take_ready().events


def test_6_the_configuration_holds_also_after_a_restart() -> None:
    joint = Members((ME, C), (B,), (ME, A, B))
    core = RaftCore(
        node_id=ME,
        config=CONFIG,
        log=MemoryLog([config_batch(joint, 1)]),
        hard_state=HardState(Term(1)),
        members=THREE,
        config_entries=[(Index(1), joint)],
        rng=FixedRng(0.0),
        now=0.0,
    )
    assert core.members == joint
    core.receive(A, append_request(2, 0, 0, [2]), 0.0)
    assert core.members == THREE


# -- §6, dissertation §4.2.1: new servers catch up first -------------------------------------------


def test_4_2_1_a_learner_receives_and_does_not_count() -> None:
    core = settled(Members((ME, A, B), (C,)))
    core.propose([Draft.of(b"x", 1)], 0, 0.0)
    assert len(sent_to(core.take_ready(), C)) == 1
    core.receive(C, appended(1, 2), 0.0)
    core.persisted(2, 1, 0.0)
    assert core.commit_index == 1


def test_4_2_1_a_learner_becomes_a_voter_only_when_it_has_caught_up() -> None:
    core = settled()
    index = change(core, Members(THREE.voters, (C,)))
    core.receive(A, appended(1, index), 0.0)
    wanted = Members((ME, A, B, C))
    with pytest.raises(Unavailable, match=f"c has not caught up: it has 0 of {index} batches"):
        core.propose_members(wanted, 0, 0.0)
    core.take_ready()
    core.receive(C, appended(1, index), 0.0)
    core.propose_members(wanted, 0, 0.0)


def test_4_2_1_a_learner_that_does_not_answer_becomes_no_voter() -> None:
    core = settled(Members((ME, A, B), (C,)))
    for peer in (A, B):
        core.receive(peer, appended(1, 1), LATER)
    with pytest.raises(Unavailable, match="does not answer"):
        core.propose_members(Members((ME, A, B, C)), 0, LATER)


def test_4_2_1_a_new_leader_asks_what_a_learner_has_before_that_becomes_a_voter() -> None:
    """It supposes that all have everything: an empty one would become a voter unseen."""
    core, _ = make_leader([1, 1], term=2, members=Members(THREE.voters, (C,)))
    core.receive(A, appended(2, 3), 0.0)
    wanted = Members((ME, A, B, C))
    with pytest.raises(Unavailable, match="it has 0 of 3 batches"):
        core.propose_members(wanted, 0, 0.0)
    core.receive(C, appended(2, 3), 0.0)
    core.propose_members(wanted, 0, 0.0)


def test_4_2_1_a_learner_behind_its_window_has_not_caught_up() -> None:
    core = settled(Members((ME, A, B), (C,)))
    body = bytes(1 << 20)
    for index in range(2, 12):
        core.propose([Draft.of(body, 1)], 0, 0.0)
        core.take_ready()
        core.persisted(index, 1, 0.0)
        core.receive(A, appended(1, index), 0.0)
    core.take_ready()
    with pytest.raises(Unavailable, match="it has 1 of 11 batches"):
        core.propose_members(Members((ME, A, B, C)), 0, 0.0)


# -- §6, dissertation §4.2.2: a leader that is removed ---------------------------------------------


def test_4_2_2_a_leader_that_is_no_voter_leads_on_and_does_not_count_itself() -> None:
    core = settled()
    joint = change(core, Members((A, B)))
    for peer in (A, B):
        core.receive(peer, appended(1, joint), 0.0)
    core.persisted(joint + 1, 1, 0.0)
    assert core.members == Members((A, B))
    core.propose([Draft.of(b"x", 1)], 0, 0.0)
    core.persisted(joint + 2, 1, 0.0)
    core.receive(A, appended(1, joint + 2), 0.0)
    assert (core.role, core.commit_index) == (Role.LEADER, joint)


def test_4_2_2_it_steps_down_when_the_final_configuration_is_committed() -> None:
    core = settled()
    joint = change(core, Members((A, B)))
    core.take_ready()
    for peer in (A, B):
        core.receive(peer, appended(1, joint), 0.0)
    core.take_ready()
    for peer in (B, A):
        core.receive(peer, appended(1, joint + 1), 0.0)
    ready = core.take_ready()
    assert (core.role, core.commit_index) == (Role.FOLLOWER, joint + 1)
    assert SteppedDown(Term(1)) in ready.events
    orders = [(to, m) for to, m in ready.messages if isinstance(m, TimeoutNow)]
    assert len(orders) == 1
    assert orders[0][0] in (A, B)
    for peer in (A, B):
        told = sent_to(ready, peer)[0]
        assert isinstance(told, AppendRequest)
        assert told.commit_index == joint + 1
    core.tick(core.deadline)
    assert (core.role, core.term) == (Role.FOLLOWER, 1)


def test_4_2_2_what_was_proposed_before_is_waited_for_an_election_timeout() -> None:
    core = settled()
    joint = change(core, Members((A, B)))
    for peer in (A, B):
        core.receive(peer, appended(1, joint), 0.0)
    core.propose([Draft.of(b"x", 1)], 0, 0.0)
    core.take_ready()
    for peer in (A, B):
        core.receive(peer, appended(1, joint + 1), 0.0)
    assert core.role is Role.LEADER
    with pytest.raises(NotLeader):
        core.propose([Draft.of(b"y", 1)], 0, 0.0)
    now = 0.0
    while core.role is Role.LEADER:
        now = core.deadline
        for peer in (A, B):
            core.receive(peer, appended(1, joint + 1), now)
        core.tick(now)
    assert now == CONFIG.election_timeout_s
    messages = [message for _, message in core.take_ready().messages]
    assert TimeoutNow(Term(1)) in messages


def test_4_2_2_a_removed_server_stands_until_it_knows_that_this_is_committed() -> None:
    """Those who stay may need its log, which has their configuration, and not elect without."""
    joint = Members((A,), (), (ME, A))
    log = MemoryLog([config_batch(joint, 1), config_batch(Members((A,)), 2)])
    core = RaftCore(
        node_id=ME,
        config=CONFIG,
        log=log,
        hard_state=HardState(Term(1)),
        members=Members((ME, A)),
        config_entries=[(Index(1), joint), (Index(2), Members((A,)))],
        commit_index=1,
        rng=FixedRng(0.0),
        now=0.0,
    )
    core.tick(LATER)
    core.receive(A, VoteResponse(Term(2), True, pre=True), LATER)
    core.receive(A, VoteResponse(Term(2), True), LATER)
    assert core.role is Role.LEADER
    core.persisted(3, 2, LATER)
    assert core.commit_index == 1
    core.receive(A, appended(2, 3), LATER)
    assert (core.role, core.commit_index) == (Role.FOLLOWER, 3)
    core.tick(5 * LATER)
    assert core.role is Role.FOLLOWER


def test_4_2_2_a_voter_that_became_a_learner_stands_no_more() -> None:
    core, _ = make_core(members=Members((A, B), (ME,)))
    core.tick(LATER)
    core.campaign(LATER)
    assert (core.role, core.term) == (Role.FOLLOWER, 0)
    leaving, _ = make_core(members=Members((A, B), (ME,), (ME, A, B)))
    leaving.tick(LATER)
    assert leaving.role is Role.PRE_CANDIDATE


# -- §6, dissertation §4.2.3: who was removed does not disturb -------------------------------------


@pytest.mark.parametrize("pre", [False, True])
def test_4_2_3_a_removed_server_that_stands_does_not_disturb(pre: bool) -> None:
    leader = settled()
    leader.receive(D, vote_request(9, 9, 9, pre=pre), 0.0)
    assert (leader.role, leader.term) == (Role.LEADER, 1)
    assert not leader.has_ready
    follower, _ = make_core(term=1)
    follower.receive(A, append_request(1), LATER)
    follower.take_ready()
    follower.receive(D, vote_request(9, 9, 9, pre=pre), LATER)
    assert follower.term == 1
    assert not follower.has_ready


def test_6_a_server_votes_also_for_one_that_is_not_in_its_configuration() -> None:
    core, _ = make_core()
    core.receive(D, vote_request(1, 5, 1), LATER)
    assert sent_to(core.take_ready(), D) == [VoteResponse(Term(1), True)]


def test_6_a_server_takes_batches_from_a_leader_that_is_not_in_its_configuration() -> None:
    core, log = make_core(members=Members((A, B)))
    core.receive(D, append_request(1, terms=[1], commit_index=1), 0.0)
    assert (log.last_index, core.commit_index, core.leader_id) == (1, 1, D)


def test_6_answers_of_a_removed_server_count_for_nothing() -> None:
    core = settled()
    index = change(core, Members((ME, A)))
    core.receive(A, appended(1, index), 0.0)
    core.take_ready()
    core.persisted(index + 1, 1, 0.0)
    core.receive(B, appended(1, index + 1), 0.0)
    assert core.commit_index == index


def test_6_who_is_removed_is_sent_the_configuration_once_more() -> None:
    core = settled()
    index = change(core, Members((ME, A)))
    core.take_ready()
    core.receive(A, appended(1, index), 0.0)
    (request,) = sent_to(core.take_ready(), B)
    assert isinstance(request, AppendRequest)
    assert Members.decode(request.batches[-1].body) == Members((ME, A))
    core.persisted(index + 1, 1, 0.0)
    core.receive(A, appended(1, index + 1), 0.0)
    assert sent_to(core.take_ready(), B) == [
        append_request(1, index + 1, 1, commit_index=index + 1)
    ]
    core.tick(core.deadline)
    assert sent_to(core.take_ready(), B) == []
