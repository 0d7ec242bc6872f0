"""The fast check of headers against an obviously correct one."""

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import Corrupt
from quorumlog.log.batch import (
    ENCRYPTED,
    HEADER_SIZE,
    SPARSE,
    Batch,
    BatchHeader,
    Draft,
    Kind,
    decode_header,
    join_batches,
)
from quorumlog.log.scan import Span, check_headers, end_of_data
from quorumlog.types import Index, Offset, Term
from sim.disk import SimDisk

_POSITION = 12_288
_FIRST_INDEX = 7
_FIRST_OFFSET = 40


@dataclass(frozen=True)
class _Limits:
    last_index: int
    limit: int
    end_offset: int
    max_records: int


def _batch(shape: tuple[Kind, int, int, int], index: int, offset: int) -> Batch:
    kind, count, body_bytes, flags = shape
    body = bytes(0 if kind is Kind.GAP else body_bytes)
    takes_offsets = kind in (Kind.RECORDS, Kind.GAP)
    header = BatchHeader(
        body_crc=Draft.of(body).body_crc,
        body_length=len(body),
        record_count=count if takes_offsets else 0,
        index=Index(index),
        term=Term(1),
        base_offset=Offset(offset),
        timestamp_ms=0,
        kind=kind,
        codec=body_bytes % 2,
        flags=flags if kind is Kind.RECORDS else 0,
        index_count=count if kind is Kind.GAP else 1,
    )
    return Batch(header, header.encode(), body)


def _batches(shapes: list[tuple[Kind, int, int, int]]) -> list[Batch]:
    batches: list[Batch] = []
    index, offset = _FIRST_INDEX, _FIRST_OFFSET
    for shape in shapes:
        batches.append(_batch(shape, index, offset))
        index, offset = batches[-1].header.next_index, batches[-1].header.next_offset
    return batches


def _check(data: bytes, limits: _Limits, *, is_encrypted: bool = False) -> Span:
    return check_headers(
        data,
        "segment",
        _POSITION,
        _FIRST_INDEX,
        limits.last_index,
        limits.limit,
        limits.end_offset,
        limits.max_records,
        is_encrypted=is_encrypted,
    )


def _check_slowly(data: bytes, limits: _Limits) -> Span:
    taken: list[BatchHeader] = []
    others = []
    at = 0
    index = _FIRST_INDEX
    while index <= limits.last_index and (not taken or at + HEADER_SIZE <= limits.limit):
        header = decode_header(data, at)
        end = at + header.size_bytes
        records = sum(each.record_count for each in [*taken, header])
        if taken and end > limits.limit:
            break
        if taken and (header.base_offset >= limits.end_offset or records > limits.max_records):
            break
        if header.kind is not Kind.RECORDS:
            others.append((at, end))
        taken.append(header)
        at = end
        index = header.next_index
    return Span(at, taken[-1].next_index, taken[-1].next_offset, others)


_SHAPES = st.lists(
    st.tuples(
        st.sampled_from([Kind.RECORDS] * 4 + list(Kind)),
        st.integers(1, 9),
        st.integers(0, 90),
        st.sampled_from([0, 0, SPARSE]),
    ),
    min_size=1,
    max_size=8,
)


def _limit(most: int) -> st.SearchStrategy[int]:
    """None most of the time: the others have to be seen at work."""
    return st.one_of(st.just(most), st.just(most), st.integers(0, most))


@given(_SHAPES, _limit(90), _limit(2000), _limit(90), _limit(90))
def test_a_span_is_what_checking_one_header_after_the_other_gives(
    shapes: list[tuple[Kind, int, int, int]],
    batch_limit: int,
    limit: int,
    offset_limit: int,
    max_records: int,
) -> None:
    batches = _batches(shapes)
    data = join_batches(batches)
    last_index = min(_FIRST_INDEX + batch_limit, batches[-1].header.next_index - 1)
    limits = _Limits(last_index, min(limit, len(data)), _FIRST_OFFSET + offset_limit, max_records)
    assert _check(data, limits) == _check_slowly(data, limits)


@pytest.mark.parametrize(
    "limits",
    [
        _Limits(_FIRST_INDEX + 1, 400, 2**63, 2**63),
        _Limits(_FIRST_INDEX + 3, 299, 2**63, 2**63),
        _Limits(_FIRST_INDEX + 3, 400, _FIRST_OFFSET + 4, 2**63),
        _Limits(_FIRST_INDEX + 3, 400, 2**63, 5),
    ],
    ids=["last_index", "limit", "end_offset", "max_records"],
)
def test_each_limit_ends_a_span(limits: _Limits) -> None:
    data = join_batches(_batches([(Kind.RECORDS, 2, 20, 0)] * 4))
    assert len(data) == 400
    assert _check(data, limits) == Span(200, _FIRST_INDEX + 2, _FIRST_OFFSET + 4, [])


@given(_SHAPES, st.integers(0, 10_000))
def test_a_flipped_bit_in_any_header_is_found(
    shapes: list[tuple[Kind, int, int, int]], chosen: int
) -> None:
    batches = _batches(shapes)
    damaged, bit = divmod(chosen, HEADER_SIZE * 8)
    damaged %= len(batches)
    begin = sum(batch.size_bytes for batch in batches[:damaged])
    data = bytearray(join_batches(batches))
    data[begin + bit // 8] ^= 1 << bit % 8
    limits = _Limits(batches[-1].header.next_index - 1, len(data), 2**63, 2**63)
    with pytest.raises(Corrupt) as raised:
        _check(bytes(data), limits)
    assert raised.value.position == _POSITION + begin


def test_a_batch_of_another_index_is_found() -> None:
    batches = _batches([(Kind.RECORDS, 1, 10, 0)] * 3)
    data = join_batches([batches[0], batches[2]])
    with pytest.raises(Corrupt, match="batch 9"):
        _check(data, _Limits(batches[2].header.index, len(data), 2**63, 2**63))


def test_a_buffer_shorter_than_a_header_is_corrupt() -> None:
    data = join_batches(_batches([(Kind.RECORDS, 1, 10, 0)]))[: HEADER_SIZE - 1]
    with pytest.raises(Corrupt):
        _check(data, _Limits(_FIRST_INDEX, len(data), 2**63, 2**63))


def test_the_first_batch_counts_even_if_its_body_is_not_all_there() -> None:
    (batch,) = _batches([(Kind.RECORDS, 3, 50, 0)])
    data = join_batches([batch])[:HEADER_SIZE]
    span = _check(data, _Limits(_FIRST_INDEX, 1, _FIRST_OFFSET, 1))
    assert span == Span(batch.size_bytes, _FIRST_INDEX + 1, _FIRST_OFFSET + 3, [])


def test_an_encrypted_batch_is_corrupt_in_a_plain_segment_only() -> None:
    batches = _batches([(Kind.RECORDS, 1, 50, 0), (Kind.RECORDS, 1, 50, ENCRYPTED)])
    data = join_batches(batches)
    limits = _Limits(batches[1].header.index, len(data), 2**63, 2**63)
    assert _check(data, limits, is_encrypted=True).end == len(data)
    with pytest.raises(Corrupt, match="encrypted") as raised:
        _check(data, limits)
    assert raised.value.position == _POSITION + batches[0].size_bytes


@pytest.mark.parametrize("zeros", [0, 1, 4095, 4096, 4097, 3 << 20])
@pytest.mark.parametrize("last", [None, 0, 1, 4095, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 700])
def test_data_ends_behind_its_last_byte_that_is_not_zero(last: int | None, zeros: int) -> None:
    file = SimDisk(Random(1)).open("data", create=True)
    begin = 100
    file.write_at(0, [b"x" * begin])
    if last is not None:
        file.write_at(begin + last, [b"x"])
    size = file.size_bytes()
    file.allocate(size + zeros)
    assert end_of_data(file, begin) == size
