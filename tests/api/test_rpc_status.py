"""Every error of the tree goes over the wire and comes back as itself."""

from collections.abc import Iterator
from typing import cast

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, LocalizedMessage, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from fakes.context import Aborted, FakeContext
from quorumlog import errors
from quorumlog.api.convert import error_message
from quorumlog.api.status import abort
from quorumlog.errors import QuorumlogError
from quorumlog.rpc_status import code_of, error_from, error_from_rpc, status_of

SPECIAL: dict[type[QuorumlogError], QuorumlogError] = {
    errors.RecordTooLarge: errors.RecordTooLarge(2_000_000, 1_048_576),
    errors.UnknownTopic: errors.UnknownTopic("orders"),
    errors.PartitionOutOfRange: errors.PartitionOutOfRange("orders", 7, 3),
    errors.TopicExists: errors.TopicExists("orders"),
    errors.OffsetOutOfRange: errors.OffsetOutOfRange(99, 10, 20),
    errors.IndexOutOfRange: errors.IndexOutOfRange(9, 1, 4),
    errors.StaleFencingToken: errors.StaleFencingToken(3, 5),
    errors.WrongExpectedOffset: errors.WrongExpectedOffset(3, 5),
    errors.NotLeader: errors.NotLeader("not here", "10.0.0.1:7400"),
    errors.OutOfOrderSequence: errors.OutOfOrderSequence(5, 9),
    errors.ProducerForgotten: errors.ProducerForgotten(0, 9),
    errors.Corrupt: errors.Corrupt("0001.log", 4096, "0x01", "0x02"),
}


def tree(kind: type[QuorumlogError]) -> Iterator[type[QuorumlogError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def sample(kind: type[QuorumlogError]) -> QuorumlogError:
    return SPECIAL[kind] if kind in SPECIAL else kind("what went wrong — genau")


SAMPLES = [sample(kind) for kind in tree(QuorumlogError) if kind is not errors.Closed]
WITH_OWN_REASON = [each for each in SAMPLES if type(each) is not QuorumlogError]


async def over_the_wire(error: QuorumlogError) -> QuorumlogError:
    with pytest.raises(Aborted) as caught:
        await abort(FakeContext(), error)
    return error_from_rpc(caught.value)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
async def test_an_error_comes_back_as_its_own_type(error: QuorumlogError) -> None:
    back = await over_the_wire(error)
    assert type(back) is type(error)
    assert str(back).startswith(str(error))
    assert back.details() == error.details()
    assert back.retryable == error.retryable


@pytest.mark.parametrize("error", WITH_OWN_REASON, ids=lambda error: type(error).__name__)
def test_a_stream_response_carries_the_same(error: QuorumlogError) -> None:
    message = error_message(error)
    back = error_from(message.reason, message.message, message.metadata, message.retryable)
    assert (type(back), str(back), back.details()) == (type(error), str(error), error.details())
    assert message.retryable == error.retryable


def test_every_error_has_a_reason_of_its_own() -> None:
    reasons = [kind.reason for kind in tree(QuorumlogError)]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidBatch("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.UnknownTopic("t"), grpc.StatusCode.NOT_FOUND),
        (errors.TopicExists("t"), grpc.StatusCode.ALREADY_EXISTS),
        (errors.OffsetOutOfRange(3, 0, 1), grpc.StatusCode.OUT_OF_RANGE),
        (errors.NotLeader(), grpc.StatusCode.UNAVAILABLE),
        (errors.Overloaded("x"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.OutcomeUnknown("x"), grpc.StatusCode.UNKNOWN),
        (errors.OutOfOrderSequence(0, 1), grpc.StatusCode.ABORTED),
        (errors.ProducerFenced("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.StaleFencingToken(1, 2), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.WrongExpectedOffset(1, 2), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.Corrupt("f", 0, "a", "b"), grpc.StatusCode.DATA_LOSS),
        (errors.InvariantViolation("x"), grpc.StatusCode.INTERNAL),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_status_code_says_what_a_plain_client_should_do(
    error: QuorumlogError, code: grpc.StatusCode
) -> None:
    assert code_of(error) is code


def details_of(error: Aborted) -> Status:
    return rpc_status.from_call(cast(grpc.Call, error))


def test_the_details_are_those_of_google_rpc() -> None:
    code, message, metadata = status_of(errors.NotLeader("no", "h:1"), localized="nein")
    status = details_of(Aborted(code, message, metadata))
    info, retry, localized = ErrorInfo(), RetryInfo(), LocalizedMessage()
    for detail, packed in zip((info, retry, localized), status.details, strict=True):
        assert packed.Unpack(detail)
    assert (info.domain, info.reason, dict(info.metadata)) == (
        "quorumlog",
        "NOT_LEADER",
        {"leader": "h:1"},
    )
    assert retry.retry_delay.ToMilliseconds() == 100
    assert (localized.locale, localized.message) == ("en-US", "nein")
    _, _, metadata = status_of(errors.InvalidArgument("x"))
    status = details_of(Aborted(grpc.StatusCode.INVALID_ARGUMENT, "x", metadata))
    assert len(status.details) == 1


async def test_a_closing_node_is_unavailable_to_its_clients() -> None:
    back = await over_the_wire(errors.Closed("the log is closed"))
    assert type(back) is errors.Unavailable
    assert error_message(errors.Closed("x")).retryable


def test_what_a_caller_sent_cannot_make_a_status_too_large_to_send() -> None:
    _, message, metadata = status_of(errors.UnknownTopic("x" * 1_000_000))
    assert len(message) <= 1000
    assert sum(len(value) for _, value in metadata) < 4096


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.OutcomeUnknown),
        (grpc.StatusCode.CANCELLED, errors.OutcomeUnknown),
        (grpc.StatusCode.UNKNOWN, errors.OutcomeUnknown),
        (grpc.StatusCode.UNIMPLEMENTED, errors.ProtocolError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.InvalidArgument),
    ],
)
@pytest.mark.parametrize(
    "metadata", [(), (("grpc-status-details-bin", b"\xff garbage"),)], ids=["none", "garbage"]
)
def test_a_status_that_no_handler_made_is_typed_by_its_code(
    code: grpc.StatusCode, kind: type[QuorumlogError], metadata: tuple[tuple[str, bytes], ...]
) -> None:
    error = error_from_rpc(Aborted(code, "broken pipe", metadata))
    assert type(error) is kind
    assert "broken pipe" in str(error)


def test_a_reason_of_a_later_release_keeps_its_retryability() -> None:
    assert type(error_from("NEW_THING", "wait", {}, True)) is errors.Unavailable
    unknown = error_from("NEW_THING", "no", {})
    assert type(unknown) is QuorumlogError
    assert "NEW_THING" in str(unknown)


@pytest.mark.parametrize("metadata", [{}, {"offset": "x", "start": "0", "end": "1"}])
def test_metadata_that_lacks_something_gives_the_base_class(metadata: dict[str, str]) -> None:
    error = error_from("OFFSET_OUT_OF_RANGE", "out", metadata)
    assert (type(error), str(error)) == (QuorumlogError, "out")
    assert type(error_from("PARTITION_OUT_OF_RANGE", "out", metadata)) is errors.NotFound
