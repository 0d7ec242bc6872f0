"""An event loop in a thread of its own, for callers that have none."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from quorumlog.errors import Closed

T = TypeVar("T")

CLOSE_TIMEOUT_S: Final = 5.0
"""How long :meth:`BackgroundLoop.close` waits for what is still running in the loop."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed: a third more throughput on streams."""
    with contextlib.suppress(ImportError):
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()


class BackgroundLoop:
    """Runs coroutines for any number of threads. The thread is a daemon: it never keeps a
    program from ending."""

    def __init__(self) -> None:
        self._loop = new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="quorumlog-client", daemon=True
        )
        self._lock = threading.Lock()
        self._closed = False
        self._thread.start()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, in the calling thread.

        When the caller is interrupted (Ctrl-C) the coroutine is cancelled.

        Raises:
            Closed: the loop was closed before or while it ran.
        """
        future = self.start(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Closed("this client is closed") from None
        except BaseException:
            future.cancel()
            raise

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "concurrent.futures.Future[T]":
        """Start the coroutine and return at once. Raises Closed."""
        with self._lock:
            if self._closed:
                coroutine.close()
                raise Closed("this client is closed")
            if threading.current_thread() is self._thread:
                coroutine.close()
                raise RuntimeError("a synchronous client cannot be used from its own callbacks")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run ``last``, cancel everything else, end the thread; bounded time, idempotent."""
        with self._lock:
            if self._closed:
                last.close()
                return
            self._closed = True
        ending = asyncio.run_coroutine_threadsafe(self._end(last), self._loop)
        with contextlib.suppress(concurrent.futures.TimeoutError):
            ending.result(2 * CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end(self, last: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await last
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=CLOSE_TIMEOUT_S / 2) if others else None
            await self._loop.shutdown_asyncgens()
