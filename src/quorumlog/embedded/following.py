"""``quorumlog.follow``: reading a log that another process has open for writing."""

import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from quorumlog.embedded.arguments import Path, directory_of, key_ring, whole
from quorumlog.embedded.background import Stop
from quorumlog.embedded.reading import Cursor, backward, checked_range
from quorumlog.errors import Closed
from quorumlog.log.config import check_number
from quorumlog.log.following.follower import FollowedLog
from quorumlog.system import SystemClock, SystemDisk
from quorumlog.types import Offset, Record

if TYPE_CHECKING:
    from quorumlog.log.key_ring import KeyRing


def follow(
    path: Path, *, poll_s: float = 0.05, keys: "KeyRing | Path | None" = None
) -> "LogFollower":
    """Read the log in directory ``path`` beside its writer, or when nobody writes it.

    Args:
        path: of a log that was opened at least once.
        poll_s: how long a read that follows waits between two looks at the log (1 ms to 1 hour):
            other processes cannot tell. A look costs a few microseconds.
        keys: what encrypts the log, or the file that holds it. The file is read again when the log
            has a key that was not in it: one that its writer was given since.

    Raises:
        UnusableDirectory: it cannot be read, or holds no log.
        KeyMissing, WrongKey: ``keys`` does not fit what is stored.
        ConfigError: a setting out of its bounds.
    """
    check_number("poll_s", poll_s, 0.001, 3600)
    log = FollowedLog(SystemDisk(), directory_of(path), SystemClock(), _growing(keys))
    return LogFollower(log, poll_s, Stop())


def _growing(keys: "KeyRing | Path | None") -> "KeyRing | None":
    """The ring; one that is loaded again for a new key where a file is named. Errors as
    ``key_ring``."""
    if not isinstance(keys, str | os.PathLike):
        return key_ring(keys)
    from quorumlog.log.following.key_file import GrowingKeyRing
    from quorumlog.log.key_ring import KeyRing

    path = os.fspath(keys)
    return GrowingKeyRing(lambda: KeyRing.load(path))


class LogFollower:
    """A log that is written elsewhere, for any number of threads; nothing is locked or written.

    It shows what the writer made durable by fdatasync: with ``fsync=always`` that is every record
    as soon as its append returns, with ``interval`` a tenth of a second later, with ``never`` only
    what a ``flush``, a ``close`` or the end of a segment has synced. What it has shown stays.
    """

    def __init__(self, log: FollowedLog, poll_s: float, stop: Stop) -> None:
        """Use :func:`quorumlog.follow`. ``stop`` is set by ``close``, and waits between looks."""
        self._log = log
        self._poll_s = poll_s
        self._stop = stop

    @property
    def start_offset(self) -> Offset:
        """The first offset that can be read, when somebody last looked."""
        return self._log.start_offset

    @property
    def end_offset(self) -> Offset:
        """The first offset that cannot be read yet; looks."""
        self._log.refresh()
        return self._log.end_offset

    def read(
        self,
        start: int | None = None,
        *,
        end: int | None = None,
        follow: bool = False,
        reverse: bool = False,
    ) -> Iterator[Record]:
        """As :meth:`quorumlog.EmbeddedLog.read`; with ``follow`` it ends when this is closed.

        Where files came or went since the last one began, or in the last three seconds, to begin
        one costs a listing of the directory: 5 ms where there are 1000 segments.
        """
        self._log.renew()
        log_range = self._log.start_offset, self._log.end_offset
        begin, stop = checked_range(start, end, log_range, follow=follow, reverse=reverse)
        if reverse and stop is not None:
            return backward(self._log, begin, stop)
        return self._read(Cursor(self._log, begin), stop, follow)

    def offset_for_time(self, timestamp_ms: int) -> Offset:
        """The first offset whose timestamp is ``timestamp_ms`` or later, or ``end_offset``."""
        timestamp_ms = whole("timestamp_ms", timestamp_ms)
        self._log.refresh()
        return self._log.offset_for_time(timestamp_ms)

    def close(self) -> None:
        """Stop reading; reads that follow end. A second call does nothing."""
        self._stop.set()
        self._log.close()

    def __enter__(self) -> "LogFollower":
        if self._stop.is_set():
            raise Closed("the follower is closed")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, cursor: Cursor, end: int | None, follow: bool) -> Iterator[Record]:
        while end is None or cursor.offset < end:
            limit = self._log.end_offset
            try:
                if cursor.offset < limit:
                    yield from cursor.records(limit if end is None else min(limit, end))
                elif not self._log.refresh() and (not follow or self._stop.wait(self._poll_s)):
                    return
            except Closed:
                if follow:
                    return
                raise
