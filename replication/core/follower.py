"""How a follower takes what its leader sends into its log (Raft §5.3; figure 2, AppendEntries)."""

from dataclasses import dataclass

from quorumlog.errors import InvariantViolation
from quorumlog.log.batch import Batch, Kind
from quorumlog.replication.core.backtracking import newest_not_after
from quorumlog.replication.core.log_port import RaftLog
from quorumlog.replication.core.members import Configurations, Members
from quorumlog.replication.core.messages import AppendRequest, AppendResponse
from quorumlog.types import Index


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a request."""

    response: AppendResponse
    truncated_from: Index | None = None
    """The log was cut here before the batches were appended."""


def accept(
    log: RaftLog, configurations: Configurations, commit_index: Index, request: AppendRequest
) -> Accepted:
    """Check where ``request`` continues ``log`` and append what is new of it.

    Only a batch that conflicts cuts the log, never the mere end of a request: it may be an old one
    that was overtaken.

    Raises:
        InvariantViolation: the leader has another batch in the place of a committed one.
        ProtocolError: a CONFIG batch without a configuration; nothing was changed.
    """
    prev_index = request.prev_index
    # What stood before the log's start was committed, so there the logs agree.
    if prev_index > log.last_index or (
        prev_index >= log.start_index and log.term_at(prev_index) != request.prev_term
    ):
        return Accepted(_refusal(log, commit_index, request))
    truncated_from = _append_new(log, configurations, commit_index, request.batches)
    # Nothing is known of what stands here behind the request's last batch.
    match_index = Index(prev_index + len(request.batches))
    response = AppendResponse(request.term, True, match_index, round=request.round)
    return Accepted(response, truncated_from)


def _refusal(log: RaftLog, commit_index: Index, request: AppendRequest) -> AppendResponse:
    prev_index = request.prev_index
    if prev_index <= commit_index:
        raise _contradiction(prev_index, commit_index, request.prev_term)
    hint = newest_not_after(log, prev_index, request.prev_term)
    return AppendResponse(
        request.term,
        False,
        rejected_index=prev_index,
        conflict_index=hint,
        conflict_term=log.term_at(hint),
        round=request.round,
    )


def _append_new(
    log: RaftLog,
    configurations: Configurations,
    commit_index: Index,
    batches: tuple[Batch, ...],
) -> Index | None:
    """Append what ``log`` does not have. Returns where it was cut for that, if it was."""
    new = batches
    truncate_from: Index | None = None
    for number, batch in enumerate(batches):
        index = batch.header.index
        if index > log.last_index:
            new = batches[number:]
            break
        if index >= log.start_index and log.term_at(index) != batch.header.term:
            if index <= commit_index:
                raise _contradiction(index, commit_index, batch.header.term)
            new = batches[number:]
            truncate_from = index
            break
    else:
        return None
    changes = [
        (batch.header.index, Members.decode(batch.body))
        for batch in new
        if batch.header.kind is Kind.CONFIG
    ]
    if truncate_from is not None:
        log.truncate(truncate_from)
        configurations.truncate(truncate_from)
    log.append(new)
    for index, members in changes:
        configurations.append(index, members)
    return truncate_from


def _contradiction(index: Index, commit_index: Index, term: int) -> InvariantViolation:
    return InvariantViolation(
        f"batch {index} is committed here (through {commit_index}) and the leader has another, "
        f"of term {term}, in its place"
    )
