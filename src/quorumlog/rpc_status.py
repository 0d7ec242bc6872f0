"""Typed errors on the wire, both ways: the one table from error to gRPC status.

A handler's error leaves as a status code and ``google.rpc`` details: ``ErrorInfo`` (domain
``quorumlog``, the error's reason, its ``details()`` as metadata), ``RetryInfo`` when it is
retryable, and for proglog's clients a ``LocalizedMessage``. The client rebuilds the same type
from them. A ``ProduceStream`` carries reason, message and metadata in its responses instead;
:func:`error_from` serves both.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import ErrorInfo, LocalizedMessage, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from quorumlog.errors import (
    Closed,
    Corrupt,
    DiskFull,
    DuplicateSequence,
    IdentityError,
    IndexOutOfRange,
    InvalidArgument,
    NotFound,
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    OutOfOrderSequence,
    Overloaded,
    PartitionOutOfRange,
    ProducerForgotten,
    ProtocolError,
    QuorumlogError,
    RecordTooLarge,
    SequenceError,
    StaleFencingToken,
    TopicExists,
    Unavailable,
    UnknownTopic,
    UnsafeChange,
    WrongExpectedOffset,
)

DOMAIN: Final = "quorumlog"

RETRY_DELAY_MS: Final = 100
"""What ``RetryInfo`` proposes: about the time a pending election or a full queue needs."""

MAX_TEXT_CHARACTERS: Final = 1000
"""Limit of a message or metadata value on the wire: all of a status has to fit gRPC's 8 KiB."""

STATUS_CODES: Final[Mapping[type[QuorumlogError], grpc.StatusCode]] = {
    QuorumlogError: grpc.StatusCode.INTERNAL,
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    TopicExists: grpc.StatusCode.ALREADY_EXISTS,
    OffsetOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    IndexOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    # What a client that reads no details must conclude from it is just what it means.
    OutcomeUnknown: grpc.StatusCode.UNKNOWN,
    StaleFencingToken: grpc.StatusCode.FAILED_PRECONDITION,
    WrongExpectedOffset: grpc.StatusCode.FAILED_PRECONDITION,
    SequenceError: grpc.StatusCode.FAILED_PRECONDITION,
    OutOfOrderSequence: grpc.StatusCode.ABORTED,
    DuplicateSequence: grpc.StatusCode.ALREADY_EXISTS,
    Corrupt: grpc.StatusCode.DATA_LOSS,
    DiskFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    IdentityError: grpc.StatusCode.FAILED_PRECONDITION,
    UnsafeChange: grpc.StatusCode.FAILED_PRECONDITION,
    ProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
}
"""By the most special class an error belongs to."""

TrailingMetadata = tuple[tuple[str, str | bytes], ...]


def code_of(error: QuorumlogError) -> grpc.StatusCode:
    return next(STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES)


def on_wire(error: QuorumlogError) -> QuorumlogError:
    """``error`` as a caller on another machine has to see it.

    A node that is closing is ``Closed`` to the code inside it, ``Unavailable`` (retryable) to its
    clients: there are other nodes.
    """
    return Unavailable("this node is shutting down") if isinstance(error, Closed) else error


def clip(text: str) -> str:
    """``text`` within ``MAX_TEXT_CHARACTERS``: an error may quote what a caller sent."""
    if len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return text[: MAX_TEXT_CHARACTERS - 1] + "…"


def metadata_of(error: QuorumlogError) -> dict[str, str]:
    return {key: clip(value) for key, value in error.details().items()}


def status_of(
    error: QuorumlogError, localized: str | None = None
) -> tuple[grpc.StatusCode, str, TrailingMetadata]:
    """Code, message and trailing metadata to end a call with.

    Args:
        localized: the text of a ``LocalizedMessage`` detail (en-US), where a client expects one.
    """
    error = on_wire(error)
    code = code_of(error)
    status = Status(code=code.value[0], message=clip(str(error)))
    details: list[Message] = [
        ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata_of(error))
    ]
    if error.retryable:
        details.append(RetryInfo(retry_delay=Duration(nanos=RETRY_DELAY_MS * 1_000_000)))
    if localized is not None:
        details.append(LocalizedMessage(locale="en-US", message=clip(localized)))
    for detail in details:
        status.details.add().Pack(detail)
    return code, status.message, tuple(rpc_status.to_status(status).trailing_metadata)


def error_from_rpc(
    error: grpc.RpcError, cut_off: type[QuorumlogError] = Unavailable
) -> QuorumlogError:
    """The typed error a call ended with; ``error`` may be of ``grpc`` or ``grpc.aio``.

    A status without our ``ErrorInfo`` was made by gRPC itself, not by a handler: what it says of
    the request's outcome is less. ``Unavailable`` then means only that the connection failed: the
    request may have been carried out before. ``OutcomeUnknown`` stands for a deadline, a
    cancellation, a crash of the handler.

    Args:
        cut_off: what a failed connection becomes, for who must not send again what was carried out.
    """
    code: grpc.StatusCode = error.code()
    message = error.details() or code.name
    try:
        status = rpc_status.from_call(cast(grpc.Call, error))
    except (ValueError, DecodeError):
        status = None
    for detail in status.details if status is not None else ():
        info = ErrorInfo()
        if detail.Is(ErrorInfo.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            retryable = any(other.Is(RetryInfo.DESCRIPTOR) for other in status.details)
            return error_from(info.reason, message, info.metadata, retryable)
    kind = _WITHOUT_DETAILS.get(code, OutcomeUnknown)
    if code is grpc.StatusCode.UNAVAILABLE:
        kind = cut_off
    return kind(f"{message} (gRPC status {code.name})")


_WITHOUT_DETAILS: Final[Mapping[grpc.StatusCode, type[QuorumlogError]]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    # A message over gRPC's own size limit: sent again it would fail again.
    grpc.StatusCode.RESOURCE_EXHAUSTED: InvalidArgument,
    grpc.StatusCode.UNIMPLEMENTED: ProtocolError,
    grpc.StatusCode.PERMISSION_DENIED: QuorumlogError,
    grpc.StatusCode.UNAUTHENTICATED: QuorumlogError,
}


def error_from(
    reason: str, message: str, metadata: Mapping[str, str], retryable: bool = False
) -> QuorumlogError:
    """The error that ``reason``, ``message`` and ``metadata`` describe, of its own type.

    The message stays the sender's. A reason this release does not know becomes ``Unavailable``
    when it is ``retryable`` and a plain ``QuorumlogError`` otherwise; metadata of another release
    that lacks something gives the nearest base class that needs none.
    """
    kind = _BY_REASON.get(reason)
    if kind is None:
        return Unavailable(message) if retryable else QuorumlogError(f"{message} ({reason})")
    rebuild = _REBUILD.get(kind)
    if rebuild is None:
        return kind(message)
    try:
        error = rebuild(metadata)
    except (KeyError, ValueError):
        base = next(base for base in kind.__mro__[1:] if base not in _REBUILD)
        return cast(type[QuorumlogError], base)(message)
    error.args = (message,)
    return error


_REBUILD: Final[Mapping[type[QuorumlogError], Callable[[Mapping[str, str]], QuorumlogError]]] = {
    RecordTooLarge: lambda m: RecordTooLarge(int(m["size_bytes"]), int(m["limit_bytes"])),
    UnknownTopic: lambda m: UnknownTopic(m["topic"]),
    PartitionOutOfRange: lambda m: PartitionOutOfRange(
        m["topic"], int(m["partition"]), int(m["partitions"])
    ),
    TopicExists: lambda m: TopicExists(m["topic"]),
    OffsetOutOfRange: lambda m: OffsetOutOfRange(int(m["offset"]), int(m["start"]), int(m["end"])),
    IndexOutOfRange: lambda m: IndexOutOfRange(int(m["index"]), int(m["start"]), int(m["end"])),
    StaleFencingToken: lambda m: StaleFencingToken(int(m["token"]), int(m["newest"])),
    WrongExpectedOffset: lambda m: WrongExpectedOffset(int(m["expected"]), int(m["end"])),
    NotLeader: lambda m: NotLeader(leader=m.get("leader")),
    OutOfOrderSequence: lambda m: OutOfOrderSequence(int(m["expected"]), int(m["got"])),
    ProducerForgotten: lambda m: ProducerForgotten(int(m["expected"]), int(m["got"])),
    Corrupt: lambda m: Corrupt(m["file"], int(m["position"]), m["expected"], m["got"]),
}
"""The classes whose constructor takes more than a message."""


def _tree(kind: type[QuorumlogError]) -> Iterator[type[QuorumlogError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


_BY_REASON: Final[Mapping[str, type[QuorumlogError]]] = {
    kind.reason: kind for kind in _tree(QuorumlogError) if "reason" in vars(kind)
}
