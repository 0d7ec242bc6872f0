"""Between the messages of ``quorumlog.v1`` and the values of the broker; checks what comes in."""

from dataclasses import asdict

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.api._pb import quorumlog_pb2
from quorumlog.api.limits import Limits
from quorumlog.broker._pb import metadata_pb2
from quorumlog.broker.cluster_settings import ClusterSettings
from quorumlog.broker.port import (
    At,
    BrokerPort,
    Earliest,
    Latest,
    ProduceAck,
    Since,
    Start,
)
from quorumlog.broker.topic_config import check_cleanup
from quorumlog.broker.topics import NodeInfo, Topic
from quorumlog.errors import CodecUnavailable, InvalidArgument, InvalidBatch, QuorumlogError
from quorumlog.log.batch import MAX_RECORDS_PER_BATCH, Draft
from quorumlog.log.records import check_records
from quorumlog.rpc_status import clip, metadata_of, on_wire

_MAX_UINT64 = (1 << 64) - 1


def start_of(message: quorumlog_pb2.Start) -> Start:
    """Where to begin; a message that says nothing means the earliest record."""
    match message.WhichOneof("at"):
        case "offset":
            return At(message.offset)
        case "timestamp_ms":
            return Since(message.timestamp_ms)
        case "latest":
            return Latest()
        case _:
            return Earliest()


def draft_of(batch: quorumlog_pb2.Batch, limits: Limits) -> Draft:
    """The batch to append, after everything about it that needs no state was checked.

    Costs one checksum and one parse of the body (2 ms for 1 MiB of 100 B records), and its
    decompression (0.6 ms for as much). The limits are those of the decompressed body.

    Raises:
        InvalidBatch: too large, no records, an unknown codec, a wrong checksum, count or encoding.
        CodecUnavailable: this node has not the library to check it.
        RecordTooLarge: one of its records is over the limit.
        InvalidArgument: its sequence numbers leave their range.
    """
    body = batch.body
    if len(body) > limits.max_batch_bytes:
        raise InvalidBatch(
            f"the batch has {len(body)} bytes and the limit is {limits.max_batch_bytes}: "
            "send its records in several batches"
        )
    if not 1 <= batch.record_count <= MAX_RECORDS_PER_BATCH:
        raise InvalidBatch(
            f"a batch has 1 to {MAX_RECORDS_PER_BATCH} records, not {batch.record_count}"
        )
    if batch.sequence + batch.record_count > _MAX_UINT64:
        raise InvalidArgument(f"sequence {batch.sequence} is out of range")
    computed = crc32c(body)
    if computed != batch.body_crc:
        raise InvalidBatch(
            f"the body's checksum is {computed:#010x} and should be {batch.body_crc:#010x}: "
            "it was damaged on the way, or its producer computes something other than CRC-32C"
        )
    _check_body(batch, limits)
    return Draft(
        body,
        batch.body_crc,
        batch.record_count,
        codec=batch.codec,
        producer_id=batch.producer_id,
        producer_epoch=batch.producer_epoch,
        sequence=batch.sequence,
    )


def _check_body(batch: quorumlog_pb2.Batch, limits: Limits) -> None:
    try:
        check_records(
            batch.body,
            batch.record_count,
            limits.max_record_bytes,
            batch.codec,
            limits.max_batch_bytes,
        )
    except CodecUnavailable as error:
        raise CodecUnavailable(f"the leader cannot check this batch: {error}") from error


def produce_response(
    outcome: ProduceAck | QuorumlogError, request_id: int = 0
) -> quorumlog_pb2.ProduceResponse:
    response = quorumlog_pb2.ProduceResponse()
    fill_response(response, outcome, request_id)
    return response


def fill_response(
    response: quorumlog_pb2.ProduceResponse, outcome: ProduceAck | QuorumlogError, request_id: int
) -> None:
    """Say in ``response``, which is new, what became of a request."""
    response.request_id = request_id
    if isinstance(outcome, ProduceAck):
        response.base_offset = outcome.base_offset
        response.timestamp_ms = outcome.timestamp_ms
    else:
        response.error.CopyFrom(error_message(outcome))


def error_message(error: QuorumlogError) -> quorumlog_pb2.Error:
    """The client's way back is ``rpc_status.error_from``."""
    error = on_wire(error)
    return quorumlog_pb2.Error(
        reason=error.reason,
        message=clip(str(error)),
        retryable=error.retryable,
        metadata=metadata_of(error),
    )


def settings_message(settings: ClusterSettings) -> quorumlog_pb2.ClusterSettings:
    return quorumlog_pb2.ClusterSettings(replace_failed_after_s=settings.replace_failed_after_s)


def topic_message(broker: BrokerPort, topic: Topic) -> quorumlog_pb2.Topic:
    """The topic with each partition's leader as far as this node knows it."""
    partitions = []
    for each in topic.partitions:
        status = broker.partition_status(each.group)
        partitions.append(
            quorumlog_pb2.Partition(
                partition=each.partition,
                group=each.group,
                replicas=each.replicas,
                leader=status.leader or "",
                term=status.term,
                log_start_offset=status.log_start_offset,
                high_watermark=status.high_watermark,
                exact=status.exact,
                wanted=each.wanted,
            )
        )
    return quorumlog_pb2.Topic(
        name=topic.name,
        partitions=partitions,
        replicas=topic.replicas,
        config=quorumlog_pb2.TopicConfig(**asdict(topic.config), cleanup="delete"),
    )


def topic_config(message: quorumlog_pb2.TopicConfig) -> metadata_pb2.TopicConfig:
    """The settings that ``message`` names, as a command has them; their values are not checked.

    Raises:
        InvalidArgument: a clean-up that topics do not have.
    """
    check_cleanup(message.cleanup)
    named = {field.name: value for field, value in message.ListFields() if field.name != "cleanup"}
    return metadata_pb2.TopicConfig(**named)


def node_message(node: NodeInfo) -> quorumlog_pb2.Node:
    """Who a node is; what is known of it, its role, state and load are the caller's to add."""
    return quorumlog_pb2.Node(
        id=node.id, name=node.name, address=node.address, version=node.version, state="unknown"
    )
