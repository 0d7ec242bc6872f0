"""Bugs that Raft implementations have had, put back one at a time: the random groups find each.

A bug is a change of text in one function of the core. ``within`` is the number of seeds that have
to be enough; the first one that fails is usually far below.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from quorumlog.replication.core import (
    core,
    election,
    follower,
    leadership,
    progress,
    quorum,
    reads,
)
from raft.lockstep import Lockstep
from raft.script import replay
from raft.weather import Weather, draw_lease_weather, draw_weather


@dataclass(frozen=True)
class Bug:
    name: str
    module: ModuleType
    owner: str
    """The class whose method is changed; empty for a function of the module."""
    function: str
    right: str
    wrong: str
    within: int = 60
    start: int = 0
    """The seed to begin with: rare bugs wait for rare weather."""
    weather: Callable[[Random], Weather] = draw_weather


TOLD = [
    Bug(
        "a new voter has not caught up",
        leadership,
        "Leadership",
        "check_caught_up",
        "if is_behind or progress.match_index < self.first_index or not is_alive:",
        "if False:",
    ),
    Bug(
        "the members change before the no-op is committed",
        core,
        "RaftCore",
        "propose_members",
        "max(leadership.first_index, self._configurations.current_index)",
        "self._configurations.current_index",
    ),
    Bug(
        "a leader that is no voter any more leads on",
        core,
        "RaftCore",
        "_go_on_with_change",
        "if self._node_id not in members.voters:",
        "if False:",
    ),
    Bug(
        "the lease begins when the answer arrives",
        leadership,
        "Leadership",
        "answered",
        "self._note_round(peer, progress, response.round)",
        "self._note_round(peer, progress, response.round); progress.confirmed_at = now",
    ),
    Bug(
        "a restart forgets that a leader relies on this member's vote",
        election,
        "Elector",
        "__init__",
        "self._votes_from = now + config.election_timeout_s",
        "pass",
    ),
    Bug(
        "a transfer leaves the lease",
        leadership,
        "Leadership",
        "collect",
        "self._lease_ended = True",
        "pass",
    ),
    Bug(
        "a read takes part in a round that has left",
        reads,
        "Reads",
        "wait",
        "self.open_round(now)",
        "pass",
    ),
    Bug(
        "a configuration that was cut off still holds",
        follower,
        "",
        "_append_new",
        "configurations.truncate(truncate_from)",
        "pass",
    ),
    Bug(
        "logs are compared by length alone",
        election,
        "Elector",
        "_receive_vote_request",
        "(request.last_term, request.last_index) >= (log.last_term, log.last_index)",
        "request.last_index >= log.last_index",
    ),
]
"""Bugs that endanger no promise by themselves, or in moments too rare for chance."""

BUGS = [
    Bug(
        "a vote is not persisted",
        election,
        "Elector",
        "_grant",
        "self._outbox.hard_state_changed = True",
        "pass",
    ),
    Bug(
        "a vote leaves before it is durable",
        election,
        "Elector",
        "_receive_vote_request",
        "self._outbox.durable_messages.append((sender, VoteResponse",
        "self._outbox.messages.append((sender, VoteResponse",
    ),
    Bug(
        "a candidate asks before its term is durable",
        election,
        "Elector",
        "_ask_for_votes",
        "self._outbox.durable_messages.append",
        "self._outbox.messages.append",
    ),
    Bug(
        "an acknowledgement leaves before it is durable",
        core,
        "RaftCore",
        "_receive_append_request",
        "self._outbox.durable_messages.append((sender, response))",
        "self._outbox.messages.append((sender, response))",
    ),
    Bug(
        "a heartbeat is answered with what is not durable",
        core,
        "RaftCore",
        "_answer_heartbeat",
        "response.match_index <= self._durable_index",
        "True",
    ),
    Bug(
        "a heartbeat is answered before its term is durable",
        core,
        "RaftCore",
        "_receive_append_request",
        "self._log.term_at(self._durable_index) == self.term",
        "True",
    ),
    Bug(
        "the leader counts itself before its disk does",
        core,
        "RaftCore",
        "_advance_commit",
        "leadership.quorum_match(self._durable_index)",
        "leadership.quorum_match(self._log.last_index)",
    ),
    Bug(
        "batches of earlier terms are committed by counting (figure 8)",
        core,
        "RaftCore",
        "_advance_commit",
        "and index >= leadership.first_index",
        "",
    ),
    Bug(
        "votes go to candidates whose log is behind",
        election,
        "Elector",
        "_receive_vote_request",
        "is_up_to_date = ",
        "is_up_to_date = True or ",
    ),
    Bug(
        "two votes in one term",
        election,
        "Elector",
        "_receive_vote_request",
        "may_vote = ",
        "may_vote = True or ",
    ),
    Bug(
        "the previous batch's term is not compared",
        follower,
        "",
        "accept",
        "log.term_at(prev_index) != request.prev_term",
        "False",
    ),
    Bug(
        "a conflicting suffix stays",
        follower,
        "",
        "_append_new",
        "index >= log.start_index and log.term_at(index) != batch.header.term",
        "False",
    ),
    Bug(
        "every request cuts the log behind its end",
        follower,
        "",
        "accept",
        "truncated_from = _append_new(",
        "log.last_index > prev_index and log.truncate(prev_index + 1)\n"
        "    truncated_from = _append_new(",
    ),
    Bug(
        "a follower commits what the leader has, not what matched",
        core,
        "RaftCore",
        "_receive_append_request",
        "min(request.commit_index, response.match_index)",
        "min(request.commit_index, self._log.last_index)",
        start=100,
    ),
    Bug(
        "a follower says that its whole log matches",
        follower,
        "",
        "accept",
        "Index(prev_index + len(request.batches))",
        "log.last_index",
    ),
    Bug(
        "a leader of one voter speaks before its term is durable",
        leadership,
        "Leadership",
        "collect",
        "self._elected_alone",
        "False",
    ),
    Bug(
        "an old vote counts in a new term",
        election,
        "Elector",
        "_receive_vote_response",
        "self.role is Role.CANDIDATE and response.term == self.term",
        "self.role is Role.CANDIDATE",
        within=400,
        start=250,
    ),
    Bug(
        "what was cut still counts as durable",
        core,
        "RaftCore",
        "_receive_append_request",
        "min(self._durable_index, Index(accepted.truncated_from - 1))",
        "self._durable_index",
    ),
    Bug(
        "a learner counts in the majority",
        leadership,
        "Leadership",
        "__init__",
        "self._members = members",
        "self._members = Members(members.voters + members.learners)",
    ),
    Bug(
        "in a joint configuration a majority of the new voters commits",
        quorum,
        "",
        "agreed",
        "if members.outgoing:",
        "if False:",
    ),
    Bug(
        "in a joint configuration a majority of the new voters elects",
        quorum,
        "",
        "tally",
        "if members.outgoing:",
        "if False:",
        start=80,
    ),
    Bug(
        "the final configuration is appended before the joint one is committed",
        core,
        "RaftCore",
        "_go_on_with_change",
        "if self.commit_index < self._configurations.current_index:",
        "if False:",
        start=260,
    ),
    Bug(
        "the lease holds before the no-op is committed",
        core,
        "RaftCore",
        "lease_index",
        "or self.commit_index < leadership.first_index",
        "",
    ),
    Bug(
        "a read is answered before the no-op is committed",
        leadership,
        "Leadership",
        "read",
        "max(commit_index, self.first_index)",
        "commit_index",
    ),
    Bug(
        "the lease is as long as the promise",
        leadership,
        "Leadership",
        "holds_lease",
        "self._config.lease_fraction * self._config.election_timeout_s",
        "self._config.election_timeout_s",
        within=20,
        start=40,
        weather=draw_lease_weather,
    ),
    Bug(
        "lost requests are never noticed",
        leadership,
        "Leadership",
        "answered",
        "elif not progress.is_refusal_stale(response.rejected_index)",
        "elif False",
    ),
    Bug(
        "the window never opens again",
        progress,
        "Progress",
        "accepted",
        "while inflight and inflight[0][0] <= match_index",
        "while False",
    ),
]


def put_back(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    owner: Any = getattr(bug.module, bug.owner) if bug.owner else bug.module
    source = textwrap.dedent(inspect.getsource(getattr(owner, bug.function)))
    if source.count(bug.right) != 1:
        raise AssertionError(f"{bug.function} does not contain {bug.right!r} once: mend the bug")
    namespace: dict[str, Any] = {}
    exec(source.replace(bug.right, bug.wrong), bug.module.__dict__, namespace)
    monkeypatch.setattr(owner, bug.function, namespace[bug.function])
    for importer in (core, election, leadership):
        if hasattr(importer, bug.function):
            monkeypatch.setattr(importer, bug.function, namespace[bug.function])


def first_failing_seed(
    seeds: range, weather: Callable[[Random], Weather] = draw_weather
) -> int | None:
    for seed in seeds:
        try:
            Lockstep(seed, weather).run(faulty_s=1.5)
        except Exception:
            return seed
    return None


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_random_groups_find(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    put_back(bug, monkeypatch)
    seeds = range(bug.start, bug.start + bug.within)
    if first_failing_seed(seeds, bug.weather) is None:
        raise AssertionError(f"{bug.within} seeds ran to the end although {bug.name}")


@pytest.mark.parametrize("bug", TOLD, ids=lambda bug: bug.name.replace(" ", "-"))
def test_stories_tell_of(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    put_back(bug, monkeypatch)
    stories = (Path(__file__).parent / "scripts").glob("*.txt")
    if all(replay(text) == text for text in map(Path.read_text, stories)):
        raise AssertionError(f"every script goes as it is written although {bug.name}")
