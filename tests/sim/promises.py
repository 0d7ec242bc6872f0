"""What a replica owes to what it promised before: its vote, its acknowledgements, its answers."""

from collections.abc import Sequence

from quorumlog.log.batch import Batch
from quorumlog.log.log import Log
from quorumlog.replication.core.role import Role
from quorumlog.replication.replica import Replica
from quorumlog.types import NodeId
from sim.history import GroupHistory, Violation


def check_vote_kept(node: NodeId, history: GroupHistory, replica: Replica) -> None:
    """A replica that was opened again knows whom it voted for in the term that it is in."""
    core = replica.core
    vote = history.votes.get((node, core.term))
    if vote is not None and core.vote != vote:
        raise Violation(
            f"{node} group {history.group} comes back in term {core.term} with a vote for "
            f"{core.vote} and has voted for {vote}"
        )


def check_deposed(node: NodeId, replica: Replica) -> None:
    """Who leads no more tells those whose batches it appended that their outcome is unknown."""
    core = replica.core
    is_told = core.role is not Role.LEADER and not core.has_ready
    if is_told and replica._proposals.pending_bytes:
        raise Violation(
            f"{node} group {replica.group} is a {core.role.value} and keeps "
            f"{replica._proposals.pending_bytes} bytes waiting for an outcome"
        )


def check_asleep(node: NodeId, replica: Replica) -> None:
    """Who sleeps lacks nothing that it would only hear of awake: all of its log is committed."""
    core, log = replica.core, replica.log
    if core.asleep and not core.commit_index == log.last_index == log.durable_index:
        raise Violation(
            f"{node} group {replica.group} sleeps with batch {log.last_index}, durable through "
            f"{log.durable_index} and committed through {core.commit_index}"
        )


def check_whole(
    node: NodeId, history: GroupHistory, forgotten: Sequence[Batch], log: Log, what: str
) -> None:
    """All of ``forgotten``, which the replica lost, that is committed is durable in ``log`` again.

    ``what`` it does that needs this.
    """
    index = min(len(forgotten), len(history.committed))
    while index and bytes(forgotten[index - 1].head) != bytes(history.committed[index - 1].head):
        index -= 1
    # Log Matching: with this batch, all before it.
    is_there = index <= log.durable_index and (
        index < log.start_index or log.term_at(index) == history.committed[index - 1].header.term
    )
    if not is_there:
        raise Violation(
            f"{node} group {history.group} {what} and is durable through {log.durable_index}: "
            f"before its log was lost it had acknowledged {index}, which is committed"
        )
