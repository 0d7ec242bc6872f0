"""A partition that this node leads, for one turn of the event loop."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quorumlog.broker.partition import PartitionMachine
from quorumlog.errors import NotLeader
from quorumlog.log.batch import Draft
from quorumlog.replication.replica import Replica
from quorumlog.types import GroupId


@dataclass(frozen=True, slots=True)
class LedPartition:
    """Its replica and state; who leads instead is told to callers that come too late."""

    group: GroupId
    replica: Replica
    machine: PartitionMachine
    leader_address: Callable[[], str | None]

    @property
    def readable(self) -> tuple[int, int]:
        """Where the records that can be read begin and end."""
        return self.replica.log.start_offset, self.replica.high_watermark.value

    def propose(self, draft: Draft) -> "asyncio.Future[Any]":
        """As :meth:`Replica.propose`; NotLeader says where the leader is."""
        try:
            return self.replica.propose(draft)
        except NotLeader as error:
            raise NotLeader(leader=self.leader_address()) from error

    async def read_barrier(self) -> None:
        """As :meth:`Replica.read_barrier`: a leader that was deposed and has not heard of it must
        not answer. NotLeader says where the leader is."""
        try:
            await self.replica.read_barrier()
        except NotLeader as error:
            raise NotLeader(leader=self.leader_address()) from error
