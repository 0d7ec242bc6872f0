"""Decoders of what people write for a node, what a node keeps of itself, and what clients send."""

import os
from dataclasses import asdict
from functools import cache
from random import Random
from typing import Final

from google.protobuf.message import DecodeError

from fuzz.target import Target, expect
from quorumlog.api._pb import quorumlog_pb2
from quorumlog.api.convert import draft_of, start_of, topic_config
from quorumlog.api.limits import Limits
from quorumlog.errors import (
    ConfigError,
    Corrupt,
    InvalidArgument,
    InvalidBatch,
    ProtocolError,
    RecordTooLarge,
)
from quorumlog.log.batch import Draft
from quorumlog.log.records import encode_body
from quorumlog.node.config import NodeConfig, load_config, parse_address
from quorumlog.node.identity import Identity, IdentityFile, Proposal, Seat
from quorumlog.types import NodeId, RecordData
from sim.disk import SimDisk

_IDENTITY_PATH: Final = "data/node.json"
_LIMITS: Final = Limits(max_record_bytes=1000, max_batch_bytes=4000)


# -- a node's own --------------------------------------------------------------------------------


def _identities() -> list[bytes]:
    seats = (Seat(NodeId("a"), "a", "127.0.0.1:7400"), Seat(NodeId("b"), "ü", "[::1]:7400"))
    images = []
    for identity in (
        Identity(NodeId("a")),
        Identity(NodeId("a"), "cluster", seats),
        Identity(NodeId("b"), accepted=Proposal("cluster", NodeId("a"), seats)),
    ):
        disk = SimDisk(Random(0))
        disk.make_directory("data")
        IdentityFile(disk, "data").save(identity)
        images.append(disk.content(_IDENTITY_PATH))
    return images


def _check_identity(data: bytes) -> None:
    disk = SimDisk(Random(0))
    disk.make_directory("data")
    disk.open(_IDENTITY_PATH, create=True).write_at(0, [data])
    file = IdentityFile(disk, "data")
    identity = file.load_or_create()
    hash(identity)
    texts = [identity.node_id, identity.cluster_id]
    for seat in identity.voters + (identity.accepted.seats if identity.accepted else ()):
        texts += asdict(seat).values()
    expect(all(isinstance(text, str) for text in texts), "names and addresses are text")
    file.save(identity)
    expect(file.load_or_create() == identity, "an identity comes back")


@cache
def _config_file() -> int:
    return os.memfd_create("config")


def _configs() -> list[bytes]:
    return [
        b'name = "n1"\nlisten = "127.0.0.1:7400"\njoin = ["a:1", "b:2"]\nbootstrap_expect = 3\n',
        b'data_dir = "d"\nbootstrap_expect = "3"\n',
        b"",
    ]


def _check_config(data: bytes) -> None:
    descriptor = _config_file()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
    config = load_config({}, {}, f"/proc/self/fd/{descriptor}")
    expect(NodeConfig(**asdict(config)) == config, "settings are those of a node")


def _check_address(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    host, port = parse_address("listen", text)
    expect(bool(host) and 0 <= port <= 65535, "an address has a host and a port")


# -- clients' ------------------------------------------------------------------------------------


def _produce_requests() -> list[bytes]:
    requests = []
    for values in ([b"value"], [b"one", b"", b"three"]):
        body = encode_body([RecordData(value, b"key") for value in values])
        draft = Draft.of(body, len(values))
        requests.append(
            quorumlog_pb2.ProduceRequest(
                topic="orders",
                partition=1,
                request_id=7,
                batch=quorumlog_pb2.Batch(
                    body=body,
                    body_crc=draft.body_crc,
                    record_count=len(values),
                    producer_id=5,
                    sequence=9,
                ),
            ).SerializeToString()
        )
    return requests


def _request_of(data: bytes) -> quorumlog_pb2.ProduceRequest:
    """What gRPC does before anything of this repository sees a request."""
    try:
        return quorumlog_pb2.ProduceRequest.FromString(data)
    except DecodeError as error:
        raise ProtocolError("not a request") from error


def _check_produce(data: bytes) -> None:
    draft = draft_of(_request_of(data).batch, _LIMITS)
    batch = draft.stamp(1, 1, 0, 1)
    expect(batch.header.record_count >= 1, "what is appended has records")
    expect(len(batch.body) <= _LIMITS.max_batch_bytes, "the limit holds")


def _repair_produce(data: bytes) -> bytes:
    try:
        request = _request_of(data)
    except ProtocolError:
        return data
    request.batch.body_crc = Draft.of(request.batch.body, 1).body_crc
    return request.SerializeToString()


def _starts() -> list[bytes]:
    configs = (
        quorumlog_pb2.TopicConfig(retention_ms=5, cleanup="delete", fsync="always"),
        quorumlog_pb2.TopicConfig(),
    )
    starts = (quorumlog_pb2.Start(offset=4), quorumlog_pb2.Start(timestamp_ms=5))
    return [b"t" + each.SerializeToString() for each in configs] + [
        b"s" + each.SerializeToString() for each in starts
    ]


def _check_start_or_topic(data: bytes) -> None:
    try:
        if data[:1] == b"s":
            start_of(quorumlog_pb2.Start.FromString(data[1:]))
            return
        command = topic_config(quorumlog_pb2.TopicConfig.FromString(data[1:]))
    except DecodeError as error:
        raise ProtocolError("not a message") from error
    expect(type(command).FromString(command.SerializeToString()) == command, "it comes back")


NODE_TARGETS: Final = (
    Target("identity", _check_identity, (Corrupt,), _identities),
    Target("config-file", _check_config, (ConfigError,), _configs),
    Target("address", _check_address, (ConfigError,), lambda: [b"127.0.0.1:7400", b"[::1]:1"]),
    Target(
        "produce-request",
        _check_produce,
        (ProtocolError, InvalidBatch, InvalidArgument, RecordTooLarge),
        _produce_requests,
        _repair_produce,
    ),
    Target("start-or-topic", _check_start_or_topic, (ProtocolError, InvalidArgument), _starts),
)
