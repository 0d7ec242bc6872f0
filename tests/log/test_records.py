"""Every way of reading a body gives the same records, and damage is an error."""

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import InvalidArgument, InvalidBatch, RecordTooLarge
from quorumlog.log._pb.record_pb2 import Header, RecordBatch
from quorumlog.log._pb.record_pb2 import Record as RecordMessage
from quorumlog.log.batch import CODEC_NONE, CODEC_ZSTD, SPARSE, BatchHeader, Draft
from quorumlog.log.compression import compress
from quorumlog.log.records import (
    check_records,
    decode_records,
    encode_body,
    encode_record,
    encode_sparse_body,
    iterate_keyed,
    parse_records,
)
from quorumlog.types import MAX_RECORD_BYTES, Offset, Record, RecordData

SIZES = [0, 1, 127, 128, 129, 16_383, 16_384, 20_000]
CONTENTS = st.one_of(
    st.none(), st.binary(max_size=200), st.sampled_from([b"x" * size for size in SIZES])
)
RECORDS = st.builds(
    RecordData,
    value=CONTENTS,
    key=CONTENTS,
    headers=st.one_of(
        st.none(), st.dictionaries(st.text(max_size=10), st.binary(max_size=10), max_size=3)
    ),
)


BASE = 40


def header_of(
    body: bytes, record_count: int, base_offset: int = BASE, flags: int = 0, codec: int = CODEC_NONE
) -> BatchHeader:
    header = Draft.of(body, record_count).stamp(1, 1, base_offset, 77).header
    return replace(header, flags=flags, codec=codec)


def expected_of(kept: Sequence[tuple[int, RecordData]]) -> list[Record]:
    return [
        Record(Offset(BASE + delta), each.value, each.key, dict(each.headers or {}), 77)
        for delta, each in kept
    ]


@given(st.lists(RECORDS, min_size=1, max_size=6), st.integers(30, 50))
def test_what_is_encoded_is_decoded_from_any_offset_on(
    records: list[RecordData], start: int
) -> None:
    body = encode_body(records)
    expected = [
        Record(40 + number, each.value, each.key, dict(each.headers or {}), 77)
        for number, each in enumerate(records)
    ]
    decoded = list(decode_records(header_of(body, len(records)), body, start))
    assert decoded == [record for record in expected if record.offset >= start]


@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.sampled_from([0x0A, 0x12, 0x1A, 0, 1, 2, 3, 5, 0x80, 0x81, 0xFF]), max_size=20
        ).map(bytes),
    )
)
def test_any_bytes_give_what_protobuf_says_or_an_error(body: bytes) -> None:
    try:
        message = RecordBatch.FromString(body)
    except Exception:
        message = None
    count = 1 if message is None else len(message.records)
    header = header_of(body, max(count, 1), base_offset=0)
    try:
        decoded = list(decode_records(header, body))
    except InvalidBatch:
        assert message is None or count == 0
        return
    assert message is not None
    assert [(record.key, record.value) for record in decoded] == [
        (
            each.key if each.HasField("key") else None,
            each.value if each.HasField("value") else None,
        )
        for each in message.records
    ]


def test_a_wrong_count_is_an_error() -> None:
    body = encode_body([RecordData(b"a"), RecordData(b"b", headers={"h": b"1"})])
    for count in (1, 3):
        with pytest.raises(InvalidBatch, match=f"says {count} records"):
            list(decode_records(header_of(body, count), body))


# ------------------------------------------------------------------------------------- all shapes


@st.composite
def thinned(draw: st.DrawFn) -> tuple[list[tuple[int, RecordData]], int]:
    """Records that are left with their deltas, and of how many."""
    count = draw(st.sampled_from([1, 5, 6, 200, 70_000]))
    deltas = sorted(draw(st.sets(st.integers(0, count - 1), max_size=6)))
    return [(delta, draw(RECORDS)) for delta in deltas], count


@given(thinned(), st.booleans(), st.sampled_from([0, BASE, BASE + 3, BASE + 100, BASE + 70_000]))
def test_every_way_of_reading_a_sparse_body_gives_what_is_left(
    sparse: tuple[list[tuple[int, RecordData]], int], is_compressed: bool, start: int
) -> None:
    kept, count = sparse
    body = encode_sparse_body([(delta, encode_record(each)) for delta, each in kept])
    codec = CODEC_ZSTD if is_compressed else CODEC_NONE
    body = compress(body) if is_compressed else body
    header = header_of(body, count, flags=SPARSE, codec=codec)
    expected = expected_of(kept)
    decoded = list(decode_records(header, memoryview(body), start))
    assert decoded == [record for record in expected if record.offset >= start]
    assert list(iterate_keyed(header, body)) == [
        (delta, each.key, each.value is None, encode_record(each)) for delta, each in kept
    ]
    deltas, messages = parse_records(header, body)
    assert list(deltas) == [delta for delta, _ in kept]
    assert [message.value for message in messages] == [each.value or b"" for _, each in kept]


@given(st.lists(RECORDS, min_size=1, max_size=6), st.integers(30, 50))
def test_every_way_of_reading_a_compressed_dense_body_gives_its_records(
    records: list[RecordData], start: int
) -> None:
    body = compress(encode_body(records))
    header = header_of(body, len(records), codec=CODEC_ZSTD)
    check_records(body, len(records), codec=CODEC_ZSTD)
    expected = expected_of(list(enumerate(records)))
    decoded = list(decode_records(header, body, start))
    assert decoded == [record for record in expected if record.offset >= start]
    assert list(iterate_keyed(header, body)) == [
        (delta, each.key, each.value is None, encode_record(each))
        for delta, each in enumerate(records)
    ]
    assert list(parse_records(header, body)[0]) == list(range(len(records)))


@given(
    st.lists(
        st.sampled_from([0x0A, 0x12, 0x1A, 0, 1, 2, 3, 4, 5, 0x80, 0x81, 0xFF]), max_size=24
    ).map(bytes),
    st.integers(1, 6),
    st.booleans(),
)
def test_all_ways_of_reading_agree_on_any_bytes(body: bytes, count: int, is_sparse: bool) -> None:
    header = header_of(body, count, base_offset=0, flags=SPARSE if is_sparse else 0)
    try:
        deltas, messages = parse_records(header, body)
    except InvalidBatch:
        for read in (decode_records, iterate_keyed):
            with pytest.raises(InvalidBatch):
                list(read(header, body))
        return
    decoded = list(decode_records(header, body))
    keyed = list(iterate_keyed(header, body))
    whole = list(zip(deltas, messages, strict=True))
    assert [(each.offset, each.key) for each in decoded] == [
        (delta, each.key if each.HasField("key") else None) for delta, each in whole
    ]
    assert [(delta, key, gone) for delta, key, gone, _ in keyed] == [
        (each.offset, each.key, each.value is None) for each in decoded
    ]
    again = encode_sparse_body([(delta, field) for delta, _, _, field in keyed])
    assert list(parse_records(header_of(again, count, 0, SPARSE), again)[1]) == list(messages)


def test_what_other_producers_encode_differently_is_kept_as_they_did() -> None:
    backwards = (
        RecordMessage(headers=[Header(key="h", value=b"1")]).SerializeToString()
        + RecordMessage(value=b"v").SerializeToString()
        + RecordMessage(key=b"k").SerializeToString()
    )
    field = b"\x0a" + bytes([len(backwards)]) + backwards
    unknown = b"\x78\x01"
    plain = encode_record(RecordData(b"plain"))
    for body in (field + plain, field + unknown + plain, unknown + field + plain):
        check_records(body, 2)
        header = header_of(body, 2)
        assert [each[:3] for each in iterate_keyed(header, body)] == [
            (0, b"k", False),
            (1, None, False),
        ]
        fields = [(delta, each) for delta, _, _, each in iterate_keyed(header, body)]
        again = encode_sparse_body(fields)
        assert list(decode_records(header_of(again, 2, flags=SPARSE), again)) == list(
            decode_records(header, body)
        )
    assert [each[3] for each in iterate_keyed(header_of(field, 1), field)] == [field]


def test_a_length_of_three_bytes_is_not_read_as_one_of_two() -> None:
    size_bytes = 0x12 << 14
    unknown = b"\xfd\x7f" + bytes(4)
    value = bytes(size_bytes - len(unknown) - 4)
    # Read as two bytes the length is that of a value which the next bytes seem to begin.
    body = b"\x0a\x80\x80\x12" + unknown + RecordMessage(value=value).SerializeToString()
    check_records(body, 1)
    header = header_of(body, 1)
    assert [record.value for record in decode_records(header, body)] == [value]
    assert list(iterate_keyed(header, body)) == [(0, None, False, body)]


# ------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("is_sparse", [False, True])
def test_a_body_cut_anywhere_is_an_error_to_everybody(is_sparse: bool) -> None:
    records = [RecordData(b"value"), RecordData(b"v", b"k"), RecordData(bytes(200))]
    fields = [(delta, encode_record(record)) for delta, record in enumerate(records)]
    body = encode_sparse_body(fields) if is_sparse else encode_body(records)
    header = header_of(body, 3, flags=SPARSE if is_sparse else 0)
    # Of a sparse body nothing at all is one without records.
    for end in range(1, len(body)):
        for read in (decode_records, iterate_keyed):
            with pytest.raises(InvalidBatch):
                list(read(header, body[:end]))


def deltas_field(*deltas: int) -> bytes:
    return RecordBatch(offset_deltas=deltas).SerializeToString()


A = encode_record(RecordData(b"a"))
SPARSE_DAMAGE = [
    pytest.param(A, "begins with the offset deltas", id="no deltas"),
    pytest.param(A + deltas_field(0), "begins with the offset deltas", id="deltas last"),
    pytest.param(deltas_field(0)[:-1], "begins with the offset deltas", id="deltas cut off"),
    pytest.param(deltas_field(0, 1) + A, "says 2 records, its body has 1", id="too few"),
    pytest.param(deltas_field(0) + A + A, "says 1 records, its body has 2", id="too many"),
    pytest.param(deltas_field(0) + A + deltas_field(1) + A, "where none can be", id="twice"),
    pytest.param(deltas_field(1, 1) + A + A, "do not increase", id="equal"),
    pytest.param(deltas_field(2, 1) + A + A, "do not increase", id="falling"),
    pytest.param(deltas_field(4) + A, "delta 4 in a batch of 4", id="beyond the end"),
    pytest.param(b"\x12\x01\xff" + A, "not an encoded RecordBatch", id="no number"),
]


@pytest.mark.parametrize(("body", "message"), SPARSE_DAMAGE)
def test_a_sparse_body_that_breaks_the_rules_is_an_error_to_everybody(
    body: bytes, message: str
) -> None:
    header = header_of(body, 4, flags=SPARSE)
    for read in (decode_records, iterate_keyed):
        with pytest.raises(InvalidBatch, match=message):
            list(read(header, body))
    with pytest.raises(InvalidBatch, match=message):
        parse_records(header, body)


def test_a_batch_whose_records_are_all_gone_is_empty() -> None:
    assert encode_sparse_body([]) == b""
    header = header_of(b"", 4, flags=SPARSE)
    assert list(decode_records(header, b"")) == []
    assert list(iterate_keyed(header, b"")) == []
    assert len(parse_records(header, b"")[1]) == 0


def test_a_dense_body_lists_no_offsets() -> None:
    body = deltas_field(0) + A
    header = header_of(body, 1)
    for read in (decode_records, iterate_keyed):
        with pytest.raises(InvalidBatch, match="not sparse"):
            list(read(header, body))
    with pytest.raises(InvalidBatch, match="not sparse"):
        parse_records(header, body)
    with pytest.raises(InvalidBatch, match="not sparse"):
        check_records(body, 1)


def test_a_damaged_frame_is_an_error_to_everybody() -> None:
    body = compress(encode_body([RecordData(b"a" * 100)] * 9))[:-1]
    header = header_of(body, 9, codec=CODEC_ZSTD)
    for read in (decode_records, iterate_keyed):
        with pytest.raises(InvalidBatch, match="truncated"):
            list(read(header, body))
    with pytest.raises(InvalidBatch, match="truncated"):
        parse_records(header, body)
    with pytest.raises(InvalidBatch, match="truncated"):
        check_records(body, 9, codec=CODEC_ZSTD)


def test_the_limits_are_those_of_what_is_in_the_frame() -> None:
    large = compress(encode_body([RecordData(bytes(MAX_RECORD_BYTES))]))
    check_records(large, 1, codec=CODEC_ZSTD)
    with pytest.raises(RecordTooLarge):
        check_records(large, 1, limit_bytes=MAX_RECORD_BYTES - 100, codec=CODEC_ZSTD)
    with pytest.raises(InvalidBatch, match="over 1000 bytes"):
        check_records(large, 1, codec=CODEC_ZSTD, body_limit_bytes=1000)
    four = compress(encode_body([RecordData(bytes(MAX_RECORD_BYTES))] * 4))
    for read in (decode_records, iterate_keyed):
        with pytest.raises(InvalidBatch, match="when it is decompressed"):
            list(read(header_of(four, 4, codec=CODEC_ZSTD), four))


def test_a_record_cannot_be_changed() -> None:
    record = Record(1, b"value")
    with pytest.raises(AttributeError):
        record.value = b"other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        record.headers["x"] = b""  # type: ignore[index]


@pytest.mark.parametrize("part", ["value", "key", "header"])
@pytest.mark.parametrize("wide", [array("I", [1, 2, 3]), memoryview(array("I", [1, 2, 3]))])
def test_what_counts_in_more_than_bytes_is_never_stored_with_a_wrong_length(
    part: str, wide: Any
) -> None:
    data = {
        "value": RecordData(wide),
        "key": RecordData(b"v", wide),
        "header": RecordData(b"v", None, {"h": wide}),
    }[part]
    try:
        body = encode_record(data)
    except InvalidArgument:
        return
    record = RecordBatch.FromString(body).records[0]
    stored = {"value": record.value, "key": record.key, "header": record.headers[0:1]}[part]
    assert (stored[0].value if part == "header" else stored) == wide.tobytes()


def test_bytes_of_other_types_are_stored_as_bytes() -> None:
    expected = encode_record(RecordData(b"value", b"key", {"h": b"content"}))
    for kind in (bytearray, memoryview, type("Own", (bytes,), {})):
        given = RecordData(kind(b"value"), kind(b"key"), {"h": kind(b"content")})
        assert encode_record(given) == expected
    for wrong in ("text", 3, [1, 2], object()):
        for data in (
            RecordData(wrong),
            RecordData(b"", wrong),
            RecordData(b"", None, {"h": wrong}),
        ):
            with pytest.raises(InvalidArgument, match="bytes"):
                encode_record(data)
