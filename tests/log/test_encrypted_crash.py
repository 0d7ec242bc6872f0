"""Logs with keys die as plain ones do: nothing flushed is lost, nothing is invented."""

from dataclasses import replace
from random import Random

import pytest

from quorumlog.log.key_ring import KeyRing
from stored.disasters import full_at_call, io_error, killed, places_of, power_cut, power_cut_twice
from stored.scenarios import SCENARIOS, Scenario

KEYS = KeyRing.generate("key", Random(1).randbytes)

CHOSEN = [
    replace(scenario, config=replace(scenario.config, keys=KEYS))
    for scenario in SCENARIOS
    if scenario.name in ("sizes", "truncations", "rolls", "deaths", "clean stops", "cut and reuse")
]


@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda scenario: scenario.name)
def test_an_encrypted_log_survives_a_disaster_at_every_call(scenario: Scenario) -> None:
    for place in places_of(scenario):
        power_cut(scenario, place, place)
        killed(scenario, place)
        if place % 5 == 0:
            power_cut_twice(scenario, place, place % 7 + 1, place)
            io_error(scenario, place, place, cut=place % 2 == 0)
            full_at_call(scenario, place, place)


def test_there_is_something_to_survive() -> None:
    assert len(CHOSEN) == 6
    assert sum(len(places_of(scenario)) for scenario in CHOSEN) > 300
