"""Settings of a Raft group."""

from dataclasses import dataclass
from typing import Final

from quorumlog.errors import ConfigError
from quorumlog.types import MAX_BATCH_BYTES, MAX_MESSAGE_BYTES

_LARGEST_APPEND_BYTES: Final = MAX_MESSAGE_BYTES - MAX_BATCH_BYTES
_LARGEST_LEASE_FRACTION: Final = 0.75


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """The same on all members of a group; a difference costs liveness, never safety, but for the
    lease: see ``lease_fraction``."""

    election_timeout_s: float = 0.3
    """Silence of the leader after which a follower stands for election, times [1, 2) by chance.

    Shorter: a dead leader is replaced sooner, and a slow disk or a busy machine looks like one."""
    heartbeat_s: float = 0.05
    """A leader with nothing to send says that it is alive this often."""
    commit_notice_s: float = 0.005
    """A new commit index that no append carried is told to the followers after this time, or
    twice as long where an older one was waiting when it came.

    Longer: fewer messages; followers apply later, by at most ``heartbeat_s``."""
    max_append_bytes: int = 1024 * 1024
    """Batches in one AppendRequest; a single batch that is larger goes alone."""
    max_inflight_bytes: int = 8 * 1024 * 1024
    """Sent to one follower and not answered; then the leader waits. At most one batch over."""
    max_inflight_messages: int = 1024
    """The same in messages."""
    coalesce_bytes: int = 64 * 1024
    """While a follower owes an answer, less than this to send it waits for that answer.

    A single record goes at once; under a load of small ones each round trip carries all that came
    in the meantime, which is what a message costs most for. 0: every batch goes at once."""

    lease_fraction: float = 0.75
    """How much of the election timeout a leader relies on its followers' promise not to vote.

    Within it reads cost nothing; 0: every read asks a majority. At 0.75, clocks may differ in speed
    by 10 %, and ``election_timeout_s`` must not be shorter at a follower than at its leader: set
    this to 0 everywhere before that is changed node by node."""
    max_waiting_reads: int = 1024
    """Reads that wait to be confirmed; more are refused with ``Overloaded``."""

    def __post_init__(self) -> None:
        if not 0 <= self.lease_fraction <= _LARGEST_LEASE_FRACTION:
            raise ConfigError(f"lease_fraction must be between 0 and {_LARGEST_LEASE_FRACTION}")
        if self.max_waiting_reads < 1:
            raise ConfigError("max_waiting_reads must be at least 1")
        if not 0 < 2 * self.heartbeat_s <= self.election_timeout_s:
            raise ConfigError(
                f"heartbeat_s ({self.heartbeat_s}) must be positive and at most half of "
                f"election_timeout_s ({self.election_timeout_s})"
            )
        if not 0 <= self.commit_notice_s <= self.heartbeat_s:
            raise ConfigError(
                f"commit_notice_s ({self.commit_notice_s}) must be between 0 and heartbeat_s "
                f"({self.heartbeat_s})"
            )
        if not 1 <= self.max_append_bytes <= _LARGEST_APPEND_BYTES:
            raise ConfigError(f"max_append_bytes must be between 1 and {_LARGEST_APPEND_BYTES}")
        if self.max_inflight_bytes < self.max_append_bytes:
            raise ConfigError("max_inflight_bytes must be at least max_append_bytes")
        if self.max_inflight_messages < 1:
            raise ConfigError("max_inflight_messages must be at least 1")
        if self.coalesce_bytes < 0:
            raise ConfigError("coalesce_bytes must not be negative")
