"""The body of a batch: records to bytes and back.

The body is the protobuf message ``quorumlog.log.v1.RecordBatch`` (``_pb/record.proto``), as it is
or compressed as the header's codec says. Writing joins the bytes by hand (a third of the cost of
building messages) and reading cuts the common shape by hand (``quorumlog.log.record_cut``);
checking, and everything out of the ordinary, is protobuf's.

A dense body has a record for every offset of its batch. A SPARSE one, of which compaction took
records, begins with the field ``offset_deltas``: of each record that is left its offset minus the
batch's ``base_offset``. One without any record is empty.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import ge
from types import MappingProxyType

from google.protobuf.message import DecodeError

from quorumlog.errors import InvalidArgument, InvalidBatch, RecordTooLarge
from quorumlog.log._pb.record_pb2 import Record as RecordMessage
from quorumlog.log._pb.record_pb2 import RecordBatch
from quorumlog.log.batch import CODEC_NONE, MAX_BODY_BYTES, SPARSE, BatchHeader
from quorumlog.log.compression import decompress
from quorumlog.log.record_cut import KEY_TAG, RECORD_TAG, VALUE_TAG, Unusual, cut_field, cut_record
from quorumlog.types import MAX_RECORD_BYTES, NO_HEADERS, Buffer, Record, RecordData

_VARINTS = [bytes([n]) for n in range(128)] + [
    bytes([n & 0x7F | 0x80, n >> 7]) for n in range(128, 1 << 14)
]


def _varint(number: int) -> bytes:
    if number < 1 << 14:
        return _VARINTS[number]
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _as_bytes(content: object) -> bytes:
    """Bytes of another type as bytes; raises TypeError for all else.

    What merely has a buffer may count in something else than bytes, an ``array`` of numbers does:
    its length would be taken for theirs, and nobody could read the batch any more.
    """
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    raise TypeError(f"not {type(content).__name__}")


def encode_record(record: RecordData, limit_bytes: int = MAX_RECORD_BYTES) -> bytes:
    """One record as its field in a body; a body is such fields joined.

    Raises:
        RecordTooLarge: key, value and headers together have more than ``limit_bytes``.
        InvalidArgument: something is not of the type it has to be.
    """
    parts: list[bytes] = []
    size_bytes = 0
    try:
        key, value = record.key, record.value
        if key is not None:
            if type(key) is not bytes:
                key = _as_bytes(key)
            parts.append(_field(b"\x0a", key))
            size_bytes += len(key)
        if value is not None:
            if type(value) is not bytes:
                value = _as_bytes(value)
            parts.append(_field(b"\x12", value))
            size_bytes += len(value)
        if record.headers:
            for name, content in record.headers.items():
                raw_name = name.encode()
                raw = content if type(content) is bytes else _as_bytes(content)
                size_bytes += len(raw_name) + len(raw)
                parts.append(_field(b"\x1a", _field(b"\x0a", raw_name) + _field(b"\x12", raw)))
        encoded = b"".join(parts)
    except (TypeError, AttributeError, UnicodeEncodeError) as error:
        raise InvalidArgument(
            f"key and value are bytes or None, headers map str to bytes: {error}"
        ) from error
    if size_bytes > limit_bytes:
        raise RecordTooLarge(size_bytes, limit_bytes)
    return b"\x0a" + _varint(len(encoded)) + encoded


def encode_body(records: Iterable[RecordData], limit_bytes: int = MAX_RECORD_BYTES) -> bytes:
    return b"".join([encode_record(record, limit_bytes) for record in records])


def encode_sparse_body(records: Sequence[tuple[int, bytes]]) -> bytes:
    """The body of a SPARSE batch.

    Args:
        records: of each record its offset minus the batch's base_offset, strictly increasing and
            below 2^32, and its encoded field (:func:`encode_record`, :func:`iterate_keyed`).
    """
    if not records:
        return b""
    deltas = RecordBatch(offset_deltas=[delta for delta, _ in records]).SerializeToString()
    return deltas + b"".join([encoded for _, encoded in records])


def check_records(
    body: Buffer,
    record_count: int,
    limit_bytes: int = MAX_RECORD_BYTES,
    codec: int = CODEC_NONE,
    body_limit_bytes: int = MAX_BODY_BYTES,
) -> None:
    """Raise unless ``body`` is a dense encoding of ``record_count`` records, none over the limit.

    Raises:
        InvalidBatch: it is no ``RecordBatch``, has another number of records or lists offsets; an
            unknown codec, a damaged frame, or more than ``body_limit_bytes`` decompressed.
        RecordTooLarge: a record is over ``limit_bytes``.
        CodecUnavailable: the codec's library is not installed.
    """
    data = bytes(decompress(body, codec, body_limit_bytes))
    records = _parse_dense(data)
    if len(records) != record_count:
        raise _wrong_count(record_count, len(records))
    if len(data) > limit_bytes:
        for record in records:
            size_bytes = record.ByteSize()
            if size_bytes > limit_bytes + 16 + 16 * len(record.headers):
                raise RecordTooLarge(size_bytes, limit_bytes)


def decode_records(header: BatchHeader, body: Buffer, start: int = 0) -> Iterator[Record]:
    """The records of a batch from offset ``start`` on, each decoded when it is asked for.

    A record of the shape :func:`encode_record` writes, without headers and with fields below
    16 KiB, is cut out of the bytes directly; at the first other one protobuf takes over.

    Decompresses at once, and the whole body.

    Raises:
        InvalidBatch: the body does not hold what its header says. It can come after records
            have been handed out, so check the body's checksum first (``check_body``).
        CodecUnavailable: the codec's library is not installed.
    """
    data = bytes(decompress(body, header.codec))
    if header.flags & SPARSE:
        return _decode_sparse(header, data, start)
    return _decode_dense(header, data, start)


def parse_records(
    header: BatchHeader, body: Buffer
) -> tuple[Sequence[int], Sequence[RecordMessage]]:
    """All records of a batch at once: their offsets minus base_offset, and as many messages.

    Raises:
        InvalidBatch: the body does not hold what its header says.
        CodecUnavailable: the codec's library is not installed.
    """
    data = bytes(decompress(body, header.codec))
    deltas, at = _deltas_of(header, data)
    return deltas, _parse_rest(data[at:], deltas, 0)


def iterate_keyed(
    header: BatchHeader, body: Buffer
) -> Iterator[tuple[int, bytes | None, bool, bytes]]:
    """Of each record: its offset minus base_offset, key, whether it is a tombstone, its field.

    The field is the record's encoding as it stands in the body, for :func:`encode_sparse_body`. A
    record without a key has the key None; one without a value is a tombstone.

    Raises:
        InvalidBatch: the body does not hold what its header says; it can come after records.
        CodecUnavailable: the codec's library is not installed.
    """
    data = bytes(decompress(body, header.codec))
    deltas, at = _deltas_of(header, data)
    length = len(data)
    number = 0
    while at < length:
        try:
            end, key, value = cut_record(data, at, length)
            is_tombstone = value is None
        except (Unusual, IndexError):
            try:
                content_at, end = cut_field(data, at, length)
            except (Unusual, IndexError):
                yield from _keyed_rest(data[at:], deltas, number)
                return
            key, is_tombstone = _key_of(_parse_record(data[content_at:end]))
        if number == len(deltas):
            raise _wrong_count(number, number + 1)
        yield deltas[number], key, is_tombstone, data[at:end]
        at = end
        number += 1
    if number != len(deltas):
        raise _wrong_count(len(deltas), number)


_new_record = tuple.__new__
_DELTAS_TAG = 0x12


def _deltas_of(header: BatchHeader, data: bytes) -> tuple[Sequence[int], int]:
    """The offset deltas of the records in ``data``, and where the records begin."""
    if not header.flags & SPARSE:
        return range(header.record_count), 0
    if not data:
        return (), 0
    try:
        _, at = cut_field(data, 0, len(data), _DELTAS_TAG)
    except (Unusual, IndexError) as error:
        raise InvalidBatch("a sparse body begins with the offset deltas of its records") from error
    deltas = list(_parse(data[:at]).offset_deltas)
    if any(map(ge, deltas, islice(deltas, 1, None))):
        raise InvalidBatch("the offset deltas of a sparse body do not increase")
    if deltas and deltas[-1] >= header.record_count:
        raise InvalidBatch(f"offset delta {deltas[-1]} in a batch of {header.record_count} offsets")
    return deltas, at


def _decode_dense(header: BatchHeader, data: bytes, start: int) -> Iterator[Record]:
    """``cut_record`` is written out here: calling it would cost a quarter of all the time."""
    length = len(data)
    offset: int = header.base_offset
    timestamp_ms = header.timestamp_ms
    end = 0
    while end < length:
        begin = end
        try:
            size = data[begin + 1]
            at = begin + 2
            if size > 0x7F:
                high = data[at]
                if high > 0x7F:
                    raise Unusual
                size += (high << 7) - 0x80
                at += 1
            end = at + size
            key = value = None
            tag = data[at] if size else 0
            if tag == KEY_TAG:
                size = data[at + 1]
                at += 2
                if size > 0x7F:
                    # Of a longer varint this makes 16 KiB at least: more than fits the record.
                    size += (data[at] << 7) - 0x80
                    at += 1
                key = data[at : at + size]
                at += size
                tag = data[at] if at < end else 0
            if tag == VALUE_TAG:
                size = data[at + 1]
                at += 2
                if size > 0x7F:
                    size += (data[at] << 7) - 0x80
                    at += 1
                value = data[at : at + size]
                at += size
            if at != end or end > length or data[begin] != RECORD_TAG:
                raise Unusual
        except (Unusual, IndexError):
            deltas = range(header.record_count)
            yield from _decode_rest(
                header, data[begin:], deltas, offset - header.base_offset, start
            )
            return
        if offset >= start:
            yield _new_record(Record, (offset, value, key, NO_HEADERS, timestamp_ms))
        offset += 1
    if offset != header.next_offset:
        raise _wrong_count(header.record_count, offset - header.base_offset)


def _decode_sparse(header: BatchHeader, data: bytes, start: int) -> Iterator[Record]:
    deltas, at = _deltas_of(header, data)
    base_offset = header.base_offset
    timestamp_ms = header.timestamp_ms
    length = len(data)
    number = 0
    while at < length:
        try:
            end, key, value = cut_record(data, at, length)
        except (Unusual, IndexError):
            yield from _decode_rest(header, data[at:], deltas, number, start)
            return
        if number == len(deltas):
            raise _wrong_count(number, number + 1)
        offset = base_offset + deltas[number]
        if offset >= start:
            yield _new_record(Record, (offset, value, key, NO_HEADERS, timestamp_ms))
        at = end
        number += 1
    if number != len(deltas):
        raise _wrong_count(len(deltas), number)


def _decode_rest(
    header: BatchHeader, data: bytes, deltas: Sequence[int], number: int, start: int
) -> Iterator[Record]:
    """The records from the one with this ``number`` on, whose encoding is ``data``."""
    records = _parse_rest(data, deltas, number)
    base_offset = header.base_offset
    timestamp_ms = header.timestamp_ms
    for delta, record in zip(deltas[number:], records, strict=True):
        offset = base_offset + delta
        if offset >= start:
            value = record.value or (b"" if record.HasField("value") else None)
            key = record.key or (b"" if record.HasField("key") else None)
            headers = NO_HEADERS
            if record.headers:
                headers = MappingProxyType({item.key: item.value for item in record.headers})
            yield _new_record(Record, (offset, value, key, headers, timestamp_ms))


def _keyed_rest(
    data: bytes, deltas: Sequence[int], number: int
) -> Iterator[tuple[int, bytes | None, bool, bytes]]:
    """As :func:`_decode_rest`. What is between the records is left out of their fields."""
    records = _parse_rest(data, deltas, number)
    for delta, record in zip(deltas[number:], records, strict=True):
        yield delta, *_key_of(record), _field(b"\x0a", record.SerializeToString())


def _key_of(record: RecordMessage) -> tuple[bytes | None, bool]:
    """A record's key, and whether it is a tombstone."""
    return record.key if record.HasField("key") else None, not record.HasField("value")


def _parse_rest(data: bytes, deltas: Sequence[int], number: int) -> Sequence[RecordMessage]:
    """The records in ``data``: as many as there are ``deltas`` from this ``number`` on."""
    records = _parse_dense(data)
    if number + len(records) != len(deltas):
        raise _wrong_count(len(deltas), number + len(records))
    return records


def _parse_dense(data: bytes) -> Sequence[RecordMessage]:
    batch = _parse(data)
    if batch.offset_deltas:
        raise InvalidBatch("offset deltas where none can be: the batch is not sparse")
    return batch.records


def _parse(data: bytes) -> RecordBatch:
    try:
        return RecordBatch.FromString(data)
    except DecodeError as error:
        raise InvalidBatch(f"the body is not an encoded RecordBatch: {error}") from error


def _parse_record(data: bytes) -> RecordMessage:
    try:
        return RecordMessage.FromString(data)
    except DecodeError as error:
        raise InvalidBatch(f"a record is not an encoded Record: {error}") from error


def _wrong_count(expected: int, got: int) -> InvalidBatch:
    return InvalidBatch(f"the batch says {expected} records, its body has {got}")
