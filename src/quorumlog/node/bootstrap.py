"""How a node gets into a cluster: an existing one, or one that N nodes form exactly once.

Forming is a two-phase commit with a single decider (docs/design/0001). Nodes that expect N and
see N such nodes that are in no cluster: the one with the smallest id coordinates. It accepts its
own proposal first, durably; every member accepts at most one proposal at a time, durably; when
all N have, the coordinator decides by writing the cluster id into its identity. It alone may
abort, and only before that; it does when it sees a cluster. A member that accepted and hears
nothing asks the coordinator, or one that has heard. A node that sees a cluster joins it and never
forms another; so that it does see one which is there, nobody proposes or accepts before it has
tried each seed that it was given, and who expects 1, and would ask nobody, forms none while a seed
is anybody else.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

import structlog

from quorumlog.api._pb import peer_pb2
from quorumlog.errors import QuorumlogError, Unavailable
from quorumlog.node.identity import Identity, Proposal, Seat, random_id
from quorumlog.ports import Member, Membership, MemberState
from quorumlog.types import NodeId

_log = structlog.get_logger()

_ROUND_S = 0.2
_GIVE_UP_ROUNDS = 15
"""The coordinator aborts when a member did not accept in this many rounds: it may be gone for
good."""
_REMIND_ROUNDS = 25

Accepted = peer_pb2.BOOTSTRAP_STATE_ACCEPTED
Decided = peer_pb2.BOOTSTRAP_STATE_DECIDED
Aborted = peer_pb2.BOOTSTRAP_STATE_ABORTED
Refused = peer_pb2.BOOTSTRAP_STATE_REFUSED


class Calls(Protocol):
    async def call(self, address: str, method: str, request: Any, timeout_s: float = ...) -> Any:
        """A call of the Peer service at ``address``; raises QuorumlogError."""
        ...


class Seeds(Protocol):
    """The addresses that a node was given to find others at."""

    @property
    def tried(self) -> bool:
        """Whether each was tried once; what those who answered know is in the membership."""
        ...

    @property
    def only_this_node(self) -> bool:
        """Whether there is none, or each is this node itself."""
        ...


class NoSeeds:
    """``Seeds`` of a node that was given none."""

    tried = True
    only_this_node = True


class Bootstrap:
    """Runs until the node's identity has a cluster id; answers for it for ever after."""

    def __init__(
        self,
        *,
        identity: Identity,
        seat: Seat,
        expect: int,
        save: Callable[[Identity], Awaitable[None]],
        membership: Membership,
        calls: Calls,
        seeds: Seeds | None = None,
        new_id: Callable[[], str] = random_id,
    ) -> None:
        """``seat`` is this node's own; ``expect`` 0: only ever join a cluster that exists;
        ``seeds`` are those that ``membership`` looks for others at, None: it has none."""
        self.identity = identity
        self._seat = seat
        self._expect = expect
        self._save = save
        self._membership = membership
        self._calls = calls
        self._seeds = seeds or NoSeeds()
        self._new_id = new_id
        self._lock = asyncio.Lock()
        self._attempts = 0

    async def run(self) -> Identity:
        """Return when this node is in a cluster."""
        if not self.identity.cluster_id and self._expect and self._expect % 2 == 0:
            _log.warning(
                "even_number_expected",
                expect=self._expect,
                hint=f"{self._expect} voters survive no more failures than {self._expect - 1}",
            )
        rounds = 0
        while not self.identity.cluster_id:
            try:
                await self._round()
            except QuorumlogError as error:
                _log.debug("bootstrap_round_failed", error=str(error))
            if self.identity.cluster_id:
                break
            if rounds % _REMIND_ROUNDS == _REMIND_ROUNDS - 1:
                self._say_what_is_missing()
            rounds += 1
            await asyncio.sleep(_ROUND_S)
        return self.identity

    # -- one round -----------------------------------------------------------------------------

    async def _round(self) -> None:
        proposal = self.identity.accepted
        if proposal is not None:
            if proposal.coordinator == self.identity.node_id:
                await self._coordinate(proposal)
            else:
                await self._learn_outcome(proposal)
            return
        clusters = self._clusters()
        if len(clusters) == 1:
            await self._join()
        elif not clusters and self._expect and self._may_form():
            await self._propose()

    def _clusters(self) -> set[str]:
        return {member.tags["cluster"] for member in self._in_clusters()}

    def _may_form(self) -> bool:
        """Whether a cluster that is there would have been seen, as far as a node can know."""
        return self._seeds.tried and (self._expect > 1 or self._seeds.only_this_node)

    def _in_clusters(self) -> list[Member]:
        """Those nodes that are in one; of a suspect that is as true."""
        return [member for member in self._running() if member.tags["cluster"]]

    def _alive(self) -> list[Member]:
        return [member for member in self._running() if member.state is MemberState.ALIVE]

    def _running(self) -> list[Member]:
        """Other nodes that gossip sees, of this program, suspects included."""
        return [
            member
            for member in self._membership.members()
            if member.state in (MemberState.ALIVE, MemberState.SUSPECT)
            and {"id", "rpc", "cluster", "expect"} <= member.tags.keys()
            and member.tags["id"] != self.identity.node_id
        ]

    async def _join(self) -> None:
        """Ask the cluster's members one after the other: the first may be one that cannot help."""
        failure: QuorumlogError | None = None
        for member in self._in_clusters():
            request = peer_pb2.JoinRequest(
                cluster_id=member.tags["cluster"], node=_member(self._seat)
            )
            try:
                reply = await self._calls.call(member.tags["rpc"], "Join", request)
            except QuorumlogError as error:
                failure = failure or error
                continue
            async with self._lock:
                if self.identity.accepted is None:
                    await self._enter(reply.cluster_id, _seats(reply.members))
            return
        if failure is not None:
            raise failure

    async def _propose(self) -> None:
        # Others that expect 1 were given somebody to join.
        alive = self._alive() if self._expect > 1 else []
        seen = Counter(member.tags["id"] for member in alive)
        candidates = [
            Seat(NodeId(member.tags["id"]), member.name, member.tags["rpc"])
            for member in alive
            # Seen twice it has had another name, or its directory was copied: that shows later.
            if member.tags["expect"] == str(self._expect) and seen[member.tags["id"]] == 1
        ]
        seats = sorted([*candidates, self._seat], key=lambda seat: seat.node_id)[: self._expect]
        if len(seats) < self._expect or seats[0].node_id != self.identity.node_id:
            return
        async with self._lock:
            if self.identity.accepted is not None or self.identity.cluster_id:
                return
            proposal = Proposal(self._new_id(), self.identity.node_id, tuple(seats))
            await self._keep(replace(self.identity, accepted=proposal))
            self._attempts = 0
        await self._coordinate(proposal)

    async def _coordinate(self, proposal: Proposal) -> None:
        states = await self._tell(proposal, "BootstrapPrepare")
        sees_cluster = bool(self._in_clusters())
        if not sees_cluster and all(state == Accepted for state in states):
            async with self._lock:
                await self._enter(proposal.cluster_id, proposal.seats)
            _log.info("cluster_formed", cluster=proposal.cluster_id, nodes=len(proposal.seats))
            await self._tell(proposal, "BootstrapDecide")
            return
        self._attempts += 1
        if sees_cluster or Refused in states or self._attempts >= _GIVE_UP_ROUNDS:
            async with self._lock:
                await self._keep(replace(self.identity, accepted=None))
            _log.info("bootstrap_aborted", cluster=proposal.cluster_id)
            await self._tell(proposal, "BootstrapAbort")

    async def _tell(self, proposal: Proposal, method: str) -> list[int]:
        """What the other members answered; 0 for who did not."""
        message = _encode(proposal)
        return await self._ask_all(self._others(proposal), method, message)

    def _others(self, proposal: Proposal) -> list[Seat]:
        return [seat for seat in proposal.seats if seat.node_id != self.identity.node_id]

    async def _ask_all(self, seats: Iterable[Seat], method: str, message: Any) -> list[int]:
        async def ask(seat: Seat) -> int:
            try:
                reply = await self._calls.call(seat.address, method, message, 2.0)
            except QuorumlogError as error:
                _log.debug("bootstrap_member_silent", node=seat.node_id, error=str(error))
                return 0
            return int(reply.state) if reply.node_id == seat.node_id else 0

        return list(await asyncio.gather(*(ask(seat) for seat in seats)))

    async def _learn_outcome(self, proposal: Proposal) -> None:
        """Ask the coordinator what became of ``proposal``.

        Where that one is silent, maybe for good, the others are asked: one that is in the cluster
        knows that it was decided. That it was aborted only the coordinator can say.
        """
        query = peer_pb2.BootstrapQuery(cluster_id=proposal.cluster_id)
        addresses = {member.tags["id"]: member.tags["rpc"] for member in self._alive()}
        others = [
            replace(seat, address=addresses.get(seat.node_id, seat.address))
            for seat in self._others(proposal)
        ]
        coordinator = [seat for seat in others if seat.node_id == proposal.coordinator]
        states = await self._ask_all(coordinator, "BootstrapStatus", query)
        if not any(states):
            rest = [seat for seat in others if seat.node_id != proposal.coordinator]
            found = await self._ask_all(rest, "BootstrapStatus", query)
            states = [state for state in found if state == Decided]
        async with self._lock:
            if self.identity.accepted != proposal:
                return
            if Decided in states:
                await self._enter(proposal.cluster_id, proposal.seats)
            elif Aborted in states:
                await self._keep(replace(self.identity, accepted=None))

    async def _enter(self, cluster_id: str, voters: tuple[Seat, ...]) -> None:
        if not self.identity.cluster_id:
            entered = replace(self.identity, cluster_id=cluster_id, voters=voters, accepted=None)
            await self._keep(entered)

    async def _keep(self, identity: Identity) -> None:
        """Save ``identity``, then be it.

        A write that has begun cannot be called back. Who is cancelled meanwhile (a call whose
        caller gave up) waits for it: else memory would not know what the disk says, and the write
        could overtake a later one.
        """
        saving = asyncio.ensure_future(self._save(identity))
        cancelled: asyncio.CancelledError | None = None
        while not saving.done():
            try:
                await asyncio.wait([saving])
            except asyncio.CancelledError as error:
                cancelled = error
        saving.result()
        self.identity = identity
        if cancelled is not None:
            raise cancelled

    def _say_what_is_missing(self) -> None:
        if self.identity.accepted is not None:
            _log.warning("waiting_for_bootstrap", coordinator=self.identity.accepted.coordinator)
        elif len(clusters := self._clusters()) > 1:
            _log.error("two_clusters_seen", clusters=sorted(clusters), hint="check --join")
        else:
            _log.warning(
                "waiting_for_nodes",
                expect=self._expect or "a cluster",
                seen=len(self._alive()) + 1,
                **self._hint(),
            )

    def _hint(self) -> dict[str, str]:
        """What else this node waits for."""
        if not self._expect or self._may_form():
            return {}
        if not self._seeds.tried:
            return {"hint": "not every --join has been tried yet"}
        return {
            "hint": "with --join of others a node that expects 1 only joins a cluster; start it "
            "without --join to form one of its own"
        }

    # -- what other nodes ask --------------------------------------------------------------------

    def _reply(self, state: peer_pb2.BootstrapState) -> peer_pb2.BootstrapReply:
        cluster_id = self.identity.cluster_id
        if not cluster_id and self.identity.accepted is not None:
            cluster_id = self.identity.accepted.cluster_id
        return peer_pb2.BootstrapReply(
            state=state,
            cluster_id=cluster_id,
            node_id=self.identity.node_id,
        )

    async def prepare(self, message: peer_pb2.BootstrapProposal) -> peer_pb2.BootstrapReply:
        """Accept a coordinator's proposal, durably, unless this node is promised already or sees a
        cluster.

        Raises:
            Unavailable: it cannot say yet, for it has not tried all its seeds.
        """
        proposal = _decode(message)
        async with self._lock:
            if self.identity.cluster_id or self._own_seat_missing(proposal):
                return self._reply(Refused)
            if self.identity.accepted is None:
                if not self._seeds.tried:
                    raise Unavailable("this node has not tried all its seeds yet")
                if self._in_clusters():
                    return self._reply(Refused)
                await self._keep(replace(self.identity, accepted=proposal))
            return self._reply(Accepted if self.identity.accepted == proposal else Refused)

    def _own_seat_missing(self, proposal: Proposal) -> bool:
        return all(seat.node_id != self.identity.node_id for seat in proposal.seats)

    async def decide(self, message: peer_pb2.BootstrapProposal) -> peer_pb2.BootstrapReply:
        """The coordinator decided: the cluster exists."""
        proposal = _decode(message)
        async with self._lock:
            if self.identity.accepted == proposal:
                await self._enter(proposal.cluster_id, proposal.seats)
            entered = self.identity.cluster_id == proposal.cluster_id
            return self._reply(Decided if entered else Refused)

    async def abort(self, message: peer_pb2.BootstrapProposal) -> peer_pb2.BootstrapReply:
        """The coordinator gave its proposal up."""
        proposal = _decode(message)
        async with self._lock:
            if self.identity.accepted == proposal:
                await self._keep(replace(self.identity, accepted=None))
            return self._reply(Aborted)

    def status(self, cluster_id: str) -> peer_pb2.BootstrapReply:
        """What became of a proposal this node coordinates; of another's, whether it is decided."""
        if self.identity.cluster_id == cluster_id:
            return self._reply(Decided)
        accepted = self.identity.accepted
        undecided = accepted is not None and accepted.cluster_id == cluster_id
        # A coordinator accepts its own proposal before anybody hears of it: what it does not have
        # accepted, and is not in, it has aborted.
        return self._reply(Accepted if undecided else Aborted)


def _member(seat: Seat) -> peer_pb2.BootstrapMember:
    return peer_pb2.BootstrapMember(node_id=seat.node_id, name=seat.name, address=seat.address)


def _seats(members: Any) -> tuple[Seat, ...]:
    return tuple(Seat(NodeId(m.node_id), m.name, m.address) for m in members)


def _encode(proposal: Proposal) -> peer_pb2.BootstrapProposal:
    return peer_pb2.BootstrapProposal(
        cluster_id=proposal.cluster_id,
        coordinator=proposal.coordinator,
        members=[_member(seat) for seat in proposal.seats],
    )


def _decode(message: peer_pb2.BootstrapProposal) -> Proposal:
    return Proposal(message.cluster_id, NodeId(message.coordinator), _seats(message.members))
