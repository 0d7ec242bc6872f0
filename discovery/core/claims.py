"""What others claim becomes what this node believes, passes on and, about itself, refutes.

About another member a claim is merged (``core.members``); news is spread and reported. About this
node itself only this node speaks: any other claim is answered with a higher incarnation (SWIM
§4.2). So a node that restarts, with other tags or elsewhere, hears what is believed of it in its
first exchange, and everybody takes its correction at once.

But for memberlist: a member keeps its address there until it has left, or until it failed and was
forgotten. So a node that comes back elsewhere also says that the one before it has left, under an
incarnation below its own, which is old news to everybody who took the correction.
"""

from typing import Final

from quorumlog.discovery.config import GossipConfig
from quorumlog.discovery.core.intents import Intents
from quorumlog.discovery.core.members import MemberTable, Merge, Peer, same_node
from quorumlog.discovery.core.outbox import Outbox
from quorumlog.discovery.core.output import ClaimRefused, MemberChanged, NameConflicted
from quorumlog.discovery.core.suspicion import LocalHealth, Suspicion
from quorumlog.discovery.wire.messages import (
    MAX_INCARNATION,
    Address,
    Alive,
    Dead,
    MemberRecord,
    Status,
    Suspect,
)
from quorumlog.errors import InvariantViolation

_RESTART_DISPLACEMENTS: Final = 2
"""Times that another address may be claimed for this very node before it counts as a second
process with the same identity: once for the time before a restart, once for a late echo."""

MAX_DISPLACED_TOLD: Final = 4
"""In a round of gossip: two processes of one identity have found each other out by then."""

_FORMER: Final = "\0"
"""In front of a name no member can have: the news that it left where it was before."""


class Claims:
    """The member table, the suspects' timers, and this node's own word."""

    def __init__(
        self,
        me: Alive,
        *,
        table: MemberTable,
        outbox: Outbox,
        health: LocalHealth,
        intents: Intents,
        config: GossipConfig,
        now: float,
    ) -> None:
        self._table = table
        self._intents = intents
        self._outbox = outbox
        self._health = health
        self._config = config
        self._name = me.name
        self._suspicions: dict[str, Suspicion] = {}
        self._displacements = 0
        self._round_ends_at = now
        self._displaced_told = 0
        """In the round of gossip that ends then."""
        table.apply_alive(me, now)
        peer = table.get(me.name)
        if peer is None:
            raise InvariantViolation("a member table has no room for the node itself")
        self._me = peer

    @property
    def me(self) -> Peer:
        """This node."""
        return self._me

    @property
    def staying(self) -> bool:
        """This node has not left."""
        return self._me.status is not Status.LEFT

    @property
    def deadline(self) -> float | None:
        """When the first suspect's time is up."""
        if not self._suspicions:
            return None
        return min(suspicion.deadline for suspicion in self._suspicions.values())

    def expire(self, now: float) -> None:
        """Declare the suspects dead whose time is up."""
        score = self._health.score
        due = [
            name
            for name, suspicion in self._suspicions.items()
            if suspicion.deadline <= now and not suspicion.put_off(score, now)
        ]
        for name in due:
            peer = self._table.get(name)
            if peer is not None:
                self.dead(Dead(name, peer.incarnation, self._name), now)

    def announce(self, meta: bytes, now: float) -> None:
        """Say something new of this node."""
        self._speak(self.me.incarnation, meta, now)

    def alive(self, claim: Alive, now: float) -> None:
        if claim.name == self._name:
            self._answer_alive(claim, now)
            return
        if self._table.knows(claim):
            return
        before = self._view(claim.name)
        match self._table.apply_alive(claim, now):
            case Merge.CONFLICT:
                self._conflict(claim.name, claim.address)
            case Merge.INCOMPATIBLE:
                self._outbox.emit(ClaimRefused(claim.name, claim.address, claim.versions))
            case Merge.NEWS:
                peer = self._table.get(claim.name)
                if peer is not None and peer.status is Status.ALIVE:
                    self._suspicions.pop(claim.name, None)
                    self._outbox.spread(claim.name, claim)
                    self._tell_displaced(claim, before, now)
                    if before is not None and before[0] > Status.SUSPECT:
                        self._intents.returned(claim.name)
                self._report(claim.name, before)

    def suspect(self, claim: Suspect, now: float) -> None:
        if claim.name == self._name:
            self._answer_accusation(claim.incarnation, now)
            return
        before = self._view(claim.name)
        outcome = self._table.apply_status(claim.name, Status.SUSPECT, claim.incarnation, now)
        if outcome is Merge.NEWS:
            members = self._table.running_count
            self._suspicions[claim.name] = Suspicion(_accuser(claim), members, self._config, now)
            self._outbox.spread(claim.name, claim)
            self._report(claim.name, before)
            return
        peer = self._table.get(claim.name)
        suspicion = self._suspicions.get(claim.name)
        if peer is None or suspicion is None or claim.incarnation < peer.incarnation:
            return
        if suspicion.confirm(_accuser(claim), now):
            self._outbox.spread(claim.name, claim)

    def dead(self, claim: Dead, now: float) -> None:
        if claim.name == self._name:
            self._answer_accusation(claim.incarnation, now)
            return
        before = self._view(claim.name)
        has_left = claim.left or self._intents.is_leaving(claim.name)
        status = Status.LEFT if has_left else Status.DEAD
        if self._table.apply_status(claim.name, status, claim.incarnation, now) is Merge.NEWS:
            self._suspicions.pop(claim.name, None)
            self._outbox.spread(claim.name, claim)
            self._report(claim.name, before)

    def retire(self, name: str, now: float) -> None:
        """A member that had failed meant to leave, or is taken out by hand: it has left."""
        peer = self._table.get(name)
        if peer is not None and peer.status is Status.DEAD:
            before = self._view(name)
            self._table.apply_status(name, Status.LEFT, peer.incarnation, now)
            self._report(name, before)

    def record(self, record: MemberRecord, now: float) -> None:
        """One member of a push/pull.

        That a peer holds a member for dead only makes it suspect here, so that it may refute;
        of an unknown dead one nothing is learnt. Who hears of a suspicion is no witness of it: in
        memberlist it accuses in its own name, and two exchanges with one slow member are enough
        to confirm all that this one suspects.
        """
        claim = record.alive
        if claim.name == self._name and record.status in (Status.SUSPECT, Status.DEAD):
            self._answer_record(claim, now)
            return
        hearsay = Suspect(claim.name, claim.incarnation, claim.name)
        match record.status:
            case Status.ALIVE:
                self.alive(claim, now)
            case Status.LEFT:
                self.dead(Dead(claim.name, claim.incarnation, claim.name), now)
            case Status.DEAD:
                self.suspect(hearsay, now)
            case Status.SUSPECT:
                self.alive(claim, now)
                self.suspect(hearsay, now)

    def depart(self, now: float) -> None:
        """Declare this node left; nothing is refuted any more."""
        me = self.me
        self._table.apply_status(self._name, Status.LEFT, me.incarnation, now)
        self._outbox.spread(self._name, Dead(self._name, me.incarnation, self._name))
        self._outbox.emit(MemberChanged(me.member()))

    def _answer_alive(self, claim: Alive, now: float) -> None:
        me = self.me
        if me.status is Status.LEFT or claim == me.said:
            return
        if claim.incarnation < me.incarnation:
            self._leave_former_address(claim)
            return
        if claim.address != me.address:
            if not same_node(claim, me.said):
                # Its claim stands until it is found to have failed; raising the incarnation
                # now would only begin a race with a node that is there.
                self._conflict(self._name, claim.address)
                return
            self._displacements += 1
            if self._displacements > _RESTART_DISPLACEMENTS:
                self._conflict(self._name, claim.address)
        self._speak(claim.incarnation, me.said.meta, now)
        self._leave_former_address(claim)

    def _answer_record(self, claim: Alive, now: float) -> None:
        """A peer's state holds this node for suspect or dead."""
        self._answer_accusation(claim.incarnation, now)
        if self.me.status is not Status.LEFT:
            self._leave_former_address(claim)

    def _leave_former_address(self, claim: Alive) -> None:
        """Where somebody has this node at another address, say that it has left there.

        Ahead of it goes where this node is now, so that who believes that never sees it leave.
        """
        me = self.me
        elsewhere = claim.address != me.address and same_node(claim, me.said)
        displaced = self._displacements > _RESTART_DISPLACEMENTS
        if elsewhere and not displaced and not self._outbox.spreads(_FORMER + self._name):
            farewell = Dead(self._name, me.incarnation - 1, self._name)
            self._outbox.spread(_FORMER + self._name, farewell)
            self._outbox.spread(self._name, me.said)

    def _answer_accusation(self, incarnation: int, now: float) -> None:
        me = self.me
        if me.status is Status.LEFT:
            return
        if incarnation >= me.incarnation:
            self._health.apply(1)
            self._speak(incarnation, me.said.meta, now)
        elif not self._outbox.spreads(self._name):
            # Somebody has missed the refutation.
            self._outbox.spread(self._name, me.said)

    def _speak(self, beyond: int, meta: bytes, now: float) -> None:
        """Announce this node under an incarnation above ``beyond`` and all that it used."""
        me = self.me
        before = self._view(self._name)
        incarnation = min(max(beyond, me.incarnation) + 1, MAX_INCARNATION)
        word = Alive(self._name, incarnation, me.address, meta, me.said.versions)
        self._table.apply_alive(word, now)
        self._outbox.spread(self._name, word)
        self._report(self._name, before)

    def _conflict(self, name: str, claimant: Address) -> None:
        peer = self._table.get(name)
        if peer is not None:
            self._outbox.emit(NameConflicted(peer.member(), claimant, name == self._name))

    def _tell_displaced(
        self, claim: Alive, before: tuple[Status, Address, bytes] | None, now: float
    ) -> None:
        """Whoever runs at the address from before hears of it first: news goes to the new one, and
        where two processes have one identity the first would learn of the other by chance only.

        A few in a round of gossip: anybody can name two addresses in turns, often in each packet.
        """
        if before is None or before[0] > Status.SUSPECT or before[1] == claim.address:
            return
        if now >= self._round_ends_at:
            self._round_ends_at = now + self._config.gossip_interval_s
            self._displaced_told = 0
        if self._displaced_told < MAX_DISPLACED_TOLD:
            self._displaced_told += 1
            self._outbox.send(before[1], claim)

    def _view(self, name: str) -> tuple[Status, Address, bytes] | None:
        """What users see of a member."""
        peer = self._table.get(name)
        return None if peer is None else (peer.status, peer.address, peer.said.meta)

    def _report(self, name: str, before: tuple[Status, Address, bytes] | None) -> None:
        peer = self._table.get(name)
        if peer is not None and self._view(name) != before:
            self._outbox.emit(MemberChanged(peer.member()))


def _accuser(claim: Suspect) -> str | None:
    """Who saw it; None where the claim came out of a state, which does not say (``record``)."""
    return None if claim.accuser == claim.name else claim.accuser
