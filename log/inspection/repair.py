"""Carrying out a repair. A crash at any point leaves a log that the next repair finishes.

Each step keeps what it takes away first, durably. Segments are rewritten as a compaction does it
(:mod:`quorumlog.log.leftovers`): the new file is complete and synced before it counts, and from
then on it is put in its place even by the next open.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import DiskFull, InvariantViolation, LogLocked, StorageError
from quorumlog.log.batch import Batch, BatchHeader, Kind
from quorumlog.log.compacted_file import CompactedFile
from quorumlog.log.config import LogConfig
from quorumlog.log.disk_errors import is_full
from quorumlog.log.hard_state import HardStateFile
from quorumlog.log.index_files import build_index, seal_of, write_index
from quorumlog.log.inspection.damage import Point
from quorumlog.log.inspection.dump import batches_of
from quorumlog.log.inspection.find_logs import is_locked, locks_of
from quorumlog.log.inspection.inventory import PARKED_SUFFIX
from quorumlog.log.inspection.kept import Kept
from quorumlog.log.inspection.log_report import LogReport
from quorumlog.log.inspection.repair_actions import (
    Action,
    CutTail,
    Gap,
    KeepAside,
    Place,
    Plan,
    RebuildIndex,
    RenewHardState,
    Rewrite,
    Settle,
    WriteHeader,
    WriteMark,
)
from quorumlog.log.inspection.repair_plan import plan_repair
from quorumlog.log.inspection.survey import SafeReader
from quorumlog.log.inspection.verify import verify_log
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.leftovers import settle_leftovers, take_place
from quorumlog.log.mark import MARKS_END, MarkPages
from quorumlog.log.pacer import Pacer
from quorumlog.log.paths import compacted_name, first_index_of, index_path_of, segment_name
from quorumlog.log.segment_header import HEADER_BYTES, decode_segment_header
from quorumlog.ports import Clock, Disk

MAX_ROUNDS: Final = 6
"""How often a repair looks again at what it has done: names first, then content, then indexes."""

_HEADER_PAGE_BYTES: Final = 4096
_NO_LIMIT_BYTES_S: Final = 2**60


@dataclass(slots=True)
class RepairReport:
    """What a repair has done.

    Attributes:
        actions: in the order they were done.
        refusals: what could not be done, and why.
        is_partial: of a plan: there is more to do, which is known once this was done.
        kept: the directory with what was taken away; empty when nothing was.
        after: what verify says now.
        error: what kept the log from being looked at, or repaired to the end; empty: nothing.
    """

    directory: str
    actions: list[Action] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    is_partial: bool = False
    kept: str = ""
    after: LogReport | None = None
    error: str = ""


def plan(disk: Disk, directory: str, clock: Clock, ring: KeyRing | None = None) -> Plan:
    """What :func:`repair` would do with the log in ``directory`` first. Changes nothing.

    Raises:
        LogLocked: a process has it open.
        UnusableDirectory: it cannot be read.
    """
    verified = verify_log(disk, directory, ring=ring)
    if verified.report.is_open:
        raise _locked(directory)
    return plan_repair(verified, clock.wall_ms())


def repair(disk: Disk, directory: str, clock: Clock, ring: KeyRing | None = None) -> RepairReport:
    """Repair the log in ``directory``; everything is durable when it returns.

    Args:
        clock: stamps new segments and names the directory of what is kept.
        ring: to find batches that do not decrypt; everything else needs no keys.

    Raises:
        LogLocked: a process has it open.
        DiskFull: make space and repair again.
        StorageError: the disk refused something; repair again.
        UnusableDirectory: it cannot be read.
    """
    if is_locked(disk, directory):
        raise _locked(directory)
    report = RepairReport(directory)
    kept = Kept(disk, directory, clock.wall_ms())
    try:
        with ExitStack() as locks:
            for path in locks_of(directory):
                if path == locks_of(directory)[0] or disk.exists(path):
                    locks.callback(disk.lock(path).release)
            _repair(disk, directory, clock, ring, kept, report)
    except BlockingIOError as error:
        raise _locked(directory) from error
    except OSError as error:
        raise _refused(directory, error, kept) from error
    return report


def _repair(
    disk: Disk,
    directory: str,
    clock: Clock,
    ring: KeyRing | None,
    kept: Kept,
    report: RepairReport,
) -> None:
    work = _Repair(disk, directory, clock, kept)
    for _ in range(MAX_ROUNDS):
        verified = verify_log(disk, directory, ring=ring, is_mine=True)
        todo = plan_repair(verified, clock.wall_ms())
        report.after, report.refusals = verified.report, todo.refusals
        if not todo.actions:
            return
        for action in todo.actions:
            work.perform(action)
            report.actions.append(action)
            report.kept = kept.path if kept.is_used else ""
    report.after = verify_log(disk, directory, ring=ring, is_mine=True).report


def _locked(directory: str) -> LogLocked:
    return LogLocked(f"{directory} is in use: stop the process that has it open, then repair it")


def _refused(directory: str, error: OSError, kept: Kept) -> StorageError:
    so_far = f"; what was removed or written over so far is kept in {kept.path}"
    behind = so_far if kept.is_used else ""
    if is_full(error):
        return DiskFull(
            f"the disk of {directory} is full: make space, then repair it again{behind}"
        )
    return StorageError(
        f"{directory} cannot be repaired ({error.strerror or error}): check the disk, then repair "
        f"it again{behind}"
    )


class _Repair:
    """Does one action after the other. All of it blocks; errors are the disk's."""

    def __init__(self, disk: Disk, directory: str, clock: Clock, kept: Kept) -> None:
        self._disk = disk
        self._directory = directory
        self._kept = kept
        self._pacer = Pacer(_NO_LIMIT_BYTES_S, clock, Event())

    def perform(self, action: Action) -> None:
        """Do it; durable when it returns."""
        match action:
            case Settle():
                for path in action.kept:
                    self._kept.copy(path, 0, None, action.sentence)
                settle_leftovers(self._disk, self._directory)
            case Place():
                self._place(action)
            case KeepAside():
                self._kept.move(index_path_of(action.path), action.sentence)
                self._kept.move(action.path, action.sentence)
            case CutTail():
                self._cut(action)
            case WriteHeader():
                self._write_header(action)
            case WriteMark():
                self._write_mark(action)
            case RebuildIndex():
                self._rebuild_index(action)
            case RenewHardState():
                self._renew_hard_state(action)
            case Rewrite():
                self._rewrite(action)
            case _:
                raise InvariantViolation(f"no way to do {action}")

    def _place(self, action: Place) -> None:
        """By way of a name that nothing has: the place may hold a segment that is to move too."""
        disk, path = self._disk, action.path
        target = action.home
        if disk.exists(action.home) and not path.endswith(PARKED_SUFFIX):
            target = action.home + PARKED_SUFFIX
        elif disk.exists(action.home):
            return
        disk.rename(path, target)
        disk.sync_directory(self._directory)

    def _cut(self, action: CutTail) -> None:
        self._kept.copy(action.path, action.position, action.end, action.sentence)
        file = self._disk.open(action.path)
        try:
            file.truncate(action.position)
            file.sync()
        finally:
            file.close()

    def _write_header(self, action: WriteHeader) -> None:
        if action.header is None:
            raise InvariantViolation(f"no header for {action.path}")
        self._kept.copy(action.path, 0, _HEADER_PAGE_BYTES, action.sentence)
        encoded = action.header.encode()
        file = self._disk.open(action.path)
        try:
            file.write_at(0, [encoded, bytes(_HEADER_PAGE_BYTES - len(encoded))])
            file.sync()
        finally:
            file.close()

    def _write_mark(self, action: WriteMark) -> None:
        if action.mark is None:
            raise InvariantViolation(f"no mark for {action.path}")
        self._kept.copy(action.path, _HEADER_PAGE_BYTES, MARKS_END, action.sentence)
        file = self._disk.open(action.path)
        try:
            marks = MarkPages()
            marks.load(SafeReader(file, lambda size_bytes: None))
            # Both slots: the older one may be the damaged one, or may be in the way.
            for _ in range(2):
                marks.store(file, action.mark)
                file.sync()
        finally:
            file.close()

    def _rebuild_index(self, action: RebuildIndex) -> None:
        path = action.path
        self._kept.move(index_path_of(path), action.sentence)
        file = self._disk.open_readonly(path)
        try:
            header = decode_segment_header(file.read_at(0, HEADER_BYTES), path)
            index, end = build_index(
                file, path, header.first_index, action.last_index, LogConfig().index_interval_bytes
            )
        finally:
            file.close()
        write_index(self._disk, path, index, seal_of(header, action.last_index, end))
        written = self._disk.open(index_path_of(path))
        try:
            written.sync()
        finally:
            written.close()
        self._disk.sync_directory(self._directory)

    def _renew_hard_state(self, action: RenewHardState) -> None:
        self._kept.copy(action.path, 0, None, action.sentence)
        file = HardStateFile(self._disk, action.path)
        try:
            file.save(file.load())
        finally:
            file.close()

    def _rewrite(self, action: Rewrite) -> None:
        header, mark = action.header, action.mark
        if header is None or mark is None:
            raise InvariantViolation(f"no header or mark for {action.path}")
        first_index, next_index = header.first_index, action.next_index
        firsts = map(first_index_of, self._disk.list_directory(self._directory))
        replaced = [each for each in firsts if each and first_index <= each < next_index]
        for each in replaced:
            path = f"{self._directory}/{segment_name(each)}"
            self._kept.copy(path, 0, None, action.sentence)
        name = compacted_name(first_index, next_index)
        if self._disk.exists(f"{self._directory}/{name}"):
            # An attempt without a header: one with it would have been settled.
            self._disk.remove(f"{self._directory}/{name}")
        made = CompactedFile(self._disk, self._directory, header, next_index, self._pacer)
        try:
            for batch in self._batches(action):
                made.append(batch)
            made.finish(replace(mark, position=made.next_position))
        except BaseException:
            made.abandon()
            raise
        others = [each for each in replaced if each != first_index]
        take_place(self._disk, self._directory, first_index, next_index, others)

    def _batches(self, action: Rewrite) -> Iterator[Batch]:
        """What the new file is to hold, as it is stored."""
        runs = [piece for piece in action.pieces if not isinstance(piece, Gap)]
        file = self._disk.open_readonly(action.path) if runs else None
        try:
            for piece in action.pieces:
                if isinstance(piece, Gap):
                    yield from gap_batches(piece)
                elif file is not None:
                    for _, batch in batches_of(file, piece):
                        yield batch
        finally:
            if file is not None:
                file.close()


def gap_batches(gap: Gap) -> Iterator[Batch]:
    """What stands for exactly the indexes and offsets between two points.

    Batches without records, which take no offset, are replaced one by one: a gap takes some.
    """
    index, offset = gap.before.index, gap.before.offset
    while index < gap.after.index:
        indexes, offsets = gap.after.index - index, gap.after.offset - offset
        # As many in each of the gaps to come: every one needs indexes and offsets.
        parts = Gap(Point(index, offset, gap.after.term, 0), gap.after).parts
        header = BatchHeader(
            crc32c(b""),
            0,
            offsets // parts,
            index,
            gap.after.term,
            offset,
            gap.after.timestamp_ms,
            kind=Kind.GAP if offsets else Kind.NOOP,
            index_count=indexes // parts,
        )
        yield Batch(header, header.encode(), b"")
        index, offset = header.next_index, header.next_offset
