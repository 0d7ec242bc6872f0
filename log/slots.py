"""Two slots, written in turn: a small value that is replaced without ever being absent.

Each slot stands in a page of its own, so that a write torn by a power cut damages one of them at
most; the valid slot with the higher number counts. A damaged slot may have been torn, or be rot of
what was newest: where that makes a difference each slot has copies, further pairs behind the first,
written with it before the sync. Then no single one that rots takes the newest value along, not
even beside a torn one. Little-endian:

======  ====  ========  ========================================================================
offset  size  field     meaning
======  ====  ========  ========================================================================
0       4     magic     says what the payload is, and its version
4       8     number    counts the writes, from 1
12      n     payload   of a size fixed by the kind of slot
12+n    4     crc       CRC-32C of bytes 0 to 12+n-1
======  ====  ========  ========================================================================
"""

import struct
from typing import Final

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.ports import File, Readable

SLOT_STRIDE: Final = 4096
"""Bytes from one slot to the other: the largest unit a disk writes at once."""

_HEAD = struct.Struct("<4sQ")
_CRC = struct.Struct("<I")


class SlotPair:
    """A pair of slots at ``position`` of a file, for payloads of ``payload_bytes``.

    Of ``copies`` pairs, one behind the other, each slot is in all of them.
    """

    def __init__(self, magic: bytes, position: int, payload_bytes: int, copies: int = 1) -> None:
        self._magic = magic
        self._position = position
        self._payload_bytes = payload_bytes
        self._copies = copies
        self._number = 0

    @property
    def slot_bytes(self) -> int:
        return _HEAD.size + self._payload_bytes + _CRC.size

    @property
    def end(self) -> int:
        """The first byte behind all pages."""
        return self._position + 2 * self._copies * SLOT_STRIDE

    def load(self, file: Readable) -> bytes | None:
        """The newest valid payload, or None when no slot is valid."""
        newest: bytes | None = None
        self._number = 0
        for place in self._places():
            found = self._decode(file.read_at(place, self.slot_bytes))
            if found is not None and found[0] > self._number:
                self._number, newest = found
        return newest

    def damaged(self, file: Readable) -> list[int]:
        """Where slots stand that were written and are not valid: torn by a power cut, or rotten."""
        raws = [(place, file.read_at(place, self.slot_bytes)) for place in self._places()]
        return [place for place, raw in raws if raw.strip(b"\0") and self._decode(raw) is None]

    def store(self, file: File, payload: bytes) -> None:
        """Write ``payload`` over the older slot. Durable after the file's next sync.

        The next ``store`` may come only after that sync, or a power cut could tear both slots.
        """
        self._number += 1
        try:
            self._write(file, payload)
        except BaseException:
            # What failed half way is overwritten by the next store, the valid slot left alone.
            self._number -= 1
            raise

    def store_again(self, file: File, payload: bytes) -> None:
        """Write what ``load`` returned once more, where it stands; the other slot stays as it is.

        For a page that a failed sync left readable and clean: the next sync takes it. And for a
        copy that is damaged.
        """
        self._write(file, payload)

    def _write(self, file: File, payload: bytes) -> None:
        head = _HEAD.pack(self._magic, self._number) + payload
        slot = head + _CRC.pack(crc32c(head))
        for place in self._places()[self._number % 2 :: 2]:
            file.write_at(place, [slot])

    def _places(self) -> range:
        """Where the slots stand: those of even numbers and of odd ones by turns."""
        return range(self._position, self.end, SLOT_STRIDE)

    def _decode(self, raw: bytes) -> tuple[int, bytes] | None:
        if len(raw) < self.slot_bytes:
            return None
        magic, number = _HEAD.unpack_from(raw)
        (crc,) = _CRC.unpack_from(raw, self.slot_bytes - _CRC.size)
        if magic != self._magic or crc != crc32c(raw[: -_CRC.size]):
            return None
        return number, raw[_HEAD.size : -_CRC.size]
