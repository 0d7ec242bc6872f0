"""Lines from a file or a pipe, read ahead a little in a thread of its own."""

import asyncio
import io
import os
import threading
from typing import BinaryIO, Final

from quorumlog.errors import RecordTooLarge
from quorumlog.types import MAX_RECORD_BYTES

READ_BYTES: Final = 256 * 1024
READ_AHEAD: Final = 4
"""Chunks of lines that may wait: more is not read before the sending keeps up."""


class LineReader:
    """Cuts ``stream`` into lines without their newline; the last one may lack it.

    The thread is a daemon and reads the file descriptor itself where there is one: a read that
    blocks (a terminal, an idle pipe) must not keep the program from ending.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._chunks: asyncio.Queue[list[bytes] | Exception | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(READ_AHEAD)
        self._stopped = False
        threading.Thread(target=self._read_all, name="read-lines", daemon=True).start()

    async def next_lines(self) -> list[bytes] | None:
        """Some lines, in order; None at the end of the input.

        Raises:
            RecordTooLarge: a line is longer than any record may be.
            OSError: the input cannot be read.
        """
        chunk = await self._chunks.get()
        self._room.release()
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def stop(self) -> None:
        """Read no more than what is being read."""
        self._stopped = True
        self._room.release()

    def _read_all(self) -> None:
        try:
            rest: list[bytes] = []
            rest_bytes = 0
            while data := self._read():
                first, newline, others = data.partition(b"\n")
                rest.append(first)
                rest_bytes += len(first)
                if newline:
                    lines = others.split(b"\n")
                    last = lines.pop()
                    self._deliver([b"".join(rest), *lines])
                    rest, rest_bytes = [last], len(last)
                if rest_bytes > MAX_RECORD_BYTES + READ_BYTES:
                    raise RecordTooLarge(rest_bytes, MAX_RECORD_BYTES)
            if rest_bytes:
                self._deliver([b"".join(rest)])
            self._deliver(None)
        except (OSError, RecordTooLarge) as error:
            self._deliver(error)

    def _read(self) -> bytes:
        if self._stopped:
            return b""
        try:
            return os.read(self._stream.fileno(), READ_BYTES)
        except io.UnsupportedOperation:
            return self._stream.read(READ_BYTES)

    def _deliver(self, chunk: list[bytes] | Exception | None) -> None:
        self._room.acquire()
        if not self._stopped and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            except RuntimeError:
                # The loop was closed just now: nobody reads any more.
                self._stopped = True
