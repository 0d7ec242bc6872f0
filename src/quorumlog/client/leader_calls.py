"""Unary calls that only a partition's leader answers."""

import asyncio
import random

from google.protobuf.message import Message

from quorumlog.client.nodes import Nodes, attempt_limit_s
from quorumlog.client.retry import Backoff, worth_another_attempt
from quorumlog.client.routes import Routes
from quorumlog.client.transport import MessageT
from quorumlog.errors import NotFound, NotLeader, QuorumlogError


class LeaderCalls:
    """Finds the leader, follows hints, and tries again until the time is over.

    Only for what may be asked for twice.
    """

    def __init__(self, nodes: Nodes, routes: Routes, rng: random.Random) -> None:
        self._nodes = nodes
        self._routes = routes
        self._rng = rng

    async def call(
        self,
        topic: str,
        partition: int,
        method: str,
        request: Message,
        response_type: type[MessageT],
        timeout_s: float,
        held_s: float = 0.0,
    ) -> MessageT:
        """The leader's response. A leader may take ``held_s`` for it before it looks dead.

        Raises:
            UnknownTopic, PartitionOutOfRange: confirmed by the cluster's metadata.
            QuorumlogError: the last attempt's error when ``timeout_s`` is over.
        """
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        deadline_s = start_s + timeout_s
        backoff = Backoff(self._rng)
        avoid: str | None = None
        failures = 0
        while True:
            try:
                address = await self._routes.leader(topic, partition, avoid)
            except QuorumlogError as error:
                if not worth_another_attempt(error):
                    raise
                failure = error
            else:
                try:
                    limit_s = attempt_limit_s(failures, deadline_s - loop.time(), held_s)
                    return await self._nodes.ask(address, method, request, response_type, limit_s)
                except QuorumlogError as error:
                    await self.note_failure(topic, partition, address, error)
                    failures += 1
                    if isinstance(error, NotLeader) and error.leader not in (None, address, avoid):
                        avoid = address
                        continue
                    avoid = address
                    failure = error
            delay_s = backoff.next_s()
            if loop.time() + delay_s >= start_s + self._nodes.patience_s(timeout_s):
                raise self._nodes.exhausted(failure) from failure
            await asyncio.sleep(delay_s)

    async def partition_count(self, topic: str, timeout_s: float) -> int:
        """How many partitions ``topic`` has; tries until ``timeout_s`` is over.

        Raises:
            UnknownTopic: the cluster says so.
            Unavailable: no node, or not enough of them, could be asked in time.
        """
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        backoff = Backoff(self._rng)
        while True:
            try:
                return await self._routes.partition_count(topic)
            except QuorumlogError as error:
                delay_s = backoff.next_s()
                limit_s = start_s + self._nodes.patience_s(timeout_s)
                if not worth_another_attempt(error) or loop.time() + delay_s >= limit_s:
                    raise
            await asyncio.sleep(delay_s)

    async def note_failure(
        self, topic: str, partition: int, address: str, error: QuorumlogError
    ) -> None:
        """Take in why ``address`` did not serve the partition; return when it is worth going on.

        Raises:
            QuorumlogError: ``error`` itself when it is final. A single node that does not know a
                topic may be behind, so that is final only if the cluster's metadata says so too.
        """
        self._routes.failed(topic, partition, address, error)
        if isinstance(error, NotFound):
            try:
                await self._routes.refresh(topic)
                count = await self._routes.partition_count(topic)
            except NotFound:
                raise
            except QuorumlogError:
                return
            if partition >= count:
                raise error
        elif not worth_another_attempt(error):
            raise error
