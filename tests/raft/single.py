"""One core alone, its messages to be read: for tests that play all the others."""

from collections.abc import Sequence
from dataclasses import replace

from quorumlog.log.hard_state import HardState
from quorumlog.replication.core.config import RaftConfig
from quorumlog.replication.core.core import RaftCore
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    VoteRequest,
    VoteResponse,
)
from quorumlog.replication.core.ready import Ready
from quorumlog.types import Index, NodeId, Term
from raft.memory_log import MemoryLog, batches_of
from raft.script import FixedRng

ME, A, B, C, D = (NodeId(name) for name in ("me", "a", "b", "c", "d"))
THREE = Members((ME, A, B))
FIVE = Members((ME, A, B, C, D))
CONFIG = RaftConfig(coalesce_bytes=0)


def make_core(
    terms: Sequence[int] = (),
    *,
    term: int = 0,
    vote: NodeId | None = None,
    members: Members = THREE,
    config: RaftConfig = CONFIG,
    log: MemoryLog | None = None,
    commit_index: int = 0,
) -> tuple[RaftCore, MemoryLog]:
    log = log or MemoryLog(batches_of(terms))
    core = RaftCore(
        node_id=ME,
        config=config,
        log=log,
        hard_state=HardState(Term(term), vote),
        members=members,
        rng=FixedRng(0.0),
        now=0.0,
        commit_index=commit_index,
    )
    core._votes_from = float("-inf")  # it has been up for long, whatever its past
    return core, log


def make_leader(
    terms: Sequence[int] = (), *, term: int = 1, members: Members = THREE
) -> tuple[RaftCore, MemoryLog]:
    """Leads ``term``; its own log is durable, and its first requests have left."""
    core, log = make_core(terms, term=term - 1, members=members)
    core.campaign(0.0)
    for voter in members.voters:
        core.receive(voter, VoteResponse(Term(term), True), 0.0) if voter != ME else None
    core.take_ready()
    core.persisted(log.last_index, log.last_term, 0.0)
    return core, log


def vote_request(
    term: int, last_index: int = 0, last_term: int = 0, *, pre: bool = False, force: bool = False
) -> VoteRequest:
    return VoteRequest(Term(term), Index(last_index), Term(last_term), pre, force)


def append_request(
    term: int,
    prev_index: int = 0,
    prev_term: int = 0,
    terms: Sequence[int] = (),
    commit_index: int = 0,
) -> AppendRequest:
    """With batches of ``terms`` after the previous one."""
    batches = batches_of(terms, prev_index + 1, prev_index)
    return AppendRequest(
        Term(term), Index(prev_index), Term(prev_term), Index(commit_index), tuple(batches)
    )


def appended(term: int, match_index: int) -> AppendResponse:
    return AppendResponse(Term(term), True, Index(match_index))


def sent_to(ready: Ready, peer: NodeId, *, rounds: bool = False) -> list[Message]:
    """What goes to ``peer``; without ``rounds``, which few tests are about, they are all 0."""
    messages = [message for to, message in (*ready.messages, *ready.durable_messages) if to == peer]
    return messages if rounds else [without_round(message) for message in messages]


def without_round(message: Message) -> Message:
    if isinstance(message, AppendRequest | AppendResponse):
        return replace(message, round=0)
    return message
