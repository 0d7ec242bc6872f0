from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.broker.placement import Load, place
from quorumlog.errors import InvariantViolation
from quorumlog.types import NodeId


def names(count: int) -> list[NodeId]:
    return [NodeId(f"n{at:02}") for at in range(count)]


@given(nodes=st.integers(1, 9), replicas=st.integers(1, 9), partitions=st.integers(1, 60))
def test_an_empty_cluster_is_filled_evenly(nodes: int, replicas: int, partitions: int) -> None:
    replicas = min(replicas, nodes)
    placed = place(partitions, replicas, names(nodes), Load())
    assert len(placed) == partitions
    assert all(len(set(each)) == replicas for each in placed)
    for counted in (
        Counter(each[0] for each in placed),
        Counter(node for each in placed for node in each),
    ):
        counts = [counted[node] for node in names(nodes)]
        assert max(counts) - min(counts) <= 1


@given(topics=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 5)), max_size=12))
def test_leaders_stay_even_whatever_topics_come(topics: list[tuple[int, int]]) -> None:
    load = Load()
    for partitions, replicas in topics:
        place(partitions, replicas, names(5), load)
    counts = [load.leaders.get(node, 0) for node in names(5)]
    assert max(counts) - min(counts) <= 1


@given(replicas=st.integers(1, 5), topics=st.lists(st.integers(1, 7), max_size=12))
def test_replicas_stay_even_over_topics_that_have_equally_many(
    replicas: int, topics: list[int]
) -> None:
    load = Load()
    for partitions in topics:
        place(partitions, replicas, names(5), load)
    counts = [load.replicas.get(node, 0) for node in names(5)]
    assert max(counts) - min(counts) <= 1


@given(st.permutations(names(5)), st.integers(1, 5))
def test_the_order_of_the_candidates_does_not_matter(order: list[NodeId], replicas: int) -> None:
    assert place(7, replicas, order, Load()) == place(7, replicas, names(5), Load())


def test_a_node_that_holds_much_gets_less() -> None:
    load = Load()
    for _ in range(10):
        load.add([NodeId("n00"), NodeId("n01")])
    placed = place(4, 2, names(4), load)
    assert {each[0] for each in placed} <= {"n01", "n02", "n03"}
    assert Counter(node for each in placed for node in each)[NodeId("n00")] == 0


def test_the_partitions_of_one_leader_do_not_share_their_followers() -> None:
    placed = place(30, 2, names(6), Load())
    assert len(set(placed)) >= 6


def test_more_replicas_than_nodes_is_a_bug_of_the_caller() -> None:
    with pytest.raises(InvariantViolation):
        place(1, 3, names(2), Load())
