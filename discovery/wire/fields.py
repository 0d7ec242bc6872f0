"""msgpack maps in the old raw format, read field by field: a typed value or ``ProtocolError``."""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from reprlib import repr as short_repr
from typing import Any, Final

import msgpack

from quorumlog.discovery.wire.messages import MAX_INCARNATION, MAX_NAME_BYTES, Address
from quorumlog.errors import InvalidArgument, ProtocolError

Fields = Mapping[Any, Any]

_CACHED_HOSTS: Final = 4096
"""Addresses whose other form is remembered: every ping has one, and they are few."""


def pack(fields: Mapping[str, object]) -> bytes:
    """A map in the format memberlist reads: no ``bin`` and no ``str8`` types."""
    packed: bytes = msgpack.packb(fields, use_bin_type=False)
    return packed


def unpack(data: bytes | memoryview) -> Fields:
    """The one map that ``data`` is, its strings and keys as bytes."""
    size = len(data)
    try:
        value = msgpack.unpackb(
            data, raw=True, max_str_len=size, max_bin_len=size, max_array_len=size, max_map_len=size
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a gossip message is not msgpack: {error}") from error
    return as_map(value)


def utf8(text: str, what: str) -> bytes:
    """``text`` in bytes. Raises ``InvalidArgument`` for half a surrogate pair, which has none."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"the {what} {text!r:.80} is not text in Unicode") from error


def as_map(value: object) -> Fields:
    if not isinstance(value, dict):
        raise ProtocolError(f"a gossip message is a {type(value).__name__}, not a map")
    return value


def read_int(fields: Fields, key: bytes, maximum: int, default: int | None = None) -> int:
    """A whole number in ``[0, maximum]``."""
    value = fields.get(key, default)
    if type(value) is not int or not 0 <= value <= maximum:
        raise ProtocolError(
            f"{key.decode()} is {short_repr(value)}, not a number from 0 to {maximum}"
        )
    return value


def read_incarnation(fields: Fields) -> int:
    return read_int(fields, b"Incarnation", MAX_INCARNATION)


def read_bool(fields: Fields, key: bytes) -> bool:
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise ProtocolError(f"{key.decode()} is {short_repr(value)}, not a boolean")
    return value


def read_bytes(fields: Fields, key: bytes, maximum: int) -> bytes:
    """A byte string of at most ``maximum`` bytes; nil and missing are empty, as in Go."""
    value = fields.get(key)
    if value is None:
        return b""
    if isinstance(value, list) and all(type(item) is int and 0 <= item < 256 for item in value):
        value = bytes(value)
    if not isinstance(value, bytes) or len(value) > maximum:
        raise ProtocolError(f"{key.decode()} is not a byte string of at most {maximum} bytes")
    return value


def read_text(fields: Fields, key: bytes, maximum: int) -> str:
    try:
        return read_bytes(fields, key, maximum).decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{key.decode()} is not UTF-8") from error


def read_name(fields: Fields, key: bytes) -> str:
    """A member's name: 1 to 128 bytes of UTF-8."""
    name = read_text(fields, key, MAX_NAME_BYTES)
    if not name:
        raise ProtocolError(f"{key.decode()} is empty")
    return name


def read_address(fields: Fields, host_key: bytes, port_key: bytes) -> Address:
    """A numeric address of 4 or 16 bytes (an IPv4 one in either) and a port from 1."""
    packed = read_bytes(fields, host_key, 16)
    port = read_int(fields, port_key, 65_535)
    if len(packed) not in (4, 16) or port == 0:
        raise ProtocolError(f"{host_key.decode()} and {port_key.decode()} are no address")
    return _host(packed), port


def read_reply_address(fields: Fields) -> Address | None:
    """Where the sender wants its answer, when it says so."""
    if not fields.get(b"SourceAddr") or not fields.get(b"SourcePort"):
        return None
    return read_address(fields, b"SourceAddr", b"SourcePort")


@lru_cache(maxsize=_CACHED_HOSTS)
def pack_host(host: str) -> bytes:
    return ip_address(host).packed


@lru_cache(maxsize=_CACHED_HOSTS)
def _host(packed: bytes) -> str:
    host = ip_address(packed)
    if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    return str(host)
