"""Undamaged logs of every shape, written by hand as the format says."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from quorumlog.log.batch import CODEC_ZSTD, SPARSE, Batch, BatchHeader, Draft, Kind
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.compression import compress
from quorumlog.log.index_files import build_index, seal_of, write_index
from quorumlog.log.key_ring import KeyRing
from quorumlog.log.mark import Mark
from quorumlog.log.paths import segment_name
from quorumlog.log.records import encode_body, encode_record, encode_sparse_body
from quorumlog.log.segment import DATA_START, write_first_pages
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.types import Index, Offset, RecordData, Term
from sim.disk import SimDisk
from stored.batches import DIRECTORY, append, open_log

RING = KeyRing("k1", {"k1": b"1" * 32})
INTERVAL_BYTES = 256

Shape = Callable[[], SimDisk]


class Drafter:
    """Makes batches that follow one another."""

    def __init__(self) -> None:
        self.index, self.offset, self.term, self.timestamp_ms = 1, 0, 1, 1_000

    def records(self, count: int, size_bytes: int = 20, codec: int = 0) -> Batch:
        values = [b"%d-" % (self.offset + at) + b"v" * size_bytes for at in range(count)]
        body = encode_body([RecordData(value, b"key") for value in values])
        draft = Draft.of(compress(body) if codec else body, count)
        return self._next(
            Draft(draft.body, draft.body_crc, count, codec=codec, producer_id=7, sequence=1)
        )

    def noop(self) -> Batch:
        return self._next(Draft.of(b"", 0, Kind.NOOP))

    def sparse(self, count: int) -> Batch:
        """A batch of ``count`` offsets with one record left."""
        body = encode_sparse_body([(count - 1, encode_record(RecordData(b"kept", b"k")))])
        batch = self._next(Draft.of(body, count))
        header = _with(batch.header, flags=SPARSE)
        return Batch(header, header.encode(), batch.body)

    def gap(self, indexes: int, offsets: int) -> Batch:
        batch = self._next(Draft.of(b"", offsets, Kind.GAP))
        header = _with(batch.header, index_count=indexes)
        self.index += indexes - 1
        return Batch(header, header.encode(), b"")

    def _next(self, draft: Draft) -> Batch:
        self.timestamp_ms += 10
        batch = draft.stamp(self.index, self.term, self.offset, self.timestamp_ms)
        self.index += 1
        self.offset = batch.header.next_offset
        return batch


def _with(header: BatchHeader, **fields: int) -> BatchHeader:
    return replace(header, **fields)  # type: ignore[arg-type]


def store(
    segments: Sequence[Sequence[Batch]],
    *,
    ring: KeyRing | None = None,
    is_closed: bool = True,
    directory: str = DIRECTORY,
) -> SimDisk:
    """A disk with a log of these segments, each with an index."""
    disk = SimDisk(Random(1))
    disk.make_directory(directory)
    before = segments[0][0].header
    prev_term, prev_timestamp_ms, next_offset = Term(0), 0, before.base_offset
    start_offset = before.base_offset
    for number, batches in enumerate(segments):
        first = batches[0].header
        header = SegmentHeader(first.index, next_offset, prev_term, prev_timestamp_ms, 5 + number)
        stored = list(batches)
        if ring is not None:
            cipher, header = SegmentCipher.create(ring, header)
            stored = [cipher.seal(batch) for batch in batches]
        last = batches[-1].header
        position = DATA_START + sum(batch.size_bytes for batch in stored)
        is_last = number == len(segments) - 1
        mark = Mark(
            Index(last.next_index - 1),
            position,
            last.next_offset,
            last.term,
            last.timestamp_ms,
            Index(last.next_index - 1),
            start_offset,
            is_closed=is_last and is_closed,
        )
        _write(disk, f"{directory}/{segment_name(first.index)}", header, mark, stored)
        prev_term, prev_timestamp_ms = last.term, last.timestamp_ms
        next_offset = Offset(last.next_offset)
    return disk


def _write(
    disk: SimDisk, path: str, header: SegmentHeader, mark: Mark, batches: Sequence[Batch]
) -> None:
    file = disk.open(path, create=True)
    write_first_pages(file, header, mark, file.sync)
    file.write_at(DATA_START, [part for each in batches for part in (each.head, each.body)])
    file.sync()
    index, _ = build_index(file, path, header.first_index, mark.index, INTERVAL_BYTES)
    write_index(disk, path, index, seal_of(header, mark.index, mark.position))
    disk.sync_directory(path.rpartition("/")[0])


def plain_log() -> SimDisk:
    make = Drafter()
    return store([[make.records(2, 90) for _ in range(4)] for _ in range(4)])


def written_by_the_log() -> SimDisk:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 25, values=[b"x" * 200])
    append(log, 2, term=2, values=[])
    log.flush()
    log.close()
    return disk


def never_closed() -> SimDisk:
    disk = SimDisk(Random(1))
    log = open_log(disk)
    append(log, 25, values=[b"x" * 200])
    log.flush()
    append(log, 2)
    log.flush()
    disk.kill()
    return disk


def compacted() -> SimDisk:
    make = Drafter()
    first = [make.gap(3, 7), make.sparse(4), make.records(1)]
    second = [make.noop(), make.gap(1, 1), make.records(3, codec=CODEC_ZSTD)]
    return store([first, second, [make.sparse(2), make.records(2)]])


def encrypted() -> SimDisk:
    make = Drafter()
    first = [make.records(2), make.gap(2, 2), make.records(1)]
    return store([first, [make.records(1), make.records(2)]], ring=RING)


def one_batch() -> SimDisk:
    return store([[Drafter().records(1)]])


def empty() -> SimDisk:
    disk = SimDisk(Random(1))
    open_log(disk).close()
    return disk


def deleted_start() -> SimDisk:
    make = Drafter()
    make.records(3)
    make.records(3)
    return store([[make.records(2), make.records(1)], [make.records(2)]])


SHAPES: dict[str, Shape] = {
    "plain": plain_log,
    "written by the log": written_by_the_log,
    "never closed": never_closed,
    "compacted": compacted,
    "encrypted": encrypted,
    "one batch": one_batch,
    "empty": empty,
    "deleted start": deleted_start,
}
