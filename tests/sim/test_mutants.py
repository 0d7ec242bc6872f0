"""A simulator that finds nothing proves nothing: it has to find bugs that are put back."""

import pytest

from sim.mutant import Mutant, hunt
from sim.mutants import MUTANTS
from sim.quiet import no_collector
from sim.simulation import Simulation
from sim.swarm import Swarm

QUICK_SEEDS = 50
"""Mutants that are found within so many seeds are hunted in every run of the tests."""


def _run(mutant: Mutant, seed: int) -> None:
    with no_collector():
        Simulation(mutant.shape(Swarm.drawn(seed))).run()


def _named(mutant: Mutant) -> str:
    return mutant.name


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.within <= QUICK_SEEDS], ids=_named)
def test_the_simulator_finds_a_common_bug(mutant: Mutant) -> None:
    assert hunt(mutant, _run) is not None


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", MUTANTS, ids=_named)
def test_the_simulator_finds_every_known_bug(mutant: Mutant) -> None:
    found = hunt(mutant, _run)
    assert found is not None
    print(f"{mutant.name}: seed {found[0]} of {mutant.within}: {found[1]}")
