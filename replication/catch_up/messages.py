"""What replicas say to each other about catching up, beside the messages of the Raft core.

One byte for the type, the fields, little-endian. Types from 64 on are these; those below are the
core's (:mod:`quorumlog.replication.wire`). 68 and 69 belong to no term, and go between any two
replicas.

====  ============  =============================================================================
type  message       fields
====  ============  =============================================================================
64    StateChunk    term u64, index u64, size_bytes u32, crc u32, position u32, then the bytes
65    ChunkAnswer   term u64, index u64, size_bytes u32, crc u32, position u32
66    EndQuestion   term u64, nonce u64
67    EndAnswer     term u64, nonce u64, last_index u64
68    BatchQuestion nonce u64, first_index u64, through_index u64
69    BatchAnswer   nonce u64, then batches as in the log
====  ============  =============================================================================
"""

import struct
from dataclasses import dataclass
from typing import Final

from quorumlog.errors import ProtocolError
from quorumlog.log.state_snapshot import MAX_SNAPSHOT_BYTES
from quorumlog.types import Buffer, Index, Term

FIRST_TYPE: Final = 64

MAX_CHUNK_BYTES: Final = 1024 * 1024

_STATE_CHUNK: Final = 64
_CHUNK_ANSWER: Final = 65
_END_QUESTION: Final = 66
_END_ANSWER: Final = 67
_BATCH_QUESTION: Final = 68
_BATCH_ANSWER: Final = 69

_CHUNK_FIELDS = struct.Struct("<BQQIII")
_QUESTION_FIELDS = struct.Struct("<BQQ")
_ANSWER_FIELDS = struct.Struct("<BQQQ")
_BATCHES_WANTED = struct.Struct("<BQQQ")
_BATCHES_HEAD = struct.Struct("<BQ")


@dataclass(frozen=True, slots=True)
class StateId:
    """Which state: the last batch in it, and size and CRC-32C of its file."""

    index: Index
    size_bytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class StateChunk:
    """The bytes of the file of a state from ``position`` on; ``term`` is the leader's."""

    term: Term
    state: StateId
    position: int
    data: Buffer


@dataclass(frozen=True, slots=True)
class ChunkAnswer:
    """The sender wants the bytes from ``position`` on next; at ``size_bytes`` it has them all."""

    term: Term
    state: StateId
    position: int


@dataclass(frozen=True, slots=True)
class EndQuestion:
    """Where does the leader's log of this term end? ``nonce`` comes back with the answer."""

    term: Term
    nonce: int


@dataclass(frozen=True, slots=True)
class EndAnswer:
    term: Term
    nonce: int
    last_index: Index


@dataclass(frozen=True, slots=True)
class BatchQuestion:
    """Which committed batches does another replica have from ``first_index`` on, through
    ``through_index`` at most? ``nonce`` comes back with the answer."""

    nonce: int
    first_index: Index
    through_index: Index


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """Some of them, one after the other, the first one that was asked for first; none: it has them
    not, or cannot say that they are committed."""

    nonce: int
    batches: Buffer


CatchUpMessage = StateChunk | ChunkAnswer | EndQuestion | EndAnswer
MendingMessage = BatchQuestion | BatchAnswer


def encode_mending(message: MendingMessage) -> bytes:
    match message:
        case BatchQuestion(nonce, first_index, through_index):
            return _BATCHES_WANTED.pack(_BATCH_QUESTION, nonce, first_index, through_index)
        case BatchAnswer(nonce, batches):
            return _BATCHES_HEAD.pack(_BATCH_ANSWER, nonce) + bytes(batches)


def decode_mending(payload: Buffer) -> MendingMessage:
    """The message in ``payload``; the batches are a view of it, not looked at.

    Raises:
        ProtocolError: anything that :func:`encode_mending` does not make.
    """
    view = memoryview(payload).toreadonly()
    try:
        if payload[0] == _BATCH_QUESTION:
            _, nonce, first_index, through_index = _BATCHES_WANTED.unpack(view)
            if not 0 < first_index <= through_index:
                raise ProtocolError(f"batches {first_index} to {through_index} are none")
            return BatchQuestion(nonce, Index(first_index), Index(through_index))
        _, nonce = _BATCHES_HEAD.unpack_from(view)
    except struct.error as error:
        raise ProtocolError(f"a message of type {payload[0]} has another size: {error}") from error
    return BatchAnswer(nonce, view[_BATCHES_HEAD.size :])


def is_mending(payload: Buffer) -> bool:
    """Whether ``payload`` is to be read by :func:`decode_mending`, not by :func:`decode`."""
    return len(payload) > 0 and payload[0] in (_BATCH_QUESTION, _BATCH_ANSWER)


def encode(message: CatchUpMessage) -> bytes:
    match message:
        case StateChunk(term, state, position, data):
            return _pack_chunk(_STATE_CHUNK, term, state, position) + bytes(data)
        case ChunkAnswer(term, state, position):
            return _pack_chunk(_CHUNK_ANSWER, term, state, position)
        case EndQuestion(term, nonce):
            return _QUESTION_FIELDS.pack(_END_QUESTION, term, nonce)
        case EndAnswer(term, nonce, last_index):
            return _ANSWER_FIELDS.pack(_END_ANSWER, term, nonce, last_index)


def decode(payload: Buffer) -> CatchUpMessage:
    """The message in ``payload``; the bytes of a chunk are a view of it.

    Raises:
        ProtocolError: anything that :func:`encode` does not make.
    """
    kind = payload[0] if len(payload) else -1
    try:
        if kind in (_STATE_CHUNK, _CHUNK_ANSWER):
            return _decode_chunk(kind, memoryview(payload).toreadonly())
        if kind == _END_QUESTION:
            _, term, nonce = _QUESTION_FIELDS.unpack(payload)
            return EndQuestion(Term(term), nonce)
        if kind == _END_ANSWER:
            _, term, nonce, last_index = _ANSWER_FIELDS.unpack(payload)
            return EndAnswer(Term(term), nonce, Index(last_index))
    except struct.error as error:
        raise ProtocolError(f"a message of type {kind} has another size: {error}") from error
    raise ProtocolError(f"unknown message type {kind}")


def _pack_chunk(kind: int, term: Term, state: StateId, position: int) -> bytes:
    return _CHUNK_FIELDS.pack(kind, term, state.index, state.size_bytes, state.crc, position)


def _decode_chunk(kind: int, payload: memoryview) -> StateChunk | ChunkAnswer:
    _, term, index, size_bytes, crc, position = _CHUNK_FIELDS.unpack_from(payload)
    state = StateId(Index(index), size_bytes, crc)
    data = payload[_CHUNK_FIELDS.size :]
    end = position + len(data)
    if not (0 < size_bytes <= MAX_SNAPSHOT_BYTES and end <= size_bytes):
        raise ProtocolError(f"bytes {position} to {end} are not of a state of {size_bytes}")
    if kind == _CHUNK_ANSWER:
        if len(data):
            raise ProtocolError(f"{len(data)} bytes stand behind an answer")
        return ChunkAnswer(Term(term), state, position)
    if not 0 < len(data) <= MAX_CHUNK_BYTES:
        raise ProtocolError(f"a chunk has 1 to {MAX_CHUNK_BYTES} bytes, not {len(data)}")
    return StateChunk(Term(term), state, position, data)
