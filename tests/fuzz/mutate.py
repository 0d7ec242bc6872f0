"""Plain mutations of bytes: what the tests do where no fuzzer is installed."""

from collections.abc import Sequence
from random import Random
from typing import Final

_EDGES: Final = (0, 1, 0x7F, 0x80, 0xFF)
_WIDE_EDGES: Final = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_MAX_RUN_BYTES: Final = 64


def mutate(seeds: Sequence[bytes], rng: Random) -> bytes:
    """One of ``seeds`` (not empty) after one to four changes; about as long as it was."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_CHANGES)(data, rng, seeds)
    return bytes(data)


def _flip_bit(data: bytearray, rng: Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_byte(data: bytearray, rng: Random, seeds: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(_EDGES)


def _set_number(data: bytearray, rng: Random, seeds: Sequence[bytes]) -> None:
    """A little-endian number at the edge of what fits, where a field may stand."""
    width = rng.choice((2, 4, 8))
    if len(data) >= width:
        at = rng.randrange(0, len(data) - width + 1)
        number = rng.choice(_WIDE_EDGES) % (1 << 8 * width)
        data[at : at + width] = number.to_bytes(width, "little")


def _cut(data: bytearray, rng: Random, seeds: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _remove(data: bytearray, rng: Random, seeds: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.randrange(1, _MAX_RUN_BYTES)]


def _insert(data: bytearray, rng: Random, seeds: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.randrange(1, _MAX_RUN_BYTES))


def _repeat(data: bytearray, rng: Random, seeds: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = data[at : at + rng.randrange(1, _MAX_RUN_BYTES)]


def _splice(data: bytearray, rng: Random, seeds: Sequence[bytes]) -> None:
    """The beginning of one seed and the end of another."""
    other = rng.choice(seeds)
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]


_CHANGES: Final = (
    _flip_bit,
    _set_byte,
    _set_number,
    _cut,
    _remove,
    _insert,
    _repeat,
    _splice,
)
