"""What nodes know of each other: of the real gossip core over the simulated network, or drawn.

Both give each node a ``Membership`` of its own, which may differ from everybody else's.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from quorumlog.node.bootstrap import Seeds
from quorumlog.ports import Member, Membership, MemberState
from sim.loop import SimLoop
from sim.process import Process

_HELD_S: Final = (0.05, 0.5, 3.0)
"""A viewer believes the same of another for so long."""

_KNOWN_CHANCE: Final = 0.7
_NEWEST_CHANCE: Final = 0.7
_FAILURE_SEEN_CHANCE: Final = 0.5


class View(Membership, Protocol):
    @property
    def seeds(self) -> Seeds: ...


class Views(Protocol):
    def membership(
        self, process: Process, me: Member, seeds: list[str], rng: random.Random
    ) -> View:
        """What ``process``, which is ``me``, knows from now on; ``seeds`` are HOST:PORT."""
        ...

    def calm(self) -> None:
        """From now on everybody hears what is true."""
        ...


@dataclass(slots=True)
class _Saying:
    member: Member
    process: Process


@dataclass(frozen=True, slots=True)
class _Rumoured:
    """Seeds that were asked and have said what anybody may hear."""

    only_this_node: bool
    tried: bool = True


class Rumours:
    """All that was ever said may be believed by anybody: late, never, for too long, again."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.is_calm = False
        self._said: dict[str, list[_Saying]] = {}

    def membership(
        self, process: Process, me: Member, seeds: list[str], rng: random.Random
    ) -> "RumouredMembership":
        self.say(process, me)
        own = f"{me.address}:{me.port}"
        return RumouredMembership(self, process, me, _Rumoured({*seeds} <= {own}))

    def say(self, process: Process, member: Member) -> None:
        self._said.setdefault(member.name, []).append(_Saying(member, process))

    def calm(self) -> None:
        self.is_calm = True

    @property
    def names(self) -> list[str]:
        return sorted(self._said)

    def truth(self, name: str) -> Member | None:
        """As of now; None when it does not run."""
        newest = self._said[name][-1]
        return newest.member if newest.process.alive else None

    def rumour(self, name: str) -> Member | None:
        """What somebody may hear of ``name`` now; None: nothing."""
        if self.rng.random() >= _KNOWN_CHANCE:
            return None
        sayings = self._said[name]
        if self.rng.random() >= _NEWEST_CHANCE:
            return self.rng.choice(sayings).member
        newest = sayings[-1]
        if not newest.process.alive and self.rng.random() < _FAILURE_SEEN_CHANCE:
            return replace(newest.member, state=MemberState.FAILED)
        return newest.member


class RumouredMembership:
    def __init__(self, rumours: Rumours, process: Process, me: Member, seeds: Seeds) -> None:
        self.seeds = seeds
        self._rumours = rumours
        self._process = process
        self._me = me
        self._heard: dict[str, tuple[Member | None, float]] = {}

    def members(self) -> list[Member]:
        seen = (self._seen(name) for name in self._rumours.names if name != self._me.name)
        everybody = [self._me, *(member for member in seen if member is not None)]
        return sorted(everybody, key=lambda member: member.name)

    def _seen(self, name: str) -> Member | None:
        rumours = self._rumours
        if rumours.is_calm:
            return rumours.truth(name)
        member, until_s = self._heard.get(name, (None, 0.0))
        if rumours.loop.time() >= until_s:
            member = rumours.rumour(name)
            held_s = rumours.rng.uniform(0.5, 1.0) * rumours.rng.choice(_HELD_S)
            self._heard[name] = (member, rumours.loop.time() + held_s)
        return member

    def set_tags(self, tags: dict[str, str]) -> None:
        self._me = replace(self._me, tags=dict(tags))
        self._rumours.say(self._process, self._me)

    def on_change(self, handler: Callable[[Member], None]) -> None:
        """Who waits for news waits in vain."""
