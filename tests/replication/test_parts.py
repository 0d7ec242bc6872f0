"""The parts of the core against obviously correct twins."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import InvalidArgument, InvariantViolation, ProtocolError
from quorumlog.replication.core.backtracking import newest_not_after
from quorumlog.replication.core.members import Configurations, Members
from quorumlog.replication.core.progress import Progress
from quorumlog.replication.core.quorum import Tally, agreed, tally
from quorumlog.types import Index, NodeId
from raft.memory_log import MemoryLog, batches_of

log_terms = st.lists(st.integers(1, 6), max_size=12).map(sorted)
ids = st.text(min_size=1, max_size=8).map(NodeId)


@st.composite
def any_members(draw: st.DrawFn) -> Members:
    names = draw(st.lists(ids, max_size=7, unique=True))
    count = draw(st.integers(0, len(names)))
    voters, learners = tuple(names[:count]), tuple(names[count:])
    outgoing = draw(
        st.lists(st.one_of(ids, st.sampled_from(names)) if names else ids, max_size=5, unique=True)
    )
    return Members(voters, learners, tuple(outgoing) if voters else ())


members = any_members()


# -- quorum ----------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=1, max_size=7))
def test_agreed_is_the_largest_value_that_a_majority_reached(values: list[int]) -> None:
    voters = {NodeId(f"n{number}"): value for number, value in enumerate(values)}
    result = agreed(Members(tuple(voters)), voters.__getitem__)
    reached = [v for v in range(10) if 2 * sum(value >= v for value in values) > len(values)]
    assert result == max(reached)


@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=7))
def test_an_election_is_won_or_lost_as_soon_as_that_is_certain(votes: list[bool | None]) -> None:
    voters = [NodeId(f"n{number}") for number in range(len(votes))]
    cast = {voter: vote for voter, vote in zip(voters, votes, strict=True) if vote is not None}
    cast[NodeId("stranger")] = True
    if 2 * votes.count(True) > len(votes):
        expected = Tally.WON
    elif 2 * (len(votes) - votes.count(False)) <= len(votes):
        expected = Tally.LOST
    else:
        expected = Tally.PENDING
    assert tally(Members(tuple(voters)), cast) is expected


halves = st.lists(st.sampled_from("abcdef").map(NodeId), min_size=1, max_size=6, unique=True)


@given(
    halves, halves, st.fixed_dictionaries({NodeId(name): st.integers(0, 5) for name in "abcdef"})
)
def test_a_joint_configuration_agrees_on_what_both_halves_agree_on(
    voters: list[NodeId], outgoing: list[NodeId], values: dict[NodeId, int]
) -> None:
    joint = Members(tuple(voters), (), tuple(outgoing))
    halves = [Members(tuple(voters)), Members(tuple(outgoing))]
    assert agreed(joint, values.__getitem__) == min(
        agreed(half, values.__getitem__) for half in halves
    )
    votes = {voter: value > 1 for voter, value in values.items() if value}
    results = [tally(half, votes) for half in halves]
    if Tally.LOST in results:
        assert tally(joint, votes) is Tally.LOST
    elif Tally.PENDING in results:
        assert tally(joint, votes) is Tally.PENDING
    else:
        assert tally(joint, votes) is Tally.WON


@given(halves, halves)
def test_majorities_on_the_way_of_a_change_always_have_a_member_in_common(
    old: list[NodeId], new: list[NodeId]
) -> None:
    """Whoever may decide in the joint configuration, nobody decides otherwise before or after."""
    joint = Members(tuple(new), (), tuple(old))
    for number in range(1 << len(joint.voting)):
        votes = {voter: bool(number >> at & 1) for at, voter in enumerate(joint.voting)}
        if tally(joint, votes) is Tally.WON:
            others = {voter: not vote for voter, vote in votes.items()}
            for half in (Members(tuple(new)), Members(tuple(old)), joint):
                assert tally(half, others) is not Tally.WON


def test_without_voters_nobody_wins() -> None:
    assert tally(Members(()), {NodeId("n1"): True}) is not Tally.WON


# -- backtracking ----------------------------------------------------------------------------------


@given(log_terms, st.integers(0, 15), st.integers(0, 7), st.integers(1, 5))
def test_newest_not_after_is_what_a_walk_finds(
    terms: list[int], bound: int, term: int, start_index: int
) -> None:
    log = MemoryLog(batches_of(terms, start_index), start_index)
    index = max(min(bound, log.last_index), start_index - 1)
    while index >= start_index and log.term_at(index) > term:
        index -= 1
    assert newest_not_after(log, bound, term) == index


@given(log_terms, log_terms)
def test_logs_agree_after_few_round_trips(
    leader_terms: list[int], follower_terms: list[int]
) -> None:
    """Any two logs: what the two sides name leads below every difference, and never up again."""
    leader, follower = MemoryLog(batches_of(leader_terms)), MemoryLog(batches_of(follower_terms))
    common = 0
    for mine, theirs in zip(leader_terms, follower_terms, strict=False):
        if mine != theirs:
            break
        common += 1
    prev_index, asked = int(leader.last_index), []
    while prev_index > follower.last_index or leader.term_at(prev_index) != follower.term_at(
        prev_index
    ):
        asked.append(prev_index)
        hint = newest_not_after(follower, prev_index, leader.term_at(prev_index))
        prev_index = newest_not_after(leader, hint, follower.term_at(hint))
    assert all(later < earlier for earlier, later in pairwise([*asked, prev_index]))
    assert len(asked) <= 1 + len({*leader_terms}) + len({*follower_terms})
    assert prev_index >= common or not asked


# -- members ---------------------------------------------------------------------------------------


@given(members)
def test_members_come_back_as_they_were_encoded(value: Members) -> None:
    assert Members.decode(value.encode()) == value
    assert Members.decode(memoryview(value.encode())) == value


@given(st.one_of(st.binary(max_size=30), members.map(Members.encode)), st.binary(max_size=3))
def test_other_bytes_are_refused_or_mean_exactly_one_configuration(
    body: bytes, tail: bytes
) -> None:
    try:
        value = Members.decode(body + tail)
    except ProtocolError:
        return
    assert value.encode() == body + tail


def test_members_are_sorted_and_nobody_stands_twice() -> None:
    b, a, c = NodeId("b"), NodeId("a"), NodeId("c")
    assert Members((b, a)).voters == (a, b)
    for voters, learners in (((a, a), ()), ((a,), (a,)), ((), (c, c)), ((NodeId(""),), ())):
        with pytest.raises(InvalidArgument):
            Members(voters, learners)
    for outgoing in ((a, a), (NodeId("x" * 256),)):
        with pytest.raises(InvalidArgument):
            Members((a,), (), outgoing)
    with pytest.raises(InvalidArgument):
        Members((), (a,), (b,))
    joint = Members((b,), (a,), (b, a))
    assert (joint.voting, joint.everybody, joint.final) == ((a, b), (a, b), Members((b,), (a,)))


def test_a_final_configuration_is_encoded_as_it_always_was() -> None:
    assert Members((NodeId("a"),), (NodeId("bc"),)).encode() == b"\x01\x01\0\x01\0\x01a\x02bc"
    assert Members((NodeId("a"),), (), (NodeId("b"),)).encode() == b"\x02\x01\0\0\0\x01\0\x01a\x01b"


@given(st.lists(st.integers(1, 9), max_size=12))
def test_the_newest_configuration_holds_and_a_cut_brings_back_the_one_before(
    steps: list[int],
) -> None:
    initial = Members((NodeId("initial"),))
    configurations = Configurations(initial, [])
    expected = [(0, initial)]
    for step in steps:
        if step > expected[-1][0]:
            change = Members((NodeId(f"n{step}"),))
            configurations.append(Index(step), change)
            expected.append((step, change))
        else:
            configurations.truncate(step)
            expected = [entry for entry in expected if entry[0] < step]
        assert (configurations.current_index, configurations.current) == expected[-1]


def test_a_committed_configuration_is_never_cut() -> None:
    configurations = Configurations(Members(()), [(Index(3), Members((NodeId("a"),)))])
    configurations.committed(5)
    with pytest.raises(InvariantViolation):
        configurations.truncate(2)


# -- progress --------------------------------------------------------------------------------------


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(1, 5)),
            st.tuples(st.just("accept"), st.integers(0, 40)),
            st.tuples(st.just("refuse"), st.integers(0, 40)),
        ),
        max_size=40,
    )
)
def test_progress_never_forgets_a_match_and_counts_what_is_in_flight(
    steps: list[tuple[str, int]],
) -> None:
    progress = Progress(Index(1), 0.0, probing=False)
    inflight: list[tuple[int, int]] = []
    for action, number in steps:
        before = progress.match_index
        if action == "send" and not progress.probing:
            last_index = progress.next_index + number - 1
            progress.sent(last_index, number * 10)
            inflight.append((last_index, number * 10))
        elif action == "accept":
            match_index = min(number, progress.next_index - 1)
            progress.accepted(Index(match_index))
            inflight = [sent for sent in inflight if sent[0] > progress.match_index]
        elif action == "refuse" and not progress.is_refusal_stale(number):
            progress.probe(max(progress.match_index, number - 2) + 1)
            inflight = []
        assert progress.match_index >= before
        assert progress.next_index > progress.match_index
        assert progress.inflight_bytes == sum(size for _, size in inflight)
        assert progress.inflight_messages == len(inflight)
