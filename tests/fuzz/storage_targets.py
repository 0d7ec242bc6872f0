"""Decoders of what is on disk."""

import struct
from collections.abc import Sequence
from dataclasses import fields, replace
from random import Random
from typing import Final

from google.protobuf.message import DecodeError

from fuzz.repair import (
    repair_batch_header,
    repair_batches,
    repair_index,
    repair_segment_header,
    repair_slots,
    repair_state,
)
from fuzz.target import Target, expect
from quorumlog.errors import Corrupt, InvalidBatch, ProtocolError, RecordTooLarge
from quorumlog.log._pb.record_pb2 import RecordBatch
from quorumlog.log.batch import (
    ENCRYPTED,
    HEADER_SIZE,
    BatchHeader,
    Draft,
    Kind,
    decode_fields,
    decode_header,
    header_of,
    iterate_batches,
    join_batches,
)
from quorumlog.log.hard_state import HardState, HardStateFile
from quorumlog.log.mark import Mark, MarkPages
from quorumlog.log.paths import (
    compacted_name,
    compacted_range_of,
    first_index_of,
    segment_name,
)
from quorumlog.log.records import check_records, decode_records, encode_body
from quorumlog.log.segment_header import KeyStamp, SegmentHeader, decode_segment_header
from quorumlog.log.slots import SLOT_STRIDE
from quorumlog.log.sparse_index import Seal, SparseIndex, decode_index
from quorumlog.log.state_snapshot import StateSnapshot, load_newest, save_snapshot
from quorumlog.ports import File
from quorumlog.types import Index, NodeId, Offset, Record, RecordData, Term
from sim.disk import SimDisk

_PATH: Final = "file"
_MARKS_AT: Final = 4096
_MARK_SLOT_BYTES: Final = 16 + 11 * 8
_HARD_STATE_SLOT_BYTES: Final = 16 + 8 + 1 + 64
_SEAL: Final = struct.Struct(f"<{len(fields(Seal))}Q")
_SEAL_AT: Final = 8
_INTERVAL_BYTES: Final = 256
_INDEX: Final = struct.Struct("<Q")
_STATE_INDEX_AT: Final = 8


# -- batches -------------------------------------------------------------------------------------


def _batches(*, bodies: Sequence[bytes] = (b"", b"body", b"x" * 300)) -> bytes:
    batches = []
    for number, body in enumerate(bodies):
        draft = Draft.of(body, number + 1)
        draft = replace(draft, producer_id=number * 7, producer_epoch=1, sequence=number * 100)
        batches.append(draft.stamp(number + 1, 3, number * 10, 1_000 + number))
    batches.append(Draft.of(b"", 0, Kind.NOOP).stamp(9, 3, 40, 2_000))
    return join_batches(batches)


def _gap() -> bytes:
    header = BatchHeader(0, 0, 500, Index(7), Term(2), Offset(3), 5, kind=Kind.GAP, index_count=90)
    return header.encode()


def _encrypted() -> bytes:
    batch = Draft.of(b"n" * 44, 3).stamp(1, 1, 0, 9)
    return replace(batch.header, flags=ENCRYPTED).encode() + bytes(batch.body)


def _check_header(data: bytes) -> None:
    header = decode_header(data)
    expect(header.encode() == data[:HEADER_SIZE], "a header encodes to the bytes it came from")
    expect(header_of(decode_fields(data, 0)) == header, "both ways to decode a header agree")
    expect(header.next_index > header.index, "a batch takes an index")


def _check_batches(data: bytes) -> None:
    batches = list(iterate_batches(data))
    expect(join_batches(batches) == data, "batches join to the bytes they came from")


# -- records -------------------------------------------------------------------------------------


def _bodies() -> list[bytes]:
    records = [
        RecordData(b"value"),
        RecordData(b"v" * 200, b"key"),
        RecordData(None, b"tombstone"),
        RecordData(b"", b""),
        RecordData(b"x", None, {"trace": b"1", "": b""}),
    ]
    return [bytes([0]) + encode_body(records), bytes([2]) + encode_body(records[:1] * 40)]


def _check_records(data: bytes) -> None:
    """The first byte says where to start; the rest is a body, in which protobuf has its say."""
    start, body = data[0] if data else 0, data[1:]
    try:
        expected = _by_protobuf(body)
    except DecodeError:
        header = _header_for(body, start or 1)
        expect(_is_refused(header, body), "a body that protobuf refuses is refused")
        return
    header = _header_for(body, len(expected))
    check_records(body, len(expected))
    found = list(decode_records(header, body, start))
    expect(found == expected[start:], "records are those that protobuf finds")
    again = encode_body([RecordData(each.value, each.key, each.headers) for each in expected])
    expect(_by_protobuf(again) == expected, "records come back as they were written")
    wrong = _header_for(body, len(expected) + 1)
    expect(_is_refused(wrong, body), "a wrong count is refused")


def _header_for(body: bytes, record_count: int) -> BatchHeader:
    return Draft.of(body, record_count).stamp(1, 1, 0, 0).header


def _is_refused(header: BatchHeader, body: bytes) -> bool:
    refusals = 0
    try:
        check_records(body, header.record_count)
    except InvalidBatch:
        refusals += 1
    try:
        list(decode_records(header, body))
    except InvalidBatch:
        refusals += 1
    return refusals == 2


def _by_protobuf(body: bytes) -> list[Record]:
    return [
        Record(
            Offset(offset),
            record.value if record.HasField("value") else None,
            record.key if record.HasField("key") else None,
            {item.key: item.value for item in record.headers},
            0,
        )
        for offset, record in enumerate(RecordBatch.FromString(body).records)
    ]


# -- headers, marks, indexes ---------------------------------------------------------------------


def _segment_headers() -> list[bytes]:
    plain = SegmentHeader(Index(5), Offset(70), Term(2), 999, 1_000, 3)
    stamped = replace(plain, key=KeyStamp("2026-11", bytes(range(32)), b"t" * 16))
    return [plain.encode(), stamped.encode() + bytes(50)]


def _check_segment_header(data: bytes) -> None:
    header = decode_segment_header(data, _PATH)
    expect(decode_segment_header(header.encode(), _PATH) == header, "a header comes back")
    if header.key is not None:
        encoded = header.encode()
        expect(encoded == data[: len(encoded)], "a header encodes to the bytes it came from")


def _disk_with(data: bytes) -> SimDisk:
    disk = SimDisk(Random(0))
    file = disk.open(_PATH, create=True)
    file.write_at(0, [data])
    file.close()
    return disk


def _marks() -> list[bytes]:
    disk = SimDisk(Random(0))
    file: File = disk.open(_PATH, create=True)
    pages = MarkPages()
    mark = Mark(Index(4), 20_000, Offset(9), Term(2), 1_234, Index(3), Offset(1))
    pages.store(file, mark)
    one = disk.content(_PATH)
    pages.store(file, replace(mark, cleaned_to=Offset(5), horizon_ms=77, is_closed=True))
    return [one, disk.content(_PATH)]


def _check_mark(data: bytes) -> None:
    disk = _disk_with(data)
    file: File = disk.open(_PATH)
    pages = MarkPages()
    mark = pages.load(file)
    if mark is None:
        raise Corrupt(_PATH, _MARKS_AT, "a mark", "none")
    try:
        pages.store(file, mark)
    except struct.error:
        # The slot had the last number there is: 2^64 syncs.
        return
    expect(MarkPages().load(file) == mark, "a mark comes back")


def _repair_mark(data: bytes) -> bytes:
    return repair_slots(data, b"QLM\x01", _MARKS_AT, _MARK_SLOT_BYTES)


def _indexes() -> list[bytes]:
    seal = Seal(*range(10, 10 + len(fields(Seal))))
    index = SparseIndex(_INTERVAL_BYTES)
    for number in range(12):
        header = Draft.of(b"", 1).stamp(number + 1, 1 + number // 5, number, 100 * number).header
        index.add(header, 12_288 + 200 * number)
    return [index.encode(seal), index.until(2).encode(seal)]


def _check_index(data: bytes) -> None:
    raw_seal = data[_SEAL_AT : _SEAL_AT + _SEAL.size]
    seal = Seal(*_SEAL.unpack(raw_seal.ljust(_SEAL.size, b"\0")))
    index = decode_index(data, seal, _INTERVAL_BYTES)
    if index is None:
        raise Corrupt(_PATH, 0, "an index", "none")
    expect(index.encode(seal) == data, "an index encodes to the bytes it came from")
    expect(
        decode_index(data, replace(seal, end=seal.end ^ 1), _INTERVAL_BYTES) is None,
        "an index of another state of the segment is not taken",
    )
    for number in (0, 1, 7, 2**64 - 1):
        index.at_index(number)
        index.at_offset(number)
        index.before_time(number)


def _hard_states() -> list[bytes]:
    disk = SimDisk(Random(0))
    file = HardStateFile(disk, _PATH)
    images = []
    for state in (HardState(Term(1)), HardState(Term(9), NodeId("a" * 32))):
        file.save(state)
        images.append(disk.content(_PATH))
    return images


def _check_hard_state(data: bytes) -> None:
    disk = _disk_with(data)
    state = HardStateFile(disk, _PATH).load()
    again = HardStateFile(disk, _PATH)
    try:
        again.save(state)
    except struct.error:
        # As with a mark.
        return
    expect(HardStateFile(disk, _PATH).load() == state, "term and vote come back")


def _repair_hard_state(data: bytes) -> bytes:
    for position in (0, 2 * SLOT_STRIDE):
        data = repair_slots(data, b"QLH\x01", position, _HARD_STATE_SLOT_BYTES)
    return data


# -- saved states --------------------------------------------------------------------------------


def _state_path(index: int) -> str:
    return f"{index:020}.state"


def _states() -> list[bytes]:
    disk = SimDisk(Random(0))
    empty = StateSnapshot(Index(4), Term(2), Offset(9), 1_234, b"", b"")
    images = []
    for snapshot in (empty, replace(empty, configuration=b"who", state=b"s" * 200)):
        save_snapshot(disk, "", snapshot)
        images.append(disk.content(_state_path(4)))
    return images


def _check_state(data: bytes) -> None:
    (index,) = _INDEX.unpack(data[_STATE_INDEX_AT:][:8].ljust(8, b"\0"))
    disk = SimDisk(Random(0))
    disk.open(_state_path(index), create=True).write_at(0, [data])
    snapshot = load_newest(disk, "", index).snapshot
    if snapshot is None:
        raise Corrupt(_PATH, 0, "a state", "none")
    save_snapshot(disk, "", snapshot)
    expect(disk.content(_state_path(index)) == data, "a state encodes to the bytes it came from")


# -- names ---------------------------------------------------------------------------------------


def _check_name(data: bytes) -> None:
    name = data.decode("utf-8", "surrogateescape")
    first = first_index_of(name)
    expect(first is None or segment_name(first) == name, "a segment has one name")
    both = compacted_range_of(name)
    expect(both is None or compacted_name(*both) == name, "a compacted file has one name")


STORAGE_TARGETS: Final = (
    Target(
        "batch-header",
        _check_header,
        (ProtocolError,),
        lambda: [_batches()[:HEADER_SIZE], _gap(), _encrypted()[:HEADER_SIZE]],
        repair_batch_header,
    ),
    Target(
        "batches",
        _check_batches,
        (ProtocolError,),
        lambda: [_batches(), _gap() + _batches(), _encrypted()],
        repair_batches,
    ),
    Target("records", _check_records, (InvalidBatch, RecordTooLarge), _bodies),
    Target(
        "segment-header",
        _check_segment_header,
        (Corrupt,),
        _segment_headers,
        repair_segment_header,
    ),
    Target("mark", _check_mark, (Corrupt,), _marks, _repair_mark),
    Target("sparse-index", _check_index, (Corrupt,), _indexes, repair_index),
    Target("hard-state", _check_hard_state, (Corrupt,), _hard_states, _repair_hard_state),
    Target("state-snapshot", _check_state, (Corrupt,), _states, repair_state),
    Target(
        "file-names",
        _check_name,
        (),
        lambda: [segment_name(1).encode(), compacted_name(1, 9).encode()],
    ),
)
