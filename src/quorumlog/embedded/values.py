"""From what the caller appends to the draft of a batch."""

from collections.abc import Iterable

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.errors import ConfigError, InvalidArgument
from quorumlog.log.batch import CODEC_NONE, MAX_RECORDS_PER_BATCH, Draft
from quorumlog.log.compression import CODECS, DEFAULT_LEVEL, check_level, require_codec, shrink
from quorumlog.log.records import encode_record
from quorumlog.types import MAX_BATCH_BYTES, RecordData

Value = RecordData | bytes | tuple[bytes | None, bytes | None]
"""What ``append_batch`` takes for a record: all of it, a value, or key and value."""

_MAX_CACHED_BYTES = 4096
"""What stands before longer values is made each time."""


class Drafter:
    """Makes drafts of batches, compressed if that was asked for. For any number of threads."""

    def __init__(self, compression: str | None, level: int = DEFAULT_LEVEL) -> None:
        """
        Raises:
            ConfigError: an unknown codec or level.
            CodecUnavailable: its library is not installed.
        """
        self._is_compressed = compression is not None
        self._level = level
        if compression is not None:
            if compression not in CODECS:
                raise ConfigError(
                    f"compression is one of {', '.join(CODECS)} or None, not {compression!r}"
                )
            check_level(level)
            require_codec(CODECS[compression])
        self._prefixes: dict[int, bytes] = {}
        """By size of the value: what stands before it in a record that has nothing else."""

    def of_record(self, record: RecordData) -> Draft:
        """A batch of one; raises what :meth:`of_values` does."""
        return self._draft([encode_record(record)], 1)

    def of_values(self, values: Iterable[Value]) -> Draft:
        """A batch of ``values``.

        Raises:
            RecordTooLarge: one is over the limit.
            InvalidArgument: something of a wrong type, no record or too many, over 4 MiB together.
        """
        prefixes = self._prefixes
        parts: list[bytes] = []
        count = 0
        for value in values:
            count += 1
            if type(value) is bytes:
                prefix = prefixes.get(len(value))
                if prefix is not None:
                    parts.append(prefix)
                    parts.append(value)
                else:
                    parts.append(self._first_of_size(value))
            else:
                parts.append(encode_record(_record_data(value)))
        return self._draft(parts, count)

    def _first_of_size(self, value: bytes) -> bytes:
        encoded = encode_record(RecordData(value))
        if len(value) <= _MAX_CACHED_BYTES:
            self._prefixes[len(value)] = encoded[: len(encoded) - len(value)]
        return encoded

    def _draft(self, parts: list[bytes], count: int) -> Draft:
        if not 0 < count <= MAX_RECORDS_PER_BATCH:
            raise InvalidArgument(
                f"a batch has 1 to {MAX_RECORDS_PER_BATCH} records, not {count}: split it"
                if count
                else "a batch has at least one record"
            )
        body = b"".join(parts)
        if len(body) > MAX_BATCH_BYTES:
            raise InvalidArgument(
                f"the batch has {len(body)} bytes and the limit is {MAX_BATCH_BYTES}: split it"
            )
        codec = CODEC_NONE
        if self._is_compressed:
            body, codec = shrink(body, self._level)
        return Draft(body, crc32c(body), count, codec=codec)


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
