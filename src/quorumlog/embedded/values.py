"""From what the caller appends to the draft of a batch."""

from collections.abc import Iterable
from itertools import islice

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import InvalidArgument
from quorumlog.log.batch import CODEC_NONE, MAX_RECORDS_PER_BATCH, Draft
from quorumlog.log.compression import CODECS, DEFAULT_LEVEL, require_codec, shrink
from quorumlog.log.records import encode_record
from quorumlog.types import MAX_BATCH_BYTES, RecordData

Value = RecordData | bytes | tuple[bytes | None, bytes | None]
"""What ``append_batch`` takes for a record: all of it, a value, or key and value."""

_CHUNK = 64
"""So many values are taken at a time: what a caller's iterator gives has a bound then."""
_MAX_CACHED_BYTES = 4096
"""What stands before longer values is made each time."""


class Drafter:
    """Makes drafts of batches, compressed if that was asked for. For any number of threads."""

    def __init__(self, compression: str | None, level: int = DEFAULT_LEVEL) -> None:
        """``compression`` is one of ``CODECS``; raises CodecUnavailable."""
        self._is_compressed = compression is not None
        self._level = level
        if compression is not None:
            require_codec(CODECS[compression])
        self._prefixes: dict[int, bytes] = {}
        """By size of the value: what stands before it in a record that has nothing else."""

    @property
    def is_compressed(self) -> bool:
        return self._is_compressed

    def of_record(self, record: RecordData) -> Draft:
        """A batch of one; raises what :meth:`of_values` does."""
        return self.draft(encode_record(record), 1)

    def of_values(self, values: Iterable[Value]) -> Draft:
        """A batch of ``values``.

        Raises:
            RecordTooLarge: one is over the limit.
            InvalidArgument: something of a wrong type, no record or too many, over 4 MiB together.
        """
        return self.draft(*self.joined(values))

    def joined(self, values: Iterable[Value]) -> tuple[bytes, int]:
        """Body and number of records of a batch, for ``draft``; raises what ``of_values`` does.

        Takes no more of ``values`` than a batch can have.
        """
        try:
            rest = iter(values)
        except TypeError as error:
            raise InvalidArgument(f"records come as a list or the like: {error}") from None
        bodies: list[bytes] = []
        count = size_bytes = 0
        while size_bytes <= MAX_BATCH_BYTES and count <= MAX_RECORDS_PER_BATCH:
            chunk = list(islice(rest, _CHUNK))
            if not chunk:
                break
            count += len(chunk)
            bodies.append(self._joined(chunk))
            size_bytes += len(bodies[-1])
        if not 0 < count <= MAX_RECORDS_PER_BATCH:
            raise InvalidArgument(
                f"a batch has 1 to {MAX_RECORDS_PER_BATCH} records, not {count}: split it"
                if count
                else "a batch has at least one record"
            )
        if size_bytes > MAX_BATCH_BYTES:
            raise InvalidArgument(
                f"the batch has {size_bytes} bytes and the limit is {MAX_BATCH_BYTES}: split it"
            )
        body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        return body, count

    def draft(self, body: bytes, count: int) -> Draft:
        """The batch with this body, compressed if that was asked for: that can take long.

        4 MiB take 10 to 20 ms at level 3, and seconds at level 22.
        """
        codec = CODEC_NONE
        if self._is_compressed:
            body, codec = shrink(body, self._level)
        return Draft(body, crc32c(body), count, codec=codec)

    def _joined(self, values: list[Value]) -> bytes:
        prefixes = self._prefixes
        parts: list[bytes] = []
        for value in values:
            if type(value) is bytes:
                prefix = prefixes.get(len(value))
                if prefix is not None:
                    parts.append(prefix)
                    parts.append(value)
                else:
                    parts.append(self._first_of_size(value))
            else:
                parts.append(encode_record(_record_data(value)))
        return b"".join(parts)

    def _first_of_size(self, value: bytes) -> bytes:
        encoded = encode_record(RecordData(value))
        if len(value) <= _MAX_CACHED_BYTES:
            self._prefixes[len(value)] = encoded[: len(encoded) - len(value)]
        return encoded


def _record_data(record: Value) -> RecordData:
    if isinstance(record, RecordData):
        return record
    if isinstance(record, bytes):
        return RecordData(record)
    if isinstance(record, tuple) and len(record) == 2:
        key, value = record
        return RecordData(value, key)
    raise InvalidArgument(
        f"a record is bytes, a tuple (key, value) or a RecordData, not {type(record).__name__}"
    )
