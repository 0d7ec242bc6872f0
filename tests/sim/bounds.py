"""Nothing that a replica holds for later grows over its named bound (design note 0001)."""

from quorumlog.log.batch import HEADER_SIZE, MAX_BODY_BYTES
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.replica import Replica
from sim.history import Violation


def check_bounds(
    name: str, replica: Replica, config: ReplicationConfig, largest_batch_bytes: int
) -> None:
    """Raise Violation; ``name`` says whose replica it is, the largest batch is one of its log."""
    leadership = replica.core.leadership
    for peer in replica.core.members.voters if leadership is not None else ():
        progress = leadership.progress_of(peer) if leadership is not None else None
        if progress is None:
            continue
        raft = config.raft
        _within(
            name,
            f"bytes to {peer}",
            progress.inflight_bytes,
            raft.max_inflight_bytes,
            largest_batch_bytes,
        )
        _within(name, f"messages to {peer}", progress.inflight_messages, raft.max_inflight_messages)
    pending_bytes = replica._proposals.pending_bytes
    _within(
        name, "pending bytes", pending_bytes, config.max_pending_bytes, MAX_BODY_BYTES + HEADER_SIZE
    )
    # A flush that met a full disk gives back what it had taken.
    waiting = len(replica._driver.persister._messages)
    _within(name, "messages that wait for the disk", waiting, 2 * config.max_waiting_messages)


def _within(name: str, what: str, value: int, bound: int, slack: int = 0) -> None:
    if value > bound + slack:
        raise Violation(f"{name}: {value} {what}, the bound is {bound}")
