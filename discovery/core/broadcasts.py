"""News waiting to be passed on, the least sent first (SWIM §4.1).

One piece of news about a subject replaces an older one about the same subject, so the queue is
bounded by the subjects. Each is sent ``multiplier * ceil(ln(members + 1))`` times and is then
dropped. memberlist takes the decimal logarithm: of 50 members that start at once somebody then
misses somebody more often than not, and waits for the next push/pull to hear of it.
"""

import math
from bisect import bisect_left

from quorumlog.discovery.wire.packet import PART_OVERHEAD_BYTES

_News = tuple[int, int, str, bytes]
"""How often it was sent, minus its number, subject, data: in this order it is to be sent."""


class BroadcastQueue:
    """At most ``max_subjects`` pieces of news; when it is full the one sent most is dropped."""

    def __init__(self, multiplier: int, max_subjects: int) -> None:
        self._multiplier = multiplier
        self._max_subjects = max_subjects
        self._news: dict[str, _News] = {}
        self._queue: list[_News] = []
        """The same, sorted."""
        self._order = 0
        self._least_bytes = 0
        """No piece of news in the queue is shorter."""

    @property
    def waiting(self) -> bool:
        """There is news to send."""
        return bool(self._queue)

    def put(self, subject: str, data: bytes) -> None:
        """Send ``data`` from now on instead of what was said about ``subject``."""
        if subject in self._news:
            self._drop(subject)
        if len(self._queue) >= self._max_subjects:
            self._drop(max(self._news, key=lambda name: self._news[name][0]))
        self._order += 1
        news = (0, -self._order, subject, data)
        self._least_bytes = min(len(data), self._least_bytes) if self._queue else len(data)
        self._news[subject] = news
        # Nothing comes before what was never sent and is newest.
        self._queue.insert(0, news)

    def holds(self, subject: str) -> bool:
        return subject in self._news

    def take(self, limit_bytes: int, max_parts: int, members: int) -> list[bytes]:
        """What to put into a packet with ``limit_bytes`` of space, each with its overhead.

        Counts as sent. The least sent first, of those the newest first.
        """
        if not self._queue:
            return []
        transmit_limit = self._multiplier * math.ceil(math.log(members + 1))
        least_bytes = self._least_bytes + PART_OVERHEAD_BYTES
        taken: list[bytes] = []
        kept: list[_News] = []
        looked_at = 0
        for news in self._queue:
            if limit_bytes < least_bytes or len(taken) == max_parts:
                break
            looked_at += 1
            transmits, order, subject, data = news
            size = len(data) + PART_OVERHEAD_BYTES
            if size > limit_bytes:
                kept.append(news)
                continue
            limit_bytes -= size
            taken.append(data)
            if transmits + 1 >= transmit_limit:
                del self._news[subject]
            else:
                self._news[subject] = again = (transmits + 1, order, subject, data)
                kept.append(again)
        if looked_at:
            self._queue[:looked_at] = kept
            self._queue.sort()
        return taken

    def _drop(self, subject: str) -> None:
        del self._queue[bisect_left(self._queue, self._news.pop(subject))]
