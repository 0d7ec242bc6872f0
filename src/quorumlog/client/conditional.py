"""Appends that take effect only where a partition ends at a certain offset; the public name is
``AsyncClient.append_at``."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.accumulator import ProducerIdentity
from quorumlog.client.encoding import Item, encode_item
from quorumlog.client.fetch_calls import FetchCalls
from quorumlog.client.leader_calls import LeaderCalls
from quorumlog.client.models import RecordMetadata
from quorumlog.client.note_calls import checked_token
from quorumlog.client.topic_calls import count_of
from quorumlog.client.transport import LOG_SERVICE
from quorumlog.errors import (
    InvalidArgument,
    OutcomeUnknown,
    ProducerForgotten,
    Unavailable,
    WrongExpectedOffset,
)
from quorumlog.log.batch import Draft

_IDENTITY_S: Final = 60.0
"""A producer id that was not used for longer is not used again: retention may have forgotten it."""


@dataclass(slots=True)
class _Lane:
    """One partition: who appends there, what comes next, and an end that it surely reached."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    identity: ProducerIdentity | None = None
    sequence: int = 0
    used_s: float = 0.0
    known_end: int = 0


class ConditionalAppends:
    """A lost answer is asked for again under the same producer id and sequence, so the condition
    is not what makes a retry safe: it would refuse an append that took effect.

    A condition beyond the end is refused here and never sent. An attempt that got lost on its way
    could come true later, when the caller has long been told that it was refused; one whose
    condition is behind the end cannot.
    """

    def __init__(
        self,
        leader_calls: LeaderCalls,
        fetches: FetchCalls,
        new_identity: Callable[[], Awaitable[ProducerIdentity]],
        request_timeout_s: float,
    ) -> None:
        self._leader_calls = leader_calls
        self._fetches = fetches
        self._new_identity = new_identity
        self._request_timeout_s = request_timeout_s
        self._lanes: dict[tuple[str, int], _Lane] = {}

    async def append(
        self,
        topic: str,
        partition: int,
        offset: int,
        records: Sequence[Item],
        fencing_token: int | None,
    ) -> RecordMetadata:
        """See ``AsyncClient.append_at``."""
        if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset < 1 << 63:
            raise InvalidArgument(f"offset {offset!r} is not between 0 and 2^63")
        if not records:
            raise InvalidArgument("there is no record to append")
        body = b"".join(map(encode_item, records))
        token = 0 if fencing_token is None else checked_token(fencing_token)
        number = count_of(partition, "partition")
        lane = self._lanes.setdefault((topic, number), _Lane())
        async with lane.turn:
            if offset > lane.known_end:
                lane.known_end = await self._fetches.offset(topic, number, "latest")
                if offset > lane.known_end:
                    raise WrongExpectedOffset(offset, lane.known_end)
            now = asyncio.get_running_loop().time()
            if lane.identity is None or now > lane.used_s + _IDENTITY_S:
                lane.identity, lane.sequence = await self._new_identity(), 0
            lane.used_s = now
            batch = _batch(body, len(records), lane.identity, lane.sequence, token)
            return await self._append(lane, topic, number, offset, batch)

    async def _append(
        self, lane: _Lane, topic: str, partition: int, offset: int, batch: pb.Batch
    ) -> RecordMetadata:
        request = pb.ProduceAtRequest(
            topic=topic, partition=partition, batch=batch, expected_end=offset
        )
        try:
            response = await self._leader_calls.call(
                topic,
                partition,
                LOG_SERVICE + "ProduceAt",
                request,
                pb.ProduceResponse,
                self._request_timeout_s,
            )
        except WrongExpectedOffset as error:
            # Not appended, and never will be: the sequence is free for the next.
            lane.known_end = max(lane.known_end, error.end)
            raise
        except ProducerForgotten as error:
            lane.identity = None
            raise OutcomeUnknown(
                f"records of {topic}/{partition} were deleted meanwhile, perhaps these among them"
            ) from error
        except Unavailable as error:
            # Of the last attempt: what became of those before is not known.
            lane.identity = None
            raise OutcomeUnknown(f"it may or may not have been appended: {error}") from error
        except BaseException:
            # What became of it is not known: it must not stand for a batch of another content.
            lane.identity = None
            raise
        lane.sequence += batch.record_count
        lane.known_end = max(lane.known_end, offset + batch.record_count)
        return RecordMetadata(topic, partition, response.base_offset, response.timestamp_ms)


def _batch(
    body: bytes, count: int, identity: ProducerIdentity, sequence: int, token: int
) -> pb.Batch:
    return pb.Batch(
        body=body,
        record_count=count,
        body_crc=Draft.of(body, count).body_crc,
        producer_id=identity.producer_id,
        producer_epoch=identity.epoch,
        sequence=sequence,
        fencing_token=token,
    )
