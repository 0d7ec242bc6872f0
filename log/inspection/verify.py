"""Reading everything that is on disk of a log, or of all logs of a node, and saying what is wrong.

Changes nothing, and is safe on any damage. Memory is bounded: a MiB of a segment at a time, its
sparse index, and at most ``MAX_FINDINGS`` findings of a log.
"""

from dataclasses import dataclass, field
from typing import Final

from quorumlog.errors import UnusableDirectory
from quorumlog.log.inspection.batch_check import Counts
from quorumlog.log.inspection.damage import ORIGIN, Finding, Flaw, Point, Severity, Span
from quorumlog.log.inspection.examine import Examined, Progress, Task, begin_of, examine
from quorumlog.log.inspection.find_logs import find_logs, is_locked
from quorumlog.log.inspection.inventory import (
    HARD_STATE_NAME,
    Inventory,
    SegmentFile,
    take_inventory,
)
from quorumlog.log.inspection.owner_files import check_hard_state, check_snapshot
from quorumlog.log.key_ring import KeyRing
from quorumlog.ports import Disk
from quorumlog.types import Index, Offset

MAX_FINDINGS: Final = 10_000
"""Findings of one log that are kept; the rest is counted."""

_OPEN_ATTEMPTS: Final = 5
"""How often what looks wrong in a log that is written meanwhile is looked at again."""


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


def verify(
    disk: Disk,
    directory: str,
    *,
    ring: KeyRing | None = None,
    with_records: bool = True,
    progress: Progress = lambda size_bytes: None,
) -> list[LogReport]:
    """Verify the log in ``directory``, or every log below it.

    Args:
        ring: for encrypted segments; without it their bodies are checked as they are stored.
        with_records: decode what is in the batches, too; False: checksums and order only.
        progress: called with the bytes read since the call before.

    Raises:
        UnusableDirectory: it cannot be read, or there is no log in it.
    """
    return [
        verify_log(disk, path, ring=ring, with_records=with_records, progress=progress).report
        for path in find_logs(disk, directory)
    ]


def verify_log(
    disk: Disk,
    directory: str,
    *,
    ring: KeyRing | None = None,
    with_records: bool = True,
    progress: Progress = lambda size_bytes: None,
    is_mine: bool = False,
) -> Verified:
    """Verify the one log in ``directory``; arguments and errors as :func:`verify`.

    Args:
        is_mine: the caller has locked the log, and does not write it now.
    """
    while True:
        is_open = not is_mine and is_locked(disk, directory)
        walk = _LogWalk(disk, directory, is_open, ring, with_records, progress)
        verified = walk.run()
        if is_open or is_mine or verified.report.is_clean or not is_locked(disk, directory):
            return verified
        # Somebody opened it meanwhile, so what looks wrong may be what that one is writing.


class _LogWalk:
    def __init__(
        self,
        disk: Disk,
        directory: str,
        is_open: bool,
        ring: KeyRing | None,
        with_records: bool,
        progress: Progress,
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._is_open = is_open
        self._ring = ring
        self._with_records = with_records
        self._progress = progress
        self._report = LogReport(directory, is_open)
        self._before: Point | None = None
        self._returned_to = Index(0)
        """Where a missing segment was looked for in the ones before it."""

    def run(self) -> Verified:
        inventory = self._list()
        report = self._report
        report.is_replica = inventory.is_replica
        verified = Verified(report, inventory)
        report.add(inventory.findings)
        attempts = 0
        cursor = 0
        while True:
            pending = self._pending(inventory, cursor)
            if not pending:
                break
            examined = self._examine(pending)
            if self._is_open:
                inventory = self._list()
                is_moved = self._has_moved(inventory, pending, examined)
                if attempts < _OPEN_ATTEMPTS and (is_moved or _is_suspect(examined)):
                    attempts += 1
                    continue
                attempts = 0
            if examined is None:
                cursor = pending[0].first_index + 1
                continue
            verified.segments.append(examined)
            self._pass(pending, examined)
            cursor = pending[0].first_index + 1
            if self._is_open:
                cursor = max(cursor, examined.after.index)
        self._sum_up(verified)
        return verified

    def _pending(self, inventory: Inventory, cursor: int) -> list[SegmentFile]:
        """The segments still to be looked at.

        In a log that is written, compaction may have joined the segment that was next to ones
        before it, or deletion have removed it: then what covers its place comes next.
        """
        segments = inventory.segments
        pending = [each for each in segments if each.first_index >= cursor]
        before = self._before
        if not self._is_open or before is None or not pending:
            return pending
        if pending[0].first_index <= before.index or self._returned_to == before.index:
            return pending
        self._returned_to = before.index
        self._before = None
        covering = [each for each in segments if each.first_index <= before.index]
        return [*covering[-1:], *pending]

    def _list(self) -> Inventory:
        try:
            return take_inventory(self._disk, self._directory, is_open=self._is_open)
        except OSError as error:
            raise UnusableDirectory(
                f"{self._directory} cannot be read: {error.strerror}"
            ) from error

    def _examine(self, pending: list[SegmentFile]) -> Examined | None:
        source, *behind = pending
        task = Task(
            source,
            self._before,
            begin_of(self._disk, behind[0]) if behind else None,
            not behind,
            self._is_open,
            self._with_records,
            self._ring,
        )
        try:
            return examine(self._disk, task, self._progress)
        except OSError as error:
            if not self._is_open:
                finding = Finding(
                    Severity.DAMAGE,
                    Flaw.UNREADABLE,
                    source.path,
                    0,
                    "a segment",
                    f"an error: {error.strerror}",
                )
                self._report.add([finding])
            return None

    def _has_moved(
        self, inventory: Inventory, pending: list[SegmentFile], examined: Examined | None
    ) -> bool:
        """Whether the files were changed under the examination of a log that is written."""
        firsts = [each.first_index for each in inventory.segments]
        expected = [each.first_index for each in pending[:2]]
        now = [first for first in firsts if first >= pending[0].first_index][:2]
        return examined is None or now != expected

    def _pass(self, pending: list[SegmentFile], examined: Examined) -> None:
        """Take note of an examined segment and of how it stands to the ones beside it."""
        report, source = self._report, examined.source
        before = self._before
        is_first = report.segments == 0
        if before is not None and before.index < source.first_index:
            finding = Finding(
                Severity.DAMAGE,
                Flaw.MISSING_SEGMENT,
                source.home,
                0,
                f"a segment before it that begins with batch {before.index}",
                "none",
                Span(before.index, source.first_index),
                Span(before.offset, examined.begin.offset if examined.is_begin_known else None),
            )
            report.add([finding])
        report.add(examined.findings)
        report.segments += 1
        report.size_bytes += examined.size_bytes
        report.counts.add(examined.counts)
        if is_first:
            report.start_index, report.start_offset = source.first_index, examined.begin.offset
        report.next_index, report.end_offset = examined.after.index, examined.after.offset
        report.was_closed = examined.was_closed
        holes = examined.survey.holes
        is_end_known = not holes or holes[-1].after is not None or examined.end > holes[-1].position
        is_foreign = any(each.flaw == Flaw.FOREIGN for each in examined.findings)
        self._before = examined.after if is_end_known and not is_foreign else None

    def _sum_up(self, verified: Verified) -> None:
        report = self._report
        if verified.segments:
            self._check_start(verified)
        counts = report.counts
        if counts.unchecked:
            report.add(
                [
                    Finding(
                        Severity.NOTE,
                        Flaw.NOT_CHECKED,
                        self._directory,
                        0,
                        "bodies that can be decoded",
                        f"{counts.unchecked} batches of which only the stored checksums were "
                        f"checked: {'; '.join(sorted(counts.reasons))}",
                    )
                ]
            )
        if report.is_replica:
            report.add(check_hard_state(self._disk, f"{self._directory}/{HARD_STATE_NAME}"))
        for path, index in verified.inventory.snapshots:
            if not self._is_open:
                report.add(check_snapshot(self._disk, self._directory, path, index))

    def _check_start(self, verified: Verified) -> None:
        """Compare where the log starts with where its mark says that it does."""
        first, last = verified.segments[0], verified.segments[-1]
        if last.mark is None or not first.is_begin_known:
            return
        report = self._report
        said, found = last.mark.start_offset, first.begin.offset
        report.start_offset = Offset(max(said, found))
        if said >= found or self._is_open:
            return
        # Deletion moves the start before it removes files, but what it says is synced later.
        severity = Severity.DAMAGE if last.was_closed else Severity.REPAIRABLE
        report.add(
            [
                Finding(
                    severity,
                    Flaw.MISSING_START,
                    first.source.home,
                    0,
                    f"a segment with offset {said}, where the log starts",
                    f"offset {found} as the first one",
                    None,
                    Span(said, found),
                )
            ]
        )


def _is_suspect(examined: Examined | None) -> bool:
    return examined is not None and any(
        each.severity != Severity.NOTE for each in examined.findings
    )
