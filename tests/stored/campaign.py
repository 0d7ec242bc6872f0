"""One seed of the long search: a scenario, and disasters in it."""

import traceback
from random import Random
from typing import Final

from stored.disasters import (
    bytes_in,
    full_at_byte,
    full_at_call,
    io_error,
    killed,
    places_in,
    power_cut,
    power_cut_twice,
    refused_at_open,
)
from stored.scenarios import SCENARIOS, Scenario, random_scenario

DISASTERS: Final = 20


def run(seed: int) -> str:
    """Returns what went wrong with ``seed``; empty when nothing did."""
    rng = Random(seed)
    scenario = random_scenario(seed) if rng.random() < 0.8 else rng.choice(SCENARIOS)
    doing = "no disaster"
    try:
        places = places_in(scenario)
        for _ in range(DISASTERS if places else 0):
            name, arguments = _draw(scenario, places, rng)
            doing = f"{name}{arguments}"
            _DISASTERS[name](scenario, *arguments)
    except Exception:
        return f"scenario {scenario.name!r}, {doing}\n{traceback.format_exc()}"
    return ""


_DISASTERS: Final = {
    "power_cut": power_cut,
    "power_cut_twice": power_cut_twice,
    "refused_at_open": refused_at_open,
    "killed": killed,
    "io_error": lambda scenario, place, seed: io_error(scenario, place, seed, cut=False),
    "io_error_and_power_cut": lambda scenario, place, seed: io_error(
        scenario, place, seed, cut=True
    ),
    "full_at_call": full_at_call,
    "full_at_byte": full_at_byte,
}


def _draw(scenario: Scenario, places: int, rng: Random) -> tuple[str, tuple[int, ...]]:
    name = rng.choice(sorted(_DISASTERS))
    place, seed = rng.randrange(1, places + 2), rng.randrange(1 << 32)
    if name == "full_at_byte":
        return name, (rng.randrange(*bytes_in(scenario)), seed)
    if name in ("power_cut_twice", "refused_at_open"):
        return name, (place, rng.randrange(1, 10), seed)
    return name, (place,) if name == "killed" else (place, seed)
