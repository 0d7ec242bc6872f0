"""Randomness as the core asks for it; ``random.Random`` provides it."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

_DRAWS_PER_ITEM: Final = 4


class Rng(Protocol):
    def randrange(self, stop: int, /) -> int: ...

    def random(self) -> float: ...


def shuffle(items: list[T], rng: Rng) -> None:
    """Put ``items`` into a random order (Fisher and Yates)."""
    for last in range(len(items) - 1, 0, -1):
        other = rng.randrange(last + 1)
        items[last], items[other] = items[other], items[last]


def choose(items: Sequence[T], count: int, wanted: Callable[[T], bool], rng: Rng) -> list[T]:
    """Up to ``count`` different items that are ``wanted``, at random; fewer only if there are.

    Of many items a few are drawn; all are looked at only when too few of those were wanted.
    """
    draws = _DRAWS_PER_ITEM * count
    if len(items) > draws:
        drawn: dict[int, T] = {}
        for _ in range(draws):
            position = rng.randrange(len(items))
            if position not in drawn and wanted(items[position]):
                drawn[position] = items[position]
                if len(drawn) == count:
                    return list(drawn.values())
    chosen = [item for item in items if wanted(item)]
    shuffle(chosen, rng)
    return chosen[:count]
