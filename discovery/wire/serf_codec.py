"""Serf's messages to bytes and back: a type byte and a msgpack map with Go's field names.

============  =====================================================================================
message       fields (``*``: may be missing)
============  =====================================================================================
LEAVE, JOIN   LTime, Node, Prune*
STATE         LTime, StatusLTimes*, LeftMembers*, EventLTime*, Events*, QueryLTime*; Events are nil
              or {LTime, Events: [{Name, Payload*}]}
EVENT         LTime, Name, Payload*, CC*
QUERY         LTime, ID, Addr, Port, SourceNode*, Filters*, Flags*, RelayFactor*, Timeout*, Name,
              Payload*
RESPONSE      LTime, ID, From, Flags*, Payload*
KEY_REQUEST   Key
KEY_RESPONSE  Result, Message, Keys, PrimaryKey
CONFLICT      Name, Addr, Port, Tags, Status, and the six protocol versions
RELAY         {DestAddr: {IP, Port, Zone*}, DestName*}, then the message
============  =====================================================================================
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgpack

from quorumlog.discovery.wire.fields import (
    Fields,
    as_map,
    pack,
    pack_host,
    read_address,
    read_bool,
    read_bytes,
    read_int,
    read_name,
    read_text,
    unpack,
)
from quorumlog.discovery.wire.messages import MAX_NAME_BYTES, Address, Alive, User
from quorumlog.discovery.wire.packet import CACHED_NEWS, CACHED_NEWS_BYTES
from quorumlog.discovery.wire.serf_messages import (
    MAX_EVENT_BYTES,
    MAX_FILTERS,
    MAX_LAMPORT,
    MAX_TIMES,
    Intent,
    KeyAnswer,
    Query,
    QueryFlag,
    QueryResponse,
    Relay,
    SerfMessage,
    SerfState,
    SerfType,
    UserEvent,
)
from quorumlog.errors import ProtocolError

_MAX_U32: Final = 2**32 - 1
_MAX_RELAY_FACTOR: Final = 255
_MAX_TIMEOUT_NS: Final = 2**63 - 1
_VERSION_KEYS: Final = (
    "ProtocolMin",
    "ProtocolMax",
    "ProtocolCur",
    "DelegateMin",
    "DelegateMax",
    "DelegateCur",
)


def encode_serf(message: SerfMessage) -> User:
    match message:
        case Intent(name, time, leaves, prune):
            kind = SerfType.LEAVE if leaves else SerfType.JOIN
            fields: dict[str, object] = {"LTime": time, "Node": name}
            if prune:
                fields["Prune"] = True
        case UserEvent(time, name, payload, coalesce):
            kind = SerfType.EVENT
            fields = {"LTime": time, "Name": name, "Payload": payload, "CC": coalesce}
        case QueryResponse(time, number, source, flags, payload):
            kind = SerfType.RESPONSE
            fields = {"LTime": time, "ID": number, "From": source, "Flags": int(flags)}
            fields["Payload"] = payload
        case Query():
            kind, fields = SerfType.QUERY, _query_fields(message)
        case Relay((host, port), name, payload):
            target = {"IP": pack_host(host), "Port": port, "Zone": ""}
            header = pack({"DestAddr": target, "DestName": name})
            return User(bytes([SerfType.RELAY]) + header + payload)
    return User(bytes([kind]) + pack(fields))


def decode_serf(payload: bytes) -> SerfMessage | None:
    """What a user message says; None where it is none of Serf's that a member has to act on.

    Raises ``ProtocolError`` for one of Serf's that is malformed.
    """
    return _decode_cached(payload) if len(payload) <= CACHED_NEWS_BYTES else _decode(payload)


def _decode(payload: bytes) -> SerfMessage | None:
    match payload[0] if payload else None:
        case SerfType.LEAVE | SerfType.JOIN as kind:
            fields = unpack(payload[1:])
            leaves = kind == SerfType.LEAVE
            name = read_name(fields, b"Node")
            return Intent(name, _time(fields), leaves, read_bool(fields, b"Prune"))
        case SerfType.EVENT:
            fields = unpack(payload[1:])
            return _event(fields, _time(fields))
        case SerfType.QUERY:
            return _query(unpack(payload[1:]))
        case SerfType.RESPONSE:
            fields = unpack(payload[1:])
            number, source = read_int(fields, b"ID", _MAX_U32), read_name(fields, b"From")
            content = read_bytes(fields, b"Payload", MAX_EVENT_BYTES)
            return QueryResponse(_time(fields), number, source, _flags(fields), content)
        case SerfType.RELAY:
            return _relay(payload)
    return None


_decode_cached = lru_cache(maxsize=CACHED_NEWS)(_decode)
"""What is passed on comes many times; see ``wire.packet``."""


def encode_state(state: SerfState) -> bytes:
    by_time: dict[int, list[dict[str, object]]] = {}
    for event in state.events:
        entry: dict[str, object] = {"Name": event.name, "Payload": event.payload}
        by_time.setdefault(event.time, []).append(entry)
    fields = {
        "LTime": state.time,
        "StatusLTimes": dict(state.status_times),
        "LeftMembers": list(state.left),
        "EventLTime": state.event_time,
        "Events": [{"LTime": time, "Events": events} for time, events in by_time.items()],
        "QueryLTime": state.query_time,
    }
    return bytes([SerfType.STATE]) + pack(fields)


def decode_state(user_state: bytes) -> SerfState | None:
    """The user state of a push/pull; None where it is not Serf's. Raises ``ProtocolError``."""
    if user_state[:1] != bytes([SerfType.STATE]):
        return None
    fields = unpack(user_state[1:])
    times = fields.get(b"StatusLTimes") or {}
    if not isinstance(times, dict) or len(times) > MAX_TIMES:
        raise ProtocolError(f"StatusLTimes is no map of at most {MAX_TIMES} names")
    return SerfState(
        time=_time(fields, b"LTime"),
        status_times={_name(name): read_int(times, name, MAX_LAMPORT) for name in times},
        left=tuple(_name(name) for name in _listed(fields, b"LeftMembers", MAX_TIMES)),
        event_time=_time(fields, b"EventLTime"),
        events=_events(fields),
        query_time=_time(fields, b"QueryLTime"),
    )


def encode_key_answer(answer: KeyAnswer) -> bytes:
    fields = {
        "Result": answer.done,
        "Message": answer.message,
        "Keys": list(answer.keys),
        "PrimaryKey": answer.primary,
    }
    return bytes([SerfType.KEY_RESPONSE]) + pack(fields)


def decode_key_request(payload: bytes) -> bytes:
    """The key that a query to install, use or remove one is about. Raises ``ProtocolError``."""
    if payload[:1] != bytes([SerfType.KEY_REQUEST]):
        raise ProtocolError("a key query holds no key request")
    return read_bytes(unpack(payload[1:]), b"Key", 64)


def encode_member(said: Alive, tags: Mapping[str, str], status: int) -> bytes:
    """The answer to a conflict query: where ``said.name`` is, as this member believes."""
    host, port = said.address
    fields: dict[str, object] = {"Name": said.name, "Addr": pack_host(host), "Port": port}
    versions = dict(zip(_VERSION_KEYS, said.versions, strict=False))
    return bytes([SerfType.CONFLICT]) + pack(
        {**fields, "Tags": dict(tags), "Status": status, **versions}
    )


def decode_filter(data: bytes) -> tuple[int, Any]:
    """The type of a filter and what msgpack says it holds, strings as bytes."""
    try:
        return data[0], msgpack.unpackb(data[1:], raw=True)
    except (ValueError, TypeError, OverflowError, IndexError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a query's filter is not msgpack: {error}") from error


def _query_fields(query: Query) -> dict[str, object]:
    host, port = query.reply_to
    return {
        "LTime": query.time,
        "ID": query.id,
        "Addr": pack_host(host),
        "Port": port,
        "SourceNode": query.source,
        "Filters": list(query.filters),
        "Flags": int(query.flags),
        "RelayFactor": query.relay_factor,
        "Timeout": query.timeout_ns,
        "Name": query.name,
        "Payload": query.payload,
    }


def _query(fields: Fields) -> Query:
    filters = _listed(fields, b"Filters", MAX_FILTERS)
    if not all(isinstance(each, bytes) for each in filters):
        raise ProtocolError("a query's filter is no byte string")
    return Query(
        time=_time(fields),
        id=read_int(fields, b"ID", _MAX_U32),
        reply_to=read_address(fields, b"Addr", b"Port"),
        source=read_text(fields, b"SourceNode", MAX_NAME_BYTES),
        name=read_text(fields, b"Name", MAX_EVENT_BYTES),
        payload=read_bytes(fields, b"Payload", MAX_EVENT_BYTES),
        filters=tuple(filters),
        flags=_flags(fields),
        relay_factor=read_int(fields, b"RelayFactor", _MAX_RELAY_FACTOR, 0),
        timeout_ns=read_int(fields, b"Timeout", _MAX_TIMEOUT_NS, 0),
    )


def _relay(payload: bytes) -> Relay:
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=len(payload))
    try:
        unpacker.feed(payload[1:])
        header = as_map(unpacker.unpack())
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise ProtocolError(f"the header of a relayed message is not msgpack: {error}") from error
    target: Address = read_address(as_map(header.get(b"DestAddr")), b"IP", b"Port")
    name = read_text(header, b"DestName", MAX_NAME_BYTES)
    return Relay(target, name, payload[1 + unpacker.tell() :])


def _events(fields: Fields) -> tuple[UserEvent, ...]:
    events: list[UserEvent] = []
    for group in _listed(fields, b"Events", MAX_TIMES):
        if group is None:
            continue
        group = as_map(group)
        time = _time(group)
        entries = _listed(group, b"Events", MAX_TIMES)
        events += (_event(as_map(entry), time) for entry in entries)
    return tuple(events)


def _event(fields: Fields, time: int) -> UserEvent:
    name = read_text(fields, b"Name", MAX_EVENT_BYTES)
    payload = read_bytes(fields, b"Payload", MAX_EVENT_BYTES)
    return UserEvent(time, name, payload, read_bool(fields, b"CC"))


def _time(fields: Fields, key: bytes = b"LTime") -> int:
    return read_int(fields, key, MAX_LAMPORT, 0)


def _flags(fields: Fields) -> QueryFlag:
    return QueryFlag(read_int(fields, b"Flags", _MAX_U32, 0) & 3)


def _listed(fields: Fields, key: bytes, maximum: int) -> list[Any]:
    value = fields.get(key) or []
    if not isinstance(value, list) or len(value) > maximum:
        raise ProtocolError(f"{key.decode()} is no list of at most {maximum}")
    return value


def _name(value: object) -> str:
    return read_name({b"name": value}, b"name")
