"""A known bug that can be put back, and the hunt for it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from sim.simulation import Simulation, SimulationFailed
from sim.swarm import Swarm


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    target: Any
    """The class or module that has the function."""
    attribute: str
    make: Callable[[Any], Any]
    """The wrong function, from the right one."""
    within: int
    """Of so many seeds, from 0, at least one has to fail."""
    shape: Callable[[Swarm], Swarm] = lambda drawn: drawn
    """What to run for a seed, where few seeds as they are drawn meet the bug."""
    also: "Mutant | None" = None
    """A second defence that has to fall with the first."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        right = self.target.__dict__[self.attribute]
        with patch.object(self.target, self.attribute, self.make(right)), ExitStack() as stack:
            if self.also is not None:
                stack.enter_context(self.also.applied())
            yield


def hunt(mutant: Mutant, seeds: int | None = None) -> tuple[int, str] | None:
    """The first seed that finds ``mutant`` and what it says; None when all of them pass."""
    with mutant.applied():
        for seed in range(seeds or mutant.within):
            try:
                Simulation(mutant.shape(Swarm.drawn(seed))).run()
            except SimulationFailed as failure:
                return seed, str(failure).splitlines()[0]
    return None
