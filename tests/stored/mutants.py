"""Known bugs of storage engines, put back one at a time, and the evidence that has to find each."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Final
from unittest.mock import patch

from quorumlog.errors import Corrupt
from quorumlog.log import index_files, reader, recovery, upkeep
from quorumlog.log.compacted_file import CompactedFile
from quorumlog.log.paths import index_path_of
from quorumlog.log.scan import end_of_data
from quorumlog.log.segment import DATA_START
from quorumlog.log.slots import SlotPair
from quorumlog.log.sparse_index import Seal
from quorumlog.log.writer import SegmentWriter
from stored.evidence import (
    compaction_cuts,
    errors,
    half_writes,
    power_cuts,
    rot,
    stale_index,
    torn_marks,
    unfilled,
)


@dataclass(frozen=True, slots=True)
class StorageMutant:
    """``make`` returns the wrong function, given the right one; ``evidence`` raises then."""

    name: str
    target: Any
    """The class or module that has the function."""
    attribute: str
    make: Callable[[Any], Any]
    evidence: Callable[[], None]

    def applied(self) -> Any:
        right = self.target.__dict__[self.attribute]
        return patch.object(self.target, self.attribute, self.make(right))


# -- writing -------------------------------------------------------------------------------------


def _no_fdatasync(sync: Any) -> Any:
    return lambda self, file: None


def _sync_again(sync: Any) -> Any:
    def stubborn(self: SegmentWriter, file: Any) -> None:
        try:
            file.sync()
        except OSError:
            file.sync()

    return stubborn


def _mark_first(sync: Any) -> Any:
    def hasty(self: SegmentWriter, limits: Any) -> None:
        if not self.is_synced:
            self._limits = limits
            self._store_mark()
        sync(self, limits)

    return hasty


def _header_before_old_is_synced(seal: Any) -> Any:
    def careless(self: SegmentWriter, work: Any) -> None:
        self._file.truncate(work.end)
        self._allocated_bytes = work.end
        work.sealed.mark = self._mark()

    return careless


def _no_directory_sync(sync_directory: Any) -> Any:
    return lambda self: None


def _failed_write_stays(append_work: Any) -> Any:
    def trusting(self: SegmentWriter, work: Any) -> None:
        with patch.object(type(self._file), "truncate", lambda file, size: None):
            append_work(self, work)

    return trusting


def _mark_not_lowered(cut: Any) -> Any:
    def direct(self: SegmentWriter, work: Any, file: Any, marks: Any) -> None:
        for segment in reversed(work.removed):
            self._remove(index_path_of(segment.path))
            self._remove(segment.path)
            self._sync_directory()
        file.truncate(work.position)
        self._sync(file)
        marks.store(file, self._mark_behind(work.before, work.position))

    return direct


def _cut_from_the_front(cut: Any) -> Any:
    def wrong_end(self: SegmentWriter, work: Any, file: Any, marks: Any) -> None:
        cut(self, replace(work, removed=tuple(reversed(work.removed))), file, marks)

    return wrong_end


def _one_slot(store: Any) -> Any:
    def sparing(self: SlotPair, file: Any, payload: bytes) -> None:
        # By two: so it is always the same one.
        self._number += 2
        self._write(file, payload)

    return sparing


# -- opening -------------------------------------------------------------------------------------


def _good_batch_behind_is_rot(scan_last: Any) -> Any:
    def suspicious(file: Any, segment: Any, *rest: Any) -> Any:
        raw_end = end_of_data(file, DATA_START)
        before = file.size_bytes()
        found = scan_last(file, segment, *rest)
        if found[2].cut_bytes and raw_end <= before and found[2].cut_batches:
            raise Corrupt(segment.path, segment.end, "a batch", "damage before a good one")
        return found

    return suspicious


def _mark_not_asked(scan_last: Any) -> Any:
    def forgiving(file: Any, segment: Any, header: Any, mark: Any, config: Any) -> Any:
        return scan_last(file, segment, header, replace(mark, position=DATA_START), config)

    return forgiving


def _not_written_again(write_again: Any) -> Any:
    return lambda file, position, end: None


def _closed_is_believed(load: Any) -> Any:
    """The flag says closed: whatever stands behind the mark was not there."""

    def naive(file: Any, segment: Any, header: Any, mark: Any, config: Any) -> Any:
        if mark is not None and mark.is_closed:
            file.truncate(mark.position)
        return load(file, segment, header, mark, config)

    return naive


def _unborn_stays(remove_unborn: Any) -> Any:
    return lambda disk, directory, firsts: ""


def _tail_not_cut(scan_last: Any) -> Any:
    def sloppy(file: Any, *rest: Any) -> Any:
        with patch.object(type(file), "truncate", lambda file, size: None):
            return scan_last(file, *rest)

    return sloppy


# -- upkeep --------------------------------------------------------------------------------------


def _newest_removed_first(remove_deleted: Any) -> Any:
    def backwards(self: upkeep.Upkeep, through_index: int | None = None) -> int:
        infos = self.segments()
        start_offset = self._state.start_offset
        doomed = [each for each in infos[:-1] if each.next_offset <= start_offset]
        with self._state.lock:
            self._layout.remove_first(len(doomed))
        for each in reversed(doomed):
            self._remove(each.path)
        return len(doomed)

    return backwards


def _half_deleted_is_removed(remove_deleted: Any) -> Any:
    def greedy(self: upkeep.Upkeep, through_index: int | None = None) -> int:
        infos = self.segments()
        start_offset = self._state.start_offset
        doomed = [each for each in infos[:-1] if each.base_offset < start_offset]
        with self._state.lock:
            self._layout.remove_first(len(doomed))
        for each in doomed:
            self._remove(each.path)
        return len(doomed)

    return greedy


def _renamed_before_synced(finish: Any) -> Any:
    def hasty(self: CompactedFile, mark: Any) -> None:
        with patch.object(type(self._file), "sync", lambda file: None):
            finish(self, mark)

    return hasty


# -- reading -------------------------------------------------------------------------------------


def _body_not_checked(check_body: Any) -> Any:
    return lambda header, body: None


def _seal_not_checked(decode_index: Any) -> Any:
    def trusting(raw: bytes, seal: Seal, interval_bytes: int) -> Any:
        own = Seal(*struct.unpack_from(f"<{len(fields(Seal))}Q", raw, 8))
        return decode_index(raw, own, interval_bytes)

    return trusting


STORAGE_MUTANTS: Final = (
    StorageMutant("no fdatasync", SegmentWriter, "_sync", _no_fdatasync, power_cuts("sizes")),
    StorageMutant("fdatasync tried again", SegmentWriter, "_sync", _sync_again, errors("group")),
    StorageMutant("mark before fdatasync", SegmentWriter, "sync", _mark_first, power_cuts("group")),
    StorageMutant(
        "new segment before the old one is synced",
        SegmentWriter,
        "_seal",
        _header_before_old_is_synced,
        power_cuts("group"),
    ),
    StorageMutant(
        "no directory sync",
        SegmentWriter,
        "_sync_directory",
        _no_directory_sync,
        power_cuts("group"),
    ),
    StorageMutant(
        "half a write stays", SegmentWriter, "_append", _failed_write_stays, unfilled(half_writes)
    ),
    StorageMutant(
        "mark not lowered before a truncation",
        SegmentWriter,
        "_cut",
        _mark_not_lowered,
        power_cuts("truncations"),
    ),
    StorageMutant(
        "truncated from the front",
        SegmentWriter,
        "_cut",
        _cut_from_the_front,
        power_cuts("truncations"),
    ),
    StorageMutant("one slot for the mark", SlotPair, "store", _one_slot, torn_marks),
    StorageMutant(
        "a good batch behind proves rot",
        recovery,
        "_scan_last",
        _good_batch_behind_is_rot,
        power_cuts("group"),
    ),
    StorageMutant("rot is cut as a torn tail", recovery, "_scan_last", _mark_not_asked, rot),
    StorageMutant(
        "what was found is not written again",
        recovery,
        "_write_again",
        _not_written_again,
        errors("sizes"),
    ),
    StorageMutant(
        "the closed flag is believed",
        recovery,
        "_scan_last",
        _closed_is_believed,
        power_cuts("clean stops"),
    ),
    StorageMutant(
        "a segment without a header stays",
        recovery,
        "_remove_unborn",
        _unborn_stays,
        power_cuts("group"),
    ),
    StorageMutant(
        "torn tail not cut", recovery, "_scan_last", _tail_not_cut, unfilled(power_cuts("group"))
    ),
    StorageMutant(
        "newest deleted segment removed first",
        upkeep.Upkeep,
        "remove_deleted",
        _newest_removed_first,
        power_cuts("retention"),
    ),
    StorageMutant(
        "half deleted segment removed",
        upkeep.Upkeep,
        "remove_deleted",
        _half_deleted_is_removed,
        power_cuts("retention"),
    ),
    StorageMutant(
        "compacted file decided before it is synced",
        CompactedFile,
        "finish",
        _renamed_before_synced,
        compaction_cuts,
    ),
    StorageMutant("body not checked", reader, "check_body", _body_not_checked, rot),
    StorageMutant(
        "index of another state taken",
        index_files,
        "decode_index",
        _seal_not_checked,
        stale_index,
    ),
)
