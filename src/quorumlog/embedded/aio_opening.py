"""``quorumlog.open_async`` itself: an embedded log is opened on the thread that will flush it."""

import asyncio
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Final, Unpack

from quorumlog.embedded.aio import AsyncLog, Workers
from quorumlog.embedded.arguments import Path, directory_of
from quorumlog.embedded.log import EmbeddedLog
from quorumlog.embedded.opening import Settings
from quorumlog.embedded.opening import open as open_log
from quorumlog.log.config import check_whole
from quorumlog.system import ThreadWorker

DEFAULT_MAX_WAITING_BYTES: Final = 8 * 1024 * 1024


def open_async(
    path: Path,
    *,
    max_waiting_bytes: int = DEFAULT_MAX_WAITING_BYTES,
    **settings: Unpack[Settings],
) -> "Opening":
    """Open the log in directory ``path``; settings and errors are those of :func:`quorumlog.open`.

    ``async with quorumlog.open_async(path) as log`` closes it in the end; ``await`` it instead, and
    that is up to you.

    Args:
        max_waiting_bytes: what may wait for the disk; more appends wait before they enter the log
            (4 KiB to 16 GiB).
    """
    check_whole("max_waiting_bytes", max_waiting_bytes, 4096, 16 * 1024**3)
    directory = directory_of(path)
    return Opening(lambda: open_log(directory, **settings), max_waiting_bytes)


class Opening:
    """A log that is about to be opened: ``await`` it, or use it in ``async with``."""

    def __init__(self, opener: Callable[[], EmbeddedLog], max_waiting_bytes: int) -> None:
        self._opener = opener
        self._max_waiting_bytes = max_waiting_bytes
        self._log: AsyncLog | None = None

    def __await__(self) -> Generator[object, None, "AsyncLog"]:
        return self._open().__await__()

    async def __aenter__(self) -> "AsyncLog":
        self._log = await self._open()
        return self._log

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._log is not None:
            await self._log.close()

    async def _open(self) -> "AsyncLog":
        threads = [ThreadWorker(1) for _ in range(4)]
        workers = Workers(*threads)
        opened: list[EmbeddedLog] = []
        try:
            await workers.flush.run(lambda: opened.append(self._opener()))
        except asyncio.CancelledError:
            # It may be open in a moment, and nobody would know.
            _ = workers.flush.run(lambda: _close_all(opened))
            raise
        except BaseException:
            for thread in threads:
                thread.close()
            raise
        return AsyncLog(opened[0], workers, self._max_waiting_bytes, threads)


def _close_all(logs: Iterable[EmbeddedLog]) -> None:
    for log in logs:
        log.close()
