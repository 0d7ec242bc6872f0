"""What is wrong with a log on disk, as values: what verify, repair and the scrubber talk about."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from quorumlog.types import Index, Offset, Term


class Severity(StrEnum):
    DAMAGE = "damage"
    """Something that was written cannot be read any more, or cannot be trusted."""
    REPAIRABLE = "repairable"
    """Nothing is lost: the next open, or a repair, puts it right."""
    NOTE = "note"
    """Worth knowing; nothing has to be done."""


class Flaw(StrEnum):
    """What kind of thing was found."""

    UNREADABLE = "unreadable"
    """The disk refuses to read."""
    HEADER = "segment-header"
    MARK = "mark"
    """No valid mark, or one that the batches contradict."""
    MARK_SLOT = "mark-slot"
    """One of the two slots of a mark; the other one counts."""
    BATCHES = "batches"
    """A run of batches that is damaged or not there."""
    TRAILING = "trailing-bytes"
    """Bytes behind the last batch of a sealed segment."""
    TORN_TAIL = "torn-tail"
    """An end that was never synced."""
    MISSING_SEGMENT = "missing-segment"
    MISSING_START = "missing-start"
    """The log begins behind where its mark says."""
    MISPLACED = "misplaced-segment"
    """A segment under the name of another one."""
    FOREIGN = "foreign-segment"
    """A segment that does not fit to its neighbours."""
    INDEX = "index"
    """A sparse index file: made again when it is needed."""
    HARD_STATE = "hard-state"
    STATE_SNAPSHOT = "state-snapshot"
    UNFINISHED = "unfinished"
    """What a crash left of work that the next open finishes or takes back."""
    UNKNOWN_FILE = "unknown-file"
    PADDING = "padding"
    """Bytes that nobody reads are not zero."""
    NOT_CHECKED = "not-checked"


class Span(NamedTuple):
    """A half-open range of indexes or of offsets. ``start`` None: not known how far it reaches."""

    start: int | None
    end: int | None

    def __str__(self) -> str:
        start = "?" if self.start is None else self.start
        end = "?" if self.end is None else self.end
        return f"[{start}, {end})"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        file: path of the file, or of the directory, it was found in.
        position: byte in that file.
        expected: what had to be there.
        found: what is there.
        indexes: of the batches concerned; None: none.
        offsets: of the records concerned; None: none.
    """

    severity: Severity
    flaw: Flaw
    file: str
    position: int
    expected: str
    found: str
    indexes: Span | None = None
    offsets: Span | None = None

    def __str__(self) -> str:
        reach = "" if self.offsets is None else f"; offsets {self.offsets}"
        return (
            f"{self.file} at byte {self.position}: expected {self.expected}, "
            f"found {self.found}{reach}"
        )


@dataclass(frozen=True, slots=True)
class Point:
    """A place between two batches: what the next one has to continue.

    ``offset`` is that of the next record; ``term`` and ``timestamp_ms`` those of the batch before.
    """

    index: Index
    offset: Offset
    term: Term
    timestamp_ms: int

    def __str__(self) -> str:
        return (
            f"index {self.index - 1}, offset {self.offset}, term {self.term}, "
            f"time {self.timestamp_ms}"
        )


ORIGIN: Final = Point(Index(1), Offset(0), Term(0), 0)
"""What the very first batch of a log continues."""
