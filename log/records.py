"""The body of a batch: records to bytes and back.

The body is the protobuf message ``quorumlog.log.v1.RecordBatch`` (``_pb/record.proto``). Writing
joins the bytes by hand (a third of the cost of building messages) and reading cuts the common
shape by hand; checking, and everything out of the ordinary, is protobuf's.
"""

from collections.abc import Iterable, Iterator
from types import MappingProxyType

from google.protobuf.message import DecodeError

from quorumlog.errors import InvalidArgument, InvalidBatch, RecordTooLarge
from quorumlog.log._pb.record_pb2 import RecordBatch
from quorumlog.log.batch import BatchHeader
from quorumlog.types import MAX_RECORD_BYTES, NO_HEADERS, Buffer, Offset, Record, RecordData

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


def encode_record(record: RecordData, limit_bytes: int = MAX_RECORD_BYTES) -> bytes:
    """One record as its field in a body; a body is such fields joined.

    Raises:
        RecordTooLarge: key, value and headers together have more than ``limit_bytes``.
        InvalidArgument: something is not of the type it has to be.
    """
    parts: list[bytes] = []
    size_bytes = 0
    try:
        if record.key is not None:
            parts.append(_field(b"\x0a", record.key))
            size_bytes += len(record.key)
        if record.value is not None:
            parts.append(_field(b"\x12", record.value))
            size_bytes += len(record.value)
        if record.headers:
            for name, content in record.headers.items():
                raw_name = name.encode()
                size_bytes += len(raw_name) + len(content)
                parts.append(_field(b"\x1a", _field(b"\x0a", raw_name) + _field(b"\x12", content)))
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


def check_records(body: Buffer, record_count: int, limit_bytes: int = MAX_RECORD_BYTES) -> None:
    """Raise unless ``body`` is an encoding of ``record_count`` records, none over the limit.

    Raises:
        InvalidBatch: it is no ``RecordBatch``, or has another number of records.
        RecordTooLarge: a record is over ``limit_bytes``.
    """
    batch = _parse(body)
    if len(batch.records) != record_count:
        raise InvalidBatch(
            f"the batch says {record_count} records, its body has {len(batch.records)}"
        )
    if len(body) > limit_bytes:
        for record in batch.records:
            size_bytes = record.ByteSize()
            if size_bytes > limit_bytes + 16 + 16 * len(record.headers):
                raise RecordTooLarge(size_bytes, limit_bytes)


def decode_records(header: BatchHeader, body: Buffer, start: int = 0) -> Iterator[Record]:
    """The records of a batch from offset ``start`` on, each decoded when it is asked for.

    A record of the shape :func:`encode_record` writes, without headers and with fields below
    16 KiB, is cut out of the bytes directly; at the first other one protobuf takes over.

    Raises:
        InvalidBatch: the body does not hold what its header says. It can come after records
            have been handed out, so check the body's checksum first (``check_body``).
    """
    data = bytes(body)
    length = len(data)
    offset: int = header.base_offset
    timestamp_ms = header.timestamp_ms
    at = 0
    while at < length:
        begin = at
        try:
            at, key, value = _cut_record(data, at, length)
        except (_Unusual, IndexError):
            yield from _decode_rest(header, data[begin:], offset, start)
            return
        if offset >= start:
            yield _new_record(Record, (offset, value, key, NO_HEADERS, timestamp_ms))
        offset += 1
    _check_count(header, offset)


class _Unusual(Exception):
    """A record of another shape than the one that is cut by hand."""


_new_record = tuple.__new__
_KEY_TAG = 0x0A
_VALUE_TAG = 0x12


def _cut_record(data: bytes, at: int, length: int) -> tuple[int, bytes | None, bytes | None]:
    """Where the record at ``at`` ends, its key and its value.

    The varints are written out: a call for each would cost as much as all the rest.
    """
    if data[at] != _KEY_TAG:
        raise _Unusual
    size = data[at + 1]
    at += 2
    if size > 0x7F:
        high = data[at]
        if high > 0x7F:
            raise _Unusual
        size += (high << 7) - 0x80
        at += 1
    end = at + size
    if end > length:
        raise _Unusual
    key = value = None
    tag = data[at] if at < end else 0
    if tag == _KEY_TAG:
        size = data[at + 1]
        at += 2
        if size > 0x7F:
            high = data[at]
            if high > 0x7F:
                raise _Unusual
            size += (high << 7) - 0x80
            at += 1
        key = data[at : at + size]
        at += size
        tag = data[at] if at < end else 0
    if tag == _VALUE_TAG:
        size = data[at + 1]
        at += 2
        if size > 0x7F:
            high = data[at]
            if high > 0x7F:
                raise _Unusual
            size += (high << 7) - 0x80
            at += 1
        value = data[at : at + size]
        at += size
    if at != end:
        raise _Unusual
    return end, key, value


def _decode_rest(header: BatchHeader, data: bytes, offset: int, start: int) -> Iterator[Record]:
    """The records from ``offset`` on, whose encoding is ``data``, by protobuf."""
    records = _parse(data).records
    _check_count(header, offset + len(records))
    timestamp_ms = header.timestamp_ms
    for record in records:
        if offset >= start:
            headers = NO_HEADERS
            if record.headers:
                headers = MappingProxyType({item.key: item.value for item in record.headers})
            yield Record(
                Offset(offset),
                record.value if record.HasField("value") else None,
                record.key if record.HasField("key") else None,
                headers,
                timestamp_ms,
            )
        offset += 1


def _parse(body: Buffer) -> RecordBatch:
    try:
        return RecordBatch.FromString(bytes(body))
    except DecodeError as error:
        raise InvalidBatch(f"the body is not an encoded RecordBatch: {error}") from error


def _check_count(header: BatchHeader, next_offset: int) -> None:
    count = next_offset - header.base_offset
    if count != header.record_count:
        raise InvalidBatch(f"the batch says {header.record_count} records, its body has {count}")
