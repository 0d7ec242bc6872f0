"""What the owner, the readers and the flush of one log share."""

from threading import Lock

from quorumlog.errors import Closed, LogFenced
from quorumlog.log.config import LogConfig
from quorumlog.log.layout import Layout
from quorumlog.ports import Clock
from quorumlog.types import Index, Offset


class LogState:
    """The logical state under its lock, and whether the log can be used at all.

    ``lock`` is held for moments only, never during input or output.
    """

    def __init__(
        self,
        directory: str,
        config: LogConfig,
        clock: Clock,
        layout: Layout,
        commit_floor: Index,
        start_offset: Offset,
    ) -> None:
        self.directory = directory
        self.config = config
        self.clock = clock
        self.layout = layout
        self.commit_floor = commit_floor
        self.start_offset = start_offset
        self.lock = Lock()
        self.is_closed = False
        self.fenced_because: str | None = None

    def check_usable(self) -> None:
        """Raise LogFenced or Closed where the log is that."""
        if self.fenced_because is not None:
            raise self.fence_error()
        if self.is_closed:
            raise Closed(f"{self.directory}: the log is closed")

    def fence(self, why: str) -> LogFenced:
        """Accept nothing from now on; returns the error to raise."""
        with self.lock:
            self.fenced_because = why
        return self.fence_error()

    def fence_error(self) -> LogFenced:
        return LogFenced(
            f"{self.directory}: {self.fenced_because}; nothing more is accepted: "
            "check the disk, then open the log again"
        )
