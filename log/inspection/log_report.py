"""What a log is, and what is wrong with it."""

from dataclasses import dataclass, field
from typing import Final

from quorumlog.log.inspection.batch_check import Counts
from quorumlog.log.inspection.damage import ORIGIN, Finding, Severity
from quorumlog.log.inspection.examined import Examined
from quorumlog.log.inspection.inventory import Inventory
from quorumlog.types import Index, Offset

MAX_FINDINGS: Final = 10_000
"""Findings of one log that are kept; the rest is counted."""


@dataclass(slots=True)
class LogReport:
    """What a log is, and what is wrong with it.

    Attributes:
        is_open: a process had it open: what was synced was read, and no more.
        is_replica: a hard state stands beside it: it is one of several copies.
        counts: of what could be read.
        dropped: findings over ``MAX_FINDINGS``.
    """

    directory: str
    is_open: bool = False
    is_replica: bool = False
    was_closed: bool = False
    segments: int = 0
    size_bytes: int = 0
    start_offset: Offset = ORIGIN.offset
    end_offset: Offset = ORIGIN.offset
    start_index: Index = ORIGIN.index
    next_index: Index = ORIGIN.index
    counts: Counts = field(default_factory=Counts)
    findings: list[Finding] = field(default_factory=list)
    dropped: int = 0

    @property
    def is_clean(self) -> bool:
        """There is nothing to be repaired."""
        return not self.dropped and all(each.severity == Severity.NOTE for each in self.findings)

    def add(self, findings: list[Finding]) -> None:
        room = MAX_FINDINGS - len(self.findings)
        self.findings += findings[:room]
        self.dropped += max(len(findings) - room, 0)


@dataclass(slots=True)
class Verified:
    """A report, and what a repair needs to know beside it."""

    report: LogReport
    inventory: Inventory
    segments: list[Examined] = field(default_factory=list)
    overlapping: list[Examined] = field(default_factory=list)
    """What begins inside of a segment before it: not among the segments."""
    unopened: list[str] = field(default_factory=list)
    """Files of segments that cannot be opened or are no files, each with the reason."""
    superfluous: set[str] = field(default_factory=set)
    """Compacted files that are damaged while the segments they were made of are whole."""
