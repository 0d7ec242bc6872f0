"""A known bug that can be put back, and the hunt for it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from sim.campaign import SeedFailed


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
    shape: Callable[[Any], Any] = lambda drawn: drawn
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


def hunt(
    mutant: Mutant, run: Callable[[Mutant, int], object], seeds: int | None = None
) -> tuple[int, str] | None:
    """The first seed that finds ``mutant`` and what it says; None when all of them pass.

    ``run`` runs what the mutant makes of a seed, and raises SeedFailed.

    Raises:
        TypeError: what was found is that the wrong function is not called as the right one is.
    """
    with mutant.applied():
        for seed in range(seeds or mutant.within):
            try:
                run(mutant, seed)
            except SeedFailed as failure:
                said = str(failure).splitlines()[0]
                if "TypeError" in said:
                    raise TypeError(
                        f"{mutant.name} has to follow its function: {said}"
                    ) from failure
                return seed, said
    return None
