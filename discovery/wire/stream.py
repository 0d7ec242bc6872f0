"""A TCP stream: one message each way, found by its content because nothing gives its length.

A stream begins with a type byte. COMPRESS wraps any other message; USER is
``{UserMsgLen}`` and that many bytes; PUSH_PULL see ``wire.codec``.

A long message costs seconds, and whoever decodes it has other things to do: so it goes by steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from quorumlog.discovery.wire.codec import decode_ack, decode_error, decode_ping, decode_record
from quorumlog.discovery.wire.fields import Fields, as_map, read_bool, read_int
from quorumlog.discovery.wire.lzw import decompress_pieces
from quorumlog.discovery.wire.messages import (
    MemberRecord,
    MessageType,
    PushPull,
    StreamMessage,
    User,
)
from quorumlog.discovery.wire.packet import read_compressed
from quorumlog.errors import OversizedMessage, ProtocolError

MAX_STREAM_BYTES: Final = 4 * 1024 * 1024
"""Most bytes of one message on a stream, both as sent and when decompressed."""

MAX_RECORDS: Final = 16_384
"""Most members in one push/pull."""

STEP_BYTES: Final = 8 * 1024
"""Decoded in one step: members for two milliseconds."""

_MAX_ITEMS: Final = 64


class StreamDecoder:
    """Takes the bytes of one stream as they come: ``feed`` returns the message once it is whole,
    ``steps`` the same by steps of some milliseconds, the last of which is the message or None.

    Raises ``ProtocolError``; after that, and after the message, the decoder is spent. What comes
    behind the message is not looked at. Memory: at most ``MAX_STREAM_BYTES`` and the message.
    """

    def __init__(self, *, compressed: bool = True) -> None:
        self._may_be_compressed = compressed
        self._received_bytes = 0
        self._kind: int | None = None
        self._header: Fields | None = None
        self._records: list[MemberRecord] = []
        self._unpacker: Any = msgpack.Unpacker(
            raw=True,
            max_buffer_size=MAX_STREAM_BYTES,
            max_str_len=MAX_STREAM_BYTES,
            max_bin_len=MAX_STREAM_BYTES,
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_ITEMS,
        )
        self._user_state = bytearray()

    def feed(self, data: bytes) -> StreamMessage | None:
        return last(self.steps(data))

    def steps(self, data: bytes) -> Iterator[StreamMessage | None]:
        self._received_bytes += len(data)
        if self._received_bytes > MAX_STREAM_BYTES:
            raise OversizedMessage(f"a gossip stream is longer than {MAX_STREAM_BYTES} bytes")
        for start in range(0, len(data), STEP_BYTES):
            message = self._take(data[start : start + STEP_BYTES])
            if isinstance(message, _Compressed):
                yield from _decompressed(message.data)
                return
            yield message
            if message is not None:
                return

    def _take(self, data: bytes) -> "StreamMessage | _Compressed | None":
        if self._kind is None:
            self._kind, data = data[0], data[1:]
        try:
            self._unpacker.feed(data)
            return self._decode()
        except msgpack.OutOfData:
            return None
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
            raise ProtocolError(f"a gossip stream is not msgpack: {error}") from error

    def _decode(self) -> "StreamMessage | _Compressed | None":
        if self._header is None:
            self._header = as_map(self._unpacker.unpack())
        header = self._header
        match self._kind:
            case MessageType.PUSH_PULL:
                return self._push_pull(header)
            case MessageType.USER:
                payload = self._raw(read_int(header, b"UserMsgLen", MAX_STREAM_BYTES))
                return None if payload is None else User(payload)
            case MessageType.PING:
                return decode_ping(header)
            case MessageType.ACK:
                return decode_ack(header)
            case MessageType.ERROR:
                return decode_error(header)
            case MessageType.COMPRESS if self._may_be_compressed:
                return _Compressed(read_compressed(header, MAX_STREAM_BYTES))
        raise ProtocolError(f"a gossip stream begins with a message of type {self._kind}")

    def _push_pull(self, header: Fields) -> PushPull | None:
        count = read_int(header, b"Nodes", MAX_RECORDS)
        user_state_bytes = read_int(header, b"UserStateLen", MAX_STREAM_BYTES)
        while len(self._records) < count:
            self._records.append(decode_record(as_map(self._unpacker.unpack())))
        user_state = self._raw(user_state_bytes)
        if user_state is None:
            return None
        return PushPull(tuple(self._records), read_bool(header, b"Join"), user_state)

    def _raw(self, size_bytes: int) -> bytes | None:
        """The next ``size_bytes`` as they are, or None until all are here."""
        self._user_state += self._unpacker.read_bytes(size_bytes - len(self._user_state))
        return bytes(self._user_state) if len(self._user_state) == size_bytes else None


@dataclass(frozen=True, slots=True)
class _Compressed:
    data: bytes


def last(steps: Iterator[StreamMessage | None]) -> StreamMessage | None:
    """Make all the steps at once."""
    message = None
    for message in steps:
        if message is not None:
            break
    return message


def _decompressed(data: bytes) -> Iterator[StreamMessage | None]:
    decoder = StreamDecoder(compressed=False)
    for piece in decompress_pieces(data, MAX_STREAM_BYTES):
        yield None
        for message in decoder.steps(piece):
            yield message
            if message is not None:
                return
    raise ProtocolError("a compressed gossip stream is cut short")
