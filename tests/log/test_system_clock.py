"""The clock that leases rest on."""

import time

import pytest

from quorumlog.system import SystemClock


def test_the_clock_counts_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that was suspended for an hour since it started, and ran for a minute."""
    clocks = {time.CLOCK_MONOTONIC: 60.0, time.CLOCK_BOOTTIME: 3660.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    monkeypatch.setattr(time, "monotonic", lambda: 60.0)
    assert SystemClock().monotonic_s() == 3660.0


def test_the_clock_goes_on_and_never_back() -> None:
    clock = SystemClock()
    before_s = clock.monotonic_s()
    while (now_s := clock.monotonic_s()) == before_s:
        pass
    assert now_s > before_s
