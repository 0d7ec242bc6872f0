"""Requests as a client makes them, and the records in an answer."""

from fastcrc.crc32 import iscsi as crc32c

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.api.fetch_message import FetchMessage
from quorumlog.log.batch import iterate_batches
from quorumlog.log.records import decode_records, encode_body
from quorumlog.types import RecordData


def batch(*values: bytes, producer_id: int = 0, epoch: int = 0, sequence: int = 0) -> pb.Batch:
    body = encode_body((RecordData(value) for value in values), limit_bytes=1 << 30)
    return pb.Batch(
        body=body,
        record_count=len(values),
        body_crc=crc32c(body),
        producer_id=producer_id,
        producer_epoch=epoch,
        sequence=sequence,
    )


def produce(
    *values: bytes,
    topic: str = "t",
    partition: int = 0,
    request_id: int = 0,
    producer_id: int = 0,
    epoch: int = 0,
    sequence: int = 0,
) -> pb.ProduceRequest:
    return pb.ProduceRequest(
        topic=topic,
        partition=partition,
        request_id=request_id,
        batch=batch(*values, producer_id=producer_id, epoch=epoch, sequence=sequence),
    )


def values_of(response: pb.FetchResponse | FetchMessage) -> list[bytes | None]:
    return [
        record.value
        for each in iterate_batches(response.batches)
        for record in decode_records(each.header, each.body)
    ]
