"""The state of a replicated machine as it is saved: the user's, and what was remembered around it.

Little-endian:

======  ====  ===============  =================================================================
offset  size  field            meaning
======  ====  ===============  =================================================================
0       4     magic            ``QRS`` and the version, 1
4       8     index            the last batch that is in the state
12      8     free_index       batches through this one may be removed from disk
20      8     forgotten_index  of the newest request whose result was forgotten
28      4     count            of remembered requests
32            requests         the oldest first, as below
              machine          the user's snapshot, to the end
======  ====  ===============  =================================================================

A request:

======  ====  ==============  ==================================================================
0       1     id_length
1       1     verdict         see :class:`~quorumlog.replicated.outcome.Verdict`
2       8     index
10      4     result_length
14      i     id
14+i    r     result
======  ====  ==============  ==================================================================
"""

import struct
from dataclasses import dataclass

from quorumlog.errors import ProtocolError
from quorumlog.replicated.outcome import Outcome, Verdict
from quorumlog.replicated.remembered import Remembered
from quorumlog.types import Index

_MAGIC = b"QRS\x01"
_HEAD = struct.Struct("<4sQQQI")
_REQUEST = struct.Struct("<BBQI")


@dataclass(frozen=True, slots=True)
class GroupState:
    """Fields as in the module's table; ``remembered`` is not shared with anybody."""

    index: Index
    free_index: Index
    remembered: Remembered
    machine: bytes


def encode_state(state: GroupState) -> bytes:
    remembered = state.remembered
    head = (_MAGIC, state.index, state.free_index, remembered.forgotten_index, len(remembered))
    parts = [_HEAD.pack(*head)]
    for request_id, outcome in remembered:
        payload = outcome.payload
        parts += (
            _REQUEST.pack(len(request_id), outcome.verdict, outcome.index, len(payload)),
            request_id,
            payload,
        )
    parts.append(state.machine)
    return b"".join(parts)


def decode_state(raw: bytes) -> GroupState:
    """The inverse of :func:`encode_state`. Raises ProtocolError for anything else."""
    try:
        magic, index, free_index, forgotten_index, count = _HEAD.unpack_from(raw)
        if magic != _MAGIC:
            raise ProtocolError(f"not a state of this format: it begins with {magic!r}")
        remembered = Remembered()
        at = _HEAD.size
        for _ in range(count):
            id_length, verdict, decided_at, result_length = _REQUEST.unpack_from(raw, at)
            id_at = at + _REQUEST.size
            payload_at = id_at + id_length
            at = payload_at + result_length
            if at > len(raw):
                raise ProtocolError("the state ends within a remembered request")
            outcome = Outcome(Verdict(verdict), Index(decided_at), raw[payload_at:at])
            remembered.add(raw[id_at:payload_at], outcome)
    except (struct.error, ValueError) as error:
        raise ProtocolError(f"not a state of a replicated machine: {error}") from error
    if len(remembered) != count:
        raise ProtocolError("the state remembers more requests than fit, or one of them twice")
    remembered.forgotten_index = Index(forgotten_index)
    return GroupState(Index(index), Index(free_index), remembered, raw[at:])
