"""A TCP proxy that does to the connections through it what networks do."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

_CHUNK_BYTES: Final = 64 * 1024
_CHUNKS_UNDER_WAY: Final = 64
"""Of each direction of a connection; more is left in the sender's socket."""


@dataclass(slots=True)
class Weather:
    """What befalls one direction."""

    delay_s: float = 0.0
    bytes_s: float | None = None
    """As fast as it goes when None."""
    stalled: bool = False
    """Nothing passes, nothing is lost, and nobody is told: the connection only seems alive."""


class FaultProxy:
    """Listens on ``listen`` and connects whoever comes to ``upstream`` (both ``HOST:PORT``).

    Change ``inbound`` (to the upstream) and ``outbound`` at any time; what is on its way is
    affected too. Belongs to one event loop; use it as ``async with``.
    """

    def __init__(self, listen: str, upstream: str) -> None:
        self.listen = listen
        self.upstream = upstream
        self.inbound = Weather()
        self.outbound = Weather()
        self.refusing = False
        """New connections are closed at once."""
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> Self:
        host, _, port = self.listen.rpartition(":")
        self._server = await asyncio.start_server(self._accept, host, int(port))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What was aborted is closed in the next turn of the loop.
        await asyncio.sleep(0)

    def heal(self) -> None:
        """As good as no proxy, for old connections and new ones."""
        self.inbound.delay_s = self.outbound.delay_s = 0.0
        self.inbound.bytes_s = self.outbound.bytes_s = None
        self.refusing = False
        self.stall(inbound=False, outbound=False)

    def stall(self, *, inbound: bool, outbound: bool) -> None:
        """Hold back everything of a direction, or let it go on."""
        self.inbound.stalled, self.outbound.stalled = inbound, outbound
        self._changed.set()
        self._changed = asyncio.Event()

    def break_connections(self) -> int:
        """Reset all connections there are, at both ends; how many."""
        for writers in self._connections.values():
            for writer in writers:
                _reset(writer)
        return len(self._connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self.refusing:
            _reset(writer)
            return
        writers = self._connections[task] = [writer]
        try:
            host, _, port = self.upstream.rpartition(":")
            # A broken connection is what this is for: its ends are told by the abort.
            with contextlib.suppress(OSError):
                up_reader, up_writer = await asyncio.open_connection(host, int(port))
                writers.append(up_writer)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._pass_on(reader, up_writer, self.inbound))
                    tasks.create_task(self._pass_on(up_reader, writer, self.outbound))
        except* OSError:
            pass
        finally:
            for each in writers:
                each.transport.abort()
            del self._connections[task]

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, weather: Weather
    ) -> None:
        """One direction until its end, which is passed on too."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_UNDER_WAY)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_take(reader, chunks))
            tasks.create_task(self._give(chunks, writer, weather))

    async def _give(
        self,
        chunks: "asyncio.Queue[tuple[float, bytes]]",
        writer: asyncio.StreamWriter,
        weather: Weather,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            taken_s, chunk = await chunks.get()
            if (early_s := taken_s + weather.delay_s - loop.time()) > 0:
                await asyncio.sleep(early_s)
            while weather.stalled:
                await self._changed.wait()
            if not chunk:
                writer.write_eof()
                return
            for piece, pause_s in _paced(chunk, weather.bytes_s):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, with a reset and not with an end of the stream."""
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _take(reader: asyncio.StreamReader, chunks: "asyncio.Queue[tuple[float, bytes]]") -> None:
    loop = asyncio.get_running_loop()
    chunk = b"-"
    while chunk:
        chunk = await reader.read(_CHUNK_BYTES)
        await chunks.put((loop.time(), chunk))


def _paced(chunk: bytes, bytes_s: float | None) -> Iterator[tuple[bytes, float]]:
    """Pieces of ``chunk`` and how long to wait after each: fifty a second where it is slow."""
    size = len(chunk) if bytes_s is None else max(1, int(bytes_s / 50))
    for at in range(0, len(chunk), size):
        piece = chunk[at : at + size]
        yield piece, 0.0 if bytes_s is None else len(piece) / bytes_s
