"""The queue of news against a twin that sorts everything anew for each packet."""

import math

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.discovery.core.broadcasts import BroadcastQueue
from quorumlog.discovery.wire.packet import PART_OVERHEAD_BYTES

MULTIPLIER = 2
MAX_SUBJECTS = 4


class Twin:
    """Subject, data, number and times sent, in the order in which the subjects came."""

    def __init__(self) -> None:
        self.news: dict[str, list[int]] = {}
        self.order = 0

    def put(self, subject: str, size: int) -> None:
        self.news.pop(subject, None)
        if len(self.news) >= MAX_SUBJECTS:
            del self.news[max(self.news, key=lambda name: self.news[name][2])]
        self.order += 1
        self.news[subject] = [size, self.order, 0]

    def take(self, limit: int, max_parts: int, members: int) -> list[int]:
        taken = []
        for subject in sorted(self.news, key=lambda s: (self.news[s][2], -self.news[s][1])):
            size = self.news[subject][0]
            if size + PART_OVERHEAD_BYTES > limit or len(taken) == max_parts:
                continue
            limit -= size + PART_OVERHEAD_BYTES
            taken.append(size)
            self.news[subject][2] += 1
            if self.news[subject][2] >= MULTIPLIER * math.ceil(math.log(members + 1)):
                del self.news[subject]
        return taken


puts = st.tuples(st.sampled_from("abcdef"), st.integers(1, 40))
takes = st.tuples(st.integers(0, 120), st.integers(0, 4), st.integers(1, 30))


@given(st.lists(puts | takes, max_size=60))
def test_news_leaves_as_if_all_of_it_were_sorted_for_every_packet(
    steps: list[tuple[str, int] | tuple[int, int, int]],
) -> None:
    queue, twin = BroadcastQueue(MULTIPLIER, MAX_SUBJECTS), Twin()
    for step in steps:
        if len(step) == 2:
            subject, size = step
            queue.put(subject, bytes(size))
            twin.put(subject, size)
        else:
            assert list(map(len, queue.take(*step))) == twin.take(*step)
        assert queue.waiting == bool(twin.news)
        assert all(queue.holds(subject) == (subject in twin.news) for subject in "abcdef")
