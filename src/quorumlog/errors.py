"""Every error quorumlog raises, one tree.

::

    QuorumlogError
    ├── InvalidArgument            the caller's request can never work as it stands (ValueError too)
    │   ├── RecordTooLarge         names the size and the limit
    │   ├── InvalidBatch           a body whose checksum, count or encoding is wrong
    │   └── ConfigError            an unknown setting, an impossible value
    │       └── CodecUnavailable   the library of a codec is not installed
    ├── NotFound
    │   ├── UnknownTopic
    │   └── PartitionOutOfRange
    ├── TopicExists
    ├── UnsafeChange               what was asked for could lose records or a majority
    ├── OffsetOutOfRange           names the offset and the range that can be read
    ├── WrongExpectedOffset        the log ends elsewhere than the caller's condition says
    ├── IndexOutOfRange            a batch that the log does not hold, or not any more
    ├── Unavailable                retryable: try again, perhaps elsewhere
    │   ├── NotLeader              carries the leader's address where it is known
    │   └── Overloaded             a named bound is full
    ├── OutcomeUnknown             the request may or may not have taken effect
    ├── Refused                    a state machine of the user's own said no to a command
    ├── StaleFencingToken          a newer fencing token came before: somebody else writes now
    ├── SequenceError              the idempotent producer's contract was broken
    │   ├── OutOfOrderSequence     retryable: a gap; send the missing batches first
    │   │   └── ProducerForgotten  its batches were deleted: go on under a new id
    │   ├── DuplicateSequence      appended before, too long ago to know at which offset
    │   └── ProducerFenced         a newer epoch of this producer exists
    ├── StorageError
    │   ├── Corrupt                bytes on disk are not what was written: names file and position
    │   ├── DiskFull               retryable once there is space
    │   ├── LogFenced              an fsync failed: this replica accepts nothing more
    │   ├── LogLocked              another process has the directory open for writing
    │   ├── KeyMissing             an encrypted segment's key is not in the key ring
    │   ├── WrongKey               the key ring has another key of that name
    │   └── UnusableDirectory      missing, unwritable, not a directory
    ├── IdentityError
    │   ├── WrongCluster           the data or the peer belongs to another cluster
    │   ├── DuplicateNode          another live node has this id
    │   └── NodeRemoved            the node was taken out of the cluster for good
    ├── AddressInUse               the port is taken
    ├── ProtocolError              a peer sent what no correct peer sends
    │   ├── ForeignPeer            it has another label or none of our keys
    │   ├── ReplayedPacket         somebody sends again what was sent before
    │   ├── OversizedMessage       it is longer than its bound
    │   └── IncompatibleMember     a member whose versions do not go together with the others'
    ├── Closed                     used after close()
    └── InvariantViolation         a bug: the replica is fenced, nothing is continued

``retryable`` says whether the same call may succeed later without a change by the caller.
``reason`` is the stable name that travels on the wire and stands in ``--json`` output.
"""

from typing import ClassVar


class QuorumlogError(Exception):
    """The base of every error of this package."""

    retryable: ClassVar[bool] = False
    reason: ClassVar[str] = "INTERNAL"

    def details(self) -> dict[str, str]:
        """What a program needs to act on this error, as it travels in ``ErrorInfo.metadata``."""
        return {}


class InvalidArgument(QuorumlogError, ValueError):
    reason = "INVALID_ARGUMENT"


class RecordTooLarge(InvalidArgument):
    reason = "RECORD_TOO_LARGE"

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"the record has {size_bytes} bytes and the limit is {limit_bytes}: "
            "split it, or keep the payload elsewhere and store a reference"
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def details(self) -> dict[str, str]:
        return {"size_bytes": str(self.size_bytes), "limit_bytes": str(self.limit_bytes)}


class InvalidBatch(InvalidArgument):
    reason = "INVALID_BATCH"


class ConfigError(InvalidArgument):
    reason = "CONFIG_ERROR"


class CodecUnavailable(ConfigError):
    """Whoever raises it can neither compress nor decompress with a codec that was asked for."""

    reason = "CODEC_UNAVAILABLE"


class NotFound(QuorumlogError, LookupError):
    reason = "NOT_FOUND"


class UnknownTopic(NotFound):
    reason = "UNKNOWN_TOPIC"

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"there is no topic {topic!r}: create it with `quorumlog topic create {topic}`"
        )
        self.topic = topic

    def details(self) -> dict[str, str]:
        return {"topic": self.topic}


class PartitionOutOfRange(NotFound):
    reason = "PARTITION_OUT_OF_RANGE"

    def __init__(self, topic: str, partition: int, partitions: int) -> None:
        super().__init__(
            f"topic {topic!r} has partitions 0 to {partitions - 1}, there is no {partition}"
        )
        self.topic = topic
        self.partition = partition
        self.partitions = partitions

    def details(self) -> dict[str, str]:
        return {
            "topic": self.topic,
            "partition": str(self.partition),
            "partitions": str(self.partitions),
        }


class TopicExists(QuorumlogError):
    reason = "TOPIC_EXISTS"

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} exists already")
        self.topic = topic

    def details(self) -> dict[str, str]:
        return {"topic": self.topic}


class UnsafeChange(QuorumlogError):
    """Refused for what it would do to the cluster as it is now; the message names the way out."""

    reason = "UNSAFE_CHANGE"


class OffsetOutOfRange(QuorumlogError, LookupError):
    """``start <= offset <= end`` can be read; at ``end`` a reader waits for the next record."""

    reason = "OFFSET_OUT_OF_RANGE"

    def __init__(self, offset: int, start: int, end: int) -> None:
        super().__init__(
            f"offset {offset} is out of range: this log has the offsets [{start}, {end})"
        )
        self.offset = offset
        self.start = start
        self.end = end

    def details(self) -> dict[str, str]:
        return {"offset": str(self.offset), "start": str(self.start), "end": str(self.end)}


class IndexOutOfRange(QuorumlogError, LookupError):
    reason = "INDEX_OUT_OF_RANGE"

    def __init__(self, index: int, start: int, end: int) -> None:
        super().__init__(
            f"index {index} is out of range: this log has the batches [{start}, {end})"
        )
        self.index = index
        self.start = start
        self.end = end

    def details(self) -> dict[str, str]:
        return {"index": str(self.index), "start": str(self.start), "end": str(self.end)}


class Unavailable(QuorumlogError):
    retryable = True
    reason = "UNAVAILABLE"


class NotLeader(Unavailable):
    """``leader`` is the ``host:port`` to ask instead, or None while there is no leader."""

    reason = "NOT_LEADER"

    def __init__(self, message: str = "this node does not lead here", leader: str | None = None):
        super().__init__(f"{message}; the leader is {leader}" if leader else message)
        self.leader = leader

    def details(self) -> dict[str, str]:
        return {"leader": self.leader} if self.leader else {}


class Overloaded(Unavailable):
    reason = "OVERLOADED"


class OutcomeUnknown(QuorumlogError):
    """The request may or may not have taken effect; idempotent producers may send it again."""

    reason = "OUTCOME_UNKNOWN"


class Refused(QuorumlogError):
    """A state machine of the user's own said no: raised in its ``apply``, and by ``propose`` to who
    proposed the command (:mod:`quorumlog.replicated`)."""

    reason = "REFUSED"


class WrongExpectedOffset(QuorumlogError):
    """The log did not end at ``expected`` but at ``end``; nothing was appended."""

    reason = "WRONG_EXPECTED_OFFSET"

    def __init__(self, expected: int, end: int) -> None:
        super().__init__(
            f"the log ends at {end}, not at {expected}: read what came in between, and decide again"
        )
        self.expected = expected
        self.end = end

    def details(self) -> dict[str, str]:
        return {"expected": str(self.expected), "end": str(self.end)}


class StaleFencingToken(QuorumlogError):
    """Whoever came with the newer token has taken over; nothing was appended."""

    reason = "STALE_FENCING_TOKEN"

    def __init__(self, token: int, newest: int) -> None:
        super().__init__(
            f"fencing token {token} is stale: the partition was fenced with {newest}; somebody "
            "else writes now, so stop, and take the lock again to get a newer token"
        )
        self.token = token
        self.newest = newest

    def details(self) -> dict[str, str]:
        return {"token": str(self.token), "newest": str(self.newest)}


class SequenceError(QuorumlogError):
    reason = "SEQUENCE_ERROR"


class OutOfOrderSequence(SequenceError):
    retryable = True
    reason = "OUT_OF_ORDER_SEQUENCE"

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(f"this producer's next sequence is {expected}, the batch has {got}")
        self.expected = expected
        self.got = got

    def details(self) -> dict[str, str]:
        return {"expected": str(self.expected), "got": str(self.got)}


class ProducerForgotten(OutOfOrderSequence):
    """What this producer appended, if anything, was deleted, and the producer forgotten with it:
    whether this batch was among that is not known. A new producer id has no past."""

    retryable = False
    reason = "PRODUCER_FORGOTTEN"

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(expected, got)
        self.args = (
            "this producer is not known: its batches may have been deleted (retention, trim); "
            "go on under a new producer id",
        )


class DuplicateSequence(SequenceError):
    reason = "DUPLICATE_SEQUENCE"


class ProducerFenced(SequenceError):
    reason = "PRODUCER_FENCED"


class StorageError(QuorumlogError):
    reason = "STORAGE_ERROR"


class Corrupt(StorageError):
    """Bytes that were written, and perhaps acknowledged, are not there any more."""

    reason = "CORRUPT"

    def __init__(self, file: str, position: int, expected: str, got: str) -> None:
        super().__init__(
            f"{file} is damaged at byte {position}: expected {expected}, got {got}; "
            "nothing was changed, restore this replica from its peers or from a copy"
        )
        self.file = file
        self.position = position
        self.expected = expected
        self.got = got

    def details(self) -> dict[str, str]:
        return {
            "file": self.file,
            "position": str(self.position),
            "expected": self.expected,
            "got": self.got,
        }


class DiskFull(StorageError):
    retryable = True
    reason = "DISK_FULL"


class LogFenced(StorageError):
    reason = "LOG_FENCED"


class LogLocked(StorageError):
    reason = "LOG_LOCKED"


class KeyMissing(StorageError):
    reason = "KEY_MISSING"


class WrongKey(StorageError):
    reason = "WRONG_KEY"


class UnusableDirectory(StorageError):
    reason = "UNUSABLE_DIRECTORY"


class IdentityError(QuorumlogError):
    reason = "IDENTITY_ERROR"


class WrongCluster(IdentityError):
    reason = "WRONG_CLUSTER"


class DuplicateNode(IdentityError):
    reason = "DUPLICATE_NODE"


class NodeRemoved(IdentityError):
    """Its data directory belongs to nobody any more."""

    reason = "NODE_REMOVED"


class AddressInUse(QuorumlogError):
    reason = "ADDRESS_IN_USE"


class ProtocolError(QuorumlogError):
    reason = "PROTOCOL_ERROR"


class ForeignPeer(ProtocolError):
    reason = "FOREIGN_PEER"


class ReplayedPacket(ProtocolError):
    reason = "REPLAYED_PACKET"


class OversizedMessage(ProtocolError):
    reason = "OVERSIZED_MESSAGE"


class IncompatibleMember(ProtocolError):
    reason = "INCOMPATIBLE_MEMBER"


class Closed(QuorumlogError):
    reason = "CLOSED"


class InvariantViolation(QuorumlogError):
    reason = "INVARIANT_VIOLATION"
