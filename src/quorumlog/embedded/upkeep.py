"""Deletion and compaction of an embedded log."""

from quorumlog.embedded.background import Stop
from quorumlog.embedded.commit import GroupCommit
from quorumlog.embedded.options import Options
from quorumlog.log.cleaning.compaction import Compactor
from quorumlog.log.cleaning.housekeeping import Housekeeper
from quorumlog.log.cleaning.retention import Retention
from quorumlog.log.config import LogConfig
from quorumlog.log.log import Log
from quorumlog.ports import Clock, Disk


def housekeeper_of(
    log: Log,
    commits: GroupCommit,
    disk: Disk,
    directory: str,
    config: LogConfig,
    options: Options,
    clock: Clock,
    stop: Stop,
) -> Housekeeper:
    """What deletes and compacts as ``options`` say; ``stop`` ends a compaction under way."""
    compactor = None
    if options.compaction is not None:
        compactor = Compactor(
            log, disk, directory, config.segment_bytes, options.compaction, clock, stop, config.keys
        )
    return Housekeeper(log, options.retention or Retention(), compactor, clock, commits.flush)


def delete_before(log: Log, commits: GroupCommit, offset: int) -> int:
    """See :meth:`quorumlog.embedded.log.EmbeddedLog.delete_before`."""
    if offset > log.start_offset:
        if log.segments()[-1].next_offset <= offset:
            # The last segment is never removed; this way it is not the last one.
            log.roll()
            commits.flush()
        log.advance_start(offset)
        commits.sync()
    return log.remove_deleted()
