"""One peer of this node: the messages that wait for it and the stream that carries them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from quorumlog.api.frames import HEAD_SIZE, frame_head, split_frame
from quorumlog.types import Buffer, GroupId, NodeId

_log = structlog.get_logger()

MAX_QUEUE_BYTES = 64 * 1024 * 1024
"""Messages waiting for one peer; more are dropped, Raft sends them again."""

MAX_FRAME_BYTES = 1024 * 1024
"""A frame is closed when it has this many bytes; one message may be larger."""

PAUSE_SHARE = 0.25
"""Of what messages are late at present: so long a stream pauses before a frame that is not full."""

MAX_PAUSE_S = 0.1
"""The longest such pause.

A process takes one frame of a stream in each turn of its loop. One that is short of time has few
turns, and frames of a message or two pile up in gRPC, seconds of them: whatever it is told is out
of date when it comes. What waits here meanwhile shares a frame."""

MessageHandler = Callable[[NodeId, GroupId, memoryview], None]


class PeerLink:
    def __init__(self, peer: NodeId, patience_s: Callable[[], float] = lambda: 0.0) -> None:
        """``patience_s``: how much longer than usual messages are under way at present."""
        self.peer = peer
        self._patience_s = patience_s
        self.process_id = ""
        """Of the process at the other end of the stream, empty while there is none."""
        self.address: str | None = None
        """Where this node dialled, None while it does not."""
        self.last_received_s = 0.0
        self.dropped = 0
        self._queue: deque[tuple[GroupId, Buffer]] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._stream: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._stream is not None

    def send(self, group: GroupId, payload: Buffer) -> None:
        if self._stream is None:
            return
        if self._queued_bytes + len(payload) > MAX_QUEUE_BYTES:
            self.dropped += 1
            return
        self._queue.append((group, payload))
        self._queued_bytes += HEAD_SIZE + len(payload)
        self._wake.set()

    def disconnect(self) -> None:
        if self._stream is not None:
            self._stream.cancel()

    async def run(
        self,
        process_id: str,
        read: Callable[[], Awaitable[bytes | None]],
        write: Callable[[bytes], Awaitable[None]],
        handler: MessageHandler,
    ) -> None:
        """Carry messages both ways until the stream breaks; a newer stream replaces an older
        one."""
        while (previous := self._stream) is not None:
            # Two may wait here for the same one: the second then ends the first's stream as well.
            previous.cancel()
            await asyncio.wait([previous])
            if self._stream is previous:
                self._stream = None
        self._queue.clear()
        self._queued_bytes = 0
        self.process_id = process_id
        stream = asyncio.create_task(self._carry(read, write, handler))
        self._stream = stream
        _log.info("peer_connected", peer=self.peer)
        try:
            # Not `await stream`: that would pass a cancellation of this task off as one of the
            # stream.
            await asyncio.wait([stream])
            if not stream.cancelled():
                stream.result()
        finally:
            stream.cancel()
            if self._stream is stream:
                self._stream = None
                self.process_id = ""
            _log.info("peer_disconnected", peer=self.peer, dropped=self.dropped)

    async def _carry(
        self,
        read: Callable[[], Awaitable[bytes | None]],
        write: Callable[[bytes], Awaitable[None]],
        handler: MessageHandler,
    ) -> None:
        """Until either direction ends: a stream that only takes is no stream."""
        tasks = [
            asyncio.create_task(self._read(read, handler)),
            asyncio.create_task(self._write(write)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            errors = [None if task.cancelled() else task.exception() for task in tasks]
        for error in errors:
            if error is not None:
                raise error

    async def _read(
        self, read: Callable[[], Awaitable[bytes | None]], handler: MessageHandler
    ) -> None:
        loop = asyncio.get_running_loop()
        while (frame := await read()) is not None:
            self.last_received_s = loop.time()
            for group, payload in split_frame(frame):
                handler(self.peer, group, payload)

    async def _write(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await write(self._next_frame())
                if self._queued_bytes >= MAX_FRAME_BYTES:
                    # A pause makes no frame fuller: beats would wait behind all this, and what they
                    # take would go on to be the reason to pause.
                    continue
                pause_s = min(PAUSE_SHARE * self._patience_s(), MAX_PAUSE_S)
                if pause_s > 0:
                    await asyncio.sleep(pause_s)

    def _next_frame(self) -> bytes:
        parts: list[Buffer] = []
        size_bytes = 0
        while self._queue and size_bytes < MAX_FRAME_BYTES:
            group, payload = self._queue.popleft()
            parts.append(frame_head(group, payload))
            parts.append(payload)
            size_bytes += HEAD_SIZE + len(payload)
        self._queued_bytes -= size_bytes
        return b"".join(parts)
