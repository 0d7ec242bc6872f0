"""Looking at the segments of one log, one after the other. Changes nothing."""

from bisect import bisect_left
from itertools import pairwise
from typing import Final

from quorumlog.errors import UnusableDirectory
from quorumlog.log.inspection.damage import Finding, Flaw, Point, Severity, Span
from quorumlog.log.inspection.examine import begin_of, examine
from quorumlog.log.inspection.examined import Examined, Progress, Task
from quorumlog.log.inspection.inventory import (
    HARD_STATE_NAME,
    Inventory,
    SegmentFile,
    take_inventory,
)
from quorumlog.log.inspection.log_report import LogReport, Verified
from quorumlog.log.inspection.owner_files import check_hard_state, check_snapshot
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.paths import first_index_of
from quorumlog.ports import Disk
from quorumlog.types import Index, Offset

OPEN_ATTEMPTS: Final = 5
"""How often what looks wrong in a log that is written meanwhile is looked at again."""


class LogWalk:
    """Reads all of a log; one use each."""

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
        verified = Verified(self._report, self._list())
        report = self._report
        report.is_replica = verified.inventory.is_replica
        report.add(verified.inventory.findings)
        attempts = 0
        cursor = 0
        while True:
            pending = self._pending(verified, cursor)
            if not pending:
                break
            examined = self._examine(verified, pending)
            if self._is_open and (examined is None or _is_suspect(examined)):
                # The files may have been changed under the examination: what is there now?
                verified.inventory = self._list()
                if attempts < OPEN_ATTEMPTS:
                    attempts += 1
                    continue
            attempts = 0
            cursor = pending[0].first_index + 1
            if examined is None or self._is_inside(verified, examined):
                continue
            if examined.source.hidden and _is_suspect(examined):
                self._weigh(verified, examined.source, pending[1:])
            verified.segments.append(examined)
            self._pass(examined)
            if self._is_open:
                cursor = max(cursor, examined.after.index)
        self._sum_up(verified)
        return verified

    def _pending(self, verified: Verified, cursor: int) -> list[SegmentFile]:
        """The segments still to be looked at.

        In a log that is written, compaction may have joined the segment that was next to ones
        before it, or deletion have removed it: then what covers its place comes next.
        """
        pending = self._from(verified, cursor)
        before = self._before
        if not self._is_open or before is None or not pending:
            return pending
        if pending[0].first_index <= before.index or self._returned_to == before.index:
            return pending
        self._returned_to = before.index
        self._before = None
        verified.inventory = self._list()
        segments = verified.inventory.segments
        covering = [each for each in segments if each.first_index <= before.index]
        return [*covering[-1:], *self._from(verified, cursor)]

    def _from(self, verified: Verified, cursor: int) -> list[SegmentFile]:
        segments = verified.inventory.segments
        return segments[bisect_left(segments, cursor, key=_first_index) :][:3]

    def _is_inside(self, verified: Verified, examined: Examined) -> bool:
        """Whether it begins inside of the segment before it; takes note of that."""
        source, before = examined.source, self._before
        if self._is_open or before is None or before.index <= source.first_index:
            return False
        verified.overlapping.append(examined)
        found = "one that begins inside of the segment before it"
        expected = f"a segment that begins with batch {before.index} or behind it"
        self._report.add([Finding(Severity.DAMAGE, Flaw.FOREIGN, source.path, 0, expected, found)])
        return True

    def _weigh(self, verified: Verified, compacted: SegmentFile, behind: list[SegmentFile]) -> None:
        """Look whether what a damaged compacted file was made of is still there, and whole."""
        firsts = [(first_index_of(path.rpartition("/")[2]), path) for path in compacted.hidden]
        sources = [SegmentFile(first, path, path) for first, path in firsts if first is not None]
        before = self._before
        for source, following in pairwise([*sources, behind[0] if behind else None]):
            if source is None:
                return
            bound = None if following is None else begin_of(self._disk, following)
            task = Task(source, before, bound, following is None, ring=self._ring)
            try:
                examined = examine(self._disk, task, lambda size_bytes: None)
            except OSError:
                return
            if _is_suspect(examined) or source.first_index != examined.begin.index:
                return
            if before is not None and before.index != source.first_index:
                return
            before = examined.after
        if before is not None and before.index == compacted.next_index:
            verified.superfluous.add(compacted.path)

    def _list(self) -> Inventory:
        try:
            return take_inventory(self._disk, self._directory, is_open=self._is_open)
        except OSError as error:
            raise UnusableDirectory(
                f"{self._directory} cannot be read: {error.strerror}"
            ) from error

    def _examine(self, verified: Verified, pending: list[SegmentFile]) -> Examined | None:
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
                verified.unopened.append(f"{source.path} ({error.strerror or error})")
            return None

    def _pass(self, examined: Examined) -> None:
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
            attempts = OPEN_ATTEMPTS if self._is_open else 1
            path = f"{self._directory}/{HARD_STATE_NAME}"
            report.add(check_hard_state(self._disk, path, attempts))
        for path, index in verified.inventory.snapshots:
            findings = check_snapshot(self._disk, self._directory, path, index)
            # Whoever has the log open removes old ones.
            if not self._is_open or self._disk.exists(path):
                report.add(findings)

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


def _first_index(source: SegmentFile) -> int:
    return source.first_index
