"""A member that has forgotten what it acknowledged: what it says no to, and until when."""

import asyncio
from dataclasses import dataclass, field

import pytest

from quorumlog.errors import LogFenced
from quorumlog.log.batch import Draft, Kind
from quorumlog.log.state_snapshot import LogOrigin, StateSnapshot
from quorumlog.replication.catch_up import catch_up
from quorumlog.replication.catch_up.messages import EndAnswer, EndQuestion
from quorumlog.replication.catch_up.recovery import RETRY_S, Recovery
from quorumlog.replication.catch_up.returning import Returning
from quorumlog.replication.catch_up.starting_over import Note, write_note
from quorumlog.replication.catch_up.state_receiver import is_needed
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import AppendRequest, AppendResponse, VoteResponse
from quorumlog.types import GroupId, Index, NodeId, Offset, Term
from raft.memory_log import MemoryLog, batches_of
from raft.single import ME, A, B, append_request, make_core, make_leader, sent_to, vote_request
from support.replica_cluster import GROUP, Cluster, draft, simulated

# -- votes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", [True, False], ids=["pre-vote", "vote"])
@pytest.mark.parametrize("force", [True, False], ids=["ordered", "by itself"])
def test_it_grants_no_vote_of_any_kind(pre: bool, force: bool) -> None:
    core, _ = make_core([1], term=2)
    core.recovering = True
    core.receive(A, vote_request(3, 9, 2, pre=pre, force=force), 1.0)
    (answer,) = sent_to(core.take_ready(), A)
    assert isinstance(answer, VoteResponse)
    assert not answer.granted
    assert core.vote is None
    core.recovered()
    core.receive(A, vote_request(4, 9, 2, pre=pre, force=force), 1.0)
    (answer,) = sent_to(core.take_ready(), A)
    assert isinstance(answer, VoteResponse)
    assert answer.granted


# -- until when ------------------------------------------------------------------------------------


@dataclass
class Subject:
    """A replica that recovers, and all the others played."""

    core: RaftCore
    log: MemoryLog
    group: GroupId = GROUP

    def __post_init__(self) -> None:
        self.core.recovering = True
        self.questions: list[tuple[NodeId, EndQuestion]] = []
        self.is_whole = False
        self.recovery = Recovery(
            ME,
            self,
            0.0,
            lambda: len(self.questions),
            lambda peer, question: self.questions.append((peer, question)),
            self._whole,
        )

    def _whole(self) -> None:
        self.is_whole = True

    def hears_end(self, last_index: int) -> None:
        question = self.questions[-1][1]
        self.recovery.answered(EndAnswer(question.term, question.nonce, Index(last_index)))


def subject(term: int, terms: list[int]) -> Subject:
    """Follows A in ``term``, with batches of ``terms``, durable, and has asked."""
    core, log = make_core(term=term)
    core.receive(A, append_request(term, terms=terms), 0.0)
    core.persisted(log.last_index, log.last_term, 0.0)
    made = Subject(core, log)
    made.recovery.look(0.0)
    assert made.questions == [(A, EndQuestion(Term(term), 0))]
    return made


def test_it_is_whole_with_all_through_the_end_in_a_batch_of_the_leaders_term() -> None:
    it = subject(3, [1, 3])
    it.hears_end(2)
    it.recovery.look(0.0)
    assert it.is_whole


def test_a_batch_of_another_term_at_the_end_is_not_what_the_leader_has_there() -> None:
    it = subject(3, [1, 2])
    it.hears_end(2)
    it.recovery.look(0.0)
    assert not it.is_whole


def test_what_is_not_durable_is_not_there() -> None:
    it = subject(3, [1, 3])
    it.hears_end(3)
    it.core.receive(A, append_request(3, 2, 3, [3]), 0.0)
    it.recovery.look(0.0)
    assert not it.is_whole
    it.core.persisted(3, 3, 0.0)
    it.recovery.look(0.0)
    assert it.is_whole


def test_what_one_leader_said_counts_under_no_other() -> None:
    it = subject(3, [1, 3])
    it.hears_end(3)
    it.core.receive(B, append_request(4, 2, 3, [4, 4]), 0.0)
    it.core.persisted(4, 4, 0.0)
    it.recovery.look(RETRY_S)
    assert not it.is_whole
    assert it.questions[1:] == [(B, EndQuestion(Term(4), 1))]
    it.hears_end(4)
    it.recovery.look(RETRY_S)
    assert it.is_whole


@simulated
async def test_it_does_not_vote_before_no_restart_brings_the_note_back() -> None:
    cluster = Cluster(3)
    await cluster.open()
    leader = await cluster.leader()
    await leader.propose(draft(b"x"))
    node = next(node for node in cluster.nodes if node != cluster.node_of(leader))
    await cluster.hosts[node].close()
    write_note(cluster.disks[node], f"groups/{GROUP}", Note(0, 1, "rot"))

    def fail(disk: object, directory: str) -> None:
        raise OSError("the disk refuses")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(catch_up, "recovered", fail)
        await cluster.open_node(node)
        replica = cluster.replicas[node]
        async with asyncio.timeout(10):
            while replica.failure is None:
                await asyncio.sleep(0.01)
    assert replica.core.recovering
    await cluster.close()


# -- one that left and was asked back --------------------------------------------------------------


@dataclass
class Back:
    """A replica that left when its group was settled through batch 2."""

    core: RaftCore
    group: GroupId = GROUP
    awaited: StateSnapshot | None = None
    restored_index: Index = field(default=Index(0))

    def __post_init__(self) -> None:
        self.core.recovering = True
        self.is_whole = False
        self.returning = Returning(ME, self, Index(2), self._whole)

    def _whole(self) -> None:
        self.is_whole = True

    def look(self) -> bool:
        self.returning.look(0.0)
        return self.is_whole


def configuration(index: int, members: Members) -> AppendRequest:
    draft = Draft.of(members.encode(), kind=Kind.CONFIG)
    batches = (*batches_of([1] * (index - 1)), draft.stamp(index, 1, index - 1, 0))
    return AppendRequest(Term(1), Index(0), Term(0), Index(0), batches)


WITH_ME, WITHOUT_ME = Members((A, B), (ME,)), Members((A, B))


@pytest.mark.parametrize(
    ("index", "members", "is_durable", "expected"),
    [
        (3, WITH_ME, True, True),
        (3, WITH_ME, False, False),
        (2, WITH_ME, True, False),
        (3, WITHOUT_ME, True, False),
    ],
    ids=["asked back", "not on disk", "from before it left", "not asked"],
)
def test_who_comes_back_votes_with_the_configuration_that_says_so(
    index: int, members: Members, is_durable: bool, expected: bool
) -> None:
    core, _ = make_core(members=Members(()))
    it = Back(core)
    assert not it.look()
    core.receive(A, configuration(index, members), 0.0)
    if is_durable:
        core.persisted(index, 1, 0.0)
    assert it.look() is expected


# -- a log that is emptied -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_index", "prev_term", "expected"),
    [
        (5, 2, True),  # it ends before
        (4, 2, False),  # it ends right there, with the batch that precedes
        (4, 3, True),  # with another one
        (3, 1, False),
        (3, 3, True),
        (1, 0, False),
    ],
)
def test_a_log_is_emptied_only_where_nothing_in_it_can_be_needed(
    start_index: int, prev_term: int, expected: bool
) -> None:
    log = MemoryLog(batches_of([1, 1, 2]))
    origin = LogOrigin(Index(start_index), Offset(0), Term(prev_term), 0, Offset(0))
    assert is_needed(log, origin) is expected


# -- a fenced one ----------------------------------------------------------------------------------


@simulated
async def test_after_a_failure_nothing_is_acknowledged_any_more() -> None:
    cluster = Cluster(3)
    await cluster.open()
    leader = await cluster.leader()
    node = next(node for node in cluster.nodes if node != cluster.node_of(leader))
    replica = cluster.replicas[node]
    heard: list[NodeId] = []
    cluster.wire.handlers[A] = lambda sender, group, payload: heard.append(sender)
    cluster.wire.processes[A] = cluster.wire.processes[node]
    acknowledgement = (A, AppendResponse(Term(1), True, Index(1)))
    replica._driver.durable([acknowledgement], None)
    await asyncio.sleep(0.01)
    assert heard == [node]
    replica.fail(LogFenced("the disk is gone"))
    replica._driver.durable([acknowledgement], None)
    await asyncio.sleep(0.01)
    assert heard == [node]
    await cluster.close()


# -- a sleeping one --------------------------------------------------------------------------------


def test_a_leader_that_sleeps_has_no_lease() -> None:
    core, _ = make_leader()
    for peer in (A, B):
        core.receive(peer, AppendResponse(Term(1), True, Index(1), round=1), 0.0)
    core.tick(core.deadline)
    core.take_ready()
    assert core.lease_index(0.01) == 1
    assert core.sleep_leading((), 0.01) == (A, B)
    assert core.lease_index(0.01) is None


def test_a_follower_sleeps_only_with_what_its_disk_has() -> None:
    core, _ = make_core()
    core.receive(A, append_request(1, terms=[1], commit_index=1), 0.0)
    assert not core.sleep_following(A, 1, 1)
    core.persisted(1, 1, 0.0)
    assert core.sleep_following(A, 1, 1)
