"""Showing what stands in a log, batch by batch, damage included. Changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

from quorumlog.errors import (
    ConfigError,
    Corrupt,
    ProtocolError,
    StorageError,
    UnusableDirectory,
)
from quorumlog.log.batch import ENCRYPTED, HEADER_SIZE, Batch, Kind, decode_header
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.inspection.damage import Finding, Flaw, Point, Severity, Span
from quorumlog.log.inspection.examine import begin_of, examine
from quorumlog.log.inspection.examined import Examined, Task
from quorumlog.log.inspection.find_logs import is_locked
from quorumlog.log.inspection.inventory import SegmentFile, take_inventory
from quorumlog.log.inspection.survey import Run
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.records import decode_records
from quorumlog.ports import Disk, File
from quorumlog.types import Record

_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class DumpedBatch:
    """A batch, and where it stands.

    Attributes:
        stored: as it is on disk.
        plain: as it was appended; None: it is encrypted, and ``hidden`` says why it stays so.
    """

    stored: Batch
    plain: Batch | None
    file: str
    position: int
    hidden: str = ""

    def records(self, start: int) -> Iterator[Record]:
        """Its records from offset ``start`` on.

        Raises:
            StorageError: it cannot be decrypted.
            InvalidBatch, CodecUnavailable
        """
        if self.plain is None:
            raise StorageError(self.hidden)
        header = self.plain.header
        if header.kind == Kind.RECORDS:
            yield from decode_records(header, self.plain.body, start)


def dump(
    disk: Disk, directory: str, start_offset: int = 0, ring: KeyRing | None = None
) -> Iterator[DumpedBatch | Finding]:
    """What is in the log from ``start_offset`` on, in order; of damage a finding where it is.

    Segments before that offset are not read. Of a log that a process has open the synced part.

    Raises:
        UnusableDirectory: it cannot be read, or is no log's.
    """
    is_open = is_locked(disk, directory)
    try:
        inventory = take_inventory(disk, directory, is_open=is_open)
    except OSError as error:
        raise UnusableDirectory(
            f"{directory} cannot be read ({error.strerror}): give the directory of a log"
        ) from error
    if not (inventory.segments or inventory.unborn or inventory.lost_end or inventory.is_replica):
        raise UnusableDirectory(f"there is no log in {directory}: give the directory of a log")
    begins = [begin_of(disk, source) for source in inventory.segments]
    before: Point | None = None
    for number, source in enumerate(inventory.segments):
        following = begins[number + 1 : number + 2]
        bound = following[0] if following else None
        if bound is not None and bound.offset <= start_offset:
            continue
        if before is not None and before.index < source.first_index:
            yield _missing(source, before, begins[number])
        task = Task(source, before, bound, not following, is_open, with_records=False)
        try:
            examined = examine(disk, task, lambda size_bytes: None)
        except OSError as error:
            found = f"an error: {error.strerror}"
            yield Finding(Severity.DAMAGE, Flaw.UNREADABLE, source.path, 0, "a segment", found)
            before = None
            continue
        try:
            yield from _in_segment(disk, examined, start_offset, ring)
        except (OSError, ProtocolError) as error:
            # Deleted or compacted since it was looked at, or a disk that reads one time only.
            found = f"another file, or an error: {error}"
            yield Finding(Severity.DAMAGE, Flaw.UNREADABLE, source.path, 0, "what was there", found)
            before = None
            continue
        before = examined.after


def _missing(source: SegmentFile, before: Point, begin: Point | None) -> Finding:
    return Finding(
        Severity.DAMAGE,
        Flaw.MISSING_SEGMENT,
        source.home,
        0,
        f"a segment before it that begins with batch {before.index}",
        "none",
        Span(before.index, source.first_index),
        Span(before.offset, None if begin is None else begin.offset),
    )


def _in_segment(
    disk: Disk, examined: Examined, start_offset: int, ring: KeyRing | None
) -> Iterator[DumpedBatch | Finding]:
    findings = sorted(
        (each for each in examined.findings if each.severity != Severity.NOTE),
        key=lambda each: each.position,
        reverse=True,
    )
    path = examined.source.path
    cipher, why = _cipher_of(examined, ring)
    file = disk.open_readonly(path)
    try:
        for run in examined.runs:
            while findings and findings[-1].position < run.end:
                yield findings.pop()
            for position, stored in batches_of(file, run):
                header = stored.header
                is_wanted = header.next_offset > start_offset or (
                    not header.record_count and header.base_offset >= start_offset
                )
                if is_wanted:
                    yield _dumped(stored, path, position, cipher, why)
    finally:
        file.close()
    while findings:
        yield findings.pop()


def _cipher_of(examined: Examined, ring: KeyRing | None) -> tuple[SegmentCipher | None, str]:
    """What opens the batches of a segment, or why nothing does."""
    header, path = examined.header, examined.source.path
    if header is None:
        return None, f"{path}: the header of this segment is lost, and its key with it"
    try:
        return SegmentCipher.open(ring, header, path), ""
    except (StorageError, ConfigError) as error:
        return None, str(error)


def _dumped(
    stored: Batch, path: str, position: int, cipher: SegmentCipher | None, why: str
) -> DumpedBatch:
    if not stored.header.flags & ENCRYPTED:
        return DumpedBatch(stored, stored, path, position)
    if cipher is None:
        return DumpedBatch(stored, None, path, position, why)
    try:
        return DumpedBatch(stored, cipher.unseal(stored, path, position), path, position)
    except Corrupt as error:
        return DumpedBatch(stored, None, path, position, str(error))


def batches_of(file: File, run: Run) -> Iterator[tuple[int, Batch]]:
    """The batches of a run, which were found to be good, as views of what is read at once.

    Raises:
        ProtocolError: they are not there any more: the file was changed meanwhile.
        OSError
    """
    position = run.position
    size_bytes = _READ_BYTES
    while position < run.end:
        data = memoryview(file.read_at(position, min(size_bytes, run.end - position)))
        begin = position
        for batch in _whole_batches(data):
            yield position, batch
            position += batch.size_bytes
        if position == begin and size_bytes > _READ_BYTES:
            raise ProtocolError(f"no batch of {run.end - position} bytes at byte {position}")
        # Not one fits: it has to be read with more.
        size_bytes = _READ_BYTES if position > begin else 8 * _READ_BYTES


def _whole_batches(data: memoryview) -> Iterator[Batch]:
    """The batches in ``data`` but for a last one that is not complete."""
    at = 0
    while at + HEADER_SIZE <= len(data):
        header = decode_header(data, at)
        body_at, end = at + HEADER_SIZE, at + header.size_bytes
        if end > len(data):
            return
        yield Batch(header, data[at:body_at], data[body_at:end])
        at = end
