"""News waiting to be passed on, the least sent first (SWIM §4.1).

One piece of news about a subject replaces an older one about the same subject, so the queue is
bounded by the subjects. Each is sent ``multiplier * ceil(ln(members + 1))`` times and is then
dropped. memberlist takes the decimal logarithm: of 50 members that start at once somebody then
misses somebody more often than not, and waits for the next push/pull to hear of it.
"""

import math
from dataclasses import dataclass

from quorumlog.discovery.wire.packet import PART_OVERHEAD_BYTES


@dataclass(slots=True)
class _News:
    data: bytes
    order: int
    transmits: int = 0


class BroadcastQueue:
    """At most ``max_subjects`` pieces of news; when it is full the one sent most is dropped."""

    def __init__(self, multiplier: int, max_subjects: int) -> None:
        self._multiplier = multiplier
        self._max_subjects = max_subjects
        self._news: dict[str, _News] = {}
        self._order = 0

    def __len__(self) -> int:
        return len(self._news)

    def put(self, subject: str, data: bytes) -> None:
        """Send ``data`` from now on instead of what was said about ``subject``."""
        self._news.pop(subject, None)
        if len(self._news) >= self._max_subjects:
            most_sent = max(self._news, key=lambda name: self._news[name].transmits)
            del self._news[most_sent]
        self._order += 1
        self._news[subject] = _News(data, self._order)

    def holds(self, subject: str) -> bool:
        return subject in self._news

    def take(self, limit_bytes: int, max_parts: int, members: int) -> list[bytes]:
        """What to put into a packet with ``limit_bytes`` of space, each with its overhead.

        Counts as sent. The least sent first, of those the newest first.
        """
        if not self._news:
            return []
        transmit_limit = self._multiplier * math.ceil(math.log(members + 1))
        by_urgency = sorted(
            self._news.items(), key=lambda item: (item[1].transmits, -item[1].order)
        )
        taken: list[bytes] = []
        for subject, news in by_urgency:
            size = len(news.data) + PART_OVERHEAD_BYTES
            if size > limit_bytes or len(taken) == max_parts:
                continue
            limit_bytes -= size
            taken.append(news.data)
            news.transmits += 1
            if news.transmits >= transmit_limit:
                del self._news[subject]
        return taken
