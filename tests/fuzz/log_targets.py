"""Decoders of the storage engine that need more than the bytes: bodies, keys, whole logs."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import cache
from random import Random
from typing import Final

from fuzz.repair import repair_batches, repair_segment_header, repair_slots
from fuzz.target import Target, expect
from quorumlog.errors import ConfigError, Corrupt, InvalidBatch, OffsetOutOfRange, ProtocolError
from quorumlog.log.batch import (
    CODEC_NONE,
    CODEC_ZSTD,
    SPARSE,
    Batch,
    BatchHeader,
    Draft,
    Kind,
    iterate_batches,
    join_batches,
)
from quorumlog.log.cipher import SegmentCipher
from quorumlog.log.compression import compress, decompress
from quorumlog.log.config import LogConfig
from quorumlog.log.key_ring import KeyRing, write_new_key
from quorumlog.log.log import Log
from quorumlog.log.mark import MARKS_END
from quorumlog.log.records import (
    decode_records,
    encode_body,
    encode_record,
    encode_sparse_body,
    iterate_keyed,
    parse_records,
)
from quorumlog.log.segment_header import SegmentHeader
from quorumlog.system import SystemClock
from quorumlog.types import Index, Offset, RecordData, Term
from sim.disk import SimDisk
from stored.batches import append, open_log

_LIMIT_BYTES: Final = 64 * 1024
_RECORD_COUNT: Final = 9
_MARK_SLOT_BYTES: Final = 16 + 11 * 8
_KEY: Final = b"k" * 32
_SMALL: Final = LogConfig(segment_bytes=2048, index_interval_bytes=256, tail_cache_bytes=0)
_FIRST: Final = f"data/{1:020d}.log"


# -- bodies --------------------------------------------------------------------------------------


def _stored_bodies() -> list[bytes]:
    """The first byte says what the header says: codec in bit 0, SPARSE in bit 1."""
    records = [RecordData(b"value", b"key"), RecordData(None, b"gone"), RecordData(b"x" * 200)]
    dense = encode_body(records * 3)
    fields = [encode_record(record) for record in records]
    sparse = encode_sparse_body(list(zip((0, 3, 8), fields, strict=True)))
    return [
        b"\x00" + dense,
        b"\x01" + compress(dense),
        b"\x02" + sparse,
        b"\x03" + compress(sparse),
    ]


def _check_stored_body(data: bytes) -> None:
    what, body = data[0] if data else 0, data[1:]
    draft = Draft.of(body, _RECORD_COUNT)
    header = replace(
        draft.stamp(1, 1, 100, 7).header,
        codec=CODEC_ZSTD if what & 1 else CODEC_NONE,
        flags=SPARSE if what & 2 else 0,
    )
    deltas, messages = parse_records(header, body)
    records = list(decode_records(header, body))
    keyed = list(iterate_keyed(header, body))
    expect(
        [record.offset - 100 for record in records] == list(deltas) == [each[0] for each in keyed],
        "all ways to decode a body find the same offsets",
    )
    expect(
        [record.key for record in records] == [each[1] for each in keyed],
        "all ways to decode a body find the same keys",
    )
    expect(
        [record.value is None for record in records] == [each[2] for each in keyed],
        "all ways to decode a body find the same tombstones",
    )
    expect(len(records) == len(messages), "all ways to decode a body find the same records")
    again = encode_sparse_body([(delta, field) for delta, _, _, field in keyed])
    sparse = replace(header, codec=CODEC_NONE, flags=SPARSE)
    expect(list(decode_records(sparse, again)) == records, "kept records are the same records")


def _check_frame(data: bytes) -> None:
    plain = decompress(data, CODEC_ZSTD, _LIMIT_BYTES)
    expect(len(plain) <= _LIMIT_BYTES, "the limit holds")
    expect(decompress(compress(plain), CODEC_ZSTD) == plain, "what is compressed comes back")


def _frames() -> list[bytes]:
    return [compress(b""), compress(b"body" * 100), compress(bytes(_LIMIT_BYTES))]


# -- encryption ----------------------------------------------------------------------------------


@cache
def _sealed() -> tuple[SegmentCipher, bytes, dict[bytes, bytes]]:
    """A cipher, batches sealed with it, and each sealed batch with what it was before."""
    ring = KeyRing("one", {"one": _KEY}, Random(1).randbytes)
    header = SegmentHeader(Index(1), Offset(0), Term(0), 0, 1_000)
    cipher, _ = SegmentCipher.create(ring, header)
    if cipher is None:
        raise TypeError("a ring with a key makes a cipher")
    gap = BatchHeader(0, 0, 5, Index(4), Term(1), Offset(9), 9, kind=Kind.GAP, index_count=2)
    batches = [
        Draft.of(b"", 0, Kind.NOOP).stamp(1, 1, 0, 9),
        Draft.of(b"body" * 9, 3).stamp(2, 1, 0, 9),
        Batch(gap, gap.encode(), b""),
    ]
    sealed = [cipher.seal(batch) for batch in batches]
    known = {
        join_batches([stored]): join_batches([plain])
        for stored, plain in zip(sealed, batches, strict=True)
    }
    return cipher, join_batches(sealed), known


def _check_sealed(data: bytes) -> None:
    cipher, _, known = _sealed()
    for stored in iterate_batches(data):
        raw = join_batches([stored])
        plain = join_batches([cipher.unseal(stored, "file", 0)])
        if stored.header.kind is Kind.GAP:
            expect(plain == raw, "a gap stays as it is")
        else:
            expect(known.get(raw) == plain, "what opens is what was sealed")


@cache
def _key_file() -> int:
    """A file in memory, that only this user may read."""
    descriptor = os.memfd_create("keys")
    os.fchmod(descriptor, 0o600)
    return descriptor


def _key_files() -> list[bytes]:
    images = []
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "keys.toml")
        for name in ("2026-05", None):
            write_new_key(path, name, date(2026, 11, 1))
            with open(path, "rb") as file:
                images.append(file.read())
    return images


def _check_key_file(data: bytes) -> None:
    descriptor = _key_file()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
    ring = KeyRing.load(f"/proc/self/fd/{descriptor}")
    is_off = ring.active == ""
    expect(is_off or ring.key(ring.active) is not None, "the active key is there")


# -- whole logs ----------------------------------------------------------------------------------


def _segments() -> Sequence[bytes]:
    images = []
    for closed in (True, False):
        disk = SimDisk(Random(1))
        log = open_log(disk, _SMALL)
        append(log, 3, values=[b"x" * 30, b"y"])
        append(log, 1, values=[])
        log.flush()
        log.advance_commit_floor(2)
        log.advance_start(1)
        log.flush()
        if closed:
            log.close()
        images.append(disk.content(_FIRST)[: MARKS_END + 2000])
    return images


def _check_segment(data: bytes) -> None:
    """As the only segment of a log; one with less than its first pages is test_rot's business."""
    if len(data) < MARKS_END:
        return
    disk = SimDisk(Random(1))
    disk.make_directory("data")
    disk.open(_FIRST, create=True).write_at(0, [data])
    log = Log.open(disk, "data", _SMALL, SystemClock())
    batches = list(log.batches(log.start_index))
    expect(
        [batch.header.index for batch in batches][:1] in ([], [log.start_index]),
        "a log begins with its first index",
    )
    if log.start_offset < log.end_offset:
        log.fetch(log.start_offset, 1000, log.end_offset)
    log.close()
    again = Log.open(disk, "data", _SMALL, SystemClock())
    expect(again.recovery.was_closed, "what was closed is closed")
    found = [bytes(each.head) for each in again.batches(again.start_index)]
    expect(found == [bytes(each.head) for each in batches], "a log comes back as it was")
    again.close()


def _repair_segment(data: bytes) -> bytes:
    data = repair_segment_header(data)
    data = repair_slots(data, b"QLM\x01", 4096, _MARK_SLOT_BYTES)
    return data[:MARKS_END] + repair_batches(data[MARKS_END:])


LOG_TARGETS: Final = (
    Target("stored-bodies", _check_stored_body, (InvalidBatch,), _stored_bodies),
    Target("zstd-frames", _check_frame, (InvalidBatch,), _frames),
    Target(
        "sealed-batches",
        _check_sealed,
        (ProtocolError, Corrupt),
        lambda: [_sealed()[1]],
        repair_batches,
    ),
    Target("key-file", _check_key_file, (ConfigError,), _key_files),
    Target("segment", _check_segment, (Corrupt, OffsetOutOfRange), _segments, _repair_segment),
)
