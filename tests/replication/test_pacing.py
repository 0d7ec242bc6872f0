"""The rate for replicas that catch up: all, unless commits take longer than they did before."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.replication.catch_up.pacing import (
    IDLE_S,
    LEAST_SHARE,
    PATIENCE_S,
    QUIET_S,
    CatchUpPacer,
)
from quorumlog.replication.config import ReplicationConfig
from support.replica_cluster import Cluster, draft, simulated

RATE = 1_000_000
USUAL_S = 0.002


class Node:
    """A pacer, its clock, and producers whose commits take as long as they are told to."""

    def __init__(self, commits: int = 200) -> None:
        """``commits`` have been made while nobody caught up."""
        self.now_s = 1000.0
        self.pacer = CatchUpPacer(RATE, lambda: self.now_s)
        self.commit(commits, USUAL_S)

    def commit(self, count: int, took_s: float) -> None:
        for _ in range(count):
            self.now_s += took_s
            self.pacer.committed(took_s)

    def feed(self, duration_s: float, took_s: float | None) -> int:
        """What leaves in ``duration_s`` to one that takes all it is given; commits meanwhile."""
        sent, ends_s = 0, self.now_s + duration_s
        while self.now_s < ends_s:
            starts_s = self.now_s + self.pacer.reserve(1000)
            if took_s is None:
                self.now_s = max(self.now_s, starts_s)
            while self.now_s < starts_s and took_s is not None:
                self.commit(1, took_s)
            sent += 1000
        return sent

    @property
    def share(self) -> float:
        return self.pacer.bytes_s / RATE


def test_without_producers_the_whole_rate_is_there_at_once() -> None:
    node = Node(commits=0)
    assert 0.99 * RATE <= node.feed(1.0, None) <= 1.01 * RATE


def test_producers_whose_commits_take_what_they_always_did_leave_the_whole_rate_soon() -> None:
    node = Node()
    node.pacer.reserve(1000)
    assert node.share == LEAST_SHARE
    node.commit(50, USUAL_S)
    assert LEAST_SHARE < node.share < 1
    node.commit(50, 1.9 * USUAL_S)
    assert node.share == 1


def test_while_commits_take_longer_the_least_is_left_and_no_more() -> None:
    node = Node()
    sent = node.feed(PATIENCE_S, 3 * USUAL_S)
    assert 0.95 * RATE * LEAST_SHARE <= sent / PATIENCE_S <= 1.05 * RATE * LEAST_SHARE


def test_one_late_commit_in_ten_lowers_the_rate_and_one_in_twenty_does_not() -> None:
    lowered, raised = Node(), Node()
    for node, good in ((lowered, 9), (raised, 19)):
        node.pacer.reserve(1000)
        node.commit(100, USUAL_S)
        for _ in range(40):
            node.commit(1, 5 * USUAL_S)
            node.commit(good, USUAL_S)
            node.pacer.reserve(1000)
    assert lowered.share < 0.3
    assert raised.share > 0.9


def test_whoever_waits_long_for_those_that_are_behind_waits_less_and_less_and_then_no_more() -> (
    None
):
    node = Node()
    shares = []
    for _ in range(4):
        node.feed(PATIENCE_S - 1, 3 * USUAL_S)
        shares.append(node.share)
        node.feed(1.1, 3 * USUAL_S)
    assert shares == [1 / 8, 1 / 4, 1 / 2, 1]


def test_producers_that_stop_leave_the_whole_rate() -> None:
    node = Node()
    node.feed(1.0, 3 * USUAL_S)
    assert node.share == LEAST_SHARE
    node.feed(IDLE_S + 0.1, None)
    assert node.share == 1


def test_the_next_one_to_catch_up_begins_with_little_again() -> None:
    node = Node()
    node.feed(4 * PATIENCE_S, 3 * USUAL_S)
    assert node.share == 1
    node.commit(round(2 * QUIET_S / USUAL_S), USUAL_S)
    node.pacer.reserve(1000)
    assert node.share == LEAST_SHARE


def test_a_commit_that_waited_for_an_election_is_not_what_commits_take() -> None:
    node = Node()
    node.commit(1, 30.0)
    node.pacer.reserve(1000)
    node.commit(100, 3 * USUAL_S)
    assert node.share == LEAST_SHARE


def test_what_commits_take_while_somebody_catches_up_is_no_measure() -> None:
    node = Node()
    node.feed(PATIENCE_S - 1, 3 * USUAL_S)
    assert node.share == LEAST_SHARE, "it never gets used to being late"


@given(
    st.lists(
        st.tuples(st.floats(0.0001, 3.0), st.one_of(st.none(), st.integers(1, 1 << 20))),
        max_size=200,
    )
)
def test_the_rate_never_leaves_its_bounds_and_no_reservation_waits_for_ever(
    steps: list[tuple[float, int | None]],
) -> None:
    node = Node(commits=3)
    for duration_s, size_bytes in steps:
        if size_bytes is None:
            node.commit(1, duration_s)
        else:
            node.now_s += node.pacer.reserve(size_bytes)
        assert LEAST_SHARE * RATE <= node.pacer.bytes_s <= RATE
        assert node.pacer.reserve(0) <= (1 << 20) / (LEAST_SHARE * RATE)


@simulated
async def test_a_leader_tells_how_long_its_commits_took_and_followers_tell_nothing() -> None:
    cluster = Cluster(3)
    await cluster.open(ReplicationConfig())
    leader = await cluster.leader()
    await leader.propose(draft(b"first"))
    told: dict[object, list[float]] = {}
    for node, replica in cluster.replicas.items():
        replica._catch_up._feeder._pacer.committed = told.setdefault(node, []).append  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    waited_s = []
    for _ in range(20):
        asked_s = loop.time()
        await leader.propose(draft(b"v"))
        waited_s.append(loop.time() - asked_s)
    measured_s = told.pop(cluster.node_of(leader))
    assert all(others == [] for others in told.values())
    assert len(measured_s) == 20
    assert all(0.9 * w <= m <= 1.1 * w for m, w in zip(measured_s, waited_s, strict=True))
