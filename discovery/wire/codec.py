"""One message to bytes and back: a type byte and a msgpack map with Go's field names.

=============  ====================================================================================
message        fields (``*``: may be missing)
=============  ====================================================================================
PING           SeqNo, Node*, SourceAddr*, SourcePort*, SourceNode*
INDIRECT_PING  SeqNo, Target, Port, Node, Nack*, SourceAddr*, SourcePort*, SourceNode*
ACK            SeqNo, Payload*
NACK           SeqNo
SUSPECT, DEAD  Incarnation, Node, From
ALIVE          Incarnation, Node, Addr, Port, Meta*, Vsn*
PUSH_PULL      {Nodes, UserStateLen, Join}, Nodes x {Name, Addr, Port, Meta*, Incarnation, State,
               Vsn*}, UserStateLen bytes
ERROR          Error
=============  ====================================================================================
"""

from collections.abc import Callable
from typing import Final

from quorumlog.discovery.wire.fields import (
    Fields,
    pack,
    pack_host,
    read_address,
    read_bool,
    read_bytes,
    read_incarnation,
    read_int,
    read_name,
    read_reply_address,
    read_text,
    unpack,
)
from quorumlog.discovery.wire.messages import (
    MAX_META_BYTES,
    MAX_NAME_BYTES,
    UNSAID_VERSIONS,
    VERSION_BYTES,
    Ack,
    Alive,
    Dead,
    IndirectPing,
    MemberRecord,
    MessageType,
    Nack,
    PacketMessage,
    Ping,
    PushPull,
    RemoteError,
    Status,
    Suspect,
    User,
)
from quorumlog.errors import ProtocolError

_MAX_SEQUENCE: Final = 2**32 - 1
_MAX_ERROR_BYTES: Final = 4096
_STATUSES: Final = tuple(sorted(Status))


def encode_message(message: PacketMessage | RemoteError) -> bytes:
    """One message with its type byte, ready to be a packet or a part of one."""
    match message:
        case User(payload):
            return bytes([MessageType.USER]) + payload
        case Ping(sequence, target):
            fields: dict[str, object] = {"SeqNo": sequence, "Node": target, **_source(message)}
            kind = MessageType.PING
        case IndirectPing(sequence, target, (host, port), wants_nack):
            fields = {"SeqNo": sequence, "Target": pack_host(host), "Port": port, "Node": target}
            fields |= {"Nack": wants_nack, **_source(message)}
            kind = MessageType.INDIRECT_PING
        case Ack(sequence):
            fields = {"SeqNo": sequence, "Payload": b""}
            kind = MessageType.ACK
        case Nack(sequence):
            fields = {"SeqNo": sequence}
            kind = MessageType.NACK
        case Suspect(name, incarnation, accuser):
            fields = {"Incarnation": incarnation, "Node": name, "From": accuser}
            kind = MessageType.SUSPECT
        case Dead(name, incarnation, accuser):
            fields = {"Incarnation": incarnation, "Node": name, "From": accuser}
            kind = MessageType.DEAD
        case Alive(name):
            fields = {"Node": name, **_alive_fields(message)}
            kind = MessageType.ALIVE
        case RemoteError(text):
            fields = {"Error": text}
            kind = MessageType.ERROR
    return bytes([kind]) + pack(fields)


def encode_push_pull(state: PushPull) -> bytes:
    header = {
        "Nodes": len(state.records),
        "UserStateLen": len(state.user_state),
        "Join": state.join,
    }
    parts = [bytes([MessageType.PUSH_PULL]), pack(header)]
    for record in state.records:
        fields = {"Name": record.alive.name, **_alive_fields(record.alive)}
        parts.append(pack(fields | {"State": int(record.status)}))
    parts.append(state.user_state)
    return b"".join(parts)


def decode_message(data: bytes | memoryview) -> PacketMessage:
    """One message as it stands in a packet. Raises ``ProtocolError``."""
    if len(data) == 0:
        raise ProtocolError("a gossip message is empty")
    kind = data[0]
    if kind == MessageType.USER:
        return User(bytes(data[1:]))
    decode = _DECODERS.get(kind)
    if decode is None:
        raise ProtocolError(f"a gossip packet holds a message of type {kind}")
    return decode(unpack(data[1:]))


def decode_ping(fields: Fields) -> Ping:
    return Ping(
        read_int(fields, b"SeqNo", _MAX_SEQUENCE),
        read_text(fields, b"Node", MAX_NAME_BYTES),
        read_text(fields, b"SourceNode", MAX_NAME_BYTES),
        read_reply_address(fields),
    )


def decode_ack(fields: Fields) -> Ack:
    return Ack(read_int(fields, b"SeqNo", _MAX_SEQUENCE))


def decode_error(fields: Fields) -> RemoteError:
    return RemoteError(read_text(fields, b"Error", _MAX_ERROR_BYTES))


def decode_record(fields: Fields) -> MemberRecord:
    """One member of a push/pull."""
    alive = _alive(fields, b"Name")
    return MemberRecord(alive, _STATUSES[read_int(fields, b"State", len(_STATUSES) - 1)])


def _indirect_ping(fields: Fields) -> IndirectPing:
    return IndirectPing(
        read_int(fields, b"SeqNo", _MAX_SEQUENCE),
        read_name(fields, b"Node"),
        read_address(fields, b"Target", b"Port"),
        read_bool(fields, b"Nack"),
        read_text(fields, b"SourceNode", MAX_NAME_BYTES),
        read_reply_address(fields),
    )


def _nack(fields: Fields) -> Nack:
    return Nack(read_int(fields, b"SeqNo", _MAX_SEQUENCE))


def _suspect(fields: Fields) -> Suspect:
    return Suspect(read_name(fields, b"Node"), read_incarnation(fields), read_name(fields, b"From"))


def _dead(fields: Fields) -> Dead:
    # Before protocol version 2 nobody said who the accuser is.
    accuser = read_text(fields, b"From", MAX_NAME_BYTES)
    return Dead(read_name(fields, b"Node"), read_incarnation(fields), accuser)


def _alive(fields: Fields, name_key: bytes = b"Node") -> Alive:
    return Alive(
        read_name(fields, name_key),
        read_incarnation(fields),
        read_address(fields, b"Addr", b"Port"),
        read_bytes(fields, b"Meta", MAX_META_BYTES),
        _versions(fields),
    )


def _versions(fields: Fields) -> bytes:
    versions = read_bytes(fields, b"Vsn", VERSION_BYTES)
    if len(versions) not in (0, VERSION_BYTES):
        raise ProtocolError(f"there are {len(versions)} versions, not {VERSION_BYTES}")
    # In a state memberlist has zeros for who said nothing.
    return versions if any(versions) else UNSAID_VERSIONS


def _alive_fields(alive: Alive) -> dict[str, object]:
    host, port = alive.address
    return {
        "Incarnation": alive.incarnation,
        "Addr": pack_host(host),
        "Port": port,
        "Meta": alive.meta,
        "Vsn": alive.versions,
    }


def _source(message: Ping | IndirectPing) -> dict[str, object]:
    if message.reply_to is None:
        return {}
    host, port = message.reply_to
    return {"SourceAddr": pack_host(host), "SourcePort": port, "SourceNode": message.source}


_DECODERS: Final[dict[int, Callable[[Fields], PacketMessage]]] = {
    MessageType.PING: decode_ping,
    MessageType.INDIRECT_PING: _indirect_ping,
    MessageType.ACK: decode_ack,
    MessageType.NACK: _nack,
    MessageType.SUSPECT: _suspect,
    MessageType.ALIVE: _alive,
    MessageType.DEAD: _dead,
}
