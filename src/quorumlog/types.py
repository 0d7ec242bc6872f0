"""The words of the log, as types: an offset is never an index, and neither a byte in a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, NewType

Offset = NewType("Offset", int)
"""A record's number within a partition, dense from 0: what users see."""

Index = NewType("Index", int)
"""A batch's number in a partition's Raft log, dense from 1."""

Term = NewType("Term", int)
"""A Raft term, from 0 (no leader was ever elected)."""

NodeId = NewType("NodeId", str)
"""A node's identity for life, kept in its data directory (32 hexadecimal digits)."""

GroupId = NewType("GroupId", int)
"""A Raft group's number: 0 is the cluster's metadata, every partition has one of its own."""

Buffer = bytes | bytearray | memoryview

METADATA_GROUP = GroupId(0)

DEFAULT_TOPIC = "default"
"""The topic the proglog-compatible service ``log.v1.Log`` reads and writes."""

MAX_RECORD_BYTES = 1024 * 1024
"""Default limit of one record's key + value + headers, in bytes."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Limit of one batch's body, in bytes, on client, leader and follower alike."""

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Limit of one gRPC message, in bytes: some batches and their envelope."""

MAX_PACKED_REQUESTS = 128
"""Produce requests in one message of a stream: a node proposes those that are not compressed in one
turn of its loop, which takes it some milliseconds."""

MAX_PACKED_BYTES = 64 * 1024
"""Bodies of the requests that a client packs into one message; a larger batch travels alone."""


NO_HEADERS: Mapping[str, bytes] = MappingProxyType({})
"""The headers of a record that has none: shared, cannot be changed."""


class Record(NamedTuple):
    """One record as it is read.

    ``timestamp_ms`` is when the leader appended it (milliseconds since the Unix epoch, never
    decreasing within a partition). A record without a value is a tombstone. A tuple, because
    a reader makes millions of them: half the cost of a frozen dataclass.
    """

    offset: Offset
    value: bytes | None
    key: bytes | None = None
    headers: Mapping[str, bytes] = NO_HEADERS
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class RecordData:
    """One record as it is written: what the log does not assign."""

    value: bytes | None
    key: bytes | None = None
    headers: Mapping[str, bytes] | None = None
