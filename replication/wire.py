"""Messages of the Raft core as bytes, and back.

One byte for the type, the fields, little-endian, then for AppendRequest its batches exactly as they
stand on disk. The version of this format is negotiated by the frames that carry it.

====  ==============  ===========================================================================
type  message         fields
====  ==============  ===========================================================================
1     VoteRequest     term u64, last_index u64, last_term u64, pre u8, force u8
2     VoteResponse    term u64, granted u8, pre u8
3     AppendRequest   term u64, prev_index u64, prev_term u64, commit_index u64, round u64, then
                      batches
4     AppendResponse  term u64, success u8, match_index u64, rejected_index u64, conflict_index
                      u64, conflict_term u64, round u64
5     TimeoutNow      term u64
====  ==============  ===========================================================================
"""

import struct
from typing import Any, Final

from quorumlog.errors import ProtocolError
from quorumlog.log.batch import ENCRYPTED, Batch, iterate_batches
from quorumlog.replication.core.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from quorumlog.types import MAX_MESSAGE_BYTES, Buffer, Index, Term

_VOTE_REQUEST: Final = 1
_VOTE_RESPONSE: Final = 2
_APPEND_REQUEST: Final = 3
_APPEND_RESPONSE: Final = 4
_TIMEOUT_NOW: Final = 5

_VOTE_REQUEST_FIELDS = struct.Struct("<BQQQ??")
_VOTE_RESPONSE_FIELDS = struct.Struct("<BQ??")
_APPEND_REQUEST_FIELDS = struct.Struct("<BQQQQQ")
_APPEND_RESPONSE_FIELDS = struct.Struct("<BQ?QQQQQ")
_TIMEOUT_NOW_FIELDS = struct.Struct("<BQ")


def encode(message: Message) -> bytes:
    """The message as bytes; the batches are copied once."""
    if isinstance(message, AppendRequest):
        fields = _APPEND_REQUEST_FIELDS.pack(
            _APPEND_REQUEST,
            message.term,
            message.prev_index,
            message.prev_term,
            message.commit_index,
            message.round,
        )
        parts: list[Buffer] = [fields]
        for batch in message.batches:
            parts += (batch.head, batch.body)
        return b"".join(parts)
    if isinstance(message, AppendResponse):
        return _APPEND_RESPONSE_FIELDS.pack(
            _APPEND_RESPONSE,
            message.term,
            message.success,
            message.match_index,
            message.rejected_index,
            message.conflict_index,
            message.conflict_term,
            message.round,
        )
    if isinstance(message, VoteRequest):
        return _VOTE_REQUEST_FIELDS.pack(
            _VOTE_REQUEST,
            message.term,
            message.last_index,
            message.last_term,
            message.pre,
            message.force,
        )
    if isinstance(message, VoteResponse):
        return _VOTE_RESPONSE_FIELDS.pack(
            _VOTE_RESPONSE, message.term, message.granted, message.pre
        )
    return _TIMEOUT_NOW_FIELDS.pack(_TIMEOUT_NOW, message.term)


def decode(payload: Buffer) -> Message:
    """The message in ``payload``; its batches are views of ``payload`` and keep it alive.

    Every checksum has been verified and the batches follow each other as in a log.

    Raises:
        ProtocolError: anything that :func:`encode` does not make.
    """
    if not 0 < len(payload) <= MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message has 1 to {MAX_MESSAGE_BYTES} bytes, not {len(payload)}")
    kind = payload[0]
    if kind == _APPEND_REQUEST:
        return _decode_append_request(payload)
    if kind == _APPEND_RESPONSE:
        return AppendResponse(*_unpack(_APPEND_RESPONSE_FIELDS, payload)[1:])
    if kind == _VOTE_REQUEST:
        return VoteRequest(*_unpack(_VOTE_REQUEST_FIELDS, payload)[1:])
    if kind == _VOTE_RESPONSE:
        return VoteResponse(*_unpack(_VOTE_RESPONSE_FIELDS, payload)[1:])
    if kind == _TIMEOUT_NOW:
        return TimeoutNow(*_unpack(_TIMEOUT_NOW_FIELDS, payload)[1:])
    raise ProtocolError(f"unknown message type {kind}")


def _unpack(fields: struct.Struct, payload: Buffer) -> tuple[Any, ...]:
    if len(payload) != fields.size:
        raise ProtocolError(
            f"a message of type {payload[0]} has {fields.size} bytes, not {len(payload)}"
        )
    values = fields.unpack(payload)
    if fields.pack(*values) != payload:
        raise ProtocolError(f"a flag of a message of type {payload[0]} is neither 0 nor 1")
    return values


def _decode_append_request(payload: Buffer) -> AppendRequest:
    view = memoryview(payload).toreadonly()
    fields = _APPEND_REQUEST_FIELDS
    if len(view) < fields.size:
        raise ProtocolError(f"an AppendRequest has at least {fields.size} bytes, not {len(view)}")
    _, term, prev_index, prev_term, commit_index, round_number = fields.unpack_from(view)
    batches = tuple(iterate_batches(view[fields.size :]))
    _check_continues(batches, prev_index, prev_term, term)
    return AppendRequest(
        Term(term), Index(prev_index), Term(prev_term), Index(commit_index), batches, round_number
    )


def _check_continues(
    batches: tuple[Batch, ...], prev_index: int, prev_term: int, leader_term: int
) -> None:
    """Raise unless the batches follow the one before, and each other, as they do in a log."""
    index, term = prev_index, prev_term
    previous: Batch | None = None
    for batch in batches:
        header = batch.header
        index += 1
        if header.index != index or header.term < term:
            raise ProtocolError(
                f"batch {header.index} of term {header.term} stands in the place of batch {index} "
                f"and after one of term {term}"
            )
        if header.flags & ENCRYPTED:
            raise ProtocolError(f"batch {index} is encrypted: only a node's own disk sees it so")
        term = header.term
        if previous is not None and (
            header.base_offset != previous.header.next_offset
            or header.timestamp_ms < previous.header.timestamp_ms
        ):
            raise ProtocolError(f"offset or time of batch {index} does not continue the one before")
        previous = batch
    if term > leader_term:
        raise ProtocolError(f"batch {index} is of term {term}, its leader of term {leader_term}")
