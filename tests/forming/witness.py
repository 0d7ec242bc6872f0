"""What must never happen while nodes form a cluster, checked at every write, promise and start.

The witness sees what is on the disks and what is answered, and knows nothing of how bootstrap
works but its promises:

- Of all that the nodes of one set ever write, one cluster comes about, once, with the same N
  voters wherever it is known; so no two sets of voters are disjoint.
- It comes about only when each of its N nodes has promised itself to it.
- A node that promised itself to a proposal is in no other cluster, and promised to no other
  proposal, unless the proposal's coordinator gave that up; which it does not once anybody is in.
- A node that is in a cluster stays in it, with the same voters, for all its life.
- Nobody serves but in a cluster that came about so.
"""

from quorumlog.node.identity import Identity, Proposal, Seat
from quorumlog.types import NodeId
from sim.history import Violation
from sim.trace import Trace


class Witness:
    def __init__(self, trace: Trace) -> None:
        self.violation: Violation | None = None
        self._trace = trace
        self.cluster_id = ""
        """The cluster that was formed; empty: none was."""
        self.voters: tuple[Seat, ...] = ()
        self.strangers: dict[str, tuple[Seat, ...]] = {}
        """Clusters of others, with their voters."""
        self.aborted: dict[str, None] = {}
        self.proposals: dict[str, Proposal] = {}
        self.members: dict[NodeId, None] = {}
        """Who was taken in by a majority."""
        self.joined = 0
        self._held: dict[NodeId, Identity] = {}
        self._promises: dict[NodeId, str] = {}

    def _broken(self, what: str) -> Violation:
        """Kept as well as raised: it may be raised where an answer is cancelled."""
        self.violation = self.violation or Violation(what)
        return self.violation

    def held(self, node_id: NodeId) -> Identity | None:
        """What was last seen on its disk."""
        return self._held.get(node_id)

    # -- what is seen --------------------------------------------------------------------------

    def read(self, machine: str, identity: Identity) -> None:
        """A process begins with ``identity``."""
        self._change(machine, identity, "begins with")

    def wrote(self, machine: str, identity: Identity) -> None:
        """``identity`` is on the disk for good."""
        self._change(machine, identity, "writes")

    def promised(self, machine: str, node_id: NodeId, cluster_id: str) -> None:
        """``node_id`` answers that it has accepted the proposal."""
        self._trace.add(f"{machine} promises itself to {cluster_id[:6]}")
        held = self._held[node_id]
        accepted = "" if held.accepted is None else held.accepted.cluster_id
        if cluster_id != accepted:
            raise self._broken(
                f"{machine} promises itself to {cluster_id}, its disk to {accepted!r}"
            )
        before = self._promises.get(node_id, cluster_id)
        if before != cluster_id and before not in self.aborted:
            raise self._broken(f"{machine} promises itself to {cluster_id} and to {before}")
        self._promises[node_id] = cluster_id

    def serves(self, machine: str, identity: Identity) -> None:
        self._trace.add(f"{machine} serves in {identity.cluster_id[:6]}")
        if identity.cluster_id != self.cluster_id and identity.cluster_id not in self.strangers:
            raise self._broken(f"{machine} serves in {identity.cluster_id}, which nobody formed")
        if self._held[identity.node_id].cluster_id != identity.cluster_id:
            raise self._broken(f"{machine} serves in {identity.cluster_id}, and has not written so")

    def registered(self, node_id: NodeId) -> None:
        self.members[node_id] = None

    # -- what it means -------------------------------------------------------------------------

    def _change(self, machine: str, identity: Identity, how: str) -> None:
        node_id = identity.node_id
        before = self._held.get(node_id, Identity(node_id))
        self._held[node_id] = identity
        if identity == before:
            return
        self._trace.add(f"{machine} {how} {describe(identity)}")
        if before.cluster_id:
            if (identity.cluster_id, identity.voters) != (before.cluster_id, before.voters):
                raise self._broken(f"{machine} was in {before.cluster_id}, is {describe(identity)}")
            return
        if identity.accepted is not None:
            self.proposals[identity.accepted.cluster_id] = identity.accepted
        self._give_up(machine, before.accepted, identity)
        self._check_promise(machine, identity)
        if identity.cluster_id:
            self._enter(machine, before, identity)

    def _check_promise(self, machine: str, identity: Identity) -> None:
        promise = self._promises.get(identity.node_id)
        now = identity.cluster_id or (identity.accepted and identity.accepted.cluster_id)
        if promise is not None and now != promise and promise not in self.aborted:
            raise self._broken(f"{machine} forgets that it is promised to {promise}")

    def _give_up(self, machine: str, before: Proposal | None, identity: Identity) -> None:
        """``machine`` may have aborted what it coordinated."""
        if before is None or before.coordinator != identity.node_id or identity.cluster_id:
            return
        if identity.accepted != before:
            if before.cluster_id == self.cluster_id:
                raise self._broken(f"{machine} gives up {before.cluster_id}, and that one exists")
            self.aborted[before.cluster_id] = None

    def _enter(self, machine: str, before: Identity, identity: Identity) -> None:
        known = self.strangers.get(identity.cluster_id)
        if identity.cluster_id == self.cluster_id:
            known = self.voters
        if known is not None:
            if identity.voters != known:
                raise self._broken(f"{machine} has other voters than {identity.cluster_id}")
            self.joined += 1
            return
        if self.cluster_id:
            raise self._broken(
                f"two clusters: {machine} is in {identity.cluster_id}, others in {self.cluster_id}"
            )
        proposal = before.accepted
        if proposal is None or proposal.cluster_id != identity.cluster_id:
            raise self._broken(f"{machine} forms {identity.cluster_id} without a proposal")
        if proposal.coordinator != identity.node_id or proposal.seats != identity.voters:
            raise self._broken(f"{machine} forms {identity.cluster_id}, proposed as {proposal}")
        ids = [seat.node_id for seat in proposal.seats]
        if len(set(ids)) != len(ids):
            raise self._broken(f"{machine} forms {identity.cluster_id} with one node twice")
        for seat in proposal.seats:
            if seat.node_id == identity.node_id:
                continue
            if self._promises.get(seat.node_id) != identity.cluster_id:
                raise self._broken(
                    f"{machine} forms {identity.cluster_id} without the promise of {seat.name}"
                )
        self.cluster_id, self.voters = identity.cluster_id, identity.voters

    def stranger(self, cluster_id: str, voters: tuple[Seat, ...]) -> None:
        """A cluster of others exists."""
        self.strangers[cluster_id] = voters


def describe(identity: Identity) -> str:
    if identity.cluster_id:
        return f"cluster {identity.cluster_id[:6]}"
    if identity.accepted is not None:
        proposal = identity.accepted
        return f"promise to {proposal.cluster_id[:6]} of {proposal.coordinator[:6]}"
    return f"no cluster, id {identity.node_id[:6]}"
