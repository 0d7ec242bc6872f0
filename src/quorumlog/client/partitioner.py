"""Which partition a record goes to.

A record with a key goes to ``crc32c(key) modulo partitions``: the same key, the same partition, for
every client in every language, as long as the number of partitions stays. Records without a key
stay on one partition for a batch and then move on to the next one: batches stay large, partitions
even.
"""

import random

from fastcrc.crc32 import iscsi as crc32c


def partition_of_key(key: bytes, partition_count: int) -> int:
    return crc32c(key) % partition_count


class StickyPartitioner:
    """Round robin by batch, from a random start: many producers do not all begin at partition 0."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._current: int | None = None

    def current(self, partition_count: int) -> int:
        """Where records without a key go now."""
        if self._current is None or self._current >= partition_count:
            self._current = self._rng.randrange(partition_count)
        return self._current

    def batch_complete(self, partition: int, partition_count: int) -> None:
        """Move on if the batch that was closed is that of the current partition."""
        if partition == self._current:
            self._current = (partition + 1) % partition_count
