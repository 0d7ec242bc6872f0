"""Which versions of the protocols the members speak, and which of them go together.

Six bytes say it (``wire.messages.VERSIONS``): the lowest and highest version that a member
understands and the one it speaks, of memberlist's protocol and then of the layer above, Serf's.
As in memberlist, whatever one member speaks every other one has to understand. memberlist asks
that when states are exchanged and then refuses the whole exchange, so one member that does not fit
keeps two others apart; here it is asked of each claim, and what does not fit is never told to a
Serf agent.
"""

from collections import Counter
from typing import Final, TypeVar

from quorumlog.discovery.wire.messages import Address, Alive

T = TypeVar("T")

MAX_KINDS: Final = 32
"""Different versions among the members of a table: more than a cluster has, and few enough to
compare a claim with each."""

NACK_VERSION: Final = 4
"""Since this version of memberlist's protocol a relay says that it got no answer."""

STREAM_PING_VERSION: Final = 3
"""Since this one a member answers pings over TCP."""

CHECKSUM_VERSION: Final = 5
"""Since this one it knows packets with a checksum."""


def understood_version(claim: Alive) -> int:
    """The highest version of memberlist's protocol that a member understands."""
    return claim.versions[1]


class Versions:
    """What the members of a table say of their versions; all of them go together."""

    def __init__(self) -> None:
        self._said: Counter[bytes] = Counter()
        self._checking: Counter[Address] = Counter()
        """Addresses of members that know checksums."""
        self._not_checking: Counter[Address] = Counter()
        """Addresses of those that do not; most often there are none."""

    def fits(self, claim: Alive, instead_of: Alive | None = None) -> bool:
        """Whether ``claim`` goes together with every member, but for what it said before, and is
        not of one kind more than ``MAX_KINDS``."""
        versions = claim.versions
        if versions in self._said:
            return True
        others = set(self._said)
        if instead_of is not None and self._said[instead_of.versions] == 1:
            others.remove(instead_of.versions)
        if versions[0] == 0 or len(others) >= MAX_KINDS:
            return False
        return all(_go_together(versions, o) for o in (versions, *others))

    def add(self, claim: Alive) -> None:
        self._said[claim.versions] += 1
        self._addresses(claim)[claim.address] += 1

    def remove(self, claim: Alive) -> None:
        """Take back an ``add``."""
        _take_one(self._said, claim.versions)
        _take_one(self._addresses(claim), claim.address)

    def checks_at(self, address: Address) -> bool:
        """Whether everybody known at ``address`` knows checksums, and somebody is."""
        return address in self._checking and address not in self._not_checking

    def anybody_at(self, address: Address) -> bool:
        """Whether somebody known has this address, running or not."""
        return address in self._checking or address in self._not_checking

    def _addresses(self, claim: Alive) -> Counter[Address]:
        checks = understood_version(claim) >= CHECKSUM_VERSION
        return self._checking if checks else self._not_checking


def _go_together(one: bytes, other: bytes) -> bool:
    return _understands(one, other) and _understands(other, one)


def _understands(listener: bytes, speaker: bytes) -> bool:
    return listener[0] <= speaker[2] <= listener[1] and listener[3] <= speaker[5] <= listener[4]


def _take_one(counts: Counter[T], key: T) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
