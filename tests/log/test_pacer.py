"""Background work at a bounded rate."""

import pytest

from quorumlog.log.pacer import Pacer, Stopped
from stored.batches import FixedClock


class ClockedSignal:
    """Waiting moves the clock; counts the waits."""

    def __init__(self, clock: FixedClock) -> None:
        self._clock = clock
        self.is_stopped = False
        self.waits = 0

    def is_set(self) -> bool:
        return self.is_stopped

    def wait(self, timeout: float) -> bool:
        self.waits += 1
        self._clock.now_s += timeout
        return self.is_stopped


def test_work_takes_as_long_as_its_bytes_at_the_rate() -> None:
    clock = FixedClock()
    signal = ClockedSignal(clock)
    pacer = Pacer(1_000, clock, signal)
    for _ in range(500):
        pacer.spend(7)
    assert pacer.spent_bytes == 3_500
    assert clock.now_s == pytest.approx(3.5, abs=0.02)
    assert signal.waits < 200


def test_time_that_was_not_used_is_not_caught_up() -> None:
    clock = FixedClock()
    pacer = Pacer(1_000, clock, ClockedSignal(clock))
    clock.now_s = 100.0
    pacer.spend(1_000)
    pacer.spend(1_000)
    assert clock.now_s == pytest.approx(102.0)


def test_slow_work_does_not_wait() -> None:
    clock = FixedClock()
    signal = ClockedSignal(clock)
    pacer = Pacer(1_000, clock, signal)
    for _ in range(50):
        clock.now_s += 0.1
        pacer.spend(15)
    assert signal.waits == 0


def test_a_signal_that_is_set_stops_the_next_piece_of_work() -> None:
    clock = FixedClock()
    signal = ClockedSignal(clock)
    pacer = Pacer(10**9, clock, signal)
    pacer.spend(1)
    signal.is_stopped = True
    with pytest.raises(Stopped):
        pacer.spend(1)


def test_a_signal_that_is_set_during_a_wait_stops_the_work() -> None:
    clock = FixedClock()
    signal = ClockedSignal(clock)
    pacer = Pacer(10, clock, signal)

    def stop_while_waiting(timeout: float) -> bool:
        signal.is_stopped = True
        return True

    signal.wait = stop_while_waiting  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        pacer.spend(1_000)
