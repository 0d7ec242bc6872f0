"""How long nodes take to hear each other, and how much longer than usual they wait."""

import pytest

from quorumlog.replication.sleep.delays import Delays
from quorumlog.types import NodeId

NORMAL_S = 0.05
MOST_S = 2.4
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def delays() -> Delays:
    return Delays(NORMAL_S, MOST_S)


def answered(
    node: Delays, peer: NodeId, sequence: int, took_s: float, incarnation: int = 1
) -> None:
    """The beat ``sequence`` leaves at 100 s and is answered after ``took_s`` and a wait of 1 s."""
    node.sending(peer, sequence, 100.0)
    node.received(peer, incarnation, sequence, (sequence, 1.0), 101.0 + took_s)


def test_the_wait_of_an_answer_for_its_turn_is_no_delay() -> None:
    node = delays()
    answered(node, B, 0, NORMAL_S)
    assert node.patience_s == pytest.approx(0)


def test_what_beats_take_beyond_the_normal_is_the_patience() -> None:
    node = delays()
    answered(node, B, 0, NORMAL_S + 0.7)
    assert node.patience_s == pytest.approx(0.7)


def test_the_slowest_way_counts_and_quicker_beats_do_not_shorten_it_at_once() -> None:
    node = delays()
    answered(node, B, 0, 0.5)
    answered(node, C, 0, 0.2)
    answered(node, B, 1, 0.1)
    assert node.patience_s == pytest.approx(0.45)


def test_who_is_late_is_so_for_messages_to_it_alone() -> None:
    node = delays()
    answered(node, B, 0, 0.5)
    answered(node, C, 0, NORMAL_S)
    assert node.patience_with(B) == pytest.approx(0.45)
    assert node.patience_with(C) == pytest.approx(0)
    assert node.patience_with(A) == 0


def test_patience_is_forgotten_heartbeat_by_heartbeat() -> None:
    node = delays()
    answered(node, B, 0, 1.0)
    seen = []
    for _ in range(200):
        node.beaten()
        seen.append(node.patience_s)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > 0.8
    assert seen[-1] == 0


def test_patience_has_an_end() -> None:
    node = delays()
    answered(node, B, 0, 60.0)
    assert node.patience_s == MOST_S


def test_each_beat_says_what_came_last_and_how_long_ago() -> None:
    node = delays()
    assert node.sending(B, 0, 1.0) is None
    node.received(B, 1, 7, None, 2.0)
    node.received(B, 1, 6, None, 2.5)  # overtaken
    assert node.sending(B, 1, 3.0) == (7, 1.0)
    assert node.sending(C, 0, 3.0) is None


def test_a_beat_that_comes_twice_or_late_measures_nothing() -> None:
    node = delays()
    answered(node, B, 0, 0.1)
    node.received(B, 1, 0, (0, 0.0), 200.0)
    assert node.patience_s == pytest.approx(0.05)


def test_an_answer_to_a_beat_long_forgotten_measures_nothing() -> None:
    node = delays()
    for sequence in range(1000):
        node.sending(B, sequence, float(sequence))
    node.received(B, 1, 0, (10, 0.0), 1000.0)
    assert node.patience_s == 0


def test_a_process_that_starts_again_is_heard_from_its_first_beat_on() -> None:
    node = delays()
    answered(node, B, 500, 0.0)
    node.received(B, 2, 0, None, 300.0)
    assert node.sending(B, 501, 300.5) == (0, 0.5)
