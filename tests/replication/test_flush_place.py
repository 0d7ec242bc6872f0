"""Small flushes of a quick disk are done in the event loop; nothing else holds it up."""

import pytest

from quorumlog.replication.flush_place import FlushPlace

QUICK_S, SLOW_S, LIMIT_S = 0.0002, 0.1, 0.001


def place_of_a_quick_disk() -> FlushPlace:
    place = FlushPlace(LIMIT_S)
    place.given_to_worker()
    place.done_on_worker(QUICK_S)
    return place


def test_a_disk_of_which_nothing_is_known_does_not_hold_up_the_loop() -> None:
    assert not FlushPlace(LIMIT_S).allows_loop(0.0)


def test_a_quick_disk_is_waited_for_in_the_loop() -> None:
    assert place_of_a_quick_disk().allows_loop(0.0)


def test_with_a_limit_of_zero_the_loop_never_waits_for_a_disk() -> None:
    place = FlushPlace(0.0)
    place.given_to_worker()
    place.done_on_worker(0.0)
    assert not place.allows_loop(0.0)


def test_the_loop_does_not_wait_behind_the_flush_of_another_group() -> None:
    place = place_of_a_quick_disk()
    place.given_to_worker()
    place.given_to_worker()
    place.done_on_worker(None)
    assert not place.allows_loop(0.0)
    place.done_on_worker(QUICK_S)
    assert place.allows_loop(0.0)


def test_half_of_the_loop_is_left_to_everything_else() -> None:
    place = place_of_a_quick_disk()
    place.done_in_loop(1.0, 1.0004)
    assert not place.allows_loop(1.0007)
    assert place.allows_loop(1.0009)


@pytest.mark.parametrize("hung_s", [0.05, 5.0])
def test_after_a_flush_that_hung_the_next_few_go_to_the_worker(hung_s: float) -> None:
    place = place_of_a_quick_disk()
    place.done_in_loop(1.0, 1.0 + hung_s)
    quick_flushes = 0
    while not place.allows_loop(99.0):
        place.given_to_worker()
        place.done_on_worker(QUICK_S)
        quick_flushes += 1
    assert 2 <= quick_flushes <= 10


def test_the_loop_does_not_wait_for_a_disk_that_hangs_now_and_then() -> None:
    place = place_of_a_quick_disk()
    refused = 0
    for turn in range(200):
        place.given_to_worker()
        place.done_on_worker(SLOW_S if turn % 8 == 0 else QUICK_S)
        refused += not place.allows_loop(0.0)
    assert refused > 100


def test_a_large_flush_says_nothing_of_how_long_small_ones_take() -> None:
    place = place_of_a_quick_disk()
    place.given_to_worker()
    place.done_on_worker(None)
    assert place.allows_loop(0.0)
