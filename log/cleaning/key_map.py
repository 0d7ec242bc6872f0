"""What compaction has to remember of a log: the newest offset of every key, in bounded memory.

A key is known by 16 bytes of its BLAKE2b hash: two keys with the same ones are not to be found,
not even on purpose. The table is open addressing over 24 bytes a slot, three quarters full at
most: 32 bytes a key, where a dict of bytes and ints takes about 150.
"""

from hashlib import blake2b
from struct import Struct
from typing import Final

SLOT_BYTES: Final = 24
PRODUCER_BYTES: Final = 192
"""What one producer takes: its place in a dict and two integers."""

_DIGEST_BYTES: Final = 16
_WORDS_PER_SLOT: Final = SLOT_BYTES // 8
_MIN_SLOTS: Final = 4
_HALVES = Struct("<QQ")


def _digest(key: bytes) -> tuple[int, int]:
    digest: tuple[int, int] = _HALVES.unpack(blake2b(key, digest_size=_DIGEST_BYTES).digest())
    return digest


class KeyMap:
    """Newest offset by key; holds ``capacity`` keys. Not safe for threads."""

    __slots__ = ("_count", "_words", "capacity")

    def __init__(self, map_bytes: int, most_keys: int) -> None:
        """Take at most ``map_bytes`` of memory, less when ``most_keys`` is all that can come."""
        slots = max(min(map_bytes // SLOT_BYTES, most_keys * 4 // 3 + 1), _MIN_SLOTS)
        self._words: memoryview[int] = memoryview(bytearray(slots * SLOT_BYTES)).cast("Q")
        self._count = 0
        self.capacity = slots * 3 // 4

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Memory of the table; it never grows."""
        return self._words.nbytes

    def put(self, key: bytes, offset: int) -> bool:
        """Note that ``key`` has a record at ``offset``, later than any before.

        Returns:
            False when the map is full and ``key`` not in it; nothing was changed.
        """
        words = self._words
        low, high = _digest(key)
        at = low % (len(words) // _WORDS_PER_SLOT) * _WORDS_PER_SLOT
        # A slot's third word is the offset plus one: zero says that the slot is free.
        while words[at + 2]:
            if words[at] == low and words[at + 1] == high:
                words[at + 2] = offset + 1
                return True
            at += _WORDS_PER_SLOT
            if at == len(words):
                at = 0
        if self._count == self.capacity:
            return False
        words[at] = low
        words[at + 1] = high
        words[at + 2] = offset + 1
        self._count += 1
        return True

    def newest(self, key: bytes) -> int:
        """The newest offset of ``key``; -1 when it is not in the map."""
        if not self._count:
            return -1
        words = self._words
        low, high = _digest(key)
        at = low % (len(words) // _WORDS_PER_SLOT) * _WORDS_PER_SLOT
        while found := words[at + 2]:
            if words[at] == low and words[at + 1] == high:
                return found - 1
            at += _WORDS_PER_SLOT
            if at == len(words):
                at = 0
        return -1


class NewestBatches:
    """Index of the newest batch seen of every producer, for as many producers as there is room.

    A producer that is forgotten, the one that was silent longest, counts as never seen.
    """

    __slots__ = ("_indexes", "_limit")

    def __init__(self, limit: int) -> None:
        self._indexes: dict[int, int] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._indexes)

    def note(self, producer_id: int, index: int) -> None:
        """The producer has batch ``index``; an older one than is known changes nothing."""
        known = self._indexes.pop(producer_id, -1)
        # Put back at the end: the dict is in the order of use.
        self._indexes[producer_id] = max(known, index)
        if len(self._indexes) > self._limit:
            del self._indexes[next(iter(self._indexes))]

    def has_newer(self, producer_id: int, index: int) -> bool:
        """Whether a batch of the producer behind ``index`` is known."""
        return self._indexes.get(producer_id, -1) > index
