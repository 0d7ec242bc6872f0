"""The two ways records are decoded agree, and damage is an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import InvalidBatch
from quorumlog.log._pb.record_pb2 import RecordBatch
from quorumlog.log.batch import BatchHeader, Draft
from quorumlog.log.records import decode_records, encode_body
from quorumlog.types import Record, RecordData

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


def header_of(body: bytes, record_count: int, base_offset: int = 40) -> BatchHeader:
    return Draft.of(body, record_count).stamp(1, 1, base_offset, 77).header


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


def test_a_record_cannot_be_changed() -> None:
    record = Record(1, b"value")
    with pytest.raises(AttributeError):
        record.value = b"other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        record.headers["x"] = b""  # type: ignore[index]
