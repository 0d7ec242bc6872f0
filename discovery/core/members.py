"""What is known of every member, and the rules by which claims about it merge.

A member's state is the greatest (incarnation, status) claimed of it, where at one incarnation
alive < suspect < dead < left (SWIM §4.2; memberlist does not order the last two). Its address and
tags are those of its own greatest incarnation heard of, which may trail the state's. Both are
maxima, so claims merge to the same in any order, any number of times, and never go back.

One exception: *a known name at another address* is somebody else until shown otherwise. The
claim is taken when the member is failed or has left, or when both carry the same ``id`` tag
(the same node restarted elsewhere), and always with a higher incarnation only. Otherwise it is a
conflict and changes nothing. memberlist refuses while the member is not known to have failed for
a configured time; that would hide a restarted node for as long as its old address is not suspected.

And of members whose versions do not go together (``core.versions``) the first that was heard of is
kept. Who that is may differ between nodes; members as they are all go together.
"""

from dataclasses import dataclass
from enum import Enum

from quorumlog.discovery.core.versions import Versions
from quorumlog.discovery.wire.messages import Address, Alive, MemberRecord, Status
from quorumlog.discovery.wire.tags import decode_tags
from quorumlog.ports import Member, MemberState

_STATES = {
    Status.ALIVE: MemberState.ALIVE,
    Status.SUSPECT: MemberState.SUSPECT,
    Status.DEAD: MemberState.FAILED,
    Status.LEFT: MemberState.LEFT,
}


class Merge(Enum):
    """What a claim did."""

    IGNORED = "ignored"
    """It was old news."""
    NEWS = "news"
    """It was new and should be passed on."""
    CONFLICT = "conflict"
    """Another live node uses this name; nothing changed."""
    FULL = "full"
    """The member is unknown and there is no room for it; nothing changed."""
    INCOMPATIBLE = "incompatible"
    """Its versions do not go together with those of another member; nothing changed."""


@dataclass(slots=True)
class Peer:
    """One member. ``said`` is its own last word; ``changed_at`` is when ``status`` changed."""

    said: Alive
    status: Status
    incarnation: int
    changed_at: float

    @property
    def name(self) -> str:
        return self.said.name

    @property
    def address(self) -> Address:
        return self.said.address

    @property
    def running(self) -> bool:
        """Alive or only suspected."""
        return self.status <= Status.SUSPECT

    @property
    def tags(self) -> dict[str, str]:
        return decode_tags(self.said.meta)

    def alive(self) -> Alive:
        """Its address and tags under the incarnation its state has."""
        said = self.said
        return Alive(said.name, self.incarnation, said.address, said.meta, said.versions)

    def member(self) -> Member:
        host, port = self.address
        return Member(self.name, host, port, _STATES[self.status], self.tags)


class MemberTable:
    """All members by name, at most ``max_members``."""

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members
        self._peers: dict[str, Peer] = {}
        self._order: list[Peer] = []
        self._running = 0
        self._versions = Versions()

    @property
    def peers(self) -> list[Peer]:
        """Every member, for reading and random choice."""
        return self._order

    @property
    def running_count(self) -> int:
        """Members alive or suspected."""
        return self._running

    def get(self, name: str) -> Peer | None:
        return self._peers.get(name)

    def members(self) -> list[Member]:
        return [self._peers[name].member() for name in sorted(self._peers)]

    def records(self) -> tuple[MemberRecord, ...]:
        """Everything, as it goes into a push/pull."""
        return tuple(MemberRecord(peer.alive(), peer.status) for peer in self._order)

    def knows(self, claim: Alive) -> bool:
        """Whether ``claim`` is old news by its incarnation and address, as most claims are."""
        peer = self._peers.get(claim.name)
        if peer is None or claim.incarnation > peer.incarnation:
            return False
        said = peer.said
        return claim is said or (
            claim.incarnation <= said.incarnation and claim.address == said.address
        )

    def apply_alive(self, claim: Alive, now: float) -> Merge:
        peer = self._peers.get(claim.name)
        if peer is None:
            return self._add(claim, now)
        if claim.address != peer.address:
            refusal = _refusal(peer, claim)
            if refusal is not None:
                return refusal
        news = False
        if claim.incarnation > peer.said.incarnation:
            if not self._versions.fits(claim, peer.said):
                return Merge.INCOMPATIBLE
            self._versions.remove(peer.said)
            self._versions.add(claim)
            peer.said = claim
            news = True
        if claim.incarnation > peer.incarnation:
            self._set(peer, Status.ALIVE, claim.incarnation, now)
        return Merge.NEWS if news else Merge.IGNORED

    def apply_status(self, name: str, status: Status, incarnation: int, now: float) -> Merge:
        """Suspected, dead or left; of an unknown member it is old news."""
        peer = self._peers.get(name)
        if peer is None or (incarnation, status) <= (peer.incarnation, peer.status):
            return Merge.IGNORED
        self._set(peer, status, incarnation, now)
        return Merge.NEWS

    def forget(self, changed_before: float) -> None:
        """Drop the members that failed or left before then."""
        kept = [peer for peer in self._order if peer.running or peer.changed_at > changed_before]
        if len(kept) < len(self._order):
            for peer in self._order:
                if not peer.running and peer.changed_at <= changed_before:
                    self._versions.remove(peer.said)
            self._order = kept
            self._peers = {peer.name: peer for peer in kept}

    def forget_left(self, name: str) -> None:
        """Drop one member now, if it has left."""
        peer = self._peers.get(name)
        if peer is not None and peer.status is Status.LEFT:
            del self._peers[name]
            self._order.remove(peer)
            self._versions.remove(peer.said)

    def runs_at(self, address: Address) -> bool:
        """Whether some running member has ``address``."""
        return any(peer.running and peer.address == address for peer in self._order)

    def checks_at(self, address: Address) -> bool:
        """Whether who is known at ``address`` knows packets with a checksum."""
        return self._versions.checks_at(address)

    def anybody_at(self, address: Address) -> bool:
        """Whether somebody known has ``address``, running or not."""
        return self._versions.anybody_at(address)

    def _add(self, claim: Alive, now: float) -> Merge:
        if not self._versions.fits(claim):
            return Merge.INCOMPATIBLE
        if len(self._order) >= self._max_members:
            return Merge.FULL
        peer = Peer(claim, Status.ALIVE, claim.incarnation, now)
        self._peers[claim.name] = peer
        self._order.append(peer)
        self._versions.add(claim)
        self._running += 1
        return Merge.NEWS

    def _set(self, peer: Peer, status: Status, incarnation: int, now: float) -> None:
        before = peer.running
        if status is not peer.status:
            peer.changed_at = now
        peer.status = status
        peer.incarnation = incarnation
        self._running += peer.running - before


def same_node(one: Alive, other: Alive) -> bool:
    """Whether both name one node by the same ``id`` tag."""
    node_id = decode_tags(one.meta).get("id")
    return node_id is not None and node_id == decode_tags(other.meta).get("id")


def _refusal(peer: Peer, claim: Alive) -> Merge | None:
    """Why a known name at another address is not taken; None when it is."""
    if same_node(peer.said, claim):
        return None
    if peer.running:
        return Merge.CONFLICT
    return None if claim.incarnation > peer.incarnation else Merge.IGNORED
