"""What stands in a log's directory, as the next open would use it. Changes nothing."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from quorumlog.errors import Corrupt
from quorumlog.log.inspection.damage import Finding, Flaw, Severity, Span
from quorumlog.log.install import DRAFT_NAME, find_damage, install_index_of, is_emptied
from quorumlog.log.leftovers import indexed_end, is_left_behind, is_unborn
from quorumlog.log.paths import (
    compacted_range_of,
    first_index_of,
    first_index_of_index,
    first_indexes_of,
    index_path_of,
    is_remade_name,
    segment_name,
)
from quorumlog.log.segment_header import HEADER_BYTES, SegmentHeader, decode_segment_header
from quorumlog.log.state_snapshot import snapshot_index_of
from quorumlog.ports import Disk
from quorumlog.types import Index

HARD_STATE_NAME: Final = "hard-state"
KEPT_PREFIX: Final = "removed-"
"""Begins the name of a directory that holds what a repair took away."""

PARKED_SUFFIX: Final = ".misplaced"
"""Behind a segment's name: a whole segment that waits for its place (see the repair)."""

RECOVERING_NAME: Final = "recovering"
"""The note of a replica that has lost its log, and votes for nobody before it is whole again."""

_DRAFTS: Final = ("state.new", f"{HARD_STATE_NAME}.new", DRAFT_NAME)
_KNOWN: Final = ("lock", HARD_STATE_NAME, RECOVERING_NAME)


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A file that holds, or has to hold, the segment ``first_index``.

    Attributes:
        path: of the file as it is.
        home: the path it has to have: another one for a compacted or misplaced file.
        next_index: of a compacted file: behind its last batch.
        hidden: files that the next open removes in favour of this one.
        has_header: its header is valid.
    """

    first_index: Index
    path: str
    home: str
    next_index: Index | None = None
    hidden: tuple[str, ...] = ()
    has_header: bool = True


@dataclass(slots=True)
class Inventory:
    """What was found. ``segments`` are in order.

    ``compactions`` are the complete compacted files: the next open puts them in their places.
    ``attempts`` are those that came to nothing: it removes them.
    """

    directory: str
    segments: list[SegmentFile] = field(default_factory=list)
    indexes: set[str] = field(default_factory=set)
    compactions: list[SegmentFile] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    unborn: SegmentFile | None = None
    """A last file whose making was cut short: it is not among the segments."""
    lost_end: str = ""
    """The path of a segment behind the others that is not there, though its index is."""
    snapshots: list[tuple[str, int]] = field(default_factory=list)
    is_replica: bool = False
    findings: list[Finding] = field(default_factory=list)


def is_log(names: Iterable[str]) -> bool:
    """Whether a directory with files of these names is that of a log, whole or not."""
    return any(
        name == HARD_STATE_NAME
        or first_index_of(name.removesuffix(PARKED_SUFFIX)) is not None
        or first_index_of_index(name) is not None
        or compacted_range_of(name) is not None
        for name in names
    )


def take_inventory(disk: Disk, directory: str, *, is_open: bool = False) -> Inventory:
    """List ``directory``; the headers of all segments are read.

    Args:
        is_open: a process writes the log: what it is working on is not looked at.

    Raises:
        OSError: the directory cannot be listed.
    """
    listed = disk.list_directory(directory)
    inventory = Inventory(directory, is_replica=HARD_STATE_NAME in listed)
    names = _without_emptied(disk, inventory, listed, is_open=is_open)
    places: dict[Index, SegmentFile] = {}
    strays: dict[Index, list[str]] = {}
    for name in names:
        _sort_in(disk, inventory, name, places, strays, is_open)
    _sort_compacted(disk, inventory, names, is_open=is_open)
    _find_homes(inventory, places, strays)
    for compacted in sorted(inventory.compactions, key=lambda each: each.first_index):
        _hide_behind(compacted, places)
    inventory.segments = [places[first] for first in sorted(places)]
    # A replica's log is made before its first vote is saved, but where it starts over.
    needs_log = inventory.is_replica and RECOVERING_NAME not in listed and names == listed
    if not (needs_log and len(inventory.segments) == 1):
        _leave_out_unborn(disk, inventory, is_open)
    _sort_lone_indexes(disk, inventory, is_open)
    is_empty = not (inventory.segments or inventory.unborn or inventory.lost_end)
    if needs_log and is_empty:
        inventory.findings.append(
            Finding(
                Severity.DAMAGE,
                Flaw.MISSING_SEGMENT,
                directory,
                0,
                "a segment: there is a hard state",
                "none",
            )
        )
    return inventory


def _without_emptied(
    disk: Disk, inventory: Inventory, names: list[str], *, is_open: bool
) -> list[str]:
    """``names`` without what the next open removes, where an install is decided."""
    decided = [name for name in names if install_index_of(name) is not None]
    if not decided:
        return names
    others = [name for name in names if name not in decided]
    if is_open:
        return others
    damage = find_damage(disk, inventory.directory, decided)
    if damage is not None:
        path, found = damage
        expected = "the state that takes the log's place"
        inventory.findings.append(
            Finding(Severity.DAMAGE, Flaw.STATE_SNAPSHOT, path, 0, expected, found)
        )
        return others
    found = "the state of another replica: the next open empties the log for it"
    inventory.findings += [
        _note(Flaw.UNFINISHED, f"{inventory.directory}/{name}", "no install under way", found)
        for name in decided
    ]
    return [name for name in others if not is_emptied(name)]


def header_in(disk: Disk, path: str) -> SegmentHeader | None:
    """The segment header in the file at ``path``; None where it has no valid one."""
    with suppress(OSError):
        file = disk.open_readonly(path)
        try:
            return decode_segment_header(file.read_at(0, HEADER_BYTES), path)
        except Corrupt:
            return None
        finally:
            file.close()
    return None


def _sort_in(
    disk: Disk,
    inventory: Inventory,
    name: str,
    places: dict[Index, SegmentFile],
    strays: dict[Index, list[str]],
    is_open: bool,
) -> None:
    """Put one name where it belongs."""
    path = f"{inventory.directory}/{name}"
    first_index = first_index_of(name)
    said = first_index_of(name.removesuffix(PARKED_SUFFIX))
    snapshot_index = snapshot_index_of(name)
    if said is not None:
        header = header_in(disk, path)
        place = said if header is None else header.first_index
        if place == first_index:
            has_header = header is not None
            places[first_index] = SegmentFile(first_index, path, path, has_header=has_header)
        else:
            strays.setdefault(place, []).append(path)
    elif compacted_range_of(name) is not None:
        return
    elif first_index_of_index(name) is not None:
        inventory.indexes.add(path)
    elif snapshot_index is not None:
        inventory.snapshots.append((path, snapshot_index))
    elif name in _DRAFTS or is_remade_name(name):
        if not is_open:
            found = "a draft that a crash left: it is removed, or written again"
            inventory.findings.append(_note(Flaw.UNFINISHED, path, "nothing", found))
    elif name not in _KNOWN and not name.startswith(KEPT_PREFIX):
        inventory.findings.append(_note(Flaw.UNKNOWN_FILE, path, "a file of the log", "another"))


def _sort_compacted(disk: Disk, inventory: Inventory, names: list[str], *, is_open: bool) -> None:
    """As the next open judges. Of an open log too: while a complete one takes its place, some of
    its segments are gone."""
    firsts = first_indexes_of(names)
    for name in names:
        compacted = compacted_range_of(name)
        if compacted is None:
            continue
        path = f"{inventory.directory}/{name}"
        first_index, next_index = compacted
        header = header_in(disk, path)
        is_complete = header is not None and header.first_index == first_index
        if is_complete and not is_left_behind(firsts, next_index):
            home = f"{inventory.directory}/{segment_name(first_index)}"
            inventory.compactions.append(SegmentFile(first_index, path, home, next_index))
            found = "a complete one: the next open puts it in the place of its segments"
        else:
            inventory.attempts.append(path)
            found = "an attempt that came to nothing: the next open removes it"
        if not is_open:
            expected = "no compaction under way"
            inventory.findings.append(_note(Flaw.UNFINISHED, path, expected, found))


def _find_homes(
    inventory: Inventory, places: dict[Index, SegmentFile], strays: dict[Index, list[str]]
) -> None:
    """Give segments that stand under a wrong name the place their header says, if it is free."""
    for first_index in sorted(strays):
        for path in strays[first_index]:
            home = f"{inventory.directory}/{segment_name(first_index)}"
            found = f"segment {first_index}"
            severity = Severity.REPAIRABLE
            there = places.get(first_index)
            if there is None or not there.has_header:
                if there is not None:
                    instead = f"a damaged one, and {path} holds it"
                    inventory.findings.append(_misplaced(Severity.DAMAGE, there.path, instead))
                places[first_index] = SegmentFile(first_index, path, home)
            else:
                found += ", which is there under its own name too"
                severity = Severity.DAMAGE
            inventory.findings.append(_misplaced(severity, path, found))


def _misplaced(severity: Severity, path: str, found: str) -> Finding:
    return Finding(severity, Flaw.MISPLACED, path, 8, "the segment of its name", found)


def _hide_behind(compacted: SegmentFile, places: dict[Index, SegmentFile]) -> None:
    """Let a complete compacted file stand for the segments of its range."""
    end = compacted.next_index or compacted.first_index
    hidden = [first for first in sorted(places) if compacted.first_index <= first < end]
    paths = tuple(places.pop(first).path for first in hidden)
    places[compacted.first_index] = SegmentFile(
        compacted.first_index, compacted.path, compacted.home, compacted.next_index, paths
    )


def _leave_out_unborn(disk: Disk, inventory: Inventory, is_open: bool) -> None:
    """Take a last file away whose making was cut short by a crash, as the next open does."""
    if not inventory.segments:
        return
    last = inventory.segments[-1]
    if last.path != last.home or header_in(disk, last.path) is not None:
        return
    try:
        file = disk.open_readonly(last.path)
        try:
            is_alone = len(inventory.segments) == 1
            if not is_unborn(disk, file, last.path, last.first_index, is_alone=is_alone):
                return
        finally:
            file.close()
    except OSError:
        return
    inventory.segments.pop()
    inventory.unborn = last
    if not is_open:
        found = "one whose making was cut short: the next open removes it"
        inventory.findings.append(_note(Flaw.UNFINISHED, last.path, "a segment", found))


def _sort_lone_indexes(disk: Disk, inventory: Inventory, is_open: bool) -> None:
    """Indexes without their segment: behind all segments one says that the end of the log is lost.

    For an index is written for batches, and removed before its segment is.
    """
    segments = inventory.segments
    known = {index_path_of(each.home) for each in segments}
    known |= {index_path_of(path) for each in segments for path in each.hidden}
    end = segments[-1].first_index if segments else Index(0)
    for path in sorted(inventory.indexes - known):
        first_index = first_index_of_index(path.rpartition("/")[2])
        last_index = None
        home = path
        if first_index is not None and first_index > end and not is_open:
            home = f"{inventory.directory}/{segment_name(first_index)}"
            last_index = indexed_end(disk, home, first_index)
        if first_index is None or last_index is None:
            found = "an index without a segment"
            inventory.findings.append(_note(Flaw.UNKNOWN_FILE, path, "a segment beside it", found))
            continue
        inventory.lost_end = inventory.lost_end or home
        inventory.findings.append(
            Finding(
                Severity.DAMAGE,
                Flaw.MISSING_SEGMENT,
                home,
                0,
                "a segment: its index is there",
                "none",
                Span(first_index, last_index + 1),
            )
        )


def _note(flaw: Flaw, file: str, expected: str, found: str) -> Finding:
    return Finding(Severity.NOTE, flaw, file, 0, expected, found)
