"""Which groups sleep under which node: what this one tells the others, and was told by them.

Plain calls, no clock of its own. Two nodes keep each other's books: a leader's node *announces*
a group that fell asleep to each node that sleeps with it, which notes it as *told* and lets its
member sleep. Every beat has a digest of all that its sender has announced to the receiver and not
taken back. So whatever was lost, late or overtaken on the way shows with the next beat that
arrives, and then everything between those two nodes wakes. A node that hears no beats for an
election timeout wakes all that relied on the other. Waking is always right: a member that is awake
does all that Raft asks of it.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from quorumlog.replication.sleep.beat import MAX_ENTRIES, Beat, Fell, Woke, mix
from quorumlog.types import GroupId, Index, NodeId, Term

MAX_WAKES: Final = 16
"""Groups that wake at once, and with each check; the others a check later.

They are many when a node dies, and an election takes a few milliseconds of two others."""

_NEVER: Final = float("-inf")


class Sleepers(Protocol):
    """The groups of this node, as the ledger needs them. Nothing here calls the ledger back."""

    def sleep_following(
        self, group: GroupId, leader: NodeId, term: Term, last_index: Index
    ) -> bool:
        """Let the member here sleep if it agrees; whether it does."""
        ...

    def sleep_on_without(self, group: GroupId, peer: NodeId) -> bool:
        """``peer`` is silent. Whether the group, led here, has a majority without it."""
        ...

    def wake(self, group: GroupId, heard_at: float | None) -> None:
        """Wake the member here if it sleeps, its leader heard at ``heard_at``; None: now."""
        ...


class _Book:
    """Groups that sleep, by what one end told the other; and their digest."""

    def __init__(self) -> None:
        self.entries: dict[GroupId, tuple[Term, int]] = {}
        """The term, and the sequence of the beat that told."""
        self.digest = 0

    def add(self, group: GroupId, term: Term, sequence: int) -> None:
        self.remove(group)
        self.entries[group] = (term, sequence)
        self.digest ^= mix(group, term)

    def remove(self, group: GroupId) -> bool:
        entry = self.entries.pop(group, None)
        if entry is not None:
            self.digest ^= mix(group, entry[0])
        return entry is not None

    def clear(self) -> None:
        self.entries.clear()
        self.digest = 0


class _Peer:
    def __init__(self) -> None:
        self.incarnation: int | None = None
        self.received = -1
        """The newest sequence number of that process."""
        self.heard_at = _NEVER
        self.silent = True
        self.told = _Book()
        """What sleeps under it here, by what it said."""
        self.dissent: dict[GroupId, None] = {}
        """Of ``told``, what is awake here: said with every beat until it takes it back."""
        self.lost = False
        """What it announced is not what was told: it has to wake all of it."""
        self.announced = _Book()
        """What sleeps under this node there, by what this node said, or says with the next beat."""
        self.fell: dict[GroupId, Fell] = {}
        self.woke: dict[GroupId, None] = {}
        self.sent = 0
        """The sequence of the next beat to it."""

    def take_back(self, group: GroupId) -> None:
        """It does not sleep there any more; the next beat says so, where one said that it does."""
        if self.announced.remove(group) and self.fell.pop(group, None) is None:
            self.woke[group] = None


class Ledger:
    def __init__(self, incarnation: int, silence_s: float, sleepers: Sleepers) -> None:
        """``silence_s``: a node of which no beat came for so long counts as gone."""
        self._incarnation = incarnation
        self._silence_s = silence_s
        self._sleepers = sleepers
        self._peers: dict[NodeId, _Peer] = {}
        self._led: dict[GroupId, tuple[NodeId, ...]] = {}
        """Groups that this node leads and that sleep, with all of their other members."""
        self._under: dict[GroupId, NodeId] = {}
        """Groups that sleep here under another node."""
        self._checked_at: float | None = None
        self._to_wake: dict[GroupId, float | None] = {}
        """Those for which there was no room, with when their leaders were heard. They sleep, and
        no book has them any more: nobody need forget them once more."""
        self._calling: tuple[GroupId, ...] = ()
        self._room = MAX_WAKES

    # -- questions -----------------------------------------------------------------------------

    def is_silent(self, peer: NodeId) -> bool:
        known = self._peers.get(peer)
        return known is None or known.silent

    def heard(self) -> list[NodeId]:
        """The nodes that are not silent."""
        return [node for node, peer in self._peers.items() if not peer.silent]

    def heard_at(self, peer: NodeId | None) -> float | None:
        """When the last beat of ``peer`` came; None: never."""
        known = self._peers.get(peer) if peer is not None else None
        return known.heard_at if known is not None else None

    # -- what happens here ---------------------------------------------------------------------

    def fell_asleep(
        self,
        group: GroupId,
        term: Term,
        last_index: Index,
        members: Iterable[NodeId],
        sleeping: Iterable[NodeId],
    ) -> None:
        """A group that this node leads sleeps, and of its other ``members`` those in ``sleeping``.

        The others did not answer: the group wakes when one of them calls.
        """
        self._led[group] = tuple(members)
        for node in sleeping:
            peer = self._peer(node)
            peer.announced.add(group, term, peer.sent)
            peer.fell[group] = Fell(group, term, last_index)

    def woke(self, group: GroupId) -> None:
        """The member here is awake, for whatever reason, or is gone; it may have been before."""
        self._under.pop(group, None)
        self._to_wake.pop(group, None)
        for node in self._led.pop(group, ()):
            self._peer(node).take_back(group)
        for peer in self._peers.values():
            if group in peer.told.entries:
                peer.dissent[group] = None

    def call(self, groups: Iterable[GroupId]) -> None:
        """The members of ``groups`` here hear no leader; said with every beat until the next call.

        A leader may sleep without them, on any node: one that was asked to join a group does not
        know whose it is, nor does one that was away while all the others were replaced: they call
        whoever beats to them. Who votes wakes it with that, too, but later. Who is no member of the
        group, or not yet, calls in vain.
        """
        self._calling = tuple(groups)

    def check(self, now: float, interval_s: float, patience_s: float = 0.0) -> None:
        """Notice who is silent. Called every ``interval_s``, or as often as this process can.

        A longer pause was this process's own: for that time nobody was silent. ``patience_s``: by
        how much longer than usual beats may keep this node waiting.
        """
        self._room = MAX_WAKES
        while self._to_wake and self._room:
            group = next(iter(self._to_wake))
            self._wake(group, self._to_wake.pop(group))
        before, self._checked_at = self._checked_at, now
        pause_s = 0.0 if before is None else max(0.0, now - before - 2 * interval_s)
        for node, peer in self._peers.items():
            if peer.silent:
                continue
            peer.heard_at = min(now, peer.heard_at + pause_s)
            if now - peer.heard_at > self._silence_s + patience_s:
                peer.silent = True
                self._forget_told(node, peer, peer.heard_at)
                self._leave_out(node, peer)

    def _leave_out(self, node: NodeId, peer: _Peer) -> None:
        """The groups that sleep with ``node``, which is silent, do so without it, or wake."""
        for group in tuple(peer.announced.entries):
            if self._sleepers.sleep_on_without(group, node):
                peer.take_back(group)
            else:
                self._wake(group, None)

    # -- beats ---------------------------------------------------------------------------------

    def beat_for(self, node: NodeId) -> Beat:
        """The next beat to ``node``; once it is made, its news count as told."""
        peer = self._peer(node)
        fell = tuple(peer.fell.values())[:MAX_ENTRIES]
        woke = [Woke(group) for group in peer.woke]
        told = peer.told.entries
        woke += [Woke(group, told[group][1]) for group in peer.dissent]
        woke += [Woke(group) for group in self._calling if group not in peer.dissent]
        beat = Beat(
            self._incarnation,
            peer.sent,
            len(peer.announced.entries),
            peer.announced.digest,
            fell,
            tuple(woke[:MAX_ENTRIES]),
            peer.lost,
        )
        peer.sent += 1
        peer.fell.clear()
        peer.woke.clear()
        peer.lost = False
        return beat

    def receive(self, node: NodeId, beat: Beat, now: float) -> None:
        """Take a beat of ``node``. Any may be lost, late, doubled or out of order."""
        peer = self._peer(node)
        if beat.incarnation != peer.incarnation:
            self._forget_told(node, peer, peer.heard_at)
            peer.incarnation, peer.received = beat.incarnation, -1
            # What it has open it says by calling.
            self._leave_out(node, peer)
        if beat.sequence <= peer.received:
            return
        peer.received = beat.sequence
        peer.heard_at = now
        peer.silent = False
        if beat.wake_all:
            self._take_all_back(peer)
        for woke in beat.woke:
            self._take_woke(node, peer, woke)
        for fell in beat.fell:
            self._take_fell(node, peer, fell, beat.sequence)
        if (beat.count, beat.digest) != (len(peer.told.entries), peer.told.digest):
            self._forget_told(node, peer, None)
            peer.lost = True

    def _take_woke(self, node: NodeId, peer: _Peer, woke: Woke) -> None:
        group = woke.group
        if peer.told.remove(group):
            peer.dissent.pop(group, None)
            if self._under.get(group) == node:
                self._wake(group, None)
        _, announced_in = peer.announced.entries.get(group, (None, None))
        # Its leader may have woken the group and fallen asleep again meanwhile.
        is_call = announced_in is None and node in self._led.get(group, ())
        if is_call or announced_in == woke.told:
            self._wake(group, None)

    def _take_all_back(self, peer: _Peer) -> None:
        """``peer`` has forgotten what it was told, and wakes what slept by that.

        So it is taken back at once, also what wakes later: as long as the books differ, each beat
        has all the rest of them forgotten, and what fell asleep again in the meantime.
        """
        groups = tuple(peer.announced.entries)
        for group in groups:
            peer.take_back(group)
        for group in groups:
            self._wake(group, None)

    def _take_fell(self, node: NodeId, peer: _Peer, fell: Fell, sequence: int) -> None:
        group = fell.group
        peer.told.add(group, fell.term, sequence)
        if self._sleepers.sleep_following(group, node, fell.term, fell.last_index):
            self._under[group] = node
            self._to_wake.pop(group, None)
            peer.dissent.pop(group, None)
        else:
            peer.dissent[group] = None

    def _forget_told(self, node: NodeId, peer: _Peer, heard_at: float | None) -> None:
        """Nothing sleeps under ``node`` here any more."""
        groups = [group for group in peer.told.entries if self._under.get(group) == node]
        peer.told.clear()
        peer.dissent.clear()
        # Each node begins elsewhere, so that not two stand for the same group at once.
        first = self._incarnation % max(1, len(groups))
        for group in groups[first:] + groups[:first]:
            self._wake(group, heard_at)

    def _wake(self, group: GroupId, heard_at: float | None) -> None:
        if not self._room:
            self._to_wake.setdefault(group, heard_at)
            return
        self._room -= 1
        self._to_wake.pop(group, None)
        self.woke(group)
        self._sleepers.wake(group, heard_at)

    def _peer(self, node: NodeId) -> _Peer:
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = _Peer()
        return peer
