"""One look at a partition: records, or where they begin and end; the public names stand in
``AsyncClient``."""

import asyncio

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.consumed import ConsumedBatch
from quorumlog.client.leader_calls import LeaderCalls
from quorumlog.client.models import OffsetRange
from quorumlog.client.starts import Start, start_message
from quorumlog.client.topic_calls import count_of
from quorumlog.client.transport import LOG_SERVICE
from quorumlog.log.batch import Kind, iterate_batches


class FetchCalls:
    def __init__(self, leader_calls: LeaderCalls, request_timeout_s: float) -> None:
        self._leader_calls = leader_calls
        self._request_timeout_s = request_timeout_s

    async def fetch(
        self, topic: str, partition: int, start: Start, max_bytes: int, max_wait_s: float
    ) -> list[ConsumedBatch]:
        """See ``AsyncClient.fetch``."""
        offset = start if isinstance(start, int) else await self.offset(topic, partition, start)
        while True:
            request = pb.FetchRequest(
                topic=topic,
                partition=count_of(partition, "partition"),
                start=start_message(offset),
                max_bytes=count_of(max_bytes, "max_bytes"),
                max_wait_ms=round(max_wait_s * 1000),
            )
            response = await self._leader_calls.call(
                topic,
                partition,
                LOG_SERVICE + "Fetch",
                request,
                pb.FetchResponse,
                self._request_timeout_s + max_wait_s,
                held_s=max_wait_s,
            )
            batches = [
                ConsumedBatch(topic, partition, max(offset, batch.header.base_offset), batch)
                for batch in iterate_batches(response.batches)
                if batch.header.next_offset > offset
            ]
            records = [batch for batch in batches if batch.batch.header.kind == Kind.RECORDS]
            if records or not batches:
                return records
            # Nothing but gaps, which compaction left: what comes behind them is not the end.
            offset = batches[-1].next_offset

    async def offset(self, topic: str, partition: int, start: Start) -> int:
        """See ``AsyncClient.offset``."""
        return (await self._list_offsets(topic, partition, start)).offset

    async def offsets(self, topic: str) -> dict[int, OffsetRange]:
        """See ``AsyncClient.offsets``."""
        count = await self._leader_calls.partition_count(topic, self._request_timeout_s)
        answers = await asyncio.gather(
            *(self._list_offsets(topic, partition, "earliest") for partition in range(count))
        )
        return {
            partition: OffsetRange(answer.log_start_offset, answer.high_watermark)
            for partition, answer in enumerate(answers)
        }

    async def _list_offsets(
        self, topic: str, partition: int, start: Start
    ) -> pb.ListOffsetsResponse:
        return await self._leader_calls.call(
            topic,
            partition,
            LOG_SERVICE + "ListOffsets",
            pb.ListOffsetsRequest(
                topic=topic, partition=count_of(partition, "partition"), start=start_message(start)
            ),
            pb.ListOffsetsResponse,
            self._request_timeout_s,
        )
