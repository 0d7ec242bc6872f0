"""What a client notes at a topic's partitions: fencing tokens and checkpoints; the public names
stand in ``AsyncClient``."""

import asyncio
from collections.abc import Iterable, Mapping

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.leader_calls import LeaderCalls
from quorumlog.client.topic_calls import count_of
from quorumlog.client.transport import LOG_SERVICE
from quorumlog.errors import InvalidArgument


class NoteCalls:
    """All of it may be asked for twice."""

    def __init__(self, leader_calls: LeaderCalls, request_timeout_s: float) -> None:
        self._leader_calls = leader_calls
        self._request_timeout_s = request_timeout_s

    async def fence(self, topic: str, partition: int, token: int) -> int:
        """See ``AsyncClient.fence``."""
        number = count_of(partition, "partition")
        request = pb.FenceRequest(topic=topic, partition=number, token=checked_token(token))
        response = await self._leader_calls.call(
            topic,
            partition,
            LOG_SERVICE + "Fence",
            request,
            pb.FenceResponse,
            self._request_timeout_s,
        )
        return response.token

    async def commit(
        self, topic: str, name: str, positions: Mapping[int, int], rewind: bool
    ) -> dict[int, int]:
        """See ``AsyncClient.commit_checkpoint``."""
        committed = await asyncio.gather(
            *(
                self._set(topic, partition, name, offset, rewind)
                for partition, offset in positions.items()
            )
        )
        return dict(zip(positions, committed, strict=True))

    async def _set(self, topic: str, partition: int, name: str, offset: int, rewind: bool) -> int:
        if not isinstance(offset, int) or not 0 <= offset < 1 << 63:
            raise InvalidArgument(f"offset {offset!r} is not between 0 and 2^63")
        request = pb.SetCheckpointRequest(
            topic=topic,
            partition=count_of(partition, "partition"),
            name=name,
            offset=offset,
            rewind=rewind,
        )
        response = await self._leader_calls.call(
            topic,
            partition,
            LOG_SERVICE + "SetCheckpoint",
            request,
            pb.SetCheckpointResponse,
            self._request_timeout_s,
        )
        return response.offset

    async def forget(self, topic: str, name: str) -> None:
        """See ``AsyncClient.forget_checkpoint``."""
        await asyncio.gather(
            *(
                self._leader_calls.call(
                    topic,
                    partition,
                    LOG_SERVICE + "ForgetCheckpoint",
                    pb.ForgetCheckpointRequest(topic=topic, partition=partition, name=name),
                    pb.ForgetCheckpointResponse,
                    self._request_timeout_s,
                )
                for partition in range(await self._partitions(topic))
            )
        )

    async def checkpoint(self, topic: str, name: str, partitions: Iterable[int]) -> dict[int, int]:
        """Where it is, by partition; only these are asked, and those without it are left out."""
        asked = tuple(partitions)
        answers = await asyncio.gather(*(self._notes(topic, number) for number in asked))
        return {
            partition: notes.checkpoints[name]
            for partition, notes in zip(asked, answers, strict=True)
            if name in notes.checkpoints
        }

    async def checkpoints(self, topic: str) -> dict[str, dict[int, int]]:
        """See ``AsyncClient.checkpoints``."""
        found: dict[str, dict[int, int]] = {}
        partitions = range(await self._partitions(topic))
        answers = await asyncio.gather(*(self._notes(topic, number) for number in partitions))
        for partition, notes in enumerate(answers):
            for name, offset in notes.checkpoints.items():
                found.setdefault(name, {})[partition] = offset
        return dict(sorted(found.items()))

    async def fencing_token(self, topic: str, partition: int) -> int:
        """See ``AsyncClient.fencing_token``."""
        return (await self._notes(topic, count_of(partition, "partition"))).fencing_token

    async def _notes(self, topic: str, partition: int) -> pb.Notes:
        return await self._leader_calls.call(
            topic,
            partition,
            LOG_SERVICE + "GetNotes",
            pb.NotesRequest(topic=topic, partition=partition),
            pb.Notes,
            self._request_timeout_s,
        )

    async def _partitions(self, topic: str) -> int:
        return await self._leader_calls.partition_count(topic, self._request_timeout_s)


def checked_token(token: int) -> int:
    """Raises InvalidArgument: it is no fencing token."""
    if isinstance(token, bool) or not isinstance(token, int) or not 1 <= token < 1 << 63:
        raise InvalidArgument(f"a fencing token is from 1 to 2^63 - 1, not {token!r}")
    return token
