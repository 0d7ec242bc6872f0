"""What compaction leaves of a batch, beside an obviously correct list."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.log.batch import (
    CODEC_NONE,
    CODEC_ZSTD,
    MAX_GAP,
    SPARSE,
    Batch,
    BatchHeader,
    Draft,
    Kind,
    check_body,
    decode_header,
)
from quorumlog.log.cleaning.key_map import KeyMap, NewestBatches
from quorumlog.log.cleaning.thinning import Rules, thin, with_gaps
from quorumlog.log.compression import compress
from quorumlog.log.records import decode_records, encode_body
from quorumlog.types import Index, Offset, RecordData, Term

BASE = 1_000
Pair = tuple[bytes | None, bytes | None]


def batch_of(pairs: list[Pair], codec: int = CODEC_NONE, producer_id: int = 0) -> Batch:
    body = encode_body([RecordData(value, key) for key, value in pairs])
    if codec != CODEC_NONE:
        body = compress(body)
    draft = replace(Draft.of(body, len(pairs)), codec=codec, producer_id=producer_id)
    return draft.stamp(7, 2, BASE, 5_000)


def rules(
    newest: dict[bytes, int], start: int = 0, tombstones_before: int = 0, cleaned_to: int = 10**6
) -> Rules:
    keys = KeyMap(100_000, 100)
    for key, offset in newest.items():
        keys.put(key, offset)
    return Rules(
        keys, NewestBatches(10), Offset(cleaned_to), Offset(start), Offset(tombstones_before)
    )


some_pairs = st.lists(
    st.tuples(st.none() | st.sampled_from([b"a", b"b", b"c"]), st.none() | st.binary(max_size=50)),
    min_size=1,
    max_size=12,
)
some_keys = st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), st.integers(BASE, BASE + 15))


@given(
    some_pairs,
    some_keys,
    st.integers(BASE - 1, BASE + 13),
    st.integers(BASE - 1, BASE + 13),
    st.sampled_from([CODEC_NONE, CODEC_ZSTD]),
    st.data(),
)
def test_a_batch_keeps_what_the_rules_leave_and_everything_else_of_its_header(
    pairs: list[Pair],
    newest: dict[bytes, int],
    start: int,
    tombstones_before: int,
    codec: int,
    data: st.DataObject,
) -> None:
    batch = batch_of(pairs, codec)
    allowed = rules(newest, start, tombstones_before)
    expected = [
        record
        for record in decode_records(batch.header, batch.body)
        if record.offset >= start
        and (
            record.key is None
            or (
                newest.get(record.key, -1) <= record.offset
                and not (record.value is None and record.offset < tombstones_before)
            )
        )
    ]
    thinned = thin(batch, allowed)
    assert thinned.dropped == len(pairs) - len(expected)
    assert thinned.is_clean
    if not expected:
        assert thinned.batch is None
        return
    assert thinned.batch is not None
    header = thinned.batch.header
    assert decode_header(thinned.batch.head) == header
    check_body(header, thinned.batch.body)
    assert list(decode_records(header, thinned.batch.body)) == expected
    assert thinned.tombstones == sum(
        record.key is not None and record.value is None for record in expected
    )
    unchanged = {"body_crc": 0, "body_length": 0, "codec": 0, "flags": 0}
    assert replace(header, **unchanged) == replace(batch.header, **unchanged)  # type: ignore[arg-type]
    if len(expected) == len(pairs):
        assert thinned.batch is batch
        return
    assert header.flags == SPARSE
    # Once more, of what is left: as compaction does again and again.
    again = thin(thinned.batch, rules({key: BASE + 20 for key in (b"a", b"b", b"c")}))
    left = [record for record in expected if record.key is None]
    if left and len(left) < len(expected):
        assert again.batch is not None
        assert list(decode_records(again.batch.header, again.batch.body)) == left
    elif not left:
        assert again.batch is None


def test_a_batch_that_was_compressed_is_compressed_again_where_that_helps() -> None:
    pairs: list[Pair] = [(b"a", b"x" * 500), (b"b", b"x" * 500), (b"a", b"y")]
    large = thin(batch_of(pairs, CODEC_ZSTD), rules({b"a": BASE + 2})).batch
    assert large is not None
    assert large.header.codec == CODEC_ZSTD
    assert large.header.body_length < 100
    small = thin(batch_of(pairs, CODEC_ZSTD), rules({b"b": BASE + 9, b"a": BASE + 2})).batch
    assert small is not None
    assert small.header.codec == CODEC_NONE


def test_the_rules_of_batches_without_records() -> None:
    noop = Draft.of(b"", 0, Kind.NOOP).stamp(7, 2, BASE, 5_000)
    assert thin(noop, rules({})).batch is noop
    gap = next(with_gaps([(batch_of([(b"a", b"1")]).header, None)]))
    assert thin(gap, rules({})).batch is None


def test_an_emptied_batch_keeps_its_header_while_it_is_its_producers_newest() -> None:
    batch = batch_of([(b"a", b"1")], producer_id=5)
    allowed = rules({b"a": BASE + 1})
    allowed.producers.note(5, 7)
    emptied = thin(batch, allowed).batch
    assert emptied is not None
    assert (emptied.header.flags, bytes(emptied.body)) == (SPARSE, b"")
    assert thin(emptied, allowed).batch is emptied
    allowed.producers.note(5, 8)
    assert thin(batch, allowed).batch is None
    assert thin(emptied, allowed).batch is None


def test_tombstones_are_counted_as_far_as_the_pass_cleans() -> None:
    batch = batch_of([(b"a", None), (b"b", None), (b"c", None), (None, None)])
    assert thin(batch, rules({}, cleaned_to=BASE + 2)).tombstones == 2


def test_a_batch_that_would_outgrow_the_limit_stays_whole_and_is_not_clean() -> None:
    pairs: list[Pair] = [(b"%d" % (number % 10), None) for number in range(100)]
    batch = batch_of(pairs)
    allowed = rules({b"0": BASE + 90})
    assert thin(batch, allowed, limit_bytes=10**6).is_clean
    thinned = thin(batch, allowed, limit_bytes=batch.header.body_length)
    assert thinned.batch is batch
    assert not thinned.is_clean
    assert thinned.dropped == 0


def header_at(index: int, term: int, records: int, indexes: int = 1) -> BatchHeader:
    kind = Kind.RECORDS if indexes == 1 else Kind.GAP
    return replace(
        batch_of([(b"a", b"1")]).header,
        index=Index(index),
        term=Term(term),
        base_offset=Offset(index * 10),
        record_count=records,
        index_count=indexes,
        kind=kind,
        timestamp_ms=index * 100,
    )


def test_emptied_batches_that_meet_become_one_gap_with_the_last_timestamp() -> None:
    emptied = [header_at(1, 1, 3), header_at(2, 1, 4, indexes=5), header_at(7, 1, 2)]
    (gap,) = with_gaps((header, None) for header in emptied)
    header = decode_header(gap.head)
    assert (header.kind, header.index, header.index_count) == (Kind.GAP, 1, 7)
    assert (header.base_offset, header.record_count, header.term) == (10, 9, 1)
    assert header.timestamp_ms == 700
    assert bytes(gap.body) == b""


def test_gaps_end_where_the_term_changes_or_something_stays() -> None:
    stays = batch_of([(b"a", b"1")])
    found = with_gaps(
        [
            (header_at(1, 1, 1), None),
            (header_at(2, 2, 1), None),
            (stays.header, stays),
            (header_at(8, 2, 1), None),
        ]
    )
    kinds = [(batch.header.kind, batch.header.index) for batch in found]
    assert kinds == [(Kind.GAP, 1), (Kind.GAP, 2), (Kind.RECORDS, 7), (Kind.GAP, 8)]


@pytest.mark.parametrize("field", ["record_count", "index_count"])
def test_a_gap_stands_for_no_more_than_its_numbers_can_say(field: str) -> None:
    first = replace(header_at(1, 1, 5, indexes=5), **{field: MAX_GAP - 5})  # type: ignore[arg-type]
    fits = replace(header_at(9, 1, 5, indexes=5))
    assert len(list(with_gaps([(first, None), (fits, None)]))) == 1
    over = replace(fits, **{field: 6})  # type: ignore[arg-type]
    assert len(list(with_gaps([(first, None), (over, None)]))) == 2
