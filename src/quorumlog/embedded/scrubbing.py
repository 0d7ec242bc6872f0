"""The thread that looks for rot in an embedded log."""

from threading import Thread
from typing import Final

from quorumlog.embedded.background import Stop
from quorumlog.log.inspection.damage import Finding
from quorumlog.log.inspection.scrubber import Scrubber, log_finding
from quorumlog.log.log import Log
from quorumlog.ports import Clock, Disk

MAX_FINDINGS: Final = 1000


class ScrubThread:
    """Reads the sealed segments round after round, until the log is closed or fenced.

    ``findings`` are the newest ones, at most ``MAX_FINDINGS``, oldest first; any thread reads them.
    """

    def __init__(self, log: Log, disk: Disk, clock: Clock, stop: Stop, bytes_s: int) -> None:
        self.findings: tuple[Finding, ...] = ()
        scrubber = Scrubber(log, disk, clock, stop, bytes_s=bytes_s, on_finding=self._found)
        self._thread = Thread(target=scrubber.run, name="quorumlog-scrub", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread, a read of a MiB at most; ``stop`` was set."""
        self._thread.join()

    def _found(self, finding: Finding) -> None:
        # A new tuple each time: whoever reads it meanwhile has the one before.
        self.findings = (*self.findings, finding)[-MAX_FINDINGS:]
        log_finding(finding)
