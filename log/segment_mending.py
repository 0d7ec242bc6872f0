"""Writing a damaged segment anew from another replica's batches, in a log that nobody has open.

For a sealed segment of a log that is whole otherwise, with a header that can be read. The batches
go to a file as a compaction's (:mod:`quorumlog.log.compacted_file`): complete, it is the decision,
and the next open lets it take the segment's place. Before that the damaged file is renamed to
``<segment>.damaged-<n>`` and kept. A crash anywhere leaves the damaged segment, or the new one.

That the batches are those that stood there is checked against the first batch of the next segment:
where index and term of a batch agree, so does all before it (Raft §5.3, Log Matching).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from quorumlog.errors import Corrupt, ProtocolError
from quorumlog.log.batch import Batch, BatchHeader
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.compacted_file import CompactedFile
from quorumlog.log.config import LogConfig
from quorumlog.log.mark import Mark
from quorumlog.log.pacer import Pacer, StopSignal
from quorumlog.log.paths import (
    SEGMENT_SUFFIX,
    SET_ASIDE_INFIX,
    first_index_of,
    first_indexes_of,
    parent_of,
    segment_name,
)
from quorumlog.log.segment import header_before
from quorumlog.log.segment_files import first_batch_header
from quorumlog.log.segment_header import HEADER_BYTES, SegmentHeader, decode_segment_header
from quorumlog.ports import Clock, Disk
from quorumlog.types import Index

MAX_KEPT: Final = 3
"""Damaged segments that are kept beside a log; with so many none is mended any more."""

_UNPACED: Final = 1 << 62
"""Bytes a second: whoever sends the batches holds back."""


@dataclass(frozen=True, slots=True)
class DamagedSegment:
    """A segment that can be written anew; ``next_header`` is the first batch behind it."""

    path: str
    header: SegmentHeader
    next_header: BatchHeader

    @property
    def next_index(self) -> Index:
        return self.next_header.index


def find_damaged(disk: Disk, directory: str, path: str) -> DamagedSegment | None:
    """What is known of the damaged segment at ``path`` of the closed log in ``directory``.

    Returns:
        None: it is no sealed segment there, its header is damaged too, the one behind it does not
        say what it continues, or so many are kept already. Nothing is changed. Blocks.

    Raises:
        OSError: of the disk.
    """
    names = disk.list_directory(directory)
    firsts = first_indexes_of(names)
    first_index = first_index_of(path.rpartition("/")[2])
    if parent_of(path) != directory or first_index not in firsts[:-1]:
        return None
    if sum(f"{SEGMENT_SUFFIX}{SET_ASIDE_INFIX}" in name for name in names) >= MAX_KEPT:
        return None
    next_index = firsts[firsts.index(first_index) + 1]
    try:
        header = _header_at(disk, path, first_index)
        next_header = _first_batch(disk, f"{directory}/{segment_name(next_index)}", next_index)
    except Corrupt:
        return None
    return DamagedSegment(path, header, next_header)


class SegmentMending:
    """Takes the batches of one damaged segment, in their order. Every call blocks."""

    def __init__(
        self, disk: Disk, damaged: DamagedSegment, config: LogConfig, clock: Clock, stop: StopSignal
    ) -> None:
        """``config`` is that of the log: it says how it is encrypted.

        Raises:
            OSError, ConfigError
        """
        self._disk = disk
        self._damaged = damaged
        self._before = header_before(damaged.header)
        header = replace(
            damaged.header, created_ms=clock.wall_ms(), generation=damaged.header.generation + 1
        )
        self._cipher, header = SegmentCipher.create(config.keys, header)
        self._file = CompactedFile(
            disk,
            parent_of(damaged.path),
            header,
            damaged.next_index,
            Pacer(_UNPACED, clock, stop),
        )

    @property
    def next_index(self) -> Index:
        """Of the batch that is wanted next."""
        return self._before.next_index

    def append(self, batches: Iterable[Batch]) -> bool:
        """Take what follows; whether that was all, the first batch behind the segment as well.

        Raises:
            ProtocolError: it is not what stood there; nothing can be made of it.
            OSError: of the disk. Stopped
        """
        for batch in batches:
            header = batch.header
            self._check_order(header)
            if header.index == self._damaged.next_index:
                found = (header.term, header.base_offset)
                expected = (self._damaged.next_header.term, self._damaged.next_header.base_offset)
                if found != expected:
                    raise ProtocolError(f"batch {header.index} is {found}, here it is {expected}")
                return True
            self._file.append(batch if self._cipher is None else self._cipher.seal(batch))
            self._before = header
        return False

    def finish(self) -> str | None:
        """Let the next open put the new segment in its place.

        Returns:
            Where the damaged one is kept; None: the disk would not rename it, it is replaced.

        Raises:
            OSError: of the disk; ``abandon`` it. Stopped
        """
        last = self._before
        last_index = Index(last.next_index - 1)
        header = self._damaged.header
        mark = Mark(
            last_index,
            self._file.next_position,
            last.next_offset,
            last.term,
            last.timestamp_ms,
            last_index,
            header.base_offset,
        )
        self._file.finish(mark)
        # That was the decision: were it taken back from here on, there might be neither segment.
        try:
            return _set_aside(self._disk, self._damaged.path)
        except OSError:
            return None

    def abandon(self) -> None:
        """The log stays as it is."""
        self._file.abandon()

    def _check_order(self, header: BatchHeader) -> None:
        before = self._before
        if (
            header.index != before.next_index
            or header.next_index > self._damaged.next_index + 1
            or header.base_offset != before.next_offset
            or header.term < before.term
            or header.timestamp_ms < before.timestamp_ms
        ):
            raise ProtocolError(f"{header} does not follow {before}")


def _set_aside(disk: Disk, path: str) -> str:
    """Rename the damaged file; durable when it returns."""
    number = 1
    while disk.exists(target := f"{path}{SET_ASIDE_INFIX}{number}"):
        number += 1
    disk.rename(path, target)
    disk.sync_directory(parent_of(path))
    return target


def _header_at(disk: Disk, path: str, first_index: Index) -> SegmentHeader:
    file = disk.open_readonly(path)
    try:
        header = decode_segment_header(file.read_at(0, HEADER_BYTES), path)
    finally:
        file.close()
    if header.first_index != first_index:
        raise Corrupt(path, 8, f"first index {first_index}", str(header.first_index))
    return header


def _first_batch(disk: Disk, path: str, first_index: Index) -> BatchHeader:
    file = disk.open(path)
    try:
        return first_batch_header(file, path, first_index)
    finally:
        file.close()
