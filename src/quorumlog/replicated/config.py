"""Settings of a replicated state machine."""

from dataclasses import dataclass

from quorumlog.errors import ConfigError
from quorumlog.log.config import LogConfig, check_number, check_whole
from quorumlog.replication.config import ReplicationConfig
from quorumlog.replication.core.config import RaftConfig

_KIB = 1024
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReplicatedConfig:
    """The same on all nodes of a group."""

    election_timeout_s: float = 0.3
    """A follower waits [1, 2) times this for its leader (0.05 to 60). Shorter: a dead leader is
    replaced sooner, and an ``apply`` that takes long looks like one."""
    heartbeat_s: float = 0.05
    """Between a leader's signs of life; at most half of ``election_timeout_s``."""
    snapshot_bytes: int = 16 * _MIB
    """The state is saved whenever so much log was applied, and the log's files have this size
    (64 KiB to 1 GiB). A node keeps three to five times this; less writes the state more often."""
    trim_interval_s: float = 10.0
    """How often old files of the log are looked for (0.05 to 3,600)."""
    max_lag_s: float = 900.0
    """A member not heard of for so long is not waited for before files are removed; it is given the
    state instead when it comes back (0 to 604,800)."""

    def __post_init__(self) -> None:
        check_number("election_timeout_s", self.election_timeout_s, 0.05, 60)
        check_whole("snapshot_bytes", self.snapshot_bytes, 64 * _KIB, 1024 * _MIB)
        check_number("trim_interval_s", self.trim_interval_s, 0.05, 3600)
        check_number("max_lag_s", self.max_lag_s, 0, 604_800)
        if not 0 < 2 * self.heartbeat_s <= self.election_timeout_s:
            raise ConfigError(
                f"heartbeat_s ({self.heartbeat_s}) is at most half of election_timeout_s "
                f"({self.election_timeout_s})"
            )

    def replication(self) -> ReplicationConfig:
        notice_s = min(RaftConfig().commit_notice_s, self.heartbeat_s)
        raft = RaftConfig(
            election_timeout_s=self.election_timeout_s,
            heartbeat_s=self.heartbeat_s,
            commit_notice_s=notice_s,
        )
        sleep_after_s = max(ReplicationConfig().sleep_after_s, 2 * self.heartbeat_s)
        return ReplicationConfig(
            raft=raft, state_interval_bytes=self.snapshot_bytes, sleep_after_s=sleep_after_s
        )

    def log(self) -> LogConfig:
        return LogConfig(segment_bytes=self.snapshot_bytes)
