"""Traces of the cores against the specification; what Raft forbids is refused, at that step."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quorumlog.log.hard_state import HardState
from quorumlog.replication.core import leadership
from quorumlog.replication.core.leadership import Leadership
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.quorum import Value, agreed
from quorumlog.replication.core.reads import Reads
from quorumlog.types import Index, NodeId
from raft.member import RaftMember
from tla.recorder import RecordedGroup, record_run, usable_seeds
from tla.tlc import refusals, why_missing
from tla.trace import State, Trace, kinds_of, trace_line

missing = why_missing()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))

SEEDS = 200
KINDS = ("become", "vote", "acknowledge", "restart", "configure", "ask", "round", "serve", "lease")
MOST_EVENTS = 150


def recorded(seeds: list[int]) -> Iterator[tuple[Trace, bool]]:
    """Their traces, and whether the group's own checks found something."""
    for seed in seeds:
        group = RecordedGroup(seed)
        is_found = False
        try:
            record_run(group)
        except AssertionError:
            is_found = True
        yield group.recorded, is_found


def test_what_groups_did_is_a_behaviour_of_raft(tmp_path: Path) -> None:
    """All that the specification knows is in each of the two."""
    whole = (
        trace
        for trace, _ in recorded(usable_seeds(SEEDS))
        if set(kinds_of(trace)) == set(KINDS) and len(trace.events) <= MOST_EVENTS
    )
    for number in range(2):
        directory = tmp_path / str(number)
        directory.mkdir()
        assert refusals(directory, [next(whole)]) == [None]


def first_refused(tmp_path: Path, is_telling: Callable[[str, bool], bool]) -> str:
    """The event that TLC refuses in the first trace that ``is_telling``; empty: none.

    That is asked with the trace as text, and whether the group's own checks found something.
    """
    for trace, is_found in recorded(usable_seeds(SEEDS)):
        if is_telling("\n".join(trace.events), is_found):
            (at,) = refusals(tmp_path, [trace])
            return "" if at is None else trace.events[at]
    raise AssertionError("no trace is telling")


def test_a_leader_that_waits_for_no_majority_is_refused_where_it_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(self: Leadership, durable_index: Index) -> Index:
        return durable_index

    monkeypatch.setattr(Leadership, "quorum_match", alone)
    event = first_refused(tmp_path, lambda trace, _: 'role |-> "leader"' in trace)
    assert 'role |-> "leader"' in event
    assert "commit |-> 0" not in event


def test_a_node_that_forgets_its_vote_is_refused_where_it_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart = RaftMember.restart

    def forgetful(self: RaftMember, now: float) -> None:
        self.hard_state = HardState()
        restart(self, now)

    monkeypatch.setattr(RaftMember, "restart", forgetful)
    broken_promise = re.compile(
        r'"(vote|acknowledge)", node \|-> "(n\d)".*"restart", node \|-> "\2"', re.DOTALL
    )
    event = first_refused(tmp_path, lambda trace, _: broken_promise.search(trace) is not None)
    assert 'kind |-> "restart"' in event


def test_a_joint_configuration_whose_old_voters_do_not_count_is_refused_where_it_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_new_voters(members: Members, value_of: Callable[[NodeId], Value]) -> Value:
        return agreed(members.final, value_of)

    monkeypatch.setattr(leadership, "agreed", by_new_voters)
    event = first_refused(tmp_path, lambda trace, is_found: is_found and '"configure"' in trace)
    assert 'role |-> "leader"' in event


def test_a_leader_that_answers_reads_unasked_is_refused_where_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_allowed = Reads.take_allowed

    def unasked(self: Reads, confirmed_round: int, commit_index: Index) -> list[tuple[int, Index]]:
        return take_allowed(self, self.round, commit_index)

    monkeypatch.setattr(Reads, "take_allowed", unasked)
    event = first_refused(tmp_path, lambda trace, _: '"serve"' in trace)
    assert 'kind |-> "serve"' in event


def follower(term: int, vote: str, log: tuple[int, ...], commit: int = 0) -> State:
    return State(term, vote, "follower", log, commit)


def leader(log: tuple[int, ...], commit: int) -> State:
    """n0 in term 1."""
    return State(1, "n0", "leader", log, commit)


def configure(new: State, voters: str, outgoing: str = "") -> str:
    """n0 appends a configuration; the names of its voters stand between spaces."""
    return trace_line(
        "configure",
        "n0",
        new=new,
        voters=frozenset(voters.split()),
        outgoing=frozenset(outgoing.split()),
    )


OLD = "n0 n1 n2"
ELECTED = [
    trace_line("become", "n0", new=State(1, "n0", "candidate", (), 0)),
    trace_line("become", "n1", new=follower(1, "n0", ())),
    trace_line("vote", "n1", term=1, candidate="n0"),
    trace_line("become", "n0", new=leader((1, 1), 0)),
    trace_line("become", "n1", new=follower(1, "n0", (1, 1))),
]
COMMITTED = [
    *ELECTED,
    trace_line("acknowledge", "n0", term=1, upto=2, disk=(1, 1)),
    trace_line("acknowledge", "n1", term=1, upto=2, disk=(1, 1)),
    trace_line("become", "n0", new=leader((1, 1), 2)),
]
REPLACED = [
    *COMMITTED,
    trace_line("become", "n2", new=follower(1, "none", (1, 1))),
    trace_line("become", "n2", new=State(2, "n2", "candidate", (1, 1), 0)),
    trace_line("become", "n1", new=follower(2, "n2", (1, 1))),
    trace_line("vote", "n1", term=2, candidate="n2"),
    trace_line("become", "n2", new=State(2, "n2", "leader", (1, 1, 2), 0)),
    trace_line("become", "n1", new=follower(2, "n2", (1, 1, 2))),
    trace_line("acknowledge", "n1", term=2, upto=3, disk=(1, 1, 2)),
    trace_line("acknowledge", "n2", term=2, upto=3, disk=(1, 1, 2)),
    trace_line("become", "n2", new=State(2, "n2", "leader", (1, 1, 2), 3)),
]
FORBIDDEN = {
    "a second vote in the term": [
        *ELECTED,
        trace_line("become", "n2", new=State(1, "n2", "candidate", (), 0)),
        trace_line("become", "n1", new=follower(1, "n2", (1, 1))),
    ],
    "a log cut without a conflict": [
        *ELECTED,
        trace_line("become", "n1", new=follower(1, "n0", (1,))),
    ],
    "a vote for a log that is behind": [
        *ELECTED,
        trace_line("become", "n2", new=follower(1, "none", ())),
        trace_line("become", "n2", new=State(2, "n2", "candidate", (), 0)),
        trace_line("become", "n1", new=follower(2, "n2", (1, 1))),
    ],
    "a follower that commits before its leader": [
        *ELECTED,
        trace_line("become", "n1", new=follower(1, "n0", (1, 1), 1)),
    ],
    "a leader that counts itself before its disk does": [
        *ELECTED,
        trace_line("acknowledge", "n1", term=1, upto=2, disk=(1, 1)),
        trace_line("become", "n0", new=leader((1, 1), 2)),
    ],
    "a read that nobody confirms": [
        *COMMITTED,
        trace_line("ask", "n0", number=1, round=2),
        trace_line("serve", "n0", term=1, number=1, index=2),
    ],
    "a read in a round that was answered before": [
        *COMMITTED,
        trace_line("ask", "n0", number=1, round=2),
        trace_line("round", "n1", term=1, round=2),
        trace_line("serve", "n0", term=1, number=1, index=2),
        trace_line("ask", "n0", number=2, round=2),
    ],
    "a read before an entry of the term is committed": [
        *ELECTED,
        trace_line("ask", "n0", number=1, round=2),
        trace_line("round", "n1", term=1, round=2),
        trace_line("serve", "n0", term=1, number=1, index=0),
    ],
    "a round that is answered in another term": [
        *REPLACED,
        trace_line("ask", "n0", number=1, round=2),
        trace_line("round", "n1", term=1, round=2),
    ],
    "a lease that outlasts an election": [
        *REPLACED,
        trace_line("lease", "n0", index=2),
    ],
    "a change before an entry of the term is committed": [
        *ELECTED,
        configure(leader((1, 1, 1), 0), "n0 n1 n3", OLD),
    ],
    "a change without a joint configuration": [
        *COMMITTED,
        configure(leader((1, 1, 1), 2), "n0 n1 n3"),
    ],
    "an end of a change that is not committed": [
        *COMMITTED,
        configure(leader((1, 1, 1), 2), "n0 n1 n3", OLD),
        configure(leader((1, 1, 1, 1), 2), "n0 n1 n3"),
    ],
    "a commit by the new voters alone": [
        *COMMITTED,
        configure(leader((1, 1, 1), 2), "n0", OLD),
        trace_line("acknowledge", "n0", term=1, upto=3, disk=(1, 1, 1)),
        trace_line("become", "n0", new=leader((1, 1, 1), 3)),
    ],
    "an election by the old voters alone": [
        *COMMITTED,
        configure(leader((1, 1, 1), 2), "n0 n3", OLD),
        trace_line("become", "n1", new=follower(1, "n0", (1, 1, 1))),
        trace_line("become", "n1", new=State(2, "n1", "candidate", (1, 1, 1), 0)),
        trace_line("become", "n2", new=follower(2, "n1", ())),
        trace_line("vote", "n2", term=2, candidate="n1"),
        trace_line("become", "n1", new=State(2, "n1", "leader", (1, 1, 1, 2), 0)),
    ],
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int | None]:
    """Where each of the stories is refused; a process of Java for all takes as long as for one."""
    nodes, voters = ("n0", "n1", "n2", "n3"), tuple(OLD.split())
    traces = [Trace(nodes, voters, events) for events in FORBIDDEN.values()]
    found = refusals(tmp_path_factory.mktemp("forbidden"), traces)
    return dict(zip(FORBIDDEN, found, strict=True))


@pytest.mark.parametrize("story", FORBIDDEN)
def test_what_raft_forbids_is_refused_and_what_led_to_it_is_not(
    story: str, refused: dict[str, int | None]
) -> None:
    assert refused[story] == len(FORBIDDEN[story]) - 1
