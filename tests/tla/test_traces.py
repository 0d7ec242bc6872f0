"""Traces of the cores against the specification; what Raft forbids is refused, at that step."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from quorumlog.log.hard_state import HardState
from quorumlog.replication.core.leadership import Leadership
from quorumlog.types import Index
from raft.member import RaftMember
from tla.recorder import RecordedGroup, State, record_run, trace_line, usable_seeds
from tla.tlc import refused_at, why_missing

missing = why_missing()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))

TRACES = 2


@pytest.mark.parametrize("seed", usable_seeds(TRACES))
def test_what_a_group_did_is_a_behaviour_of_raft(seed: int, tmp_path: Path) -> None:
    group = RecordedGroup(seed)
    record_run(group)
    assert any('"leader"' in event for event in group.events)
    assert refused_at(tmp_path, group.events) is None


def first_refused(tmp_path: Path, seeds: list[int], is_telling: Callable[[str], bool]) -> str:
    """The event that TLC refuses in the first of ``seeds`` whose trace ``is_telling``.

    The group's own checks may find something too, or not.
    """
    for seed in seeds:
        group = RecordedGroup(seed)
        with contextlib.suppress(AssertionError):
            record_run(group)
        if is_telling("\n".join(group.events)):
            at = refused_at(tmp_path, group.events)
            return "" if at is None else group.events[at]
    raise AssertionError("no trace is telling")


def test_a_leader_that_waits_for_no_majority_is_refused_where_it_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(self: Leadership, durable_index: Index) -> Index:
        return durable_index

    monkeypatch.setattr(Leadership, "quorum_match", alone)
    event = first_refused(tmp_path, usable_seeds(1), lambda trace: 'role |-> "leader"' in trace)
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
    event = first_refused(
        tmp_path, usable_seeds(20), lambda trace: broken_promise.search(trace) is not None
    )
    assert 'kind |-> "restart"' in event


ELECTED = [
    trace_line("become", "n0", new=State(1, "n0", "candidate", (), 0)),
    trace_line("become", "n1", new=State(1, "n0", "follower", (), 0)),
    trace_line("vote", "n1", term=1, candidate="n0"),
    trace_line("become", "n0", new=State(1, "n0", "leader", (1, 1), 0)),
    trace_line("become", "n1", new=State(1, "n0", "follower", (1, 1), 0)),
]
FORBIDDEN = {
    "a second vote in the term": [
        trace_line("become", "n2", new=State(1, "n2", "candidate", (), 0)),
        trace_line("become", "n1", new=State(1, "n2", "follower", (1, 1), 0)),
    ],
    "a log cut without a conflict": [
        trace_line("become", "n1", new=State(1, "n0", "follower", (1,), 0)),
    ],
    "a vote for a log that is behind": [
        trace_line("become", "n2", new=State(1, "none", "follower", (), 0)),
        trace_line("become", "n2", new=State(2, "n2", "candidate", (), 0)),
        trace_line("become", "n1", new=State(2, "n2", "follower", (1, 1), 0)),
    ],
    "a follower that commits before its leader": [
        trace_line("become", "n1", new=State(1, "n0", "follower", (1, 1), 1)),
    ],
}


@pytest.mark.parametrize("events", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_raft_forbids_is_refused_and_what_led_to_it_is_not(
    events: list[str], tmp_path: Path
) -> None:
    assert refused_at(tmp_path, ELECTED + events) == len(ELECTED + events) - 1
