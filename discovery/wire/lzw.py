"""LZW as memberlist's compression sends it: least significant bit first, 8-bit literals.

Codes start 9 bits wide and grow to 12. 256 clears the table, 257 ends the stream; each code
after the first since a clear adds one entry, the previous code's bytes plus one.
Only the decoder is here: nobody has to compress.
"""

from collections.abc import Iterator
from typing import Final

from quorumlog.errors import OversizedMessage, ProtocolError

_CLEAR: Final = 256
_END: Final = 257
_MIN_WIDTH: Final = 9
_MAX_WIDTH: Final = 12
_PIECE_BYTES: Final = 2048
_LITERALS: Final = [bytes([value]) for value in range(256)] + [b"", b""]


def decompress(data: bytes, limit_bytes: int) -> bytes:
    """The bytes that ``data`` stands for, at most ``limit_bytes`` of them.

    Raises ``ProtocolError`` for a code that cannot be or a stream without its end, and
    ``OversizedMessage`` for more output.
    Memory beside the output: a table of 4096 entries.
    """
    return b"".join(decompress_pieces(data, limit_bytes))


def decompress_pieces(data: bytes, limit_bytes: int) -> Iterator[bytes]:
    """The same in pieces, some of them empty, each out of 2 KiB: about a millisecond of work."""
    output = bytearray()
    done_bytes = 0
    table = list(_LITERALS)
    width = _MIN_WIDTH
    previous = b""
    bits = bit_count = 0
    for at, byte in enumerate(data, 1):
        if at % _PIECE_BYTES == 0:
            done_bytes += len(output)
            yield bytes(output)
            output.clear()
        bits |= byte << bit_count
        bit_count += 8
        if bit_count < width:
            continue
        code = bits & ((1 << width) - 1)
        bits >>= width
        bit_count -= width
        if code == _END:
            yield bytes(output)
            return
        if code == _CLEAR:
            table = list(_LITERALS)
            width = _MIN_WIDTH
            previous = b""
            continue
        entry = _expand(table, code, previous)
        if done_bytes + len(output) + len(entry) > limit_bytes:
            raise OversizedMessage(f"a compressed message holds more than {limit_bytes} bytes")
        output += entry
        if previous and len(table) < 1 << _MAX_WIDTH:
            table.append(previous + entry[:1])
        previous = entry
        if len(table) >= 1 << width and width < _MAX_WIDTH:
            width += 1
    raise ProtocolError("a compressed message has no end")


def _expand(table: list[bytes], code: int, previous: bytes) -> bytes:
    if code < len(table):
        return table[code]
    if code == len(table) and previous and code < 1 << _MAX_WIDTH:
        return previous + previous[:1]
    raise ProtocolError(f"a compressed message has the impossible code {code}")
