"""What the members of a group say to each other (Raft figure 2; dissertation §3.10, §9.6).

A message does not name its sender: the transport knows it. ``quorumlog.replication.wire`` turns
messages into bytes.
"""

from dataclasses import dataclass
from typing import Final

from quorumlog.log.batch import Batch
from quorumlog.types import Index, Term

_NO_INDEX: Final = Index(0)
_NO_TERM: Final = Term(0)


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """RequestVote. With ``pre`` a question only: ``term`` is the term the sender would start."""

    term: Term
    last_index: Index
    last_term: Term
    pre: bool = False
    force: bool = False
    """The leader asked for this election itself: that it is alive is no reason to refuse."""


@dataclass(frozen=True, slots=True)
class VoteResponse:
    """``term`` is the voter's, or the one asked for when a pre-vote is granted."""

    term: Term
    granted: bool
    pre: bool = False


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """AppendEntries. Without batches it is a heartbeat, or a probe for where the logs agree.

    ``batches`` continue ``prev_index`` without a gap; they are shared, never changed. Whoever takes
    it votes for nobody for an election timeout (:mod:`~quorumlog.replication.core.reads`).
    """

    term: Term
    prev_index: Index
    prev_term: Term
    commit_index: Index
    batches: tuple[Batch, ...] = ()
    round: int = 0
    """The leader's newest one, from 1."""


@dataclass(frozen=True, slots=True)
class AppendResponse:
    """Says what is durable at the sender; what is not yet has to wait for a flush.

    On success the logs are the same and durable through ``match_index``, which the request covered
    or which is a batch of this very term. On failure it is 0, ``rejected_index`` is the
    ``prev_index`` that was refused, and (``conflict_index``, ``conflict_term``) is the newest batch
    of the follower that may stand in the leader's log
    (:func:`~quorumlog.replication.core.backtracking.newest_not_after`).
    """

    term: Term
    success: bool
    match_index: Index = _NO_INDEX
    rejected_index: Index = _NO_INDEX
    conflict_index: Index = _NO_INDEX
    conflict_term: Term = _NO_TERM
    round: int = 0
    """That of the request; 0 in an answer to a leader of an older term."""


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader's order to start an election at once: it hands leadership over."""

    term: Term


Message = VoteRequest | VoteResponse | AppendRequest | AppendResponse | TimeoutNow
