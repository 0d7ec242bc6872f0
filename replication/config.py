"""Settings of the replicas of one node."""

from dataclasses import dataclass, field

from quorumlog.errors import ConfigError
from quorumlog.replication.core.config import RaftConfig


@dataclass(frozen=True, slots=True)
class ReplicationConfig:
    raft: RaftConfig = field(default_factory=RaftConfig)
    max_pending_bytes: int = 32 * 1024 * 1024
    """Appended and not yet committed, per replica: a leader over it answers ``Overloaded``."""
    apply_chunk_bytes: int = 4 * 1024 * 1024
    """Applied in one turn of the event loop, a batch for 8 KiB more than it has; more delays
    heartbeats of other groups."""
    max_waiting_messages: int = 4096
    """Answers and votes that wait for a flush, per replica; then the oldest are dropped.

    Only a disk that is full or hangs lets so many wait. Fewer than a leader has in flight
    (``RaftConfig.max_inflight_messages``) would drop acknowledgements that later ones repeat."""
    state_interval_bytes: int = 64 * 1024 * 1024
    """Applied between one saved state and the next, per replica: what a start after a crash has to
    apply again at most, about. A batch counts for 8 KiB more than it has. Less costs a write of
    the whole state more often."""
    catch_up_bytes_s: int = 64 * 1024 * 1024
    """Sent in a second to replicas that have to catch up, all groups of this node together. At
    first less, an eighth at least, while commits take longer than before (``catch_up/pacing.py``).

    Less leaves more of disk and network to those that keep up; more makes a replica whole sooner.
    What a follower lacks that is still in memory is not counted."""
    loop_flush_s: float = 0.001
    """A flush of one small batch is done in the event loop while such flushes take less on average.

    That spares two hops between threads. More lets a slower disk hold up all groups of the node; 0:
    every flush goes to the worker."""
    slow_disk_s: float = 2.0
    """A leader whose flush takes longer hands over to a voter whose disk did it meanwhile.

    Shorter: a hiccup of the disk moves the leadership; longer: writes that need this disk, and
    reads of what it has, wait for it."""
    disk_full_retry_s: float = 1.0
    """How long a replica whose disk is full waits before it tries to write again."""

    sleep_after_s: float = 1.0
    """A leader without a proposal for so long, whose followers have everything, sleeps with them.

    Shorter: groups with little to do fall asleep, and wake with a round of messages, more often."""

    def __post_init__(self) -> None:
        if self.max_pending_bytes < 4 * 1024 * 1024:
            raise ConfigError("max_pending_bytes must hold one batch: at least 4 MiB")
        if self.max_waiting_messages < 1:
            raise ConfigError("max_waiting_messages must be positive")
        if self.apply_chunk_bytes < 1:
            raise ConfigError("apply_chunk_bytes must be positive")
        if self.state_interval_bytes < 1:
            raise ConfigError("state_interval_bytes must be positive")
        if self.catch_up_bytes_s < 64 * 1024:
            raise ConfigError("catch_up_bytes_s must be at least 64 KiB")
        if self.loop_flush_s < 0:
            raise ConfigError("loop_flush_s must not be negative")
        if self.slow_disk_s <= 0:
            raise ConfigError("slow_disk_s must be positive")
        if self.sleep_after_s <= 0:
            raise ConfigError("sleep_after_s must be positive")
        if self.disk_full_retry_s <= 0:
            raise ConfigError("disk_full_retry_s must be positive")
