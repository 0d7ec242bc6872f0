"""Messages survive the wire, and nothing else does."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.errors import ProtocolError
from quorumlog.log.batch import ENCRYPTED, Batch, Draft
from quorumlog.replication.core.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from quorumlog.replication.wire import decode, encode
from quorumlog.types import MAX_MESSAGE_BYTES, Index, Term
from raft.memory_log import batches_of
from raft.single import append_request

numbers = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1]))
terms = numbers.map(Term)
indexes = numbers.map(Index)


@st.composite
def append_requests(draw: st.DrawFn) -> AppendRequest:
    index, term, offset, time_ms = (draw(st.integers(0, 2**60)) for _ in range(4))
    prev_index, prev_term = Index(index), Term(term)
    batches: list[Batch] = []
    for body in draw(st.lists(st.binary(max_size=50), max_size=4)):
        index += 1
        term += draw(st.integers(0, 3))
        time_ms += draw(st.integers(0, 9))
        records = draw(st.integers(1, 1000))
        batches.append(Draft.of(body, records).stamp(index, term, offset, time_ms))
        offset += records
    leader_term = Term(term + draw(st.integers(0, 3)))
    return AppendRequest(
        leader_term, prev_index, prev_term, draw(indexes), tuple(batches), draw(numbers)
    )


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(VoteRequest, terms, indexes, terms, st.booleans(), st.booleans()),
    st.builds(VoteResponse, terms, st.booleans(), st.booleans()),
    st.builds(AppendResponse, terms, st.booleans(), indexes, indexes, indexes, terms, numbers),
    st.builds(TimeoutNow, terms),
    append_requests(),
)


@given(messages)
def test_a_message_comes_back_as_it_went(message: Message) -> None:
    assert decode(encode(message)) == message
    assert decode(memoryview(bytearray(encode(message)))) == message


@given(messages, st.data())
def test_a_message_cut_short_is_refused(message: Message, data: st.DataObject) -> None:
    payload = encode(message)
    batches = message.batches if isinstance(message, AppendRequest) else ()
    whole = {len(payload) - sum(batch.size_bytes for batch in batches[n:]) for n in range(5)}
    length = data.draw(st.integers(0, len(payload) - 1))
    if length in whole:
        assert len(decode(payload[:length]).batches) < len(batches)  # type: ignore[union-attr]
    else:
        with pytest.raises(ProtocolError):
            decode(payload[:length])


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_means_exactly_one_message(payload: bytes) -> None:
    try:
        message = decode(payload)
    except ProtocolError:
        return
    assert encode(message) == payload


@given(messages, st.data())
def test_a_flipped_bit_is_refused_or_means_another_message(
    message: Message, data: st.DataObject
) -> None:
    payload = bytearray(encode(message))
    at = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[at // 8] ^= 1 << at % 8
    try:
        other = decode(payload)
    except ProtocolError:
        return
    assert other != message
    assert encode(other) == payload


def test_every_flipped_bit_of_a_batch_is_refused() -> None:
    payload = bytearray(encode(append_request(3, 4, 2, [3, 3])))
    for at in range(8 * 41, 8 * len(payload)):
        payload[at // 8] ^= 1 << at % 8
        with pytest.raises(ProtocolError):
            decode(payload)
        payload[at // 8] ^= 1 << at % 8


def test_decoded_batches_are_views_of_the_payload() -> None:
    payload = encode(append_request(1, 0, 0, [1]))
    message = decode(payload)
    assert isinstance(message, AppendRequest)
    body = message.batches[0].body
    assert isinstance(body, memoryview)
    assert body.obj is payload


@pytest.mark.parametrize(
    "batches",
    [
        batches_of([1, 1], 3, 2),
        batches_of([1], 2, 1) + batches_of([1], 4, 2),
        batches_of([2], 2, 1) + batches_of([1], 3, 2),
        batches_of([1], 2, 1) + batches_of([1], 3, 9),
        batches_of([0], 2, 1),
        batches_of([6], 2, 1),
        [
            Draft.of(b"", 1).stamp(2, 1, 1, 100),
            Draft.of(b"", 1).stamp(3, 1, 2, 99),
        ],
    ],
)
def test_batches_that_do_not_continue_each_other_are_refused(batches: list[Batch]) -> None:
    request = AppendRequest(Term(5), Index(1), Term(1), Index(0), tuple(batches))
    with pytest.raises(ProtocolError):
        decode(encode(request))


def test_an_encrypted_batch_is_refused() -> None:
    header = replace(batches_of([1], 2, 1)[0].header, flags=ENCRYPTED, body_length=32)
    header = replace(header, body_crc=Draft.of(bytes(32)).body_crc)
    batch = Batch(header, header.encode(), bytes(32))
    request = AppendRequest(Term(5), Index(1), Term(1), Index(0), (batch,))
    with pytest.raises(ProtocolError, match="encrypted"):
        decode(encode(request))


def test_a_message_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="not 16777217"):
        decode(bytes(MAX_MESSAGE_BYTES + 1))
