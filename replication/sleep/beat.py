"""What nodes that share groups tell each other once a heartbeat, as bytes and back.

It travels as a message of the reserved group :data:`BEAT_GROUP`. Little-endian:

======  ====  ===========  ====================================================================
offset  size  field        meaning
======  ====  ===========  ====================================================================
0       1     version      2
1       1     wake_all     1: whatever the receiver leads and takes to sleep here has to wake
2       8     incarnation  of the sender's process, drawn at its start
10      8     sequence     grows by one with each beat of that process to the receiver
18      4     count        groups that sleep under the sender at the receiver, with this beat
22      8     digest       of those groups: XOR of :func:`mix` of (group, term)
30      8     echo         sequence of the newest beat that came from the receiver; all ones: none
38      4     held         microseconds since that came; at most all ones
42      4     fell_count
46      4     woke_count
50      24    fell         each: group u64, term u64, last_index u64; the sender leads them and
                           they sleep from now on; their logs end there
...     16    woke         each: group u64, told u64; awake at the sender. ``told`` is the sequence
                           of the receiver's beat that wanted it to sleep; of no meaning where the
                           sender leads, or hears no leader. Comes before ``fell``.
======  ====  ===========  ====================================================================
"""

import struct
from dataclasses import dataclass
from typing import Final

from quorumlog.errors import ProtocolError
from quorumlog.types import Buffer, GroupId, Index, Term

BEAT_GROUP: Final = GroupId((1 << 64) - 1)
"""No group has this number."""

MAX_ENTRIES: Final = 16_384
"""Groups in each list of one beat, 640 KiB in all; the digest tells of what is left out."""

_VERSION: Final = 2
_HEAD = struct.Struct("<B?QQIQQIII")
_FELL = struct.Struct("<QQQ")
_WOKE = struct.Struct("<QQ")
_U64: Final = (1 << 64) - 1
_U32: Final = (1 << 32) - 1
_NO_ECHO: Final = _U64


@dataclass(frozen=True, slots=True)
class Fell:
    group: GroupId
    term: Term
    last_index: Index


@dataclass(frozen=True, slots=True)
class Woke:
    group: GroupId
    told: int = 0


@dataclass(frozen=True, slots=True)
class Beat:
    incarnation: int
    sequence: int
    count: int = 0
    digest: int = 0
    fell: tuple[Fell, ...] = ()
    woke: tuple[Woke, ...] = ()
    wake_all: bool = False
    echo: tuple[int, float] | None = None
    """The sequence of the newest beat that came from the receiver, and seconds since then."""


def mix(group: int, term: int) -> int:
    """64 bits that look like chance (the finalizer of SplitMix64, twice)."""
    value = group
    for each in (0, term):
        value = (value + each + 0x9E3779B97F4A7C15) & _U64
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _U64
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _U64
        value ^= value >> 31
    return value


def encode(beat: Beat) -> bytes:
    echoed, held_s = (_NO_ECHO, 0.0) if beat.echo is None else beat.echo
    head = _HEAD.pack(
        _VERSION,
        beat.wake_all,
        beat.incarnation,
        beat.sequence,
        beat.count,
        beat.digest,
        echoed,
        min(round(held_s * 1e6), _U32),
        len(beat.fell),
        len(beat.woke),
    )
    fell = [_FELL.pack(each.group, each.term, each.last_index) for each in beat.fell]
    woke = [_WOKE.pack(each.group, each.told) for each in beat.woke]
    return b"".join((head, *fell, *woke))


def decode(payload: Buffer) -> Beat:
    """The inverse of :func:`encode`. Raises ProtocolError for anything else."""
    if len(payload) < _HEAD.size:
        raise ProtocolError(f"a beat has at least {_HEAD.size} bytes, not {len(payload)}")
    (
        version,
        wake_all,
        incarnation,
        sequence,
        count,
        digest,
        echoed,
        held_us,
        fell_count,
        woke_count,
    ) = _HEAD.unpack_from(payload)
    if version != _VERSION or payload[1] > 1:
        raise ProtocolError(f"a beat begins with version {payload[0]} and flag {payload[1]}")
    if echoed == _NO_ECHO and held_us:
        raise ProtocolError(f"a beat that follows none has waited {held_us} us")
    if max(fell_count, woke_count) > MAX_ENTRIES:
        raise ProtocolError(f"a beat of {fell_count} and {woke_count} groups is over the limit")
    woke_at = _HEAD.size + fell_count * _FELL.size
    if len(payload) != woke_at + woke_count * _WOKE.size:
        raise ProtocolError(
            f"a beat of {fell_count} and {woke_count} groups has not {len(payload)} bytes"
        )
    fell = tuple(
        Fell(GroupId(group), Term(term), Index(last_index))
        for group, term, last_index in _FELL.iter_unpack(payload[_HEAD.size : woke_at])
    )
    woke = tuple(Woke(GroupId(group), told) for group, told in _WOKE.iter_unpack(payload[woke_at:]))
    echo = None if echoed == _NO_ECHO else (echoed, held_us / 1e6)
    return Beat(incarnation, sequence, count, digest, fell, woke, wake_all, echo)
