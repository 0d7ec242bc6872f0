"""Decoders of what other nodes and clients send, and of what groups write into their logs."""

from typing import Final

from fuzz.repair import repair_request
from fuzz.target import Target, expect
from quorumlog.api.frames import frame_head, split_frame
from quorumlog.broker import metadata_snapshot
from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.metadata_command import check_command, parse_command
from quorumlog.broker.metadata_snapshot import Contents
from quorumlog.broker.producer_snapshot import (
    REMEMBERED_BATCHES,
    AppliedBatch,
    batches_of,
    epoch_and_next_sequence,
    join_entries,
    split_entries,
    with_batch,
)
from quorumlog.broker.topic_config import TopicConfig
from quorumlog.broker.topics import NodeInfo, PartitionInfo, Presence, Topic
from quorumlog.discovery.wire.codec import encode_message, encode_push_pull
from quorumlog.discovery.wire.messages import (
    Ack,
    Alive,
    Dead,
    IndirectPing,
    MemberRecord,
    Ping,
    PushPull,
    Status,
    Suspect,
    User,
)
from quorumlog.discovery.wire.packet import decode_packet, encode_packet
from quorumlog.discovery.wire.stream import StreamDecoder
from quorumlog.discovery.wire.tags import decode_tags, encode_tags
from quorumlog.errors import InvalidArgument, ProtocolError
from quorumlog.log.batch import Draft
from quorumlog.replication.core.members import Members
from quorumlog.replication.core.messages import (
    AppendRequest,
    AppendResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from quorumlog.replication.wire import decode, encode
from quorumlog.types import GroupId, Index, NodeId, Term

_STREAM_STEP_BYTES: Final = 7


# -- Raft ----------------------------------------------------------------------------------------


def _messages() -> list[bytes]:
    batches = tuple(
        Draft.of(b"body" * number, number).stamp(4 + number, 3, 10 * number, 100 + number)
        for number in (1,)
    )
    term, index = Term(3), Index(4)
    return [
        encode(AppendRequest(term, index, Term(2), index, batches, 7)),
        encode(AppendRequest(term, index, Term(2), index, ())),
        encode(AppendResponse(term, False, index, index, index, term)),
        encode(VoteRequest(term, index, term, True, False)),
        encode(VoteResponse(term, True, False)),
        encode(TimeoutNow(term)),
    ]


def _check_message(data: bytes) -> None:
    expect(encode(decode(data)) == data, "a message encodes to the bytes it came from")


def _members() -> list[bytes]:
    a, b, c = NodeId("a" * 32), NodeId("b"), NodeId("ü")
    return [
        each.encode()
        for each in (Members((a, b), (c,)), Members((a,)), Members((a,), (b,), (b, c)))
    ]


def _check_members(data: bytes) -> None:
    expect(Members.decode(data).encode() == data, "members encode to the bytes they came from")


def _check_frame(data: bytes) -> None:
    parts = [frame_head(group, payload) + bytes(payload) for group, payload in split_frame(data)]
    expect(b"".join(parts) == data, "messages join to the frame they came from")


def _frames() -> list[bytes]:
    return [
        b"".join(frame_head(GroupId(group), body) + body for group, body in enumerate(_messages()))
    ]


# -- metadata ------------------------------------------------------------------------------------


def _commands() -> list[bytes]:
    create = metadata_pb2.Command()
    create.create_topic.name = "orders"
    create.create_topic.partitions = 3
    create.create_topic.config.fsync = "always"
    register = metadata_pb2.Command()
    register.register_node.node.id = "a" * 32
    register.register_node.node.address = "127.0.0.1:7400"
    delete = metadata_pb2.Command()
    delete.delete_topic.name = "orders"
    assign = metadata_pb2.Command()
    assign.assign_replicas.group = 1
    assign.assign_replicas.wanted.extend("ab")
    note = metadata_pb2.Command()
    note.note_presence.node = "a" * 32
    note.note_presence.presence = "left"
    note.note_presence.absent_since_ms = 1_700_000_000_000
    return [each.SerializeToString() for each in (create, register, delete, assign, note)]


def _check_command(data: bytes) -> None:
    command = parse_command(data)
    check_command(command)
    expect(parse_command(command.SerializeToString()) == command, "a command comes back")


def _snapshots() -> list[bytes]:
    node = NodeInfo(
        *(NodeId("a"), "a", "127.0.0.1:7400", "0.1.0"), presence=Presence.LEFT, absent_since_ms=5
    )
    a, b, c = NodeId("a"), NodeId("b"), NodeId("c")
    partition = PartitionInfo(0, GroupId(1), (a,), (b,), (c,), 7, 3)
    topic = Topic("orders", 1, TopicConfig("always"), (partition,))
    return [
        metadata_snapshot.encode(Contents(9, 2, 5, (node,), (b,), (a, c), 4, (topic,))),
        metadata_snapshot.encode(Contents(0, 1, 1, (), (), (), 0, ())),
    ]


def _check_snapshot(data: bytes) -> None:
    contents = metadata_snapshot.decode(data)
    again = metadata_snapshot.decode(metadata_snapshot.encode(contents))
    expect(again == contents, "a snapshot comes back")


def _producers() -> list[bytes]:
    new = with_batch(b"", 7, 0, AppliedBatch(0, 1, 7, 999))
    full = b""
    for number in range(REMEMBERED_BATCHES):
        full = with_batch(full, 1, 3, AppliedBatch(5 * number, 5, 90 + number, 1_000))
    return [join_entries([]), join_entries([new]), join_entries([full, new])]


def _check_producers(data: bytes) -> None:
    entries = split_entries(data)
    expect(join_entries(entries.values()) == data, "a table encodes to the bytes it came from")
    for entry in entries.values():
        epoch_and_next_sequence(entry)
        expect(0 < len(batches_of(entry)) <= REMEMBERED_BATCHES, "a producer has some batches")


# -- gossip --------------------------------------------------------------------------------------


def _gossip_messages() -> list[bytes]:
    here = ("127.0.0.1", 7946)
    alive = Alive("n", 3, here, encode_tags({"id": "n", "port": "7400"}))
    messages = (
        Ping(7, "n"),
        IndirectPing(8, "n", here, True, "m", here),
        Ack(7),
        Suspect("n", 2, "m"),
        Dead("n", 2, "m"),
        alive,
        User(b"event"),
    )
    return [encode_message(message) for message in messages]


def _push_pulls() -> list[bytes]:
    alive = Alive("n", 3, ("127.0.0.1", 7946), b"")
    return [
        encode_push_pull(PushPull((MemberRecord(alive, Status.ALIVE),) * 2, True, b"state")),
        *_gossip_messages()[:1],
    ]


def _check_packet(data: bytes) -> None:
    decode_packet(data)


def _check_stream(data: bytes) -> None:
    whole = StreamDecoder().feed(data)
    pieces = StreamDecoder()
    for at in range(0, len(data), _STREAM_STEP_BYTES):
        found = pieces.feed(data[at : at + _STREAM_STEP_BYTES])
        if found is not None:
            expect(found == whole, "a stream means the same in pieces")
            return
    expect(whole is None, "a stream means the same in pieces")


def _check_tags(data: bytes) -> None:
    tags = decode_tags(data)
    expect(decode_tags(encode_tags(tags)) == tags, "tags come back")


MESSAGE_TARGETS: Final = (
    Target("raft-messages", _check_message, (ProtocolError,), _messages, repair_request),
    Target("members", _check_members, (ProtocolError,), _members),
    Target("frames", _check_frame, (ProtocolError,), _frames),
    Target("metadata-command", _check_command, (InvalidArgument,), _commands),
    Target("metadata-snapshot", _check_snapshot, (ProtocolError,), _snapshots),
    Target("producer-table", _check_producers, (ProtocolError,), _producers),
    Target(
        "gossip-packets",
        _check_packet,
        (ProtocolError,),
        lambda: [*_gossip_messages(), encode_packet(_gossip_messages()[1:])],
    ),
    Target("gossip-stream", _check_stream, (ProtocolError,), _push_pulls),
    Target(
        "gossip-tags",
        _check_tags,
        (ProtocolError, InvalidArgument),
        lambda: [encode_tags({"id": "n", "role": "x" * 40})],
    ),
)
