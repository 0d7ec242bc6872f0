"""One ProduceStream per leader node, shared by all producers and partitions of a client."""

import asyncio
from collections import deque
from collections.abc import Callable

from quorumlog.api._pb import quorumlog_pb2 as pb
from quorumlog.client.nodes import Nodes
from quorumlog.client.tasks import Tasks
from quorumlog.client.transport import LOG_SERVICE, Stream
from quorumlog.errors import Closed, QuorumlogError, Unavailable
from quorumlog.types import MAX_PACKED_BYTES, MAX_PACKED_REQUESTS

Answer = pb.ProduceResponse | QuorumlogError
OnAnswer = Callable[[Answer], None]
"""Called once per request, in the event loop: the response, or why the stream broke without one."""


class ProduceLink:
    """Requests leave in the order of :meth:`submit`; answers find their request by its id.

    It lives until the stream breaks; then every unanswered request is told and a new link is made.
    Requests that wait when the stream is free share a message, once the node has said that it takes
    that. What waits here is bounded by its users: each partition has a handful of batches under
    way.
    """

    def __init__(self, address: str, stream: Stream[pb.ProduceResponse], tasks: Tasks) -> None:
        self.address = address
        self.broken: QuorumlogError | None = None
        self._stream = stream
        self._outbox: deque[pb.ProduceRequest] = deque()
        self._unanswered: dict[int, OnAnswer] = {}
        self._next_request_id = 1
        self._node_takes_packed = False
        self._wakeup: asyncio.Future[None] | None = None
        self._tasks = tasks
        self._reader = tasks.start(self._receive(), f"produce-receive-{address}")
        self._writer = tasks.start(self._send(), f"produce-send-{address}")

    def submit(self, topic: str, partition: int, batch: pb.Batch, on_answer: OnAnswer) -> None:
        """Queue one batch; returns at once. The link must not be broken."""
        request_id = self._next_request_id
        self._next_request_id += 1
        self._unanswered[request_id] = on_answer
        self._outbox.append(
            pb.ProduceRequest(topic=topic, partition=partition, batch=batch, request_id=request_id)
        )
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def break_off(self, error: QuorumlogError) -> None:
        """End the stream; all unanswered requests get ``error``, in the order they were made."""
        if self.broken is not None:
            return
        self.broken = error
        self._stream.cancel()
        self._outbox.clear()
        current = asyncio.current_task()
        for task in (self._reader, self._writer):
            if task is not current:
                task.cancel()
        unanswered = list(self._unanswered.values())
        self._unanswered.clear()
        for on_answer in unanswered:
            on_answer(error)

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self.broken is None:
                while self._outbox:
                    await self._stream.send(self._next_message())
                self._wakeup = loop.create_future()
                await self._wakeup
                self._wakeup = None
        except QuorumlogError as error:
            self.break_off(error)

    def _next_message(self) -> pb.ProduceRequest:
        message = self._outbox.popleft()
        if not self._node_takes_packed:
            message.takes_packed = True
            return message
        more = message.more
        size_bytes = len(message.batch.body)
        while self._outbox and len(more) + 1 < MAX_PACKED_REQUESTS:
            size_bytes += len(self._outbox[0].batch.body)
            if size_bytes > MAX_PACKED_BYTES:
                break
            more.append(self._outbox.popleft())
        return message

    async def _receive(self) -> None:
        try:
            while (response := await self._stream.receive()) is not None:
                if response.takes_packed:
                    self._node_takes_packed = True
                self._answered(response)
                for each in response.more:
                    self._answered(each)
            self.break_off(Unavailable(f"{self.address} ended the produce stream"))
        except QuorumlogError as error:
            self.break_off(error)

    def _answered(self, response: pb.ProduceResponse) -> None:
        on_answer = self._unanswered.pop(response.request_id, None)
        if on_answer is not None:
            on_answer(response)


class ProduceLinks:
    """The links of a client, by address."""

    def __init__(self, nodes: Nodes, tasks: Tasks) -> None:
        self._nodes = nodes
        self._tasks = tasks
        self._links: dict[str, ProduceLink] = {}

    def to(self, address: str) -> ProduceLink:
        """The link to a node; a new one when there is none that works."""
        link = self._links.get(address)
        if link is None or link.broken is not None:
            stream = self._nodes.connection(address).stream(
                LOG_SERVICE + "ProduceStream", pb.ProduceResponse
            )
            link = self._links[address] = ProduceLink(address, stream, self._tasks)
        return link

    def close(self) -> None:
        for link in list(self._links.values()):
            link.break_off(Closed("this client is closed"))
        self._links.clear()
